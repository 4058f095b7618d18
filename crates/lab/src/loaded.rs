//! A model folder made ready: the network, and the files that feed it.

use std::path::Path;

use ressa_data::{DataError, Image, Processor, Prompt};
use ressa_experiment::job::ModelAt;
use ressa_models::{Model, TextBatch, folder::load_options, load_model};
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

    /// An instruction about an image, pixels `[1, 3, height, width]`, as the language model reads it.
    pub fn prompt(&self, text: &str, pixels: &Tensor) -> Result<Prompt, LabError> {
        let size = pixels.size();
        Ok(self.processor.prompt(text, (size[2] as u32, size[3] as u32))?)
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
        let opened = Image::open(image)?;
        let read = || Ok((self.processor.size_of(&opened)?, self.processor.pixels([&opened])?));
        let ((height, width), pixels) = read().map_err(|error: DataError| error.of_image(image))?;
        Ok(Tensor::from_slice(&pixels).view([1, 3, i64::from(height), i64::from(width)]).to_device(self.device))
    }

    /// Instructions as the Q-Former reads them.
    pub fn qformer(&self, texts: &[&str]) -> Result<TextBatch, LabError> {
        let rows = texts.iter().map(|text| self.processor.encode_qformer(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.processor.qformer_pad(), self.device))
    }

    /// Height and width at which the model reads an image file, which is opened only where they depend on it.
    pub fn size(&self, image: &Path) -> Result<(u32, u32), LabError> {
        if self.processor.images().has_one_size() {
            return Ok(self.processor.image_size());
        }
        Ok(self.processor.size_of(&Image::open(image)?).map_err(|error| error.of_image(image))?)
    }
}
