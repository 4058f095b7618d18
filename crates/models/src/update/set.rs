//! Updates of a model's weights, and their file.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;
use tch::Kind;

use super::{KINDS, Lora, SparseLora, Update, lora::LowRank};
use crate::{ModelError, TensorMap, VisionLanguage, weights};

/// The header entry that holds the settings.
const SETTINGS: &str = "ressa.adapters";

/// Updates by the names of their weights ([`crate::Weight::key`]).
#[derive(Debug, Default)]
pub struct UpdateSet {
    updates: BTreeMap<String, Box<dyn Update>>,
}

impl UpdateSet {
    /// No updates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces an update.
    pub fn insert(&mut self, weight: impl Into<String>, update: Box<dyn Update>) {
        self.updates.insert(weight.into(), update);
    }

    /// The update of a weight.
    pub fn get(&self, weight: &str) -> Option<&dyn Update> {
        self.updates.get(weight).map(AsRef::as_ref)
    }

    /// Weights and updates, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Update)> {
        self.updates.iter().map(|(name, update)| (name.as_str(), update.as_ref()))
    }

    /// Number of updated weights.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Whether no weight is updated.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// The same values without their autograd graph.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { updates: self.updates.iter().map(|(name, update)| (name.clone(), update.detached())).collect() }
    }

    /// Sets the model's updates: weights without an update here lose theirs. The model shares the tensors of this set where they are on its
    /// device, and gets copies there where they are not.
    ///
    /// # Errors
    /// A weight that the model does not have, before anything is changed; an update that does not fit its weight.
    pub fn apply(&self, model: &mut dyn VisionLanguage) -> Result<(), ModelError> {
        let mut unknown: Vec<String> = self.updates.keys().cloned().collect();
        for weight in model.weights() {
            unknown.retain(|name| name != weight.key());
        }
        if !unknown.is_empty() {
            return Err(ModelError::UnknownLayers(unknown));
        }
        for weight in model.weights_mut() {
            let update = self.updates.get(weight.key()).map(|update| update.shallow_clone());
            weight.set_update(update)?;
        }
        Ok(())
    }

    /// Writes every parameter as f32 under `WEIGHT.PARAMETER`; settings go into the header.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = TensorMap::new();
        let mut settings = BTreeMap::new();
        for (name, update) in &self.updates {
            for (part, tensor) in update.parameters() {
                tensors.insert(format!("{name}.{part}"), tensor.f_detach()?.f_to_kind(Kind::Float)?);
            }
            let mut own = update.settings();
            if let (Some(own), false) = (own.as_object_mut(), is_low_rank(update.kind())) {
                own.insert("update".to_owned(), Value::from(update.kind()));
            }
            settings.insert(name, own);
        }
        let settings = serde_json::to_string(&settings).map_err(|e| ModelError::file(path, e))?;
        weights::write(path, &tensors, (SETTINGS, settings))
    }

    /// Reads what [`UpdateSet::save`] wrote, onto the CPU.
    ///
    /// # Errors
    /// A file of something else, or one that is incomplete.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (mut tensors, settings) = weights::read(path, SETTINGS)?;
        let settings = settings.ok_or_else(|| ModelError::file(path, "it holds no adapters"))?;
        let settings: BTreeMap<String, Value> =
            serde_json::from_str(&settings).map_err(|e| ModelError::file(path, e))?;
        let mut updates = BTreeMap::new();
        for (name, settings) in settings {
            let kind = kind_of(&settings);
            let (_, read) = KINDS.iter().find(|(known, _)| *known == kind).ok_or_else(|| {
                ModelError::file(path, format!("`{name}` has an update of the unknown kind `{kind}`"))
            })?;
            let mut part = |part: &'static str| {
                tensors.remove(&format!("{name}.{part}")).ok_or_else(|| format!("`{part}` is missing"))
            };
            let update = read(&settings, &mut part)
                .map_err(|reason| ModelError::file(path, format!("update of `{name}`: {reason}")))?;
            updates.insert(name, update);
        }
        match tensors.into_keys().next() {
            None => Ok(Self { updates }),
            Some(name) => Err(ModelError::file(path, format!("`{name}` belongs to no adapter that the header names"))),
        }
    }
}

/// The two kinds that files of the first version hold tell themselves apart by `masked`.
fn is_low_rank(kind: &str) -> bool {
    [Lora::KIND, SparseLora::KIND].contains(&kind)
}

fn kind_of(settings: &Value) -> String {
    match settings.get("update").and_then(Value::as_str) {
        Some(kind) => kind.to_owned(),
        None if settings.get("masked").and_then(Value::as_bool) == Some(true) => SparseLora::KIND.to_owned(),
        None => Lora::KIND.to_owned(),
    }
}
