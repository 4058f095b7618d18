//! Low-rank adapters of a model's layers, and their file.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::{Adapter, ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that holds scales and masking.
const SETTINGS: &str = "ressa.adapters";

/// Adapters by layer name.
#[derive(Debug, Default)]
pub struct AdapterSet {
    adapters: BTreeMap<String, Adapter>,
}

/// What a file says about an adapter beside its tensors.
#[derive(Serialize, Deserialize)]
struct Settings {
    scale: f64,
    masked: bool,
}

impl AdapterSet {
    /// No adapters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces an adapter.
    pub fn insert(&mut self, layer: impl Into<String>, adapter: Adapter) {
        self.adapters.insert(layer.into(), adapter);
    }

    /// The adapter of a layer.
    pub fn get(&self, layer: &str) -> Option<&Adapter> {
        self.adapters.get(layer)
    }

    /// Layers and adapters, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Adapter)> {
        self.adapters.iter().map(|(name, adapter)| (name.as_str(), adapter))
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.adapters.len()
    }

    /// Whether no layer has an adapter.
    pub fn is_empty(&self) -> bool {
        self.adapters.is_empty()
    }

    /// The adapters a model carries, sharing their tensors.
    pub fn of(model: &dyn VisionLanguage) -> Self {
        let adapters = model
            .linears()
            .into_iter()
            .filter_map(|(id, linear)| linear.adapter().map(|adapter| (id.name.clone(), adapter.shallow_clone())));
        Self { adapters: adapters.collect() }
    }

    /// Sets the model's adapters: layers without an adapter here lose theirs. The model shares the tensors of this set.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        let mut unknown: Vec<String> = self.adapters.keys().cloned().collect();
        unknown.retain(|name| !model.linears().iter().any(|(id, _)| id.name == *name));
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown));
        }
        for (id, linear) in model.linears_mut() {
            linear.set_adapter(self.adapters.get(&id.name).map(Adapter::shallow_clone))?;
        }
        Ok(())
    }

    /// Writes `LAYER.lora_A` and `LAYER.lora_B` as f32; scales and masking go into the header.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = TensorMap::new();
        let mut settings = BTreeMap::new();
        for (name, adapter) in &self.adapters {
            tensors.insert(format!("{name}.lora_A"), adapter.a.f_detach()?.f_to_kind(Kind::Float)?);
            tensors.insert(format!("{name}.lora_B"), adapter.b.f_detach()?.f_to_kind(Kind::Float)?);
            settings.insert(name, Settings { scale: adapter.scale, masked: adapter.masked });
        }
        let settings = serde_json::to_string(&settings).map_err(|e| ModelError::file(path, e))?;
        weights::write(path, &tensors, (SETTINGS, settings))
    }

    /// Reads what [`AdapterSet::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (mut tensors, settings) = weights::read(path, SETTINGS)?;
        let settings = settings.ok_or_else(|| ModelError::file(path, "it holds no adapters"))?;
        let settings: BTreeMap<String, Settings> =
            serde_json::from_str(&settings).map_err(|e| ModelError::file(path, e))?;
        let mut adapters = BTreeMap::new();
        for (name, Settings { scale, masked }) in settings {
            let mut take = |part: &str| {
                let tensor = tensors.remove(&format!("{name}.{part}")).filter(|t| t.dim() == 2);
                tensor.ok_or_else(|| ModelError::file(path, format!("`{name}.{part}` is missing or not a matrix")))
            };
            let (a, b) = (take("lora_A")?, take("lora_B")?);
            adapters.insert(name, Adapter { a, b, scale, masked });
        }
        match tensors.into_keys().next() {
            None => Ok(Self { adapters }),
            Some(name) => Err(ModelError::file(path, format!("`{name}` belongs to no adapter that the header names"))),
        }
    }
}
