//! What the steps before a stage made of the dense model's weights: found again from what their stages published, layer by layer.
//!
//! No step stores a model. Masks, the weights that a pruning method changed, and trained updates are read in the order of the steps, and each weight goes
//! through them on its own.

use std::collections::BTreeMap;

use ressa_experiment::{Pattern, Stage, StageKey, StageNode, Tower, config::RestoreMethod, stage::Inputs};
use ressa_models::{Cuts, KeepMask, MaskSet, QUERY_TOKENS, TowerCut, UpdateSet, VisionLanguage, Weight, WeightSet};
use ressa_prune::join_projection;
use ressa_restore::merged_weight;
use tch::{Kind, Tensor};

use crate::{Executor, PipelineError, adapt::evolved, resident::node_of};

/// What steps made of the dense model's weights.
#[derive(Default)]
pub(crate) struct Changes {
    /// Restorations, in order, each with the prunings before it.
    restored: Vec<Round>,
    /// Weights that steps have changed since the last restoration.
    changed: WeightSet,
    /// Whether anything has been pruned since then.
    is_pruned: bool,
    /// Masks of all that is gone.
    pub masks: MaskSet,
    /// The pattern that each pruned layer follows, in what is left of it.
    pub patterns: BTreeMap<String, Pattern>,
    /// What structured removal has left.
    pub cuts: Cuts,
    /// Stages that were read.
    pub stages: Vec<StageKey>,
}

/// A restoration and what was pruned before it.
struct Round {
    masks: MaskSet,
    changed: WeightSet,
    updates: UpdateSet,
    method: RestoreMethod,
    /// Learned queries that it trained on, i64; `None` where all were left.
    queries: Option<Tensor>,
}

impl Round {
    /// Whether it changes a layer, or another weight by its name.
    fn touches(&self, layer: &str) -> bool {
        self.masks.get(layer).is_some() || self.changed.get(layer).is_some() || self.updates.get(layer).is_some()
    }
}

impl Executor {
    /// What the stages that a stage reads made of the dense model.
    pub(crate) fn changes(&self, inputs: &Inputs) -> Result<Changes, PipelineError> {
        let mut changes = match &inputs.merge {
            Some(merge) => self.restored(merge)?,
            None => Changes::default(),
        };
        inputs.masks.iter().try_for_each(|key| self.pruned(key, &mut changes))?;
        Ok(changes)
    }

    /// A fresh view of the dense model with the weights that earlier steps left, still without their masks, which stand beside it. Where the stage counts
    /// the projection among the connector's layers, it is one.
    pub(crate) fn changed(&mut self, node: &StageNode) -> Result<(Box<dyn VisionLanguage>, Changes), PipelineError> {
        let changes = self.changes(&node.inputs)?;
        let mut model = self.dense(node)?.model.shallow_clone();
        changes.lay_under(model.as_mut())?;
        if matches!(*node.stage, Stage::Prune { projection: true, .. } | Stage::Statistics { projection: true, .. }) {
            join_projection(model.as_mut())?;
        }
        Ok((model, changes))
    }

    /// A fresh view of the dense model with what earlier steps made of its weights: values and masks.
    pub(crate) fn masked(&mut self, node: &StageNode) -> Result<Box<dyn VisionLanguage>, PipelineError> {
        let (mut model, changes) = self.changed(node)?;
        changes.masks.apply(model.as_mut())?;
        Ok(model)
    }

    /// A fresh view of the dense model with the weights that the prunings since the last restoration chose from.
    pub(crate) fn unpruned(
        &mut self,
        node: &StageNode,
        changes: &Changes,
    ) -> Result<Box<dyn VisionLanguage>, PipelineError> {
        let mut model = self.dense(node)?.model.shallow_clone();
        changes.lay_restored_under(model.as_mut())?;
        changes.leave_queries(model.as_mut())?;
        Ok(model)
    }

    /// What everything up to a merge, and with it, made of the dense model.
    fn restored(&self, merge: &StageKey) -> Result<Changes, PipelineError> {
        let node = node_of(&self.store.require(&merge.hex())?)?;
        let (Stage::Merge { method, .. }, Some(adapter)) = (&*node.stage, &node.inputs.adapter) else {
            return Err(PipelineError::Internal("not a merge stage".to_owned()));
        };
        let mut changes = self.changes(&node.inputs)?;
        changes.stages.extend([*adapter, *merge]);
        let updates = self.adapters(adapter)?;
        if let Some((masks, weights)) = evolved(&self.store.require(&adapter.hex())?)? {
            // The updates were trained on these.
            changes.masks.extend(masks);
            changes.changed.extend(weights);
        }
        let masks = changes.masks.shallow_clone();
        if *method == RestoreMethod::Lora {
            // Values stand where its updates are: nothing of those layers is gone any longer.
            changes.masks.retain(|layer| updates.get(layer).is_none());
            changes.patterns.retain(|layer, _| updates.get(layer).is_none());
        }
        let changed = std::mem::take(&mut changes.changed);
        let queries = changes.cuts.queries().map(Tensor::shallow_clone);
        changes.restored.push(Round { masks, changed, updates, method: *method, queries });
        changes.is_pruned = false;
        Ok(changes)
    }

    /// Adds what a step changed of a tower.
    fn pruned(&self, key: &StageKey, changes: &mut Changes) -> Result<(), PipelineError> {
        let entry = self.store.require(&key.hex())?;
        let node = node_of(&entry)?;
        let Some(tower) = node.stage.masks() else {
            return Err(PipelineError::Internal("not a stage with masks".to_owned()));
        };
        // A step before it may have changed weights that this one only chose among.
        for before in &node.inputs.masks {
            let earlier = node_of(&self.store.require(&before.hex())?)?;
            if earlier.stage.masks() == Some(tower) {
                self.pruned(before, changes)?;
            }
        }
        let masks = MaskSet::load(&entry.file(crate::prune::MASKS)?)?;
        changes.changed.extend(crate::prune::changes(&entry, &masks)?);
        if let Stage::Prune { pattern, .. } = *node.stage {
            changes.patterns.extend(masks.iter().map(|(layer, _)| (layer.to_owned(), pattern)));
        }
        changes.masks.extend(masks);
        if matches!(*node.stage, Stage::Structure { .. }) {
            changes.cuts.insert(tower, TowerCut::load(&entry.file(crate::structure::STRUCTURE)?)?);
        }
        changes.is_pruned = true;
        changes.stages.push(*key);
        Ok(())
    }
}

impl Changes {
    /// The pattern of a tower that was pruned, as far as it holds still.
    pub fn pattern(&self, model: &dyn VisionLanguage, tower: Tower) -> Option<Pattern> {
        let mut of_tower = model.linears().into_iter().filter(|(id, _)| id.tower == tower);
        of_tower.find_map(|(id, _)| self.patterns.get(&id.name).copied())
    }

    /// The weight of a layer `[out, in]` given the dense one, in its full size; `None` for a layer that no step changes. Masks alone keep the type: what survives
    /// is bit for bit the weight before, or what the pruning method made of it, in the type it was computed in. A merge computes and answers in f32, to be
    /// rounded once; between two steps a weight is rounded to the dense one's type, as a model holds it.
    ///
    /// # Errors
    /// When shapes do not fit, or an update was trained for another method.
    pub fn weight(&self, layer: &str, dense: &Tensor) -> Result<Option<Tensor>, PipelineError> {
        let restored = self.restored(layer, dense)?;
        let keep = self.masks.get(layer).filter(|_| self.is_pruned);
        let changed = self.changed.get(layer).map(|weight| weight.to_device(dense.device()));
        if keep.is_none() {
            return Ok(changed.or(restored));
        }
        let held = restored.map(|weight| weight.to_kind(dense.kind()));
        let base = changed.or(held).unwrap_or_else(|| dense.shallow_clone());
        merged(layer, base, None, keep, RestoreMethod::None).map(Some)
    }

    /// Whether a step changes a layer, or another weight by its name.
    pub fn touches(&self, layer: &str) -> bool {
        self.restored.iter().any(|round| round.touches(layer))
            || self.masks.get(layer).is_some()
            || self.changed.get(layer).is_some()
    }

    /// Layers, and other weights by their names, that a step changes; some more than once.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        let rounds = self.restored.iter();
        let of_rounds = rounds.flat_map(|Round { masks, changed, updates, .. }| {
            let changed = changed.iter().map(|(name, _)| name);
            masks.iter().map(|(name, _)| name).chain(changed).chain(updates.iter().map(|(name, _)| name))
        });
        let changed = self.changed.iter().map(|(name, _)| name);
        of_rounds.chain(self.masks.iter().map(|(name, _)| name)).chain(changed)
    }

    /// Makes the weights of a model final.
    pub fn bake(&self, model: &mut dyn VisionLanguage) -> Result<(), PipelineError> {
        for weight in model.weights_mut() {
            if let Some(value) = self.weight(weight.key(), weight.base())? {
                let kind = weight.base().kind();
                weight.set_base(value.to_kind(kind))?;
            }
        }
        self.leave_queries(model)
    }

    /// Takes the learned queries that were removed out of a model whose other weights are final: updates of queries are of those that are left.
    fn leave_queries(&self, model: &mut dyn VisionLanguage) -> Result<(), PipelineError> {
        match self.cuts.queries() {
            Some(kept) => Ok(model.keep_queries(kept)?),
            None => Ok(()),
        }
    }

    /// Whether a step has given a layer other weights than those that pruning chose from, since the last restoration.
    pub fn is_changed(&self, layer: &str) -> bool {
        self.changed.get(layer).is_some()
    }

    /// Gives a model the values that its weights have under their masks.
    fn lay_under(&self, model: &mut dyn VisionLanguage) -> Result<(), PipelineError> {
        self.lay_restored_under(model)?;
        self.changed.apply(model)?;
        self.leave_queries(model)
    }

    /// What of a layer was gone when the last restoration began and is still, bool `[out, in]`; `None` where nothing was.
    pub fn gone(&self, layer: &str) -> Option<Tensor> {
        let round = self.restored.last()?;
        let revived = round.method == RestoreMethod::Lora && round.updates.get(layer).is_some();
        round.masks.get(layer).filter(|_| !revived).map(KeepMask::remove)
    }

    /// Gives a model the values that restorations gave its weights.
    fn lay_restored_under(&self, model: &mut dyn VisionLanguage) -> Result<(), PipelineError> {
        if !self.restored.is_empty() {
            for weight in model.weights_mut() {
                if let Some(value) = self.restored(weight.key(), weight.base())? {
                    let kind = weight.base().kind();
                    weight.set_base(value.to_kind(kind))?;
                }
            }
        }
        self.masks.join(model);
        Ok(())
    }

    /// What restorations made of a weight.
    fn restored(&self, layer: &str, dense: &Tensor) -> Result<Option<Tensor>, PipelineError> {
        let mut value: Option<Tensor> = None;
        for round in self.restored.iter().filter(|round| round.touches(layer)) {
            let Round { masks, changed, updates, method, queries } = round;
            let (keep, update) = (masks.get(layer), updates.get(layer));
            let changed = changed.get(layer).map(|weight| weight.to_device(dense.device()));
            let held = value.map(|weight| weight.to_kind(dense.kind()));
            let base = changed.or(held).unwrap_or_else(|| dense.shallow_clone());
            let base = if update.is_some() { base.to_kind(Kind::Float) } else { base };
            let update = update.map(|update| update.shallow_clone());
            value = Some(match queries.as_ref().filter(|_| layer == QUERY_TOKENS) {
                // Those that were gone stay as they were; nobody reads them.
                Some(left) => {
                    let left = left.to_device(base.device());
                    let trained = merged(layer, base.index_select(1, &left), update, keep, *method)?;
                    base.index_copy(1, &left, &trained.to_kind(base.kind()))
                }
                None => merged(layer, base, update, keep, *method)?,
            });
        }
        Ok(value)
    }
}

fn merged(
    layer: &str,
    base: Tensor,
    update: Option<Box<dyn ressa_models::Update>>,
    keep: Option<&KeepMask>,
    method: RestoreMethod,
) -> Result<Tensor, PipelineError> {
    let mut weight = Weight::new(format!("{layer}.weight"), base);
    weight.set_update(update)?;
    weight.set_packed(keep.map(KeepMask::shallow_clone))?;
    Ok(merged_weight(&weight, method)?)
}
