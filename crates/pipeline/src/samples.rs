//! Calibration samples and training batches: the data crate's texts and pixels as tensors.
//!
//! Everything drawn here is a function of a seed and a position, so a resumed stage sees what an undisturbed one would have seen.

mod ahead;
mod corpora;
mod draw;
mod mix;
mod world;

use std::path::Path;

use ressa_data::{Image, ImageLoader, Processor, Sized};
use ressa_eval::FeatureCache;
use ressa_experiment::{
    config::{CalibrationConfig, DataConfig, DataSource},
    record::Shortfall,
    stage::AdaptTraining,
};
use ressa_models::{Prompts, Sample, TextBatch};
use ressa_restore::{Probe, TrainingBatch};
use ressa_runtime::{Device, Levels};
use tch::Tensor;

pub(crate) use self::ahead::Beside;
pub use self::corpora::calibration_texts;
use self::{ahead::Batches, corpora::CorpusSamples, world::WorldSamples};
use crate::{Executor, PipelineError, calibration::language_batch, features::ImagesOf, resident::Dense};

/// Samples for calibration.
#[derive(Default)]
pub(crate) struct Calibration {
    /// The samples, in the order in which they run.
    pub samples: Vec<Sample>,
    /// What is missing of the images that were asked for.
    pub short: Option<Shortfall>,
}

/// Asked for the features of image files; nothing where pixels are wanted.
pub(crate) type Encode<'a> = &'a mut dyn FnMut(&ImagesOf<'_>) -> Result<Option<FeatureCache>, PipelineError>;

/// Where samples come from.
pub(crate) trait Samples {
    /// Samples for calibration; fewer than asked for where there are not so many.
    fn calibration(&self, config: &CalibrationConfig, seed: u64) -> Result<Calibration, PipelineError>;

    /// A small batch on which outputs before and after a merge are compared.
    fn probe(&self) -> Result<Probe, PipelineError>;

    /// Batches for a training; `retrieval` adds texts for the contrastive loss. `scratch` is where the training keeps what it resumes from.
    /// `encode` may have the features of the images, which batches then hold instead of pixels.
    fn batches(
        &self,
        training: &AdaptTraining,
        retrieval: bool,
        seed: u64,
        scratch: &Path,
        encode: Encode<'_>,
    ) -> Result<Batches, PipelineError>;
}

impl Executor {
    /// The samples of a data configuration, as a dense model reads them.
    pub(crate) fn samples(&mut self, data: &DataConfig, dense: &Dense) -> Result<Box<dyn Samples>, PipelineError> {
        let feed = Feed { processor: (*dense.processor).clone(), device: self.device };
        let ahead = self.loading.ahead(self.device);
        Ok(match data.source {
            DataSource::Shapes => Box::new(WorldSamples { world: self.world(data)?, feed, ahead }),
            DataSource::Folder => {
                let loader = ImageLoader::new(&dense.processor, self.loading.cache.as_ref());
                Box::new(CorpusSamples::new(data, feed, loader, ahead)?)
            }
        })
    }
}

/// What is asked about the images of a batch, and what is to be answered.
#[derive(Debug, Default)]
struct Exchanges {
    texts: Vec<String>,
    answers: Vec<String>,
    /// The image that each text is about.
    rows: Vec<i64>,
}

impl Exchanges {
    fn push(&mut self, row: usize, text: String, answer: String) {
        self.rows.push(row as i64);
        self.texts.push(text);
        self.answers.push(answer);
    }
}

/// What turns samples into tensors.
#[derive(Clone)]
struct Feed {
    processor: Processor,
    device: Device,
}

impl Feed {
    /// Pixels `[images, 3, height, width]`.
    fn pixels<'i>(&self, images: impl IntoIterator<Item = &'i Image>) -> Result<Tensor, PipelineError> {
        let images: Vec<&Image> = images.into_iter().collect();
        let (height, width) = self.processor.common_size(images.iter().copied())?;
        let pixels = self.processor.pixels(images)?;
        Ok(Tensor::from_slice(&pixels).view([-1, 3, i64::from(height), i64::from(width)]).to_device(self.device))
    }

    /// Pixels `[images, 3, height, width]` from the levels of decoded images of one size, which become pixels on the device.
    fn levels(&self, Sized { levels, size }: Sized) -> Tensor {
        let levels = Levels::new(levels, size, self.device);
        levels.pixels(0, levels.images(), self.processor.images().table())
    }

    /// Prompts about images of one size.
    fn prompts(&self, texts: &[String], images: &[i64], size: (u32, u32)) -> Result<Prompts, PipelineError> {
        let read: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(Prompts {
            image: Tensor::from_slice(images).to_device(self.device),
            qformer: self.qformer(texts)?,
            language: language_batch(&self.processor, self.device, &read, size)?,
        })
    }

    /// Texts about images `[images, 3, height, width]`, or their features, with the tokens of their answers.
    fn asked(&self, pixels: &Tensor, asked: &Exchanges) -> Result<(Prompts, Vec<Vec<u32>>), PipelineError> {
        let answers = asked.answers.iter().map(|t| self.processor.encode_answer(t)).collect::<Result<_, _>>()?;
        Ok((self.prompts(&asked.texts, &asked.rows, self.size(pixels))?, answers))
    }

    /// Height and width of pixels `[images, 3, height, width]`; features stand for images of the one size that a model reads.
    fn size(&self, shown: &Tensor) -> (u32, u32) {
        match shown.size().as_slice() {
            &[_, _, height, width] => (height as u32, width as u32),
            _ => self.processor.image_size(),
        }
    }

    fn probe(&self, pixels: Tensor, asked: &Exchanges) -> Result<Probe, PipelineError> {
        let (prompts, answers) = self.asked(&pixels, asked)?;
        Ok(Probe { pixels, prompts, answers })
    }

    /// A batch; `retrieval` are texts of its images for the contrastive loss.
    fn batch(
        &self,
        pixels: Tensor,
        questions: &Exchanges,
        captions: &Exchanges,
        retrieval: Option<&[String]>,
    ) -> Result<TrainingBatch, PipelineError> {
        let (questions, answers) = self.asked(&pixels, questions)?;
        let (captions, caption_answers) = self.asked(&pixels, captions)?;
        let retrieval = retrieval.map(|texts| self.qformer(texts)).transpose()?;
        Ok(TrainingBatch { pixels, questions, answers, captions, caption_answers, retrieval })
    }

    fn qformer(&self, texts: &[String]) -> Result<TextBatch, PipelineError> {
        let rows = texts.iter().map(|t| self.processor.encode_qformer(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.processor.qformer_pad(), self.device))
    }
}
