//! What the stages of a run make of the dense model's weights, layer by layer: no model is built, so one layer at a time is in memory.

use std::{collections::BTreeMap, path::PathBuf};

use ressa_experiment::{Pattern, Stage, config::RestoreMethod, record::Certificate, stage::Inputs};
use ressa_models::{AdapterSet, Linear, MaskSet, WeightSet};
use ressa_restore::merged_weight;
use tch::Tensor;

use crate::{Executor, PipelineError, resident::node_of};

/// The weights of a run as changes of a dense folder.
pub struct RunWeights {
    /// The dense model's folder.
    pub source: PathBuf,
    /// What was counted when the run was merged, or when its towers were pruned.
    pub certificate: Certificate,
    masks: MaskSet,
    /// Weights that pruning changed.
    changed: WeightSet,
    adapters: AdapterSet,
    method: RestoreMethod,
}

impl Executor {
    /// Reads what the stages of a run made. Their outputs are proved against their digests.
    ///
    /// # Errors
    /// When a stage is not in the store, or is damaged.
    pub fn run_weights(&mut self, inputs: &Inputs) -> Result<RunWeights, PipelineError> {
        let missing = || PipelineError::Internal("the run names no dense model".to_owned());
        let source = self.model_folder(inputs.dense.as_ref().ok_or_else(missing)?)?;
        for key in inputs.iter() {
            self.store.require(&key.0)?.check()?;
        }
        let (masks, changed) = self.pruned(&inputs.masks)?;
        let Some(merge) = &inputs.merge else {
            let mut certificate = Certificate::default();
            for key in &inputs.masks {
                let pruned: Certificate = self.store.require(&key.0)?.result()?;
                certificate.tensors.extend(pruned.tensors);
            }
            let (adapters, method) = (AdapterSet::new(), RestoreMethod::None);
            return Ok(RunWeights { source, certificate, masks, changed, adapters, method });
        };
        let entry = self.store.require(&merge.0)?;
        let node = node_of(&entry)?;
        let (Stage::Merge { method, .. }, Some(adapter)) = (&*node.stage, &node.inputs.adapter) else {
            return Err(PipelineError::Internal("not a merge stage".to_owned()));
        };
        self.store.require(&adapter.0)?.check()?;
        let adapters = self.adapters(adapter)?;
        Ok(RunWeights { source, certificate: entry.result()?, masks, changed, adapters, method: *method })
    }
}

impl RunWeights {
    /// Layers that the run changes, by module path.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        let adapted = self.adapters.iter().map(|(name, _)| name).filter(|name| self.masks.get(name).is_none());
        self.masks.iter().map(|(name, _)| name).chain(adapted)
    }

    /// Whether pruned positions stay zero: true for everything but `lora`.
    pub fn is_sealed(&self) -> bool {
        self.method != RestoreMethod::Lora
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
        let (mask, adapter) = (self.masks.get(layer), self.adapters.get(layer));
        if mask.is_none() && adapter.is_none() {
            return Ok(None);
        }
        let changed = self.changed.get(layer).map(|weight| weight.to_device(dense.device()));
        let dense = changed.as_ref().unwrap_or(dense);
        let dense = if adapter.is_some() { dense.to_kind(tch::Kind::Float) } else { dense.shallow_clone() };
        let mut linear = Linear::new(layer, dense, None);
        linear.set_mask(mask.map(Tensor::shallow_clone))?;
        linear.set_adapter(adapter.map(|adapter| adapter.shallow_clone()))?;
        Ok(Some(merged_weight(&linear, self.method)?))
    }

    /// The keep mask of a layer, bool `[out, in]`.
    pub fn mask(&self, layer: &str) -> Option<&Tensor> {
        self.masks.get(layer)
    }
}
