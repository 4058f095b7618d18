//! SparseGPT: the weights that can best be done without go, and those to the right of them make up for it.
//!
//! - Formula: with `U^T U = H^-1` (upper triangular) and `H = 2/n X^T X`, columns are walked left to right; in each block the weights with the smallest
//!   `w^2 / U_jj^2` go, and `w_k -= w_j / U_jj * U_jk` for all `k > j`
//! - Needs: the Gram matrix of the layer's inputs
//! - Paper: Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned in one-shot", arXiv 2301.00774, algorithm 1
//! - Reference: `fasterprune` in IST-DASLab/sparsegpt; `lavis/compression/pruners/sparsegpt_pruner.py`
//! - Differs: `U` comes from one factorisation (see [`super::factor`]); layers with the same input share it and are walked together. Counts are exact
//!   unless [`Threshold::Inclusive`] asks for the reference's comparison, which takes at least one weight more in each block. With an N:M pattern whose group
//!   size does not divide the block, blocks are shortened to whole groups. What earlier steps pruned goes first and is corrected for as it is met. A Gram matrix
//!   that is still singular after damping is damped further. Columns may be walked in another order, see [`Order`].

mod device;
mod n_of_m;
mod order;
mod quota;

pub use order::Order;
use ressa_runtime::is_finite;
use tch::{Device, Kind, Tensor, no_grad};

use super::{FIRST, LayerGroup, LayerProblem, LayerSolution, LayerSolver, check, factor};
use crate::{
    error::PruneError,
    rows::{each_part, flags, floats, rows_per_part},
    select::{Selection, host},
    statistics::{ColumnStatistics, Needs},
};

/// Most times that damping is raised before the matrix is given up.
const ATTEMPTS: usize = 12;

/// When the diagonal of the Gram matrix is raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damping {
    /// Once before it is factorised. The published rule.
    #[default]
    Always,
    /// Only when it cannot be factorised as it is, and again until it can. The VLM study's rule.
    OnFailure,
}

/// How many weights of a block go where the pattern does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threshold {
    /// So many that all blocks together meet the selection to one weight; the comparison group is the block, or a row of it.
    #[default]
    Exact,
    /// All that do not exceed the block's weight at index `floor(n * sparsity)` in sorted order, over all rows whatever the group.
    /// The published rule: one weight per block more than asked, and one even at sparsity 0.
    Inclusive,
}

/// The method with its settings.
#[derive(Clone, Copy, Debug)]
pub struct SparseGpt {
    /// When to dampen.
    pub damping: Damping,
    /// What is added to the diagonal, as a fraction of its mean.
    pub damping_ratio: f64,
    /// Columns that are chosen at once.
    pub block: i64,
    /// How many weights of a block go.
    pub threshold: Threshold,
    /// In which order columns are walked. With [`Order::Loss`] every layer has an order, and a factor, of its own.
    pub order: Order,
}

impl Default for SparseGpt {
    fn default() -> Self {
        let (damping, threshold, order) = Default::default();
        Self { damping, damping_ratio: 0.01, block: 128, threshold, order }
    }
}

impl LayerSolver for SparseGpt {
    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError> {
        if self.order == Order::Loss && layers.len() > 1 {
            let alone = layers.chunks(1).map(|layer| self.solve(layer, statistics));
            return Ok(alone.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
        }
        check(layers, self.needs(), statistics)?;
        let Some(statistics) = statistics else { return Ok(Vec::new()) };
        no_grad(|| {
            let mut walk = self.begin(layers, statistics)?;
            let block = self.block_for(layers);
            if walk.weight.device() != Device::Cpu && walk.is_uniform() && walk.gone.is_none() {
                let mut groups = [device::Group { layers, walk }];
                device::walk(&mut groups, block, self.threshold);
                let [group] = groups;
                return Ok(group.walk.finish(layers));
            }
            let mut from = 0;
            while from < walk.columns {
                let to = (from + block).min(walk.columns);
                walk.block(layers, from, to, self.threshold);
                from = to;
            }
            Ok(walk.finish(layers))
        })
    }

    fn joins(&self, device: Device) -> bool {
        device != Device::Cpu
    }

    fn solve_groups(&self, groups: &[LayerGroup<'_>]) -> Result<Vec<Vec<LayerSolution>>, PruneError> {
        if self.order == Order::Loss && groups.iter().any(|group| group.layers.len() > 1) {
            let mut alone = Vec::new();
            for &LayerGroup { layers, statistics } in groups {
                alone.extend(layers.chunks(1).map(|layers| LayerGroup { layers, statistics }));
            }
            let mut solved = self.solve_groups(&alone)?.into_iter().flatten();
            return Ok(groups.iter().map(|group| solved.by_ref().take(group.layers.len()).collect()).collect());
        }
        let all: Vec<LayerProblem<'_>> = groups.iter().flat_map(|group| group.layers).copied().collect();
        let pattern = |layer: &LayerProblem<'_>| layer.selection.pattern();
        let alike = all.windows(2).all(|pair| pattern(&pair[0]) == pattern(&pair[1]));
        let walked_here = |layer: &LayerProblem<'_>| !self.joins(layer.weight.device()) || layer.gone.is_some();
        if !alike || all.iter().any(walked_here) {
            return groups.iter().map(|group| self.solve(group.layers, group.statistics)).collect();
        }
        no_grad(|| {
            let mut joined = Vec::new();
            for &LayerGroup { layers, statistics } in groups {
                check(layers, self.needs(), statistics)?;
                let Some(statistics) = statistics.filter(|_| !layers.is_empty()) else { continue };
                joined.push(device::Group { layers, walk: self.begin(layers, statistics)? });
            }
            device::walk(&mut joined, self.block_for(&all), self.threshold);
            let mut solved = joined.into_iter();
            let of_group = |group: &LayerGroup<'_>| match group.layers {
                [] => Vec::new(),
                _ => solved.next().map(|group| group.walk.finish(group.layers)).unwrap_or_default(),
            };
            Ok(groups.iter().map(of_group).collect())
        })
    }
}

impl SparseGpt {
    /// The walk over layers that read one input, before its first column.
    fn begin(&self, layers: &[LayerProblem<'_>], statistics: &ColumnStatistics) -> Result<Walk, PruneError> {
        let name = layers.first().map_or("", |layer| layer.name);
        if self.order == Order::Natural {
            let (upper, dead) = self.factor(name, statistics)?;
            let stacked = stacked(layers, upper.device())?.masked_fill_(&dead, 0.0);
            return Ok(Walk::new(layers, stacked, upper, None));
        }
        let hessian = statistics.hessian().ok_or_else(|| PruneError::Singular { layer: name.to_owned() })?;
        let diagonal = hessian.diagonal(0, 0, 1);
        let weight = stacked(layers, hessian.device())?.masked_fill_(&diagonal.eq(0.0), 0.0);
        let order = layers
            .first()
            .and_then(|layer| order::by_loss(&weight, &diagonal.sqrt(), layer.selection, self.block_for(layers)));
        let Some(order) = order.map(|order| Tensor::from_slice(&order).to_device(hessian.device())) else {
            let (upper, _) = self.factor(name, statistics)?;
            return Ok(Walk::new(layers, weight, upper, None));
        };
        let ordered = |tensor: &Tensor, dimension: i64| tensor.index_select(dimension, &order);
        let (upper, _) = self.factorise(name, || Some(ordered(&ordered(&hessian, 0), 1)))?;
        Ok(Walk::new(layers, ordered(&weight, 1), upper, Some(&order)))
    }

    /// `w^2 / U_jj^2` of the weights as they are, f32 `[out, in]`: what ranks them before the first column is walked. Zero in dead columns.
    pub(super) fn saliency(
        &self,
        layer: &LayerProblem<'_>,
        statistics: &ColumnStatistics,
    ) -> Result<Tensor, PruneError> {
        let (upper, dead) = self.factor(layer.name, statistics)?;
        let weight = layer.weight.detach().to_kind(Kind::Float).to_device(upper.device());
        let saliency = (weight / upper.diagonal(0, 0, 1)).square_().masked_fill_(&dead, 0.0);
        if is_finite(&saliency) {
            return Ok(saliency);
        }
        Err(PruneError::NotFiniteWeight { layer: layer.name.to_owned() })
    }

    /// `U` and the dead columns, from what the statistics remember where it is there.
    fn factor(&self, layer: &str, statistics: &ColumnStatistics) -> Result<(Tensor, Tensor), PruneError> {
        let settings = (self.damping == Damping::Always, self.damping_ratio.to_bits());
        statistics.factor(settings, || self.factorise(layer, || statistics.hessian_upper()))
    }

    /// `U` and the dead columns, from the upper triangle that `hessian` makes anew for each attempt.
    fn factorise(&self, layer: &str, hessian: impl Fn() -> Option<Tensor>) -> Result<(Tensor, Tensor), PruneError> {
        let singular = || PruneError::Singular { layer: layer.to_owned() };
        let mut added = if self.damping == Damping::Always { 1.0 } else { 0.0 };
        for _ in 0..ATTEMPTS {
            let mut h = hessian().ok_or_else(singular)?;
            let dead = factor::dead_columns(&h);
            let step = self.damping_ratio * factor::mean_diagonal(&h, &dead);
            factor::dampen(&mut h, &dead, added * step);
            if let Ok(upper) = factor::inverse_factor(h) {
                return Ok((upper, dead));
            }
            added += 1.0;
        }
        Err(singular())
    }

    /// Columns of a block: whole groups of every N:M pattern among the layers.
    fn block_for(&self, layers: &[LayerProblem<'_>]) -> i64 {
        let mut whole = 1;
        for layer in layers {
            if let Selection::NOfM { of, .. } = layer.selection {
                whole *= of / gcd(whole, of);
            }
        }
        (self.block / whole * whole).max(whole)
    }
}

/// The weights of some layers under each other, f32 on a device.
fn stacked(layers: &[LayerProblem<'_>], device: Device) -> Result<Tensor, PruneError> {
    let as_floats = |layer: &LayerProblem<'_>| layer.weight.detach().to_kind(Kind::Float).to_device(device);
    let weights: Vec<Tensor> = layers.iter().map(as_floats).collect();
    let stacked = Tensor::cat(&weights, 0);
    if is_finite(&stacked) {
        return Ok(stacked);
    }
    let sick = layers.iter().zip(&weights).find(|(_, weight)| !is_finite(weight)).map_or("", |(layer, _)| layer.name);
    Err(PruneError::NotFiniteWeight { layer: sick.to_owned() })
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The walk over the columns of stacked layers.
struct Walk {
    columns: i64,
    /// First row and number of rows of each layer.
    places: Vec<(usize, usize)>,
    /// N:M of each row.
    groups: Vec<Option<(usize, usize)>>,
    /// `[rows, in]`, updated as the walk goes on.
    weight: Tensor,
    upper: Tensor,
    keep: Tensor,
    importance: Tensor,
    /// Where each column of the layers is walked, where that is not its place; i64 `[in]`.
    places_of_columns: Option<Tensor>,
    /// What was gone before, bool `[rows, in]`. Corrections give it values on the way, so it is held down in each block.
    gone: Option<Tensor>,
}

/// One thread's rows of a block.
struct Part<'a> {
    weight: &'a mut [f32],
    error: &'a mut [f32],
    keep: &'a mut [bool],
    importance: &'a mut [f32],
    /// Empty where nothing was gone before.
    gone: &'a [bool],
    groups: &'a [Option<(usize, usize)>],
}

impl Walk {
    /// `weight` and `upper` are those of columns in the order in which they are walked, `order` where that is not the layers' own.
    fn new(layers: &[LayerProblem<'_>], weight: Tensor, upper: Tensor, order: Option<&Tensor>) -> Self {
        let (mut places, mut groups) = (Vec::new(), Vec::new());
        for layer in layers {
            let rows = layer.weight.size()[0] as usize;
            places.push((groups.len(), rows));
            let group = match layer.selection {
                Selection::NOfM { keep, of } => Some((of as usize, (of - keep) as usize)),
                _ => None,
            };
            groups.resize(groups.len() + rows, group);
        }
        let gone = layers.iter().any(|layer| layer.gone.is_some()).then(|| {
            let part = |layer: &LayerProblem<'_>| match layer.gone {
                Some(gone) => gone.to_device(weight.device()),
                None => Tensor::zeros(layer.weight.size(), (Kind::Bool, weight.device())),
            };
            let gone = Tensor::cat(&layers.iter().map(part).collect::<Vec<_>>(), 0);
            order.map_or(gone.shallow_clone(), |order| gone.index_select(1, order))
        });
        Self {
            gone,
            columns: weight.size()[1],
            places,
            groups,
            keep: Tensor::ones(weight.size(), (Kind::Bool, weight.device())),
            importance: weight.zeros_like(),
            weight,
            upper,
            places_of_columns: order.map(|order| order.argsort(0, false)),
        }
    }

    fn block(&mut self, layers: &[LayerProblem<'_>], from: i64, to: i64, threshold: Threshold) {
        let (rows, width) = (self.groups.len(), (to - from) as usize);
        let mut weight = floats(&self.weight.narrow(1, from, to - from));
        let upper = floats(&self.upper.narrow(0, from, to - from).narrow(1, from, to - from));
        let diagonal: Vec<f32> = (0..width).map(|at| upper[at * width + at]).collect();

        let gone: Vec<bool> = match &self.gone {
            Some(gone) => flags(&gone.narrow(1, from, to - from)),
            None => Vec::new(),
        };

        let mut importance = vec![0.0; rows * width];
        let mut keep = vec![true; rows * width];
        for (layer, &(first, rows)) in layers.iter().zip(&self.places) {
            if matches!(layer.selection, Selection::NOfM { .. }) {
                continue;
            }
            let at = first * width..(first + rows) * width;
            saliency(&weight[at.clone()], &diagonal, &mut importance[at.clone()]);
            let gone = gone.get(at.clone()).unwrap_or_default();
            let (importance, keep) = (&mut importance[at.clone()], &mut keep[at]);
            put_first(gone, importance);
            choose(layer.selection, importance, rows as i64, (from, to), self.columns, threshold, keep);
            hold_down(gone, keep);
        }

        let mut error = vec![0.0; rows * width];
        let run = rows_per_part(rows, width * width) * width;
        let parts = weight
            .chunks_mut(run)
            .zip(error.chunks_mut(run))
            .zip(keep.chunks_mut(run).zip(importance.chunks_mut(run)))
            .zip(self.groups.chunks(run / width))
            .enumerate()
            .map(|(at, (((weight, error), (keep, importance)), groups))| {
                let gone = gone.get(at * run..at * run + weight.len()).unwrap_or_default();
                Part { weight, error, keep, importance, gone, groups }
            });
        each_part(parts, |part| walk_rows(part, &upper, &diagonal));

        let shape = [rows as i64, to - from];
        let put = |target: &Tensor, values: Tensor| target.narrow(1, from, to - from).copy_(&values.view(shape));
        put(&self.weight, Tensor::from_slice(&weight));
        put(&self.keep, Tensor::from_slice(&keep));
        put(&self.importance, Tensor::from_slice(&importance));
        if to < self.columns {
            let error = Tensor::from_slice(&error).view(shape).to_device(self.weight.device()).neg();
            let right = self.upper.narrow(0, from, to - from).narrow(1, to, self.columns - to);
            let _ = self.weight.narrow(1, to, self.columns - to).addmm_(&error, &right);
        }
    }

    /// Whether all layers ask for the same kind of pattern, so that they can be walked as one.
    fn is_uniform(&self) -> bool {
        self.groups.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn finish(self, layers: &[LayerProblem<'_>]) -> Vec<LayerSolution> {
        let part = |tensor: &Tensor, (first, rows): (usize, usize)| match (&self.places_of_columns, self.places.len()) {
            (Some(places), _) => tensor.narrow(0, first as i64, rows as i64).index_select(1, places),
            (None, 1) => tensor.shallow_clone(),
            (None, _) => tensor.narrow(0, first as i64, rows as i64).copy(),
        };
        let solution = |(layer, &place): (&LayerProblem<'_>, &(usize, usize))| {
            let (kind, device) = (layer.weight.kind(), layer.weight.device());
            LayerSolution {
                keep: part(&self.keep, place).to_device(device),
                importance: Some(part(&self.importance, place).to_device(device)),
                weight: Some(part(&self.weight, place).to_kind(kind).to_device(device)),
            }
        };
        layers.iter().zip(&self.places).map(solution).collect()
    }
}

/// Ranks what is gone below everything else.
fn put_first(gone: &[bool], importance: &mut [f32]) {
    gone.iter().zip(importance).filter(|(gone, _)| **gone).for_each(|(_, importance)| *importance = FIRST as f32);
}

/// Takes what is gone out of a keep mask.
fn hold_down(gone: &[bool], keep: &mut [bool]) {
    gone.iter().zip(keep).for_each(|(gone, keep)| *keep &= !gone);
}

/// `w^2 / U_jj^2`.
fn saliency(weight: &[f32], diagonal: &[f32], importance: &mut [f32]) {
    for (weight, importance) in weight.chunks(diagonal.len()).zip(importance.chunks_mut(diagonal.len())) {
        for ((importance, w), d) in importance.iter_mut().zip(weight).zip(diagonal) {
            *importance = (w * w) / (d * d);
        }
    }
}

/// Marks what goes in a layer's block, `rows` by the columns from `block.0` to `block.1`.
fn choose(
    selection: Selection,
    importance: &[f32],
    rows: i64,
    block: (i64, i64),
    columns: i64,
    threshold: Threshold,
    keep: &mut [bool],
) {
    if threshold == Threshold::Inclusive {
        let index = quota::inclusive(selection, importance.len(), rows, columns);
        let threshold = host::nth(importance, index);
        keep.iter_mut().zip(importance).for_each(|(keep, &value)| *keep = value > threshold);
        return;
    }
    let (members, count) = quota::exact(selection, rows, block, columns);
    host::prune(importance, members as usize, count as usize, keep);
}

/// Walks the columns of a block, row by row: chooses N:M groups as they come, zeroes what goes and corrects what stays to its right.
fn walk_rows(part: Part<'_>, upper: &[f32], diagonal: &[f32]) {
    let width = diagonal.len();
    let rows = part.weight.chunks_mut(width).zip(part.error.chunks_mut(width));
    let rows = rows.zip(part.keep.chunks_mut(width).zip(part.importance.chunks_mut(width))).zip(part.groups);
    for (row, (((weight, error), (keep, importance)), group)) in rows.enumerate() {
        let gone = part.gone.get(row * width..(row + 1) * width).unwrap_or_default();
        for at in 0..width {
            if let &Some((of, count)) = group
                && at % of == 0
            {
                let members = at..at + of;
                saliency(&weight[members.clone()], &diagonal[members.clone()], &mut importance[members.clone()]);
                let gone = gone.get(members.clone()).unwrap_or_default();
                put_first(gone, &mut importance[members.clone()]);
                prune_smallest(&importance[members.clone()], &mut keep[members.clone()], count);
                hold_down(gone, &mut keep[members]);
            }
            if keep[at] {
                continue;
            }
            let (before, after) = weight.split_at_mut(at + 1);
            let e = before[at] / diagonal[at];
            before[at] = 0.0;
            error[at] = e;
            for (w, u) in after.iter_mut().zip(&upper[at * width + at + 1..(at + 1) * width]) {
                *w -= e * u;
            }
        }
    }
}

/// Marks the `count` smallest of a few; the lower index goes first among equals.
fn prune_smallest(importance: &[f32], keep: &mut [bool], count: usize) {
    for (at, keep) in keep.iter_mut().enumerate() {
        let before = importance[..at].iter().filter(|&&other| other <= importance[at]).count();
        let after = importance[at + 1..].iter().filter(|&&other| other < importance[at]).count();
        *keep = before + after >= count;
    }
}

#[cfg(test)]
mod tests {
    use ressa_experiment::config::Group;

    use super::*;

    fn wave(count: i64, step: f64) -> Tensor {
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * step).sin()
    }

    /// Both walks over the columns, on the host, on layers of two inputs of different widths: the same masks and, but for rounding, the same weights.
    #[test]
    fn tensor_operations_walk_as_the_host_does() {
        let method = SparseGpt { block: 64, ..SparseGpt::default() };
        let factor = |columns: i64| {
            let inputs = wave(200 * columns, 0.739).view([200, columns]) + wave(200, 1.3).view([200, 1]) * 0.7;
            let mut statistics = ColumnStatistics::new(columns, Needs::GRAM, Device::Cpu);
            statistics.add_sample(&inputs);
            method.factorise("layer", || statistics.hessian_upper()).expect("definite").0
        };
        let weight = |rows: i64, columns: i64, step: f64| wave(rows * columns, step).view([rows, columns]);
        let wide = [weight(10, 160, 0.91), weight(10, 160, 0.37)];
        let narrow = [weight(6, 96, 0.53)];
        let uppers = [factor(160), factor(96)];
        for (selection, threshold) in [
            (Selection::Unstructured { sparsity: 0.6, group: Group::Matrix }, Threshold::Exact),
            (Selection::Unstructured { sparsity: 0.55, group: Group::Row }, Threshold::Exact),
            (Selection::Exact { count: 333, group: Group::Matrix }, Threshold::Exact),
            (Selection::Unstructured { sparsity: 0.5, group: Group::Matrix }, Threshold::Inclusive),
            (Selection::NOfM { keep: 2, of: 4 }, Threshold::Exact),
            (Selection::NOfM { keep: 3, of: 4 }, Threshold::Exact),
            (Selection::NOfM { keep: 4, of: 8 }, Threshold::Exact),
            (Selection::NOfM { keep: 7, of: 16 }, Threshold::Exact),
        ] {
            let problem = |weight| LayerProblem { name: "layer", weight, selection, gone: None };
            let layers: [Vec<LayerProblem<'_>>; 2] =
                [wide.iter().map(problem).collect(), narrow.iter().map(problem).collect()];
            let begin = |at: usize| {
                let weights: Vec<&Tensor> = layers[at].iter().map(|layer| layer.weight).collect();
                Walk::new(&layers[at], Tensor::cat(&weights, 0), uppers[at].shallow_clone(), None)
            };
            let group = |at: usize| device::Group { layers: &layers[at], walk: begin(at) };
            let mut device = [group(0), group(1)];
            device::walk(&mut device, 64, threshold);
            for (at, device) in device.iter().enumerate() {
                let mut host = begin(at);
                for from in (0..host.columns).step_by(64) {
                    host.block(&layers[at], from, (from + 64).min(host.columns), threshold);
                }
                assert!(host.keep.equal(&device.walk.keep), "{selection:?}");
                let apart = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / a.abs().max()).double_value(&[]);
                assert!(apart(&host.weight, &device.walk.weight) < 1e-5, "{selection:?}");
                assert!(apart(&host.importance, &device.walk.importance) < 1e-4, "{selection:?}");
            }
        }
    }
}
