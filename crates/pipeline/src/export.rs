//! The weights of a run, layer by layer, for those who write them: no model is built, so one layer at a time is in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ressa_checkpoint::Smaller;
use ressa_contents::Contents;
use ressa_experiment::{Pattern, Readings, record::Certificate, stage::Inputs};
use ressa_models::KeepMask;
use tch::Tensor;

use crate::{Executor, PipelineError, changes::Changes};

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
        let mut certificate = Certificate::default();
        for stage in &changes.stages {
            self.store.require(&stage.hex())?.check()?;
        }
        // What was pruned after a merge is counted by its own stages.
        for stage in inputs.merge.iter().chain(&inputs.masks) {
            let counted: Certificate = self.store.require(&stage.hex())?.result()?;
            certificate.tensors.extend(counted.tensors);
        }
        // A removal claims no pattern: those that layers had before it, and still follow in what is left, hold on.
        for (name, tensor) in certificate.tensors.iter_mut().filter(|(_, tensor)| tensor.pattern.is_none()) {
            tensor.pattern = changes.patterns.get(name).copied().filter(|pattern| *pattern != Pattern::Unstructured);
        }
        Ok(RunWeights { source, certificate, changes })
    }
}

impl RunWeights {
    /// What is left of the dense folder's tensors; `None` where nothing was removed as a whole.
    pub fn smaller(&self) -> Option<Smaller> {
        self.changes.cuts.smaller()
    }

    /// Whether the run changes a weight.
    pub fn is_changed(&self, weight: &str) -> bool {
        self.changes.touches(weight)
    }

    /// Weights that the run changes: module paths of linears and norms, whole names of biases.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.changes.layers().collect::<BTreeSet<_>>().into_iter()
    }

    /// Patterns that hold by tensor name (`LAYER.weight`) in what is left of the tensors: those of the certificate, where values have not come back since.
    pub fn patterns(&self) -> BTreeMap<String, Pattern> {
        let sealed = self.certificate.tensors.iter().filter(|(name, _)| self.mask(name).is_some());
        sealed.filter_map(|(name, found)| Some((format!("{name}.weight"), found.pattern?))).collect()
    }

    /// The run's weight of a layer `[out, in]` given the dense one; `None` for a layer that it does not change. In f32 where an update was merged last, to be
    /// rounded once; else in the type of the dense one, or in that in which the pruning method computed it.
    ///
    /// # Errors
    /// When shapes do not fit, or the adapter was trained for another method.
    pub fn weight(&self, layer: &str, dense: &Tensor) -> Result<Option<Tensor>, PipelineError> {
        self.changes.weight(layer, dense)
    }

    /// The keep mask of a layer `[out, in]`; `None` where nothing is gone, or where `lora` gave it values again.
    pub fn mask(&self, layer: &str) -> Option<&KeepMask> {
        self.changes.masks.get(layer)
    }
}
