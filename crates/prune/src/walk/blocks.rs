//! Where the weights of a block come from and go to.

use ressa_models::{Cuts, KeepMask, LayerCut, LayerId, Linear, MaskSet, VisionLanguage, WeightSet};
use tch::{Device, Tensor};

use super::Place;
use crate::{error::PruneError, select::Selection, solver::LayerSolution};

/// The weights of a model, block by block.
pub trait Blocks {
    /// Why weights cannot be had.
    type Error: From<PruneError>;

    /// The network. Only a block that was brought may be run.
    fn model(&self) -> &dyn VisionLanguage;

    /// Where it computes.
    fn device(&self) -> Device;

    /// A block will be brought soon.
    fn expect(&self, _place: Place) {}

    /// Makes a block ready to be run.
    ///
    /// # Errors
    /// Its weights cannot be read, or do not fit.
    fn bring(&mut self, _place: Place) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A block is not needed any longer.
    ///
    /// # Errors
    /// What became of its weights cannot be kept.
    fn leave(&mut self, _place: Place) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Weights that can be pruned.
pub trait Outcome: Blocks {
    /// The weight of a layer in the block that was brought: `[out, in]`, on the device, in the type in which it is kept, zero where an earlier step has
    /// pruned it.
    ///
    /// # Errors
    /// There is no such layer.
    fn weight(&self, layer: &LayerId) -> Result<Tensor, Self::Error>;

    /// What an earlier step has pruned of a layer, bool `[out, in]`.
    ///
    /// # Errors
    /// There is no such layer.
    fn gone(&self, _layer: &LayerId) -> Result<Option<Tensor>, Self::Error> {
        Ok(None)
    }

    /// What structured removal has left of a layer; `None` where all of it is.
    fn cut(&self, _layer: &LayerId) -> Option<&LayerCut> {
        None
    }

    /// Takes what was found for a layer, of which `asked` was asked. With `carries` the block runs with it from now on.
    ///
    /// # Errors
    /// It cannot be kept, or is not what was asked for.
    fn take(
        &mut self,
        layer: &LayerId,
        asked: Selection,
        solution: LayerSolution,
        carries: bool,
    ) -> Result<(), Self::Error>;
}

/// A model in memory that is only looked at.
pub struct Shown<'a>(pub &'a dyn VisionLanguage);

impl Blocks for Shown<'_> {
    type Error = PruneError;

    fn model(&self) -> &dyn VisionLanguage {
        self.0
    }

    fn device(&self) -> Device {
        device(self.0)
    }
}

/// A model in memory, with what was found for its layers.
pub struct Resident<'a> {
    model: &'a mut dyn VisionLanguage,
    /// Keep masks.
    pub masks: MaskSet,
    /// Weights that the method changed, whole.
    pub weights: WeightSet,
    cuts: Option<&'a Cuts>,
}

impl<'a> Resident<'a> {
    /// A model for which nothing has been found.
    pub fn new(model: &'a mut dyn VisionLanguage) -> Self {
        Self { model, masks: MaskSet::new(), weights: WeightSet::new(), cuts: None }
    }

    /// The same, of which structured removal has left this.
    pub fn within(self, cuts: Option<&'a Cuts>) -> Self {
        Self { cuts, ..self }
    }
}

impl Blocks for Resident<'_> {
    type Error = PruneError;

    fn model(&self) -> &dyn VisionLanguage {
        self.model
    }

    fn device(&self) -> Device {
        device(self.model)
    }
}

impl Resident<'_> {
    fn layer(&self, layer: &LayerId) -> Result<&Linear, PruneError> {
        let mut linears = self.model.linears().into_iter();
        let found = linears.find(|(id, _)| *id == layer).map(|(_, linear)| linear);
        found.ok_or(PruneError::NoLayers { tower: layer.tower })
    }
}

impl Outcome for Resident<'_> {
    fn weight(&self, layer: &LayerId) -> Result<Tensor, PruneError> {
        let matrix = self.layer(layer)?.matrix();
        Ok(matrix.stored().unwrap_or_else(|| matrix.base().shallow_clone()))
    }

    fn gone(&self, layer: &LayerId) -> Result<Option<Tensor>, PruneError> {
        Ok(self.layer(layer)?.matrix().keep().map(KeepMask::remove))
    }

    fn cut(&self, layer: &LayerId) -> Option<&LayerCut> {
        self.cuts?.layer(&layer.name)
    }

    fn take(
        &mut self,
        layer: &LayerId,
        _: Selection,
        solution: LayerSolution,
        carries: bool,
    ) -> Result<(), PruneError> {
        let LayerSolution { keep, weight, .. } = solution;
        if carries {
            let mut linears = self.model.linears_mut().into_iter();
            if let Some((_, linear)) = linears.find(|(id, _)| *id == layer) {
                if let Some(weight) = &weight {
                    linear.set_weight(weight.shallow_clone())?;
                }
                linear.set_mask(Some(keep.shallow_clone()))?;
            }
        }
        self.masks.insert(layer.name.clone(), keep);
        if let Some(weight) = weight {
            self.weights.insert(layer.name.clone(), weight);
        }
        Ok(())
    }
}

/// Where a model in memory computes.
fn device(model: &dyn VisionLanguage) -> Device {
    model.linears().first().map_or(Device::Cpu, |(_, linear)| linear.weight().device())
}
