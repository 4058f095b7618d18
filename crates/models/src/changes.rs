//! Weights that a step changed, and their file: of a pruned matrix only the values that stay, in the order of the keep mask.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::Tensor;

use crate::{MaskSet, ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that tells the file from others.
const NOTE: &str = "ressa.weights";
/// Its text: the layout of the file.
const LAYOUT: &str = "kept values by row";

/// Whole weights of changed layers, by layer name; biases and norms by theirs ([`crate::Weight::key`]).
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

    /// Replaces the weights named here; masks and adapters stay. Models that share the old weights keep them.
    ///
    /// # Errors
    /// A weight that the model does not have, before anything is changed; one of another shape.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        let mut unknown: BTreeSet<&str> = self.weights.keys().map(String::as_str).collect();
        for weight in model.weights() {
            unknown.remove(weight.key());
        }
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown.into_iter().map(str::to_owned).collect()));
        }
        for weight in model.weights_mut() {
            if let Some(value) = self.weights.get(weight.key()) {
                let device = weight.device();
                weight.set_base(value.f_to_device(device)?)?;
            }
        }
        Ok(())
    }

    /// Writes the values at the kept positions of `masks`, one vector per layer, in the type of the weight; a weight without a mask whole.
    ///
    /// # Errors
    /// A mask of another shape than its weight.
    pub fn save(&self, path: &Path, masks: &MaskSet) -> Result<(), ModelError> {
        let mut kept = TensorMap::new();
        for (name, weight) in &self.weights {
            let Some(keep) = masks.get(name) else {
                kept.insert(name.clone(), weight.f_detach()?.f_contiguous()?);
                continue;
            };
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
            let Some(keep) = masks.get(&name) else {
                weights.insert(name, values);
                continue;
            };
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
