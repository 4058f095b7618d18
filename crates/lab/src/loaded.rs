//! A model folder made ready: the network, and the files that feed it.

use std::path::Path;

use ressa_data::{Image, Processor};
use ressa_experiment::job::ModelAt;
use ressa_models::{Model, TextBatch, folder::load_options, load_model};
use ressa_pipeline::language_batch;
use ressa_runtime::Device;
use tch::Tensor;

use crate::LabError;

/// A model with its processor.
pub(crate) struct Loaded {
    pub model: Model,
    pub processor: Processor,
    pub device: Device,
}

/// The network of a folder.
pub(crate) fn network(at: &ModelAt, device: Device) -> Result<Model, LabError> {
    Ok(load_model(&at.folder, &load_options(&at.folder, device, at.compute)?)?)
}

impl Loaded {
    /// Loads both. The processor comes first: what is wrong with it is known before the weights are touched.
    pub fn open(at: &ModelAt, device: Device) -> Result<Self, LabError> {
        let processor = Processor::load(&at.folder)?;
        Ok(Self { processor, model: network(at, device)?, device })
    }

    /// Pixels `[1, 3, height, width]` of an image file.
    pub fn pixels(&self, image: &Path) -> Result<Tensor, LabError> {
        self.reader().pixels(image)
    }

    /// Instructions as the Q-Former reads them.
    pub fn qformer(&self, texts: &[&str]) -> Result<TextBatch, LabError> {
        self.reader().qformer(texts)
    }

    /// Instructions as the language model reads them, without image positions.
    pub fn language(&self, texts: &[&str]) -> Result<TextBatch, LabError> {
        self.reader().language(texts)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { processor: &self.processor, device: self.device }
    }
}

/// What feeds a network on a device.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub processor: &'a Processor,
    pub device: Device,
}

impl Reader<'_> {
    /// Pixels `[1, 3, height, width]` of an image file.
    pub fn pixels(&self, image: &Path) -> Result<Tensor, LabError> {
        let pixels = self.processor.pixels([&Image::open(image)?])?;
        let (height, width) = self.processor.image_size();
        Ok(Tensor::from_slice(&pixels).view([1, 3, i64::from(height), i64::from(width)]).to_device(self.device))
    }

    /// Instructions as the Q-Former reads them.
    pub fn qformer(&self, texts: &[&str]) -> Result<TextBatch, LabError> {
        let rows = texts.iter().map(|text| self.processor.encode_qformer(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.processor.qformer_pad(), self.device))
    }

    /// Instructions as the language model reads them, without image positions.
    pub fn language(&self, texts: &[&str]) -> Result<TextBatch, LabError> {
        Ok(language_batch(self.processor, self.device, texts)?)
    }
}
