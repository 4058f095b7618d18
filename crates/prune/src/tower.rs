//! Pruning one tower: statistics, importance, selection, certificate.

use std::collections::BTreeMap;

use ressa_experiment::{
    Pattern, Tower,
    config::{Group, Metric, Propagate},
    record::Certificate,
};
use ressa_models::{LayerId, MaskSet, Sample, VisionLanguage};
use tch::{Kind, Tensor, no_grad};

use crate::{
    allocation::{AllocationError, Counts, keep_all_but},
    calibrate::{BlockStatistics, Calibration},
    certificate::certify,
    error::PruneError,
    metric::{PruningMetric, metric},
    rows::is_finite,
    select::{Selection, keep_across},
};

/// What is asked of one tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneRequest {
    /// The tower.
    pub tower: Tower,
    /// What ranks the weights.
    pub metric: Metric,
    /// Which positions go together.
    pub pattern: Pattern,
    /// Fraction removed; `None` when the pattern says it.
    pub sparsity: Option<f64>,
    /// Comparison group; `None` means the metric's published one. Has no meaning with N:M.
    pub group: Option<Group>,
    /// What a block sees while its statistics are collected. A tower-wide group ranks all blocks at once, so blocks of
    /// that tower then see dense predecessors whatever is asked.
    pub propagate: Propagate,
    /// Replicate seed, for metrics that draw.
    pub seed: u64,
}

impl PruneRequest {
    /// The selection rule, checked.
    pub fn selection(&self) -> Result<Selection, PruneError> {
        match self.pattern {
            Pattern::NOfM { keep, of } => Ok(Selection::NOfM { keep: i64::from(keep), of: i64::from(of) }),
            Pattern::Unstructured => match self.sparsity {
                Some(sparsity) if (0.0..1.0).contains(&sparsity) => {
                    let group = self.group.unwrap_or(self.metric.published_group());
                    Ok(Selection::Unstructured { sparsity, group })
                }
                sparsity => Err(PruneError::Sparsity { tower: self.tower, sparsity }),
            },
        }
    }
}

/// A pruned tower.
#[derive(Debug)]
pub struct TowerPruning {
    /// Keep masks of the tower's layers.
    pub masks: MaskSet,
    /// What a recount of the masked weights found.
    pub certificate: Certificate,
}

/// Prunes one tower of `model`, which carries the new masks afterwards. `progress` gets the share done.
///
/// Masks of other towers are left as they are and shape the activations (towers run with the masks they have); masks that the tower itself
/// carried are dropped first. `samples` may be empty for metrics that need no calibration.
pub fn prune_tower(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    prune(model, request, None, samples, progress)
}

/// As [`prune_tower`], with a number of weights for every layer in place of one sparsity for all: `counts` by module path, from
/// [`crate::allocation::allocate`]. Unstructured only; a tower-wide comparison group compares within matrices here.
pub fn prune_tower_divided(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    counts: &Counts,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    prune(model, request, Some(counts), samples, progress)
}

fn prune(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    counts: Option<&Counts>,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    let selection = request.selection()?;
    let metric = metric(request.metric, request.seed).ok_or(PruneError::NoMetric)?;
    check_layers(model, request.tower, selection)?;
    if !metric.needs().is_empty() && samples.is_empty() {
        return Err(PruneError::NoSamples { metric: request.metric });
    }
    no_grad(|| {
        for (_, linear) in model.linears_mut().into_iter().filter(|(id, _)| id.tower == request.tower) {
            linear.set_mask(None)?;
        }
        let masks = match selection {
            Selection::Unstructured { sparsity, group: Group::Tower } if counts.is_none() => {
                prune_at_once(model, request, metric.as_ref(), sparsity, samples, progress)?
            }
            _ => prune_block_by_block(model, request, metric.as_ref(), selection, counts, samples, progress)?,
        };
        let certificate = certify(model, request, counts, &masks)?;
        Ok(TowerPruning { masks, certificate })
    })
}

fn prune_block_by_block(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    metric: &dyn PruningMetric,
    selection: Selection,
    counts: Option<&Counts>,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<MaskSet, PruneError> {
    let mut calibration = (!metric.needs().is_empty())
        .then(|| Calibration::enter(model, request.tower, request.propagate, metric.needs(), samples));
    let mut masks = MaskSet::new();
    let blocks = model.blocks(request.tower);
    for block in 0..blocks {
        let statistics = match &mut calibration {
            Some(calibration) => calibration.observe(model, block)?,
            None => BlockStatistics::new(),
        };
        let importances = block_importances(model, request.tower, block, metric, &statistics)?;
        for (id, linear) in model.linears_mut() {
            if let Some(importance) = importances.get(&id.name) {
                let keep = match counts {
                    Some(counts) => keep_all_but(importance, removed(counts, selection, &id.name)?, selection),
                    None => selection.keep(importance),
                };
                masks.insert(id.name.clone(), keep.shallow_clone());
                linear.set_mask(Some(keep))?;
            }
        }
        if let Some(calibration) = &mut calibration {
            calibration.advance(model, block);
        }
        progress((block + 1) as f64 / blocks as f64);
    }
    Ok(masks)
}

/// Weights that a layer loses where the budget is divided.
pub(crate) fn removed(counts: &Counts, selection: Selection, layer: &str) -> Result<i64, PruneError> {
    if matches!(selection, Selection::NOfM { .. }) {
        return Err(AllocationError::Pattern { pattern: selection.pattern() }.into());
    }
    let count = counts.get(layer).ok_or_else(|| AllocationError::NotDivided { layer: layer.to_owned() })?;
    Ok(*count as i64)
}

/// All blocks are ranked before any is masked.
fn prune_at_once(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    metric: &dyn PruningMetric,
    sparsity: f64,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<MaskSet, PruneError> {
    let mut calibration = (!metric.needs().is_empty())
        .then(|| Calibration::enter(model, request.tower, Propagate::Dense, metric.needs(), samples));
    let (mut names, mut importances) = (Vec::new(), Vec::new());
    let blocks = model.blocks(request.tower);
    for block in 0..blocks {
        let statistics = match &mut calibration {
            Some(calibration) => calibration.observe(model, block)?,
            None => BlockStatistics::new(),
        };
        let mut of_block = block_importances(model, request.tower, block, metric, &statistics)?;
        for (id, _) in model.linears() {
            if let Some(importance) = of_block.remove(&id.name) {
                names.push(id.name.clone());
                importances.push(importance);
            }
        }
        progress((block + 1) as f64 / blocks as f64);
    }
    let mut masks = MaskSet::new();
    for (name, keep) in names.into_iter().zip(keep_across(&importances, sparsity)) {
        masks.insert(name, keep);
    }
    for (id, linear) in model.linears_mut() {
        if let Some(keep) = masks.get(&id.name) {
            linear.set_mask(Some(keep.shallow_clone()))?;
        }
    }
    Ok(masks)
}

fn block_importances(
    model: &dyn VisionLanguage,
    tower: Tower,
    block: usize,
    metric: &dyn PruningMetric,
    statistics: &BlockStatistics,
) -> Result<BTreeMap<String, Tensor>, PruneError> {
    let in_block = |id: &LayerId| id.tower == tower && id.block == block;
    let mut importances = BTreeMap::new();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| in_block(id)) {
        let importance = metric.importance(&id.name, linear.weight(), statistics.get(&id.name));
        if !is_finite(&importance) {
            return Err(PruneError::NotFiniteWeight { layer: id.name.clone() });
        }
        importances.insert(id.name.clone(), importance.to_kind(Kind::Float));
    }
    Ok(importances)
}

fn check_layers(model: &dyn VisionLanguage, tower: Tower, selection: Selection) -> Result<(), PruneError> {
    let mut found = false;
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
        found = true;
        let width = linear.shape().1;
        if let Selection::NOfM { of, .. } = selection
            && width % of != 0
        {
            return Err(PruneError::Width { layer: id.name.clone(), width, of });
        }
    }
    if found { Ok(()) } else { Err(PruneError::NoLayers { tower }) }
}
