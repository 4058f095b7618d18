//! Pruning one tower: statistics, importance, selection, certificate.

use std::{collections::BTreeMap, rc::Rc};

use ressa_experiment::{
    Pattern, Tower,
    config::{BlockThreshold, Group, MethodConfig, Metric, Propagate, Threshold, TokenConfig},
    record::Certificate,
};
use ressa_models::{LayerId, MaskSet, Sample, VisionLanguage, WeightSet};
use ressa_runtime::is_finite;
use tch::{Kind, Tensor, no_grad};

use crate::{
    allocation::{AllocationError, Counts},
    calibrate::{BlockStatistics, Calibration},
    certificate::certify,
    error::PruneError,
    method,
    metric::PruningMetric,
    select::{Rounding, Selection, keep_across},
    solver::{LayerProblem, LayerSolution, LayerSolver},
    statistics::Needs,
};

/// What is asked of one tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneRequest {
    /// The tower.
    pub tower: Tower,
    /// What decides which weights go.
    pub metric: Metric,
    /// Settings of the method.
    pub method: MethodConfig,
    /// Which positions go together.
    pub pattern: Pattern,
    /// Fraction removed; `None` when the pattern says it.
    pub sparsity: Option<f64>,
    /// Comparison group; `None` means the metric's published one. Has no meaning with N:M.
    pub group: Option<Group>,
    /// What a block sees while its statistics are collected. A tower-wide group ranks all blocks at once, so blocks of
    /// that tower then see dense predecessors whatever is asked.
    pub propagate: Propagate,
    /// What each kind of token counts in the statistics.
    pub tokens: TokenConfig,
    /// Replicate seed, for metrics that draw.
    pub seed: u64,
}

impl PruneRequest {
    /// The selection rule, checked.
    ///
    /// # Errors
    /// A sparsity that is no fraction below 1; a method that cannot compare a tower.
    pub fn selection(&self) -> Result<Selection, PruneError> {
        match self.pattern {
            Pattern::NOfM { keep, of } => Ok(Selection::NOfM { keep: i64::from(keep), of: i64::from(of) }),
            Pattern::Unstructured => match self.sparsity {
                Some(sparsity) if (0.0..1.0).contains(&sparsity) => {
                    let group = self.group.unwrap_or(self.metric.published_group());
                    if group == Group::Tower && !self.metric.ranks() {
                        return Err(PruneError::TowerGroup { metric: self.metric });
                    }
                    Ok(Selection::Unstructured { sparsity, group })
                }
                sparsity => Err(PruneError::Sparsity { tower: self.tower, sparsity }),
            },
        }
    }

    /// What is asked of one layer `[rows, columns]`; `counts` are those of a divided budget.
    ///
    /// # Errors
    /// As [`PruneRequest::selection`]; a division of an N:M pattern, or one that leaves the layer out.
    pub fn of_layer(
        &self,
        layer: &str,
        (rows, columns): (i64, i64),
        counts: Option<&Counts>,
    ) -> Result<Selection, PruneError> {
        let selection = self.selection()?;
        if let Some(counts) = counts {
            let Selection::Unstructured { group, .. } = selection else {
                return Err(AllocationError::Pattern { pattern: selection.pattern() }.into());
            };
            let count = counts.get(layer).ok_or_else(|| AllocationError::NotDivided { layer: layer.to_owned() })?;
            return Ok(Selection::Total { count: *count as i64, group });
        }
        let rounding = method::rounding(&self.method);
        Ok(match selection {
            Selection::Unstructured { sparsity, group } if rounding != Rounding::Decimal && group != Group::Tower => {
                let members = if group == Group::Row { columns } else { rows * columns };
                Selection::Exact { count: rounding.count(members, sparsity), group }
            }
            selection => selection,
        })
    }

    /// Whether numbers of weights are met, not only approached by a threshold.
    pub fn is_exact(&self) -> bool {
        self.pattern != Pattern::Unstructured
            || match self.metric {
                Metric::SparseGpt => self.method.sparsegpt.threshold == BlockThreshold::Exact,
                metric => !metric.ranks() || self.method.threshold == Threshold::Exact,
            }
    }
}

/// A pruned tower.
#[derive(Debug)]
pub struct TowerPruning {
    /// Keep masks of the tower's layers.
    pub masks: MaskSet,
    /// Weights that the method changed, whole, zero where they are pruned; empty for methods that only choose.
    pub weights: WeightSet,
    /// What a recount of the masked weights found.
    pub certificate: Certificate,
}

/// Gives the statistics of a block, by its number.
pub type Stored = dyn Fn(usize) -> Result<Rc<BlockStatistics>, PruneError>;

/// What a tower is pruned with.
#[derive(Clone, Copy, Default)]
pub struct TowerInputs<'a> {
    /// Calibration samples; may be empty for methods that need none, and where statistics are stored.
    pub samples: &'a [Sample],
    /// A number of weights for every layer in place of one sparsity for all, by module path, from [`crate::allocation::allocate`]. Unstructured only; a
    /// tower-wide comparison group compares within matrices then.
    pub counts: Option<&'a Counts>,
    /// Statistics of each block, collected on the dense model; in place of samples.
    pub statistics: Option<&'a Stored>,
}

/// Prunes one tower of `model`, which carries the new masks, and changed weights, afterwards. `progress` gets the share done.
///
/// Masks of other towers are left as they are and shape the activations (towers run with the masks they have); masks that the tower itself
/// carried are dropped first. `samples` may be empty for metrics that need no calibration.
pub fn prune_tower(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    prune_tower_with(model, request, TowerInputs { samples, ..TowerInputs::default() }, progress)
}

/// As [`prune_tower`], with a number of weights for every layer in place of one sparsity for all: [`TowerInputs::counts`].
pub fn prune_tower_divided(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    counts: &Counts,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    let counts = Some(counts);
    prune_tower_with(model, request, TowerInputs { samples, counts, ..TowerInputs::default() }, progress)
}

/// As [`prune_tower`], with everything that a tower can be pruned with.
pub fn prune_tower_with(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<TowerPruning, PruneError> {
    let (masks, weights) = solve_tower(model, request, inputs, progress)?;
    no_grad(|| {
        weights.apply(model)?;
        for (id, linear) in model.linears_mut() {
            if let Some(keep) = masks.get(&id.name) {
                linear.matrix_mut().set_packed(Some(keep.shallow_clone()))?;
            }
        }
        let certificate = certify(model, request, inputs.counts, &masks)?;
        Ok(TowerPruning { masks, weights, certificate })
    })
}

/// The masks and changed weights of [`prune_tower_with`], for those who recount what they have written. `model` carries them only as far as they
/// shape the activations of later blocks.
///
/// # Errors
/// As [`prune_tower`].
pub fn solve_tower(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<(MaskSet, WeightSet), PruneError> {
    let selection = request.selection()?;
    let solver = method::solver(request.metric, &request.method, request.seed).ok_or(PruneError::NoMetric)?;
    check_layers(model, request.tower, selection)?;
    if !solver.needs().is_empty() && inputs.samples.is_empty() && inputs.statistics.is_none() {
        return Err(PruneError::NoSamples { metric: request.metric });
    }
    no_grad(|| {
        for (_, linear) in model.linears_mut().into_iter().filter(|(id, _)| id.tower == request.tower) {
            linear.set_mask(None)?;
        }
        match selection {
            Selection::Unstructured { sparsity, group: Group::Tower } if inputs.counts.is_none() => {
                let metric = method::ranking(request.metric, &request.method, request.seed);
                let metric = metric.ok_or(PruneError::NoMetric)?;
                Ok((prune_at_once(model, request, metric.as_ref(), sparsity, inputs, progress)?, WeightSet::new()))
            }
            _ => prune_block_by_block(model, request, solver.as_ref(), inputs, progress),
        }
    })
}

/// Where the statistics of a block come from.
enum Source<'a> {
    Nowhere,
    Samples(Calibration),
    Stored(&'a Stored),
}

impl<'a> Source<'a> {
    fn new(
        model: &dyn VisionLanguage,
        request: &PruneRequest,
        propagate: Propagate,
        needs: Needs,
        inputs: TowerInputs<'a>,
    ) -> Self {
        match inputs.statistics {
            _ if needs.is_empty() => Source::Nowhere,
            Some(stored) => Source::Stored(stored),
            None => {
                let calibration = Calibration::enter(model, request.tower, propagate, needs, inputs.samples);
                Source::Samples(calibration.weighing(request.tokens))
            }
        }
    }

    fn observe(&mut self, model: &dyn VisionLanguage, block: usize) -> Result<Rc<BlockStatistics>, PruneError> {
        match self {
            Source::Nowhere => Ok(Rc::default()),
            Source::Samples(calibration) => calibration.observe(model, block).map(Rc::new),
            Source::Stored(stored) => stored(block),
        }
    }

    /// Whether what is done to a block shapes what later ones see.
    fn propagates(&self) -> bool {
        matches!(self, Source::Samples(calibration) if calibration.propagates())
    }

    fn advance(&mut self, model: &dyn VisionLanguage, block: usize) {
        if let Source::Samples(calibration) = self {
            calibration.advance(model, block);
        }
    }
}

fn prune_block_by_block(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    solver: &dyn LayerSolver,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<(MaskSet, WeightSet), PruneError> {
    let mut source = Source::new(model, request, request.propagate, solver.needs(), inputs);
    let mut asked = BTreeMap::new();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == request.tower) {
        asked.insert(id.name.clone(), request.of_layer(&id.name, linear.shape(), inputs.counts)?);
    }
    let (mut masks, mut weights) = (MaskSet::new(), WeightSet::new());
    let blocks = model.blocks(request.tower);
    for block in 0..blocks {
        let statistics = source.observe(model, block)?;
        let mut solutions = solve_block(model, request.tower, block, &statistics, solver, &|id| asked[&id.name])?;
        drop(statistics);
        for (id, linear) in model.linears_mut() {
            let Some(LayerSolution { keep, weight, .. }) = solutions.remove(&id.name) else { continue };
            if source.propagates() {
                if let Some(weight) = &weight {
                    linear.set_weight(weight.shallow_clone())?;
                }
                linear.set_mask(Some(keep.shallow_clone()))?;
            }
            masks.insert(id.name.clone(), keep);
            if let Some(weight) = weight {
                weights.insert(id.name.clone(), weight);
            }
        }
        source.advance(model, block);
        progress((block + 1) as f64 / blocks as f64);
    }
    Ok((masks, weights))
}

/// Solves the layers of one block, those with the same input together. `selection` says what is asked of a layer.
///
/// # Errors
/// As [`LayerSolver::solve`].
pub fn solve_block(
    model: &dyn VisionLanguage,
    tower: Tower,
    block: usize,
    statistics: &BlockStatistics,
    solver: &dyn LayerSolver,
    selection: &dyn Fn(&LayerId) -> Selection,
) -> Result<BTreeMap<String, LayerSolution>, PruneError> {
    let linears = model.linears();
    let layers: BTreeMap<&str, LayerProblem<'_>> = linears
        .iter()
        .filter(|(id, _)| id.tower == tower && id.block == block)
        .map(|(id, linear)| {
            let name = id.name.as_str();
            (name, LayerProblem { name, weight: linear.weight(), selection: selection(id) })
        })
        .collect();
    let mut solutions = BTreeMap::new();
    let mut keep = |problems: &[LayerProblem<'_>], found: Vec<LayerSolution>| {
        solutions.extend(problems.iter().map(|problem| problem.name.to_owned()).zip(found));
    };
    if solver.needs().is_empty() {
        for problem in layers.into_values() {
            keep(&[problem], solver.solve(&[problem], None)?);
        }
        return Ok(solutions);
    }
    for (names, statistics) in statistics.groups() {
        let problems: Vec<_> = names.iter().filter_map(|name| layers.get(name.as_str()).copied()).collect();
        keep(&problems, solver.solve(&problems, Some(statistics))?);
    }
    match layers.keys().find(|name| !solutions.contains_key(**name)) {
        None => Ok(solutions),
        Some(name) => Err(PruneError::NoStatistics { layer: (*name).to_owned() }),
    }
}

/// All blocks are ranked before any is masked.
fn prune_at_once(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    metric: &dyn PruningMetric,
    sparsity: f64,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<MaskSet, PruneError> {
    let mut source = Source::new(model, request, Propagate::Dense, metric.needs(), inputs);
    let (mut names, mut importances) = (Vec::new(), Vec::new());
    let blocks = model.blocks(request.tower);
    for block in 0..blocks {
        let statistics = source.observe(model, block)?;
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
