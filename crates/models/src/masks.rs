//! Keep masks of a model's layers, and their file: one bit per weight.

use std::{collections::BTreeMap, path::Path};

use ressa_runtime::count_nonzero;
use tch::{Kind, Tensor};

use crate::{ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that holds the layers' shapes.
const SHAPES: &str = "ressa.masks";

/// Keep masks by layer name.
#[derive(Debug, Default)]
pub struct MaskSet {
    masks: BTreeMap<String, Tensor>,
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
    pub fn insert(&mut self, layer: impl Into<String>, keep: Tensor) {
        self.masks.insert(layer.into(), keep.to_kind(Kind::Bool));
    }

    /// The mask of a layer.
    pub fn get(&self, layer: &str) -> Option<&Tensor> {
        self.masks.get(layer)
    }

    /// Layers and masks, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
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

    /// A second handle on the same masks.
    pub fn shallow_clone(&self) -> Self {
        Self { masks: self.masks.iter().map(|(name, mask)| (name.clone(), mask.shallow_clone())).collect() }
    }

    /// The masks a model carries.
    pub fn of(model: &dyn VisionLanguage) -> Self {
        let masks = model
            .linears()
            .into_iter()
            .filter_map(|(id, linear)| linear.mask().map(|mask| (id.name.clone(), mask.shallow_clone())));
        Self { masks: masks.collect() }
    }

    /// Kept and all weights over all layers.
    pub fn count(&self) -> Count {
        self.masks.values().fold(Count::default(), |count, mask| Count {
            kept: count.kept + count_nonzero(mask),
            total: count.total + mask.numel() as u64,
        })
    }

    /// Sets the model's masks: layers without a mask here lose theirs. An error changes nothing of the remaining layers' masks and names
    /// the layers that the model does not have.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        let mut unknown: Vec<String> = self.masks.keys().cloned().collect();
        unknown.retain(|name| !model.linears().iter().any(|(id, _)| id.name == *name));
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown));
        }
        for (id, linear) in model.linears_mut() {
            linear.set_mask(self.masks.get(&id.name).map(Tensor::shallow_clone))?;
        }
        Ok(())
    }

    /// Writes the masks, eight weights to a byte along each row, lowest bit first; shapes go into the header.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut packed = TensorMap::new();
        let mut shapes = BTreeMap::new();
        for (name, mask) in &self.masks {
            let &[rows, columns] = mask.size().as_slice() else {
                return Err(ModelError::file(path, format!("mask `{name}` is not a matrix")));
            };
            shapes.insert(name, [rows, columns]);
            packed.insert(name.clone(), pack(mask, rows, columns)?);
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
            let &[rows, columns] = shapes.get(&name).ok_or_else(wrong)?;
            let fits =
                rows > 0 && columns > 0 && bytes.kind() == Kind::Uint8 && bytes.size() == [rows, (columns + 7) / 8];
            if !fits {
                return Err(wrong());
            }
            let mask = unpack(&bytes, rows, columns)?;
            masks.insert(name, mask);
        }
        Ok(Self { masks })
    }
}

/// Eight weights to a byte along each row. libtorch's sums over eight members are slower than this by far.
fn pack(mask: &Tensor, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
    let mask = mask.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Bool)?.f_contiguous()?;
    let mut flags = vec![false; mask.numel()];
    mask.f_view([-1])?.f_copy_data(&mut flags, mask.numel())?;
    let byte = |flags: &[bool]| flags.iter().enumerate().fold(0u8, |byte, (bit, &kept)| byte | u8::from(kept) << bit);
    let bytes: Vec<u8> = flags.chunks(columns.max(1) as usize).flat_map(|row| row.chunks(8).map(byte)).collect();
    Ok(Tensor::f_from_slice(&bytes)?.f_view([rows, -1])?)
}

fn unpack(bytes: &Tensor, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
    let mut packed = vec![0u8; bytes.numel()];
    bytes.f_contiguous()?.f_view([-1])?.f_copy_data(&mut packed, bytes.numel())?;
    let mut flags = Vec::with_capacity((rows * columns) as usize);
    for row in packed.chunks(packed.len() / rows as usize) {
        let kept = row.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        flags.extend(kept.take(columns as usize));
    }
    Ok(Tensor::f_from_slice(&flags)?.f_view([rows, columns])?)
}
