//! Pruning one tower of a model in memory: statistics, importance, selection, certificate.

use ressa_experiment::{
    Tower,
    config::{Group, Propagate},
    record::Certificate,
};
use ressa_models::{Cuts, KeepMask, LayerId, MaskSet, Sample, VisionLanguage, WeightSet};
use tch::{Kind, Tensor, no_grad};

use crate::{
    allocation::Counts,
    certificate::certify,
    error::PruneError,
    method,
    metric::PruningMetric,
    request::PruneRequest,
    select::{Selection, keep_across_with},
    solver::{LayerProblem, LayerSolver, importance as importance_of},
    statistics::{BlockStatistics, RankDeficit},
    walk::{Blocks, InMemory, Listed, Look, Onward, Place, Resident, Shown, Walk, layers_of, solve},
};

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

/// What was found for a tower, before it is recounted.
#[derive(Debug, Default)]
pub struct TowerSolution {
    /// As [`TowerPruning::masks`].
    pub masks: MaskSet,
    /// As [`TowerPruning::weights`].
    pub weights: WeightSet,
    /// Layers of which calibration saw too little, where the method inverts Gram matrices.
    pub rank: RankDeficit,
}

/// Gives the statistics of a block, by its number.
pub type Stored = dyn Fn(usize) -> Result<BlockStatistics, PruneError>;

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
    /// What structured removal has left of the model: what is asked for counts from that, and the rest stays removed.
    pub cuts: Option<&'a Cuts>,
}

/// Prunes one tower of `model`, which carries the new masks, and changed weights, afterwards. `progress` gets the share done.
///
/// Masks of other towers are left as they are and shape the activations (towers run with the masks they have). What the tower's own masks have
/// removed stays removed, and counts: it is the first that goes. `samples` may be empty for metrics that need no calibration.
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
    let TowerSolution { masks, weights, .. } = solve_tower(model, request, inputs, progress)?;
    no_grad(|| {
        let before = MaskSet::of(model);
        weights.apply(model)?;
        for (id, linear) in model.linears_mut() {
            if let Some(keep) = masks.get(&id.name) {
                linear.matrix_mut().set_packed(Some(keep.shallow_clone()))?;
            }
        }
        let certificate = certify(model, request, inputs.counts, inputs.cuts, (&masks, &before))?;
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
) -> Result<TowerSolution, PruneError> {
    let selection = request.selection()?;
    let solver = method::solver(request.metric, &request.method, request.seed).ok_or(PruneError::NoMetric)?;
    check_layers(model, request.tower, selection, inputs.cuts)?;
    if !solver.needs().is_empty() && inputs.samples.is_empty() && inputs.statistics.is_none() {
        return Err(PruneError::NoSamples { what: format!("metric `{}`", request.metric.name()) });
    }
    no_grad(|| match selection {
        Selection::Unstructured { sparsity, group: Group::Tower } if inputs.counts.is_none() => {
            let metric = method::ranking(request.metric, &request.method, request.seed);
            let metric = metric.ok_or(PruneError::NoMetric)?;
            let masks = prune_at_once(model, request, metric.as_ref(), sparsity, inputs, progress)?;
            Ok(TowerSolution { masks, ..TowerSolution::default() })
        }
        _ => prune_block_by_block(model, request, solver.as_ref(), inputs, progress),
    })
}

/// Makes the projection into the language model a layer of the connector, for a request whose budget covers it.
///
/// # Errors
/// There is none beside the connector's layers.
pub fn join_projection(model: &mut dyn VisionLanguage) -> Result<(), PruneError> {
    if model.join_projection() { Ok(()) } else { Err(PruneError::NoProjection) }
}

/// Collects the statistics of a tower's blocks, inputs coming from dense predecessors; `each` gets them block after block.
///
/// # Errors
/// No samples; activations that are not finite; those of `each`.
pub fn collect(
    model: &dyn VisionLanguage,
    tower: Tower,
    look: Look,
    samples: &[Sample],
    each: &mut dyn FnMut(usize, BlockStatistics) -> Result<(), PruneError>,
) -> Result<(), PruneError> {
    if samples.is_empty() {
        return Err(PruneError::NoSamples { what: format!("tower `{tower}`") });
    }
    let mut walk = begin(Shown(model), tower, look, samples)?;
    for block in 0..model.blocks(tower) {
        let onward = if block + 1 < model.blocks(tower) { Onward::Before } else { Onward::Nowhere };
        walk.block(Place { tower, block }, Some(look), onward, &mut |_, statistics| each(block, statistics))?;
    }
    Ok(())
}

/// A walk at the entry of a tower, activations on the model's own device.
pub(crate) fn begin<B: Blocks<Error = PruneError>>(
    blocks: B,
    tower: Tower,
    look: Look,
    samples: &[Sample],
) -> Result<Walk<B, InMemory>, PruneError> {
    let device = blocks.device();
    let mut walk = Walk::new(blocks, InMemory::new(device));
    walk.arrive(tower, &Listed::new(samples), look)?;
    Ok(walk)
}

fn prune_block_by_block(
    model: &mut dyn VisionLanguage,
    request: &PruneRequest,
    solver: &dyn LayerSolver,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<TowerSolution, PruneError> {
    // What cannot be asked of a layer is said before the first block runs.
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == request.tower) {
        request.of_layer(&id.name, linear.shape(), inputs.counts)?;
    }
    let asked = |id: &LayerId, shape: (i64, i64)| request.of_layer(&id.name, shape, inputs.counts);
    let look = Look { needs: solver.needs(), tokens: request.tokens };
    let observes = !look.needs.is_empty() && inputs.statistics.is_none();
    let carries = observes && request.propagate == Propagate::Pruned;
    let blocks = model.blocks(request.tower);
    let device = Shown(model).device();
    let resident = Resident::new(model).within(inputs.cuts);
    let mut walk = match observes {
        true => begin(resident, request.tower, look, inputs.samples)?,
        false => Walk::new(resident, InMemory::new(device)),
    };
    let mut rank = RankDeficit::default();
    for block in 0..blocks {
        let place = Place { tower: request.tower, block };
        let onward = match (observes && block + 1 < blocks, request.propagate) {
            (false, _) => Onward::Nowhere,
            (true, Propagate::Dense) => Onward::Before,
            (true, Propagate::Pruned) => Onward::After,
        };
        walk.block(place, observes.then_some(look), onward, &mut |resident, seen| {
            let seen = match inputs.statistics {
                Some(stored) if !look.needs.is_empty() => stored(block)?,
                _ => seen,
            };
            rank.extend(solve(resident, place, seen, solver, &asked, carries)?);
            Ok(())
        })?;
        progress((block + 1) as f64 / blocks as f64);
    }
    Ok(TowerSolution { masks: walk.blocks.masks, weights: walk.blocks.weights, rank })
}

/// All blocks are ranked before any is masked. Importances are computed again for each of the passes of [`keep_across_with`], so that those of one
/// layer are held at a time.
fn prune_at_once(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    metric: &dyn PruningMetric,
    sparsity: f64,
    inputs: TowerInputs<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<MaskSet, PruneError> {
    let (tower, look) = (request.tower, Look { needs: metric.needs(), tokens: request.tokens });
    let blocks = model.blocks(tower);
    // What metrics look at are vectors: those of a whole tower are small.
    let mut seen: Vec<BlockStatistics> = Vec::new();
    if !look.needs.is_empty() && inputs.statistics.is_none() {
        collect(model, tower, look, inputs.samples, &mut |block, statistics| {
            seen.push(statistics);
            progress(0.5 * (block + 1) as f64 / blocks as f64);
            Ok(())
        })?;
    }
    let all = (0..blocks).flat_map(|block| layers_of(model, Place { tower, block }));
    let (layers, removed): (Vec<_>, Vec<_>) = all.partition(|(id, linear)| {
        let cut = inputs.cuts.and_then(|cuts| cuts.layer(&id.name));
        let (rows, columns) = cut.map_or(linear.shape(), |cut| cut.size(linear.shape()));
        rows * columns > 0
    });
    let mut stored: Option<(usize, BlockStatistics)> = None;
    let mut importance = |at: usize| -> Result<Tensor, PruneError> {
        let (id, linear) = layers[at];
        let statistics = match inputs.statistics {
            Some(read) if !look.needs.is_empty() => {
                if stored.as_ref().is_none_or(|(block, _)| *block != id.block) {
                    stored = Some((id.block, read(id.block)?));
                }
                stored.as_ref().map(|(_, statistics)| statistics)
            }
            _ => seen.get(id.block),
        };
        let statistics = statistics.and_then(|statistics| statistics.get(&id.name));
        let matrix = linear.matrix();
        let cut = inputs.cuts.and_then(|cuts| cuts.layer(&id.name));
        let rest = |whole: Tensor| cut.map_or_else(|| whole.shallow_clone(), |cut| cut.of(&whole));
        let weight = rest(matrix.stored().unwrap_or_else(|| matrix.base().shallow_clone()));
        let gone = matrix.keep().map(KeepMask::remove).map(rest);
        let columns = cut.and_then(|cut| cut.columns.as_ref());
        let alone = statistics.zip(columns).map(|(statistics, columns)| statistics.columns_alone(columns));
        let selection = Selection::Unstructured { sparsity, group: Group::Tower };
        let problem = LayerProblem { name: &id.name, weight: &weight, selection, gone: gone.as_ref() };
        importance_of(metric, &problem, alone.as_ref().or(statistics))
    };
    let mut masks = MaskSet::new();
    for (id, linear) in removed {
        masks.insert(id.name.clone(), Tensor::zeros_like(linear.weight()).to_kind(Kind::Bool));
    }
    keep_across_with(layers.len(), sparsity, &mut importance, &mut |at, keep| {
        let (id, linear) = layers[at];
        let cut = inputs.cuts.and_then(|cuts| cuts.layer(&id.name));
        let keep = cut.map_or_else(|| keep.shallow_clone(), |cut| cut.spread(&keep, linear.shape()));
        let keep = match linear.matrix().keep() {
            Some(before) => keep.logical_and(&before.keep()),
            None => keep,
        };
        masks.insert(id.name.clone(), keep)
    })?;
    progress(1.0);
    Ok(masks)
}

fn check_layers(
    model: &dyn VisionLanguage,
    tower: Tower,
    selection: Selection,
    cuts: Option<&Cuts>,
) -> Result<(), PruneError> {
    let mut found = false;
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == tower) {
        found = true;
        let cut = cuts.and_then(|cuts| cuts.layer(&id.name));
        let width = cut.map_or(linear.shape(), |cut| cut.size(linear.shape())).1;
        if let Selection::NOfM { of, .. } = selection
            && width % of != 0
        {
            return Err(PruneError::Width { layer: id.name.clone(), width, of });
        }
    }
    if found { Ok(()) } else { Err(PruneError::NoLayers { tower }) }
}
