//! A model folder of which one block at a time is brought to the device; the rest stays mapped.

mod ahead;

use std::{cell::RefCell, path::Path};

use ressa_experiment::job::Compute;
use ressa_models::{LayerId, Model, ModelError, Pages, Surgery, VisionLanguage, load_streamed};
use ressa_prune::walk::{Blocks, Place, layers_of};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use self::ahead::{Ahead, fetch};
use crate::LabError;

/// The folder.
pub(crate) struct Streamed {
    /// The block under way and the next one, where they are copied ahead. Before the pages, which they read until they are dropped.
    ahead: RefCell<Vec<Ahead>>,
    model: Model,
    pages: Pages,
    device: Device,
    /// Whether weights of half precision that f32 is computed with are converted once when their block is brought, not in each pass.
    pub converts: bool,
    /// The block that was brought.
    brought: Vec<Brought>,
    /// Bytes of weights that were read.
    pub read: u64,
}

/// A layer's weight.
struct Brought {
    layer: LayerId,
    /// Over the map.
    mapped: Tensor,
    /// On the device, in the folder's type.
    stored: Tensor,
}

impl Streamed {
    /// Opens a folder. Tensors other than prunable matrices go to the device at once where that is not the CPU.
    ///
    /// # Errors
    /// Whatever is wrong with the folder.
    pub fn open(folder: &Path, compute: Compute, device: Device) -> Result<Self, LabError> {
        let (model, pages) = load_streamed(folder, compute, device)?;
        Ok(Self { ahead: RefCell::default(), model, pages, device, converts: false, brought: Vec::new(), read: 0 })
    }

    /// Makes the projection into the language model a layer of the connector.
    ///
    /// # Errors
    /// There is none beside the connector's layers.
    pub fn join_projection(&mut self) -> Result<(), LabError> {
        Ok(ressa_prune::join_projection(&mut self.model)?)
    }

    /// The network.
    pub fn network(&self) -> &Model {
        &self.model
    }

    /// The weight of a layer of the block that was brought, on the device, in the folder's type.
    ///
    /// # Errors
    /// The layer is in no block that was brought.
    pub fn stored(&self, layer: &LayerId) -> Result<Tensor, LabError> {
        let found = self.brought.iter().find(|brought| brought.layer == *layer);
        let absent = || LabError::Unsupported(format!("`{}` was not brought; please report this", layer.name));
        Ok(found.ok_or_else(absent)?.stored.shallow_clone())
    }

    /// Has the block run with another weight of a layer from now on, given in the folder's type.
    ///
    /// # Errors
    /// It does not fit.
    pub fn replace(&mut self, layer: &LayerId, weight: &Tensor) -> Result<(), LabError> {
        let running = self.running(weight)?;
        if let Some((_, linear)) = self.model.linears_mut().into_iter().find(|(id, _)| *id == layer) {
            linear.set_weight(running)?;
        }
        Ok(())
    }

    /// The pages under a weight need not stay in memory.
    pub fn release(&self, layer: &LayerId) {
        let of_layer = self.brought.iter().filter(|brought| brought.layer == *layer);
        of_layer.for_each(|brought| self.pages.release(&brought.mapped));
    }

    /// No page need stay in memory.
    pub fn release_all(&self) {
        self.pages.release_all();
    }

    /// A weight as it is computed with.
    fn running(&self, stored: &Tensor) -> Result<Tensor, LabError> {
        // Only what is the same number in the other type: some layers compute in f32 although the network does not.
        if self.converts && self.model.kind() == Kind::Float {
            return Ok(stored.f_to_kind(Kind::Float).map_err(ModelError::from)?);
        }
        Ok(stored.shallow_clone())
    }
}

impl Blocks for Streamed {
    type Error = LabError;

    fn model(&self) -> &dyn VisionLanguage {
        &self.model
    }

    fn device(&self) -> Device {
        self.device
    }

    fn expect(&self, place: Place) {
        let weights = layers_of(&self.model, place).map(|(_, linear)| linear.weight().shallow_clone());
        let weights: Vec<Tensor> = weights.inspect(|weight| self.pages.prefetch(weight)).collect();
        self.ahead.borrow_mut().extend(Ahead::begin(place, weights, self.device));
    }

    fn bring(&mut self, place: Place) -> Result<(), LabError> {
        let layers: Vec<(LayerId, Tensor)> =
            layers_of(&self.model, place).map(|(id, linear)| (id.clone(), linear.weight().shallow_clone())).collect();
        let mut pinned = Ahead::take(&mut self.ahead.borrow_mut(), place).into_iter();
        for (layer, mapped) in layers {
            let stored = match pinned.next() {
                Some(pinned) => fetch(&pinned, self.device),
                None => mapped.f_to_device(self.device),
            };
            let stored = stored.map_err(ModelError::from)?;
            self.replace(&layer, &stored)?;
            self.brought.push(Brought { layer, mapped, stored });
        }
        Ok(())
    }

    fn leave(&mut self, _: Place) -> Result<(), LabError> {
        for Brought { layer, mapped, .. } in std::mem::take(&mut self.brought) {
            self.read += (mapped.numel() * mapped.kind().elt_size_in_bytes()) as u64;
            self.pages.release(&mapped);
            if let Some((_, linear)) = self.model.linears_mut().into_iter().find(|(id, _)| **id == layer) {
                linear.set_weight(mapped)?;
            }
        }
        Ok(())
    }
}
