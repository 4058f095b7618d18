//! Training images with their scenes, as tensors.

use ressa_data::{Processor, World, shapes::Scene};
use tch::Tensor;

use crate::{TrainError, compose::Composer};

/// The training split in memory.
pub struct Corpus<'a> {
    /// Texts to ids.
    pub composer: Composer<'a>,
    scenes: Vec<Scene>,
    pixels: Vec<f32>,
    image: usize,
    side: i64,
}

impl<'a> Corpus<'a> {
    /// The first `images` training images of a world.
    pub fn new(world: &'a World, processor: &'a Processor, images: usize, threads: usize) -> Result<Self, TrainError> {
        let labelled = world.training_images(images, threads);
        let pixels = processor.pixels(labelled.iter().map(|l| &l.image))?;
        let (side, _) = processor.image_size();
        Ok(Self {
            composer: Composer::new(world, processor)?,
            scenes: labelled.into_iter().map(|l| l.scene).collect(),
            pixels,
            image: 3 * (side * side) as usize,
            side: i64::from(side),
        })
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.scenes.len()
    }

    /// Pixels of some images `[picks, 3, side, side]`.
    pub fn pixels(&self, picks: &[usize]) -> Tensor {
        let mut data = Vec::with_capacity(picks.len() * self.image);
        for &pick in picks {
            data.extend_from_slice(&self.pixels[pick * self.image..(pick + 1) * self.image]);
        }
        Tensor::from_slice(&data).view([picks.len() as i64, 3, self.side, self.side])
    }

    /// The scene of an image.
    pub fn scene(&self, pick: usize) -> &Scene {
        &self.scenes[pick]
    }

    /// Scenes of some images.
    pub fn scenes(&self, picks: &[usize]) -> Vec<&Scene> {
        picks.iter().map(|&pick| &self.scenes[pick]).collect()
    }
}
