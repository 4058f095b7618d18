//! Samples that corpora and benchmarks have, against those that are asked for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ressa_contents::Contents;
use ressa_data::{Benchmark, Captions, DataError, pool, published};
use ressa_experiment::{
    Stage, Task,
    config::{CorporaConfig, DataConfig, RetrievedConfig},
};

use super::Preflight;

/// What is known of draws, by what is drawn from.
pub(super) type Draws = BTreeMap<String, Drawn>;

/// What a draw would find.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    /// Entries that are there; `None` where the corpora are missing, which is said with the missing files.
    available: Option<usize>,
    /// Why the annotations cannot be used.
    unusable: Option<String>,
    /// The first image that is not there, how many are not, and how many are drawn.
    absent: Option<(PathBuf, usize, usize)>,
}

/// What a stage would draw.
pub(super) fn look(stage: &Stage, contents: &Contents<'_>, root: &Path, draws: &mut Draws, found: &mut Preflight) {
    let (setting, data, config, asked) = match stage {
        Stage::Prune { data: Some(data), calibration: Some(calibration), .. }
        | Stage::Sensitivity { data, calibration, .. }
        | Stage::Statistics { data, calibration, .. }
        | Stage::Refine { data, calibration, .. } => {
            ("prune.calibration.images", data, &data.calibration, calibration.images)
        }
        Stage::Structure { data: Some(data), calibration: Some(calibration), .. } => {
            ("structure.calibration.images", data, &data.calibration, calibration.images)
        }
        Stage::Reconstruct { data, calibration, .. } => {
            ("reconstruct.samples", data, &data.calibration, calibration.images)
        }
        Stage::Adapt { data, training, .. } => {
            ("restore.samples", data, &data.restoration, Captions::asked_for(training))
        }
        Stage::Evaluate { task, items, data, aids, .. } => {
            if let Some(retrieved) = aids.as_ref().and_then(|aids| aids.retrieved.as_ref()) {
                pool_of(retrieved, data, root, draws, found);
            }
            return items_of(*task, *items, data, root, draws, found);
        }
        _ => return,
    };
    let Some(folder) = data.published_root().map(|folder| root.join(folder)) else { return };
    let seed = match stage {
        Stage::Prune { seed, .. } | Stage::Structure { seed, .. } => seed.unwrap_or_default(),
        Stage::Sensitivity { seed, .. }
        | Stage::Statistics { seed, .. }
        | Stage::Refine { seed, .. }
        | Stage::Reconstruct { seed, .. }
        | Stage::Adapt { seed, .. } => *seed,
        _ => 0,
    };
    let held_out = match stage {
        Stage::Adapt { training, .. } => training.loading.kept_from_training(),
        _ => 0,
    };
    let key = format!("{} {setting} {:?} {asked} {seed} {held_out}", folder.display(), config.corpora);
    let drawn = draws.entry(key).or_insert_with(|| drawn(stage, config, &folder, (asked, held_out), contents));
    if let Some(error) = &drawn.unusable {
        found.problem("data.root", error);
    }
    let corpora: Vec<&str> = config.corpora.iter().map(|corpus| corpus.name()).collect();
    let corpora = corpora.join(", ");
    let there = drawn.available.filter(|there| *there < asked as usize);
    let lost = drawn.absent.as_ref().map_or(0, |(_, absent, _)| *absent);
    if let Some(there) = there {
        let rest = if lost > 0 { ", as far as their images are" } else { "" };
        found.note(
            setting,
            format!("only {there} of {asked} samples are there (corpora: {corpora}); all of them are used{rest}"),
        );
    }
    if let Some((first, absent, many)) = &drawn.absent {
        let what =
            format!("{absent} of the {many} images that are drawn are not there, `{}` the first", first.display());
        match absent * 2 > *many {
            true => found.problem(setting, format!("{what}; more than half of a draw has to be there")),
            false => found.note(setting, format!("{what}; others of the draw stand in for them")),
        }
    }
}

/// Captions to retrieve from.
fn pool_of(retrieved: &RetrievedConfig, data: &DataConfig, root: &Path, draws: &mut Draws, found: &mut Preflight) {
    let Some(folder) = data.published_root().map(|folder| root.join(folder)) else { return };
    let asked = retrieved.pool as usize;
    let key = format!("{} pool {:?} {asked}", folder.display(), retrieved.corpora);
    let drawn =
        draws.entry(key).or_insert_with(|| match Captions::available(&pool::corpora(retrieved), &folder, asked) {
            Ok(available) => Drawn { available: Some(available), ..Drawn::default() },
            Err(DataError::Missing { .. }) => Drawn::default(),
            Err(error) => Drawn { unusable: Some(error.to_string()), ..Drawn::default() },
        });
    if let Some(error) = &drawn.unusable {
        found.problem("data.root", error);
    }
    if let Some(there) = drawn.available.filter(|there| *there < asked) {
        let corpora: Vec<&str> = retrieved.corpora.iter().map(|corpus| corpus.name()).collect();
        let corpora = corpora.join(", ");
        let what = format!("only {there} of {asked} captions are there (corpora: {corpora}); all of them are used");
        found.note("evaluate.retrieved.pool", what);
    }
}

/// Items of a benchmark: questions, or images for captions and retrieval.
fn items_of(task: Task, asked: u32, data: &DataConfig, root: &Path, draws: &mut Draws, found: &mut Preflight) {
    let Some(folder) = data.published_root().map(|folder| root.join(folder)) else { return };
    let is_question = task.has_questions();
    let key = format!("{} {task} {asked}", folder.display());
    // What is missing or cannot be used is said with the files.
    let count = |benchmark: Benchmark| match is_question {
        // Rotations of a question are one.
        true if task == Task::Mmbench => benchmark.items().iter().filter(|item| item.id.ends_with("-0")).count(),
        true => benchmark.items().len(),
        false => benchmark.images().len(),
    };
    let of = || Drawn { available: published::read(&folder, task, asked as usize).ok().map(count), ..Drawn::default() };
    let drawn = draws.entry(key).or_insert_with(of);
    if let Some(there) = drawn.available.filter(|there| *there < asked as usize) {
        let (setting, what) =
            if is_question { ("evaluate.questions", "questions") } else { ("evaluate.images", "images") };
        found.note(setting, format!("{task} has only {there} of {asked} {what}; all of them are used"));
    }
}

/// What a draw of so many samples beside so many held-out entries of each corpus would find.
fn drawn(
    stage: &Stage,
    config: &CorporaConfig,
    folder: &Path,
    (asked, held_out): (u32, u32),
    contents: &Contents<'_>,
) -> Drawn {
    match Captions::available_beside(config, folder, asked as usize, held_out as usize) {
        Err(DataError::Missing { .. }) => Drawn::default(),
        Err(error) => Drawn { unusable: Some(error.to_string()), ..Drawn::default() },
        Ok(available) => match contents.replaced(stage, folder) {
            Err(error) => Drawn { unusable: Some(error.to_string()), ..Drawn::default() },
            Ok((absent, many)) => Drawn {
                available: Some(available),
                unusable: None,
                absent: absent.first().map(|first| (first.clone(), absent.len(), many)),
            },
        },
    }
}
