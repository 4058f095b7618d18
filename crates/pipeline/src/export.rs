//! What the stages of a run make of the dense model's weights, layer by layer: no model is built, so one layer at a time is in memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ressa_contents::Contents;
use ressa_experiment::{Pattern, Readings, Stage, StageKey, config::RestoreMethod, record::Certificate, stage::Inputs};
use ressa_models::{KeepMask, MaskSet, UpdateSet, Weight, WeightSet};
use ressa_restore::merged_weight;
use tch::Tensor;

use crate::{Executor, PipelineError, resident::node_of};

/// The weights of a run as changes of a dense folder.
pub struct RunWeights {
    /// The dense model's folder.
    pub source: PathBuf,
    /// What was counted when the run was merged, or when its towers were pruned.
    pub certificate: Certificate,
    changes: Changes,
}

impl Executor {
    /// Reads what the stages of a run made. Their outputs are proved against their digests. `readings` say where a published folder is,
    /// relative to `root`; it must be what the run was made from.
    ///
    /// # Errors
    /// When a stage is not in the store, or is damaged.
    pub fn run_weights(
        &mut self,
        inputs: &Inputs,
        readings: &Readings,
        root: &Path,
    ) -> Result<RunWeights, PipelineError> {
        let missing = || PipelineError::Internal("the run names no dense model".to_owned());
        let (source, _) = self.model_folder(inputs.dense.as_ref().ok_or_else(missing)?, readings)?;
        let source = root.join(source);
        for key in inputs.iter() {
            self.store.require(&key.hex())?.check()?;
        }
        Contents::new(&self.store, root).check_model(readings)?;
        let changes = self.changes(inputs)?;
        if let Some(adapter) = &changes.adapter {
            self.store.require(&adapter.hex())?.check()?;
        }
        let mut certificate = Certificate::default();
        match &inputs.merge {
            Some(merge) => certificate = self.store.require(&merge.hex())?.result()?,
            None => {
                for key in &inputs.masks {
                    let pruned: Certificate = self.store.require(&key.hex())?.result()?;
                    certificate.tensors.extend(pruned.tensors);
                }
            }
        }
        Ok(RunWeights { source, certificate, changes })
    }

    /// What the stages of a run change of the dense model's weights.
    pub(crate) fn changes(&self, inputs: &Inputs) -> Result<Changes, PipelineError> {
        let Some(merge) = &inputs.merge else {
            let (masks, changed) = self.pruned(&inputs.masks)?;
            let (updates, method) = (UpdateSet::new(), RestoreMethod::None);
            return Ok(Changes { masks, changed, updates, method, adapter: None });
        };
        let node = node_of(&self.store.require(&merge.hex())?)?;
        let (Stage::Merge { method, .. }, Some(adapter)) = (&*node.stage, &node.inputs.adapter) else {
            return Err(PipelineError::Internal("not a merge stage".to_owned()));
        };
        let (masks, changed) = self.pruned(&node.inputs.masks)?;
        let (updates, adapter) = (self.adapters(adapter)?, Some(*adapter));
        Ok(Changes { masks, changed, updates, method: *method, adapter })
    }
}

/// What the stages of a run change of the dense model's weights.
pub(crate) struct Changes {
    masks: MaskSet,
    /// Weights that pruning changed.
    changed: WeightSet,
    updates: UpdateSet,
    method: RestoreMethod,
    /// The training that the updates are from.
    adapter: Option<StageKey>,
}

impl Changes {
    /// As [`RunWeights::weight`].
    pub fn weight(&self, layer: &str, dense: &Tensor) -> Result<Option<Tensor>, PipelineError> {
        let (mask, update) = (self.masks.get(layer), self.updates.get(layer));
        if mask.is_none() && update.is_none() {
            return Ok(None);
        }
        let changed = self.changed.get(layer).map(|weight| weight.to_device(dense.device()));
        let dense = changed.as_ref().unwrap_or(dense);
        let dense = if update.is_some() { dense.to_kind(tch::Kind::Float) } else { dense.shallow_clone() };
        let mut weight = Weight::new(format!("{layer}.weight"), dense);
        weight.set_update(update.map(|update| update.shallow_clone()))?;
        weight.set_packed(mask.map(KeepMask::shallow_clone))?;
        Ok(Some(merged_weight(&weight, self.method)?))
    }
}

impl RunWeights {
    /// Whether the run changes a weight.
    pub fn is_changed(&self, weight: &str) -> bool {
        self.changes.masks.get(weight).is_some() || self.changes.updates.get(weight).is_some()
    }

    /// Weights that the run changes: module paths of linears and norms, whole names of biases.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        let Changes { masks, updates, .. } = &self.changes;
        let updated = updates.iter().map(|(name, _)| name).filter(|name| masks.get(name).is_none());
        masks.iter().map(|(name, _)| name).chain(updated)
    }

    /// Whether pruned positions stay zero: true for everything but `lora`.
    pub fn is_sealed(&self) -> bool {
        self.changes.method != RestoreMethod::Lora
    }

    /// Patterns that hold by tensor name (`LAYER.weight`): those of the certificate, unless the method gives them up.
    pub fn patterns(&self) -> BTreeMap<String, Pattern> {
        let claimed = self.certificate.tensors.iter().filter(|_| self.is_sealed());
        claimed.filter_map(|(name, found)| Some((format!("{name}.weight"), found.pattern?))).collect()
    }

    /// The run's weight of a layer `[out, in]` given the dense one; `None` for a layer that it does not change. Masks alone keep the type:
    /// what survives is bit for bit the dense weight, or what the pruning method made of it, in the type it was computed in. A merge computes in f32 and answers in f32, to be rounded once.
    ///
    /// # Errors
    /// When shapes do not fit, or the adapter was trained for another method.
    pub fn weight(&self, layer: &str, dense: &Tensor) -> Result<Option<Tensor>, PipelineError> {
        self.changes.weight(layer, dense)
    }

    /// The keep mask of a layer `[out, in]`.
    pub fn mask(&self, layer: &str) -> Option<&KeepMask> {
        self.changes.masks.get(layer)
    }
}
