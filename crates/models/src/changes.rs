//! Weights that pruning changed, and their file: only the values that stay, in the order of the keep mask.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{KeepMask, MaskSet, ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that tells the file from others.
const NOTE: &str = "ressa.weights";
/// Its text: the layout of the file.
const LAYOUT: &str = "kept values by row";

/// Whole weights `[out, in]` of changed layers, by layer name.
#[derive(Debug, Default)]
pub struct WeightSet {
    weights: BTreeMap<String, Tensor>,
}

impl WeightSet {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the weight of a layer.
    pub fn insert(&mut self, layer: impl Into<String>, weight: Tensor) {
        self.weights.insert(layer.into(), weight);
    }

    /// The changed weight of a layer.
    pub fn get(&self, layer: &str) -> Option<&Tensor> {
        self.weights.get(layer)
    }

    /// Layers and weights, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.weights.iter().map(|(name, weight)| (name.as_str(), weight))
    }

    /// Whether no layer is changed.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Takes the other set's weights in; a layer in both gets the other's.
    pub fn extend(&mut self, other: WeightSet) {
        self.weights.extend(other.weights);
    }

    /// Replaces the weights of the layers named here; masks and adapters stay. Models that share the old weights keep them.
    ///
    /// # Errors
    /// A layer that the model does not have, before anything is changed; a weight of another shape.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        let mut unknown: Vec<String> = self.weights.keys().cloned().collect();
        unknown.retain(|name| !model.linears().iter().any(|(id, _)| id.name == *name));
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown));
        }
        for (id, linear) in model.linears_mut() {
            if let Some(weight) = self.weights.get(&id.name) {
                let device = linear.weight().device();
                linear.set_weight(weight.f_to_device(device)?)?;
            }
        }
        Ok(())
    }

    /// Writes the values at the kept positions of `masks`, one vector per layer, in the type of the weight.
    ///
    /// # Errors
    /// A changed layer without a mask, or with one of another shape.
    pub fn save(&self, path: &Path, masks: &MaskSet) -> Result<(), ModelError> {
        let mut kept = TensorMap::new();
        for (name, weight) in &self.weights {
            let keep = mask_of(path, name, masks)?;
            if keep.size().as_slice() != weight.size().as_slice() {
                return Err(ModelError::file(path, format!("weight and mask of `{name}` differ in shape")));
            }
            kept.insert(name.clone(), weight.f_detach()?.f_masked_select(&keep.to_device(weight.device())?.keep())?);
        }
        weights::write(path, &kept, (NOTE, LAYOUT.to_owned()))
    }

    /// Reads what [`WeightSet::save`] wrote beside `masks`; pruned positions are zero.
    ///
    /// # Errors
    /// A file of something else, or of other masks.
    pub fn load(path: &Path, masks: &MaskSet) -> Result<Self, ModelError> {
        let (kept, note) = weights::read(path, NOTE)?;
        if note.as_deref() != Some(LAYOUT) {
            return Err(ModelError::file(path, "it holds no changed weights"));
        }
        let mut weights = BTreeMap::new();
        for (name, values) in kept {
            let keep = mask_of(path, &name, masks)?;
            let count = keep.kept() as i64;
            if values.size() != [count] || !values.is_floating_point() {
                return Err(ModelError::file(path, format!("the values of `{name}` do not fit its mask")));
            }
            let zeros = Tensor::f_zeros(keep.size().as_slice(), (values.kind(), tch::Device::Cpu))?;
            weights.insert(name, zeros.f_masked_scatter(&keep.keep(), &values)?);
        }
        Ok(Self { weights })
    }
}

fn mask_of<'m>(path: &Path, layer: &str, masks: &'m MaskSet) -> Result<&'m KeepMask, ModelError> {
    masks.get(layer).ok_or_else(|| ModelError::file(path, format!("the changed layer `{layer}` has no mask")))
}
