//! Calibration samples. Listed ones have an order of their own, by a digest of what is in them, so that the order of the list has no effect; those of
//! corpora come as an experiment draws them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::job::{CalibrationRequest, CalibrationSource, Prune};
use ressa_models::{Architecture, Layout, Prompts};
use ressa_pipeline::{calibration_input, calibration_texts};
use ressa_prune::walk::CalibrationSet;
use tch::Tensor;

use crate::{LabError, loaded::Reader};

/// The samples of a job, ready but for the pixels.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Texts, in the order in which they run.
    pub texts: Vec<SampleText>,
    /// One file for each distinct image, in the order in which they are first needed.
    pub images: Vec<PathBuf>,
    /// Largest height times width at which the model reads one of them.
    pub pixels: u64,
    /// What tells these samples from others.
    pub digest: String,
}

/// What one sample says about which image.
#[derive(Debug)]
pub(crate) struct SampleText {
    /// Position among the images.
    pub image: usize,
    /// The instruction.
    pub prompts: Prompts,
    /// The answer's tokens without start and end.
    pub answer: Vec<u32>,
}

/// The samples that are used, in the order in which they run, each with the digest of its image.
///
/// A sample's digest is BLAKE3 over its image file's digest, its prompt and its answer. With `samples`, so many are used whose digests, hashed
/// together with the seed, are the smallest. They run in the order of their digests.
///
/// # Errors
/// An image that cannot be read, fewer samples than asked for.
pub fn ordered(
    requests: &[CalibrationRequest],
    samples: Option<usize>,
    seed: u64,
) -> Result<Vec<(&CalibrationRequest, blake3::Hash)>, LabError> {
    let mut found = Vec::with_capacity(requests.len());
    for (request, image) in with_images(requests)? {
        let mut hasher = blake3::Hasher::new();
        hasher.update(image.as_bytes());
        for text in [&request.prompt, &request.answer] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        found.push((hasher.finalize(), request, image));
    }
    if let Some(wanted) = samples {
        enough(wanted, found.len())?;
        let draw = |digest: &blake3::Hash| {
            *blake3::Hasher::new().update(&seed.to_le_bytes()).update(digest.as_bytes()).finalize().as_bytes()
        };
        found.sort_by_cached_key(|(digest, ..)| draw(digest));
        found.truncate(wanted);
    }
    found.sort_by_key(|(digest, ..)| *digest.as_bytes());
    Ok(found.into_iter().map(|(_, request, image)| (request, image)).collect())
}

/// Samples with the digests of their images.
fn with_images(requests: &[CalibrationRequest]) -> Result<Vec<(&CalibrationRequest, blake3::Hash)>, LabError> {
    let mut known: HashMap<&Path, blake3::Hash> = HashMap::new();
    let digest = |request: &'_ CalibrationRequest| -> Result<blake3::Hash, LabError> {
        let wrong = |e| LabError::input(&request.image, e);
        if !fs::metadata(&request.image).map_err(wrong)?.is_file() {
            // A pipe would never end, a device never stop.
            return Err(wrong(std::io::Error::other("it is not a regular file")));
        }
        let bytes = fs::read(&request.image).map_err(wrong)?;
        Ok(blake3::hash(&bytes))
    };
    let mut found = Vec::with_capacity(requests.len());
    for request in requests {
        let image = match known.get(request.image.as_path()) {
            Some(&image) => image,
            None => *known.entry(&request.image).or_insert(digest(request)?),
        };
        found.push((request, image));
    }
    Ok(found)
}

fn enough(wanted: usize, there: usize) -> Result<(), LabError> {
    if wanted <= there {
        return Ok(());
    }
    Err(LabError::Unsupported(format!("{wanted} calibration samples are asked for, there are {there}")))
}

impl Samples {
    /// The first samples with the images that they are about, for a network; `None` is all.
    pub fn first<'a>(&'a self, samples: Option<usize>, reader: Reader<'a>) -> Read<'a> {
        let texts = &self.texts[..samples.unwrap_or(usize::MAX).min(self.texts.len())];
        let images = texts.iter().map(|text| text.image + 1).max().unwrap_or(0);
        Read { images: &self.images[..images], texts, reader }
    }

    /// Reads texts and digests of the samples of a pruning; opens no image, unless its size says what the language model reads.
    ///
    /// # Errors
    /// Images that cannot be read, texts that cannot be tokenized, fewer samples than asked for.
    pub fn read(job: &Prune, reader: Reader<'_>) -> Result<Self, LabError> {
        let drawn;
        let used = match &job.calibration {
            CalibrationSource::Listed(requests) => ordered(requests, job.samples, job.seed)?,
            CalibrationSource::Corpora { corpora, root } => {
                let wanted = job.samples.unwrap_or_default();
                // A run's order, which is not that of its file.
                let mut corpora = corpora.clone();
                corpora.corpora.sort_unstable();
                drawn = calibration_texts(&corpora, root, wanted, job.seed)?;
                enough(wanted, drawn.len())?;
                with_images(&drawn)?
            }
        };
        Self::of(used, reader)
    }

    /// Refuses samples that are longer than the positions of the language model.
    ///
    /// # Errors
    /// Names the first such sample.
    pub fn fit(&self, config: &dyn Architecture) -> Result<(), LabError> {
        let Some(positions) = config.text_config().positions().filter(|_| config.writes()) else { return Ok(()) };
        for (number, SampleText { prompts, answer, .. }) in self.texts.iter().enumerate() {
            let before = prompts.language.layout().map_or(config.image_tokens() as usize, Layout::tokens);
            let tokens = before + prompts.language.ids.size()[1] as usize + answer.len();
            if tokens > positions {
                return Err(LabError::Unsupported(format!(
                    "calibration sample {} takes {tokens} positions with its image and its answer, and the model has {positions}; shorten \
                     it or leave it out",
                    number + 1
                )));
            }
        }
        Ok(())
    }

    /// Reads the texts of samples in the order in which they are listed.
    ///
    /// # Errors
    /// As [`Samples::read`].
    pub fn listed(requests: &[CalibrationRequest], reader: Reader<'_>) -> Result<Self, LabError> {
        Self::of(with_images(requests)?, reader)
    }

    fn of(used: Vec<(&CalibrationRequest, blake3::Hash)>, reader: Reader<'_>) -> Result<Self, LabError> {
        let mut hasher = blake3::Hasher::new();
        let (mut texts, mut images, mut places) = (Vec::new(), Vec::new(), HashMap::new());
        let mut sizes: Vec<(u32, u32)> = Vec::new();
        for (request, digest) in used {
            let image = *places.entry(digest).or_insert_with(|| {
                images.push(request.image.clone());
                images.len() - 1
            });
            if sizes.len() < images.len() {
                sizes.push(reader.size(&request.image)?);
            }
            let (processor, device) = (reader.processor, reader.device);
            let (prompts, answer) =
                calibration_input(processor, device, &request.prompt, &request.answer, sizes[image])?;
            // What the network reads, so that other tokenizer files make other samples.
            hasher.update(digest.as_bytes());
            let mut add = |ids: &[i64]| {
                hasher.update(&(ids.len() as u64).to_le_bytes());
                for id in ids {
                    hasher.update(&id.to_le_bytes());
                }
            };
            for ids in [&prompts.qformer.ids, &prompts.language.ids] {
                add(&Vec::<i64>::try_from(ids.flatten(0, -1)).map_err(ressa_models::ModelError::from)?);
            }
            add(&answer.iter().copied().map(i64::from).collect::<Vec<_>>());
            // Where an image's size decides what stands before the text.
            let sized = |layout: &&Layout| !layout.grids.is_empty() || layout.mosaic.is_some();
            if let Some(layout) = prompts.language.layout().filter(sized) {
                add(&layout.ids.iter().copied().map(i64::from).collect::<Vec<_>>());
                add(&layout.grids.iter().flatten().copied().map(i64::from).collect::<Vec<_>>());
            }
            texts.push(SampleText { image, prompts, answer });
        }
        let pixels = sizes.iter().map(|&(height, width)| u64::from(height) * u64::from(width)).max().unwrap_or(0);
        Ok(Self { texts, images, pixels, digest: hasher.finalize().to_hex().to_string() })
    }

    /// Most tokens that the Q-Former and the language model read of one sample, queries not counted.
    pub fn longest(&self) -> (i64, i64) {
        let width = |ids: &Tensor| ids.size()[1];
        let qformer = self.texts.iter().map(|text| width(&text.prompts.qformer.ids)).max().unwrap_or(0);
        let language = self.texts.iter().map(|text| width(&text.prompts.language.ids) + text.answer.len() as i64 + 1);
        (qformer, language.max().unwrap_or(0))
    }
}

/// Samples that a network reads.
#[derive(Clone, Copy)]
pub(crate) struct Read<'a> {
    images: &'a [PathBuf],
    texts: &'a [SampleText],
    reader: Reader<'a>,
}

impl CalibrationSet for Read<'_> {
    type Error = LabError;

    fn images(&self) -> usize {
        self.images.len()
    }

    fn pixels(&self, image: usize) -> Result<Tensor, LabError> {
        self.reader.pixels(&self.images[image])
    }

    fn texts(&self) -> usize {
        self.texts.len()
    }

    fn text(&self, at: usize) -> (usize, &Prompts, &[u32]) {
        let SampleText { image, prompts, answer } = &self.texts[at];
        (*image, prompts, answer)
    }
}
