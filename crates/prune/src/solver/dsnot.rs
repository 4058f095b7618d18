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

mod device;

use tch::{Device, Tensor, no_grad};

use super::{LayerGroup, LayerProblem, LayerSolution, LayerSolver, SparseGpt, check, importance};
use crate::{
    error::PruneError,
    metric::{PruningMetric, Wanda},
    rows::{each_part, flags, floats, rows_per_part},
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
        if layers.iter().any(|layer| layer.weight.device() != Device::Cpu) {
            return Ok(self.solve_groups(&[LayerGroup { layers, statistics }])?.into_iter().flatten().collect());
        }
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
            let importance = layer.ranked(self.initial.importance(layer, statistics)?);
            let keep = self.refine(layer, &importance, &inputs);
            let keep = Tensor::from_slice(&keep).view_(layer.weight.size());
            Ok(LayerSolution { keep, importance: Some(importance), weight: None })
        };
        no_grad(|| layers.iter().map(refine).collect())
    }

    fn joins(&self, device: Device) -> bool {
        device != Device::Cpu
    }

    fn solve_groups(&self, groups: &[LayerGroup<'_>]) -> Result<Vec<Vec<LayerSolution>>, PruneError> {
        let all = || groups.iter().flat_map(|group| group.layers);
        if all().all(|layer| !self.joins(layer.weight.device())) {
            return groups.iter().map(|group| self.solve(group.layers, group.statistics)).collect();
        }
        no_grad(|| self.solve_on_device(groups))
    }
}

impl Dsnot {
    fn solve_on_device(&self, groups: &[LayerGroup<'_>]) -> Result<Vec<Vec<LayerSolution>>, PruneError> {
        let widest = groups.iter().flat_map(|group| group.layers).map(|layer| layer.weight.size()[1]).max();
        let most = widest.unwrap_or(0).min(i64::try_from(self.max_cycles).unwrap_or(i64::MAX));
        let (mut importances, mut listed) = (Vec::new(), Vec::new());
        for &LayerGroup { layers, statistics } in groups {
            check(layers, self.needs(), statistics)?;
            let (Some(first), Some(statistics)) = (layers.first(), statistics) else { continue };
            let inputs = device::Inputs::new(first.name, statistics, self.variance_power)?;
            for layer in layers {
                let importance = layer.ranked(self.initial.importance(layer, statistics)?);
                listed.push(device::Layer::new(layer, &importance, &inputs, most));
                importances.push(importance);
            }
        }
        let mut solved = device::swap(self, &listed, most).into_iter().zip(importances);
        let mut solution = || {
            let solved = solved.next();
            solved.map(|(keep, importance)| LayerSolution { keep, importance: Some(importance), weight: None })
        };
        Ok(groups.iter().map(|group| group.layers.iter().filter_map(|_| solution()).collect()).collect())
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
        let mut keep = flags(&layer.without_gone(layer.selection.keep(importance)));
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

#[cfg(test)]
mod tests {
    use ressa_experiment::config::Group;
    use tch::Kind;

    use super::*;
    use crate::metric::Magnitude;

    /// Swaps on lists, on the host, against the swaps of the host: layers of two inputs, ties, signs, few and many cycles.
    #[test]
    fn lists_swap_as_the_host_does() {
        let wave = |count: i64, step: f64| (Tensor::arange(count, (Kind::Float, Device::Cpu)) * step).sin();
        let statistics = |width: i64| {
            let mut seen = ColumnStatistics::new(width, Needs::MOMENTS | Needs::NORMS, Device::Cpu);
            for sample in 0..4 {
                // Steps of an eighth make ties; the first column is never alive, the second never varies.
                let inputs = (wave(30 * width, 0.31 + f64::from(sample)).view([30, width]) * 8.0).round() / 8.0 + 0.25;
                let _ = inputs.narrow(1, 0, 1).zero_();
                let _ = inputs.narrow(1, 1, 1).fill_(0.5);
                seen.add_sample(&inputs);
            }
            seen
        };
        let weight = |rows: i64, width: i64| (wave(rows * width, 0.77).view([rows, width]) * 16.0).round() / 16.0;
        let (wide, narrow) = ([weight(12, 64), weight(7, 64) * -0.5], [weight(9, 32)]);
        let seen = [statistics(64), statistics(32)];
        let mut changed = 0;
        for selection in [
            Selection::Unstructured { sparsity: 0.6, group: Group::Row },
            Selection::Unstructured { sparsity: 0.5, group: Group::Matrix },
            Selection::NOfM { keep: 2, of: 4 },
            Selection::NOfM { keep: 1, of: 8 },
        ] {
            for (max_cycles, variance_power, sign, by_magnitude) in [
                (0, 1.0, SignRule::Published, false),
                (3, 1.0, SignRule::Published, true),
                (50, 0.5, SignRule::Always, false),
                (200, 1.0, SignRule::Published, false),
            ] {
                let initial: Box<dyn PruningMetric> = if by_magnitude { Box::new(Magnitude) } else { Box::new(Wanda) };
                let initial = Initial::Metric(initial);
                let method = Dsnot { initial, max_cycles, threshold: 1e-3, variance_power, sign };
                let problem = |weight| LayerProblem { name: "layer", weight, selection, gone: None };
                let layers: [Vec<_>; 2] = [wide.iter().map(problem).collect(), narrow.iter().map(problem).collect()];
                let groups: Vec<LayerGroup<'_>> = layers
                    .iter()
                    .zip(&seen)
                    .map(|(layers, seen)| LayerGroup { layers, statistics: Some(seen) })
                    .collect();
                let device = method.solve_on_device(&groups).expect("solves");
                let host = method.solve_groups(&groups).expect("solves");
                for (device, host) in device.iter().flatten().zip(host.iter().flatten()) {
                    assert!(device.keep.equal(&host.keep), "{selection:?}, {max_cycles} cycles");
                    let initial = host.importance.as_ref().map(|importance| selection.keep(importance));
                    changed += i32::from(initial.is_some_and(|initial| !initial.equal(&host.keep)));
                }
            }
        }
        assert!(changed >= 20, "{changed}");
    }
}
