//! Keep masks of a model's layers, and of biases that were removed with outputs, and their file: one bit per weight.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{KeepMask, ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that holds the layers' shapes.
const SHAPES: &str = "ressa.masks";

/// Keep masks by layer name, packed.
#[derive(Debug, Default)]
pub struct MaskSet {
    masks: BTreeMap<String, KeepMask>,
}

/// Kept and all weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Weights that survive.
    pub kept: u64,
    /// Weights the masks cover.
    pub total: u64,
}

impl Count {
    /// Fraction removed; 0 where there is nothing.
    pub fn sparsity(self) -> f64 {
        if self.total == 0 { 0.0 } else { 1.0 - self.kept as f64 / self.total as f64 }
    }
}

impl MaskSet {
    /// No masks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a mask, bool `[out, in]`, true where a weight survives.
    ///
    /// # Panics
    /// When the mask is not a matrix.
    pub fn insert(&mut self, layer: impl Into<String>, keep: Tensor) {
        let layer = layer.into();
        let packed = KeepMask::pack(&layer, &keep).expect("a keep mask is a matrix");
        self.masks.insert(layer, packed);
    }

    /// The mask of a layer.
    pub fn get(&self, layer: &str) -> Option<&KeepMask> {
        self.masks.get(layer)
    }

    /// Layers and masks, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KeepMask)> {
        self.masks.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.masks.len()
    }

    /// Whether no layer has a mask.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Takes the other set's masks in; a layer in both keeps the other's.
    pub fn extend(&mut self, other: MaskSet) {
        self.masks.extend(other.masks);
    }

    /// Drops the masks of layers for which `keeps` does not hold.
    pub fn retain(&mut self, mut keeps: impl FnMut(&str) -> bool) {
        self.masks.retain(|name, _| keeps(name));
    }

    /// A second handle on the same masks.
    pub fn shallow_clone(&self) -> Self {
        Self { masks: self.masks.iter().map(|(name, mask)| (name.clone(), mask.shallow_clone())).collect() }
    }

    /// The masks a model carries.
    pub fn of(model: &dyn VisionLanguage) -> Self {
        let weights = model.linears().into_iter().flat_map(|(_, linear)| linear.weights());
        let masks = weights.filter_map(|weight| Some((weight.key().to_owned(), weight.keep()?.shallow_clone())));
        Self { masks: masks.collect() }
    }

    /// Kept and all weights over all layers.
    pub fn count(&self) -> Count {
        self.masks.values().fold(Count::default(), |count, mask| Count {
            kept: count.kept + mask.kept(),
            total: count.total + mask.numel(),
        })
    }

    /// Makes the projection a layer of a model's connector where these masks have one for it, see [`crate::Surgery::join_projection`].
    pub fn join(&self, model: &mut dyn VisionLanguage) {
        if model.connectors().iter().any(|linear| self.masks.contains_key(linear.name())) {
            model.join_projection();
        }
    }

    /// Sets the model's masks: layers without a mask here lose theirs. An error changes nothing of the remaining layers' masks and names
    /// the layers that the model does not have.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        self.join(model);
        let mut unknown: Vec<String> = self.masks.keys().cloned().collect();
        let known = |name: &String| model.linears().iter().any(|(_, linear)| linear.weights().any(|w| w.key() == name));
        unknown.retain(|name| !known(name));
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown));
        }
        for weight in model.linears_mut().into_iter().flat_map(|(_, linear)| linear.weights_mut()) {
            weight.set_packed(self.masks.get(weight.key()).map(KeepMask::shallow_clone))?;
        }
        Ok(())
    }

    /// Writes the masks, eight weights to a byte along each row, lowest bit first; shapes go into the header.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut packed = TensorMap::new();
        let mut shapes = BTreeMap::new();
        for (name, mask) in &self.masks {
            shapes.insert(name, mask.size());
            packed.insert(name.clone(), mask.bits().shallow_clone());
        }
        let shapes = serde_json::to_string(&shapes).map_err(|e| ModelError::file(path, e))?;
        weights::write(path, &packed, (SHAPES, shapes))
    }

    /// Reads what [`MaskSet::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (packed, shapes) = weights::read(path, SHAPES)?;
        let shapes = shapes.ok_or_else(|| ModelError::file(path, "it holds no masks"))?;
        let shapes: BTreeMap<String, [i64; 2]> =
            serde_json::from_str(&shapes).map_err(|e| ModelError::file(path, e))?;
        if shapes.len() != packed.len() {
            return Err(ModelError::file(path, "header and masks do not name the same layers"));
        }
        let mut masks = BTreeMap::new();
        for (name, bytes) in packed {
            let wrong = || ModelError::file(path, format!("mask `{name}` and its shape do not fit together"));
            let size = shapes.get(&name).ok_or_else(wrong)?;
            let mask = KeepMask::from_bits(&name, bytes, *size).map_err(|_| wrong())?;
            masks.insert(name, mask);
        }
        Ok(Self { masks })
    }
}
