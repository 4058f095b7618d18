//! Which files below `data.root` a stage reads: annotations, and the images that its own entries name.

use std::path::Path;

use ressa_data::{Benchmark, Captions, DataError, Picture, pool, published, stream::Purpose};
use ressa_experiment::{
    Stage, Task,
    aids::Aids,
    config::{Augment, CorporaConfig},
    stage::AdaptTraining,
};
use ressa_store::CacheKey;

use crate::{ContentError, Contents, Source};

/// What names images.
pub(crate) struct Named {
    /// Annotation files of corpora, relative to the root; those of a benchmark are looked for there, and these follow them.
    annotations: Vec<&'static str>,
    /// Whether missing images are done without.
    optional: bool,
    /// Everything beside the annotations that decides which images they are.
    pub by: String,
}

impl Contents<'_> {
    /// The files that a stage reads below `root`, in a fixed order.
    pub(crate) fn data(&self, stage: &Stage, root: &Path) -> Result<Vec<Source>, ContentError> {
        let Some(named) = named(stage) else { return Ok(Vec::new()) };
        let mut sources: Vec<Source> = Vec::new();
        let mut key = CacheKey::new("images 2").with(&named.by);
        let annotations = match stage {
            Stage::Evaluate { task, .. } => published::annotations(root, *task),
            _ => Vec::new(),
        };
        let annotations = annotations.into_iter().chain(named.annotations.iter().map(|name| (*name).to_owned()));
        for name in annotations {
            let path = root.join(&name);
            // Where files are not named by the benchmark, their names say which images there are.
            if matches!(stage, Stage::Evaluate { task: Task::Mme, .. }) {
                key = key.with(&name);
            }
            key = key.with(self.digest(&path)?.as_bytes());
            sources.push(Source { name, path, optional: false });
        }
        for name in self.images(stage, root, &key)? {
            sources.push(Source { path: root.join(&name), name, optional: named.optional });
        }
        Ok(sources)
    }

    /// Images below `root`, remembered by what decides about them.
    fn images(&self, stage: &Stage, root: &Path, key: &CacheKey) -> Result<Vec<String>, ContentError> {
        let known = self.lists.get(key).and_then(|list| serde_json::from_slice(&list).ok());
        if let Some(names) = known {
            return Ok(names);
        }
        let names = opened(stage, root)?;
        // A plan makes no folder.
        if self.store.root().is_dir() {
            self.lists.put(key, &serde_json::to_vec(&names).unwrap_or_default());
        }
        Ok(names)
    }
}

/// How the images of a stage are drawn.
enum Drawing<'a> {
    /// So many of the corpora, under a seed.
    Calibration { config: &'a CorporaConfig, images: u32, seed: u64 },
    /// Those of a training.
    Training { config: &'a CorporaConfig, training: &'a AdaptTraining, seed: u64 },
    /// Those of a benchmark's first items.
    Benchmark { task: Task, items: u32, aids: Option<&'a Aids> },
}

/// The drawing of a stage; `None` where it opens no images.
fn drawing(stage: &Stage) -> Option<Drawing<'_>> {
    Some(match stage {
        Stage::Prune { data: Some(data), calibration: Some(calibration), seed, .. }
        | Stage::Structure { data: Some(data), calibration: Some(calibration), seed, .. } => {
            let seed = seed.unwrap_or_default();
            Drawing::Calibration { config: &data.calibration, images: calibration.images, seed }
        }
        Stage::Sensitivity { data, calibration, seed, .. }
        | Stage::Statistics { data, calibration, seed, .. }
        | Stage::Refine { data, calibration, seed, .. }
        | Stage::Reconstruct { data, calibration, seed, .. } => {
            Drawing::Calibration { config: &data.calibration, images: calibration.images, seed: *seed }
        }
        Stage::Adapt { data, training, seed, .. } => {
            Drawing::Training { config: &data.restoration, training, seed: *seed }
        }
        Stage::Evaluate { task, items, aids, .. } => {
            Drawing::Benchmark { task: *task, items: *items, aids: aids.as_deref() }
        }
        _ => return None,
    })
}

/// What names the images of a stage; `None` where it opens none.
pub(crate) fn named(stage: &Stage) -> Option<Named> {
    let corpora = |config: &CorporaConfig, by: String| Named {
        annotations: config.corpora.iter().map(|corpus| published::expected_of_corpus(*corpus)[0].path).collect(),
        optional: true,
        by: format!("{by} {:?} {:?}", config.corpora, config.form),
    };
    Some(match drawing(stage)? {
        Drawing::Calibration { config, images, seed } => corpora(config, format!("calibration {images} {seed}")),
        Drawing::Training { config, training, seed } => {
            let AdaptTraining { steps, batch, samples, loading, .. } = training;
            let beside = match loading.kept_from_training() {
                0 => String::new(),
                held_out => format!(" beside {held_out}"),
            };
            corpora(config, format!("training {steps} {batch} {samples} {seed}{beside}"))
        }
        Drawing::Benchmark { task, items, aids } => {
            // Captions to retrieve from are read without their images.
            let retrieved = aids.and_then(|aids| aids.retrieved.as_ref());
            let by = format!("benchmark {task} {items}");
            match retrieved.map(|config| corpora(&pool::corpora(config), format!("{by} beside"))) {
                Some(pool) => Named { optional: false, ..pool },
                None => Named { annotations: Vec::new(), optional: false, by },
            }
        }
    })
}

/// The images that a stage opens, each once, in the order of their first mention, relative to `root`.
fn opened(stage: &Stage, root: &Path) -> Result<Vec<String>, DataError> {
    let mut images = match drawing(stage) {
        Some(Drawing::Calibration { config, images, seed }) => calibrating(config, root, images, seed)?,
        Some(Drawing::Training { config, training, seed }) => {
            // A merge compares outputs on the first entries, as they are.
            let plain = CorporaConfig { augment: Augment::None, ..config.clone() };
            let [drawn, held_out] = Captions::of_training(config, root, training, seed)?;
            let first = Captions::of_probe(&plain, root)?;
            let all = drawn.entries().iter().chain(held_out.entries()).chain(first.entries());
            all.map(|entry| entry.image.clone()).collect()
        }
        Some(Drawing::Benchmark { task, items, .. }) => benchmark(root, task, items as usize)?,
        None => Vec::new(),
    };
    let mut seen = std::collections::HashSet::new();
    images.retain(|image| seen.insert(image.clone()));
    let relative =
        |image: &std::path::PathBuf| image.strip_prefix(root).unwrap_or(image).to_string_lossy().into_owned();
    Ok(images.iter().map(relative).collect())
}

fn calibrating(
    config: &CorporaConfig,
    root: &Path,
    images: u32,
    seed: u64,
) -> Result<Vec<std::path::PathBuf>, DataError> {
    let drawn = Captions::drawn(config, root, images as usize, seed, Purpose::CalibrationEntry)?;
    Ok(drawn.entries().iter().map(|entry| entry.image.clone()).collect())
}

fn benchmark(root: &Path, task: Task, items: usize) -> Result<Vec<std::path::PathBuf>, DataError> {
    let benchmark: Benchmark = published::read(root, task, items)?;
    let file = |picture: &Picture| match picture {
        Picture::File(path) => Some(path.clone()),
        // Those in a table are read with it.
        Picture::Held(_) | Picture::Cell(_) => None,
    };
    Ok(benchmark.images().iter().filter_map(file).collect())
}
