//! DSnoT: swaps pruned weights for kept ones until the expected output is where it was.
//!
//! - Formula: `d_ij = w_ij * s_j` with `s_j` the mean sum of input `j` over a sample; a row's error is `r = sum of d over what is pruned`. In each cycle the pruned
//!   weight with the largest `|d| / v_j^a` of the sign of `r` comes back (`v_j`: variance of input `j` within samples), the kept weight of the other sign with
//!   the smallest Wanda importance goes, and `r` follows; until `|r|` is within the threshold or the cycles are used up. With N:M, the smallest kept weight
//!   of the same group goes, whatever its sign
//! - Needs: sums and variances of the inputs, their norms, and what the initial metric needs
//! - Paper: Zhang et al., "Dynamic sparse no training", arXiv 2310.08915
//! - Reference: `prune_DSnoT` in zyxxmu/DSnoT. The VLM study's `dsnot_pruner.py` undoes every unstructured swap and returns the initial mask
//! - Differs: a row ends when no candidate of the right sign is left, where the reference goes on with weights that are kept already or of the wrong
//!   sign and so changes the row's sparsity. An input that never varies or is never alive is no NaN. `r` is kept in f64.

use tch::{Device, Tensor, no_grad};

use super::{LayerProblem, LayerSolution, LayerSolver, SparseGpt, check, importance};
use crate::{
    error::PruneError,
    metric::{PruningMetric, Wanda},
    rows::{each_part, floats, rows_per_part},
    select::Selection,
    statistics::{ColumnStatistics, Needs},
};

/// Whether a swap that turns the sign of a row's error ends the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignRule {
    /// With N:M only. The published setting.
    #[default]
    Published,
    /// Always.
    Always,
}

/// What the method starts from.
pub enum Initial {
    /// A metric's importance.
    Metric(Box<dyn PruningMetric>),
    /// SparseGPT's saliency of the weights as they are; none is changed.
    Saliency(SparseGpt),
}

impl Initial {
    fn needs(&self) -> Needs {
        match self {
            Initial::Metric(metric) => metric.needs(),
            Initial::Saliency(sparsegpt) => sparsegpt.needs(),
        }
    }

    fn importance(&self, layer: &LayerProblem<'_>, statistics: &ColumnStatistics) -> Result<Tensor, PruneError> {
        match self {
            Initial::Metric(metric) => importance(metric.as_ref(), layer, Some(statistics)),
            Initial::Saliency(sparsegpt) => sparsegpt.saliency(layer, statistics),
        }
    }
}

/// The method with its settings.
pub struct Dsnot {
    /// What chooses the first mask. With N:M also what chooses within a group later.
    pub initial: Initial,
    /// Most swaps in a row.
    pub max_cycles: usize,
    /// Errors up to this are left alone.
    pub threshold: f64,
    /// `a`, the exponent of the variance.
    pub variance_power: f64,
    /// When a change of sign ends a row.
    pub sign: SignRule,
}

impl Default for Dsnot {
    fn default() -> Self {
        Self {
            initial: Initial::Metric(Box::new(Wanda)),
            max_cycles: 50,
            threshold: 0.1,
            variance_power: 1.0,
            sign: SignRule::Published,
        }
    }
}

impl LayerSolver for Dsnot {
    fn needs(&self) -> Needs {
        Needs::MOMENTS | Needs::NORMS | self.initial.needs()
    }

    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError> {
        check(layers, self.needs(), statistics)?;
        let Some(statistics) = statistics else { return Ok(Vec::new()) };
        let missing = |layer: &LayerProblem<'_>| PruneError::NoStatistics { layer: layer.name.to_owned() };
        let refine = |layer: &LayerProblem<'_>| {
            let (Some(sum), Some(variance), Some(norm)) = (statistics.sum(), statistics.variance(), statistics.norm())
            else {
                return Err(missing(layer));
            };
            let inputs = Inputs {
                sum: floats(&sum),
                spread: floats(&variance).iter().map(|v| v.powf(self.variance_power as f32)).collect(),
                norm: floats(&norm),
            };
            let importance = self.initial.importance(layer, statistics)?;
            let keep = self.refine(layer, &importance, &inputs);
            let keep = Tensor::from_slice(&keep).view_(layer.weight.size()).to_device(layer.weight.device());
            Ok(LayerSolution { keep, importance: Some(importance), weight: None })
        };
        no_grad(|| layers.iter().map(refine).collect())
    }
}

/// Statistics on the host, each `[in]`.
struct Inputs {
    sum: Vec<f32>,
    /// `v^a`.
    spread: Vec<f32>,
    norm: Vec<f32>,
}

/// One row and the orders in which its weights are tried.
struct Row<'a> {
    weight: &'a [f32],
    importance: &'a [f32],
    inputs: &'a Inputs,
    /// N:M group size.
    group: Option<usize>,
    /// Pruned weights with positive, then negative contribution, next to come back last.
    grow: [Option<Vec<u32>>; 2],
    /// Kept weights with positive, then negative contribution, next to go last.
    drop: [Option<Vec<u32>>; 2],
    /// Kept weights that have been tried in their group.
    tried: Vec<u32>,
}

impl Dsnot {
    fn refine(&self, layer: &LayerProblem<'_>, importance: &Tensor, inputs: &Inputs) -> Vec<bool> {
        let initial = layer.selection.keep(importance).to_device(Device::Cpu).contiguous().view([-1]);
        let mut keep = vec![false; initial.numel()];
        initial.copy_data(&mut keep, initial.numel());
        let (weight, importance) = (floats(layer.weight), floats(importance));
        let width = inputs.sum.len().max(1);
        let group = match layer.selection {
            Selection::NOfM { of, .. } => Some(of as usize),
            _ => None,
        };
        let run = rows_per_part(keep.len() / width, width) * width;
        each_part(
            keep.chunks_mut(run).zip(weight.chunks(run)).zip(importance.chunks(run)),
            |((keep, weight), importance)| {
                let rows = keep.chunks_mut(width).zip(weight.chunks(width)).zip(importance.chunks(width));
                for ((keep, weight), importance) in rows {
                    let row = Row {
                        weight,
                        importance,
                        inputs,
                        group,
                        grow: [None, None],
                        drop: [None, None],
                        tried: Vec::new(),
                    };
                    self.refine_row(row, keep);
                }
            },
        );
        keep
    }

    fn refine_row(&self, mut row: Row<'_>, keep: &mut [bool]) {
        let initial: Vec<bool> = keep.to_vec();
        let pruned = initial.iter().enumerate().filter(|(_, kept)| !**kept);
        let mut error: f64 = pruned.map(|(at, _)| row.contribution(at)).sum();
        let first_sign = sign(error);
        let same_sign = self.sign == SignRule::Always || row.group.is_some();
        for _ in 0..self.max_cycles {
            if error.abs() <= self.threshold {
                break;
            }
            let Some(back) = row.next_back(error > 0.0, &initial, self.max_cycles) else { break };
            let gone = match row.group {
                Some(of) => row.next_in_group(back / of * of, of, &initial),
                None => row.next_gone(error < 0.0, &initial, self.max_cycles),
            };
            let Some(gone) = gone else { break };
            let after = error + row.contribution(gone) - row.contribution(back);
            if same_sign && sign(after) != first_sign {
                break;
            }
            keep[back] = true;
            keep[gone] = false;
            error = after;
        }
    }
}

/// -1, 0 or 1.
fn sign(value: f64) -> i8 {
    i8::from(value > 0.0) - i8::from(value < 0.0)
}

impl Row<'_> {
    /// What a weight adds to the row's expected output.
    fn contribution(&self, at: usize) -> f64 {
        f64::from(self.weight[at] * self.inputs.sum[at])
    }

    /// The pruned weight of the wanted sign that gives most for its variance; the higher index first among equal positive ones, the lower
    /// among negative ones, as from the two ends of one sorted list.
    fn next_back(&mut self, positive: bool, initial: &[bool], most: usize) -> Option<usize> {
        let mut list = self.grow[usize::from(!positive)].take().unwrap_or_else(|| {
            let of_sign = self.of_sign(positive, initial, false);
            let scored = of_sign.map(|at| {
                let score = (self.weight[at] * self.inputs.sum[at] / self.inputs.spread[at]).abs();
                (-score, if positive { -(at as i64) } else { at as i64 })
            });
            first(scored.collect(), most)
        });
        let next = list.pop();
        self.grow[usize::from(!positive)] = Some(list);
        next.map(|at| at as usize)
    }

    /// The kept weight of the wanted sign with the smallest Wanda importance; the lower index first among equals.
    fn next_gone(&mut self, positive: bool, initial: &[bool], most: usize) -> Option<usize> {
        let mut list = self.drop[usize::from(!positive)].take().unwrap_or_else(|| {
            let of_sign = self.of_sign(positive, initial, true);
            first(of_sign.map(|at| (self.weight[at].abs() * self.inputs.norm[at], at as i64)).collect(), most)
        });
        let next = list.pop();
        self.drop[usize::from(!positive)] = Some(list);
        next.map(|at| at as usize)
    }

    /// The least important weight of a group that was kept at first and has not been tried; the lower index first among equals.
    fn next_in_group(&mut self, start: usize, of: usize, initial: &[bool]) -> Option<usize> {
        let free = (start..start + of).filter(|&at| initial[at] && !self.tried.contains(&(at as u32)));
        let least = free.min_by(|&a, &b| self.importance[a].total_cmp(&self.importance[b]))?;
        self.tried.push(least as u32);
        Some(least)
    }

    fn of_sign(&self, positive: bool, initial: &[bool], kept: bool) -> impl Iterator<Item = usize> {
        let wanted = move |at: &usize| {
            let d = self.weight[*at] * self.inputs.sum[*at];
            initial[*at] == kept && if positive { d > 0.0 } else { d < 0.0 }
        };
        (0..self.weight.len()).filter(wanted)
    }
}

/// Indices of the `most` smallest by score and then by rank, the smallest last. A rank is an index or its negative.
fn first(mut scored: Vec<(f32, i64)>, most: usize) -> Vec<u32> {
    let order = |a: &(f32, i64), b: &(f32, i64)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if most == 0 {
        return Vec::new();
    }
    if scored.len() > most {
        scored.select_nth_unstable_by(most - 1, order);
        scored.truncate(most);
    }
    scored.sort_unstable_by(|a, b| order(b, a));
    scored.into_iter().map(|(_, rank)| rank.unsigned_abs() as u32).collect()
}
