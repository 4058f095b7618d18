//! A search over divisions of a budget, EvoPress: what a model that is pruned so answers is compared with what the dense model answers.
//!
//! - Formula: the mean divergence KL(dense, pruned) of the words of an answer over the samples. Every group of layers has a ladder of shares around
//!   the tower's; a step up or down the ladder is the same number of weights in every group, so a mutation, one group a step up and another a step
//!   down, keeps the budget. A round draws candidates from the best division so far, `min(u, v)` mutations each with u and v uniform in 1 to 3; those
//!   that survive are compared on more samples, at last with the best so far on all
//! - Needs: the statistics of the metric that ranks weights, once; then forward passes only
//! - Paper: Sieberling et al., "EvoPress", ICML 2025, arXiv 2410.14649
//! - Reference: IST-DASLab/EvoPress, `evo_prune_search.py`
//! - Differs: candidates are pruned by ranking the dense weights, without SparseGPT's update of the others; ladders are cut off at floor and cap;
//!   rounds and candidates are fewer by default; the samples of the first rounds of a comparison are drawn without putting back. One tower at a time.
//!
//! Masks of a ladder nest, so a byte for each weight says at which rung it goes.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt, seq::SliceRandom};
use ressa_experiment::{
    Tower,
    allocation::{AllocationGroup, SearchConfig, Sensitivities},
    config::{Group, Metric, TokenConfig},
};
use ressa_models::{LayerId, Linear, Sample, VisionLanguage};
use ressa_runtime::stream;
use tch::{Kind, Tensor, no_grad};

use super::{AllocationError, groups::group_of, probe::Probe};
use crate::{
    error::PruneError,
    metric::{PruningMetric, metric},
    select::Selection,
    statistics::BlockStatistics,
    tower::collect,
    walk::Look,
};

/// Largest number of mutations of a candidate.
const MUTATIONS: u32 = 3;

/// The divisions that are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Space {
    /// What ranks the weights of a layer.
    pub metric: Metric,
    /// Weights that it compares.
    pub compared: Group,
    /// Share that the tower loses.
    pub sparsity: f64,
    /// Layers that get one share.
    pub group: AllocationGroup,
    /// Minimum share of a group.
    pub floor: f64,
    /// Maximum share of a group.
    pub cap: f64,
    /// How long and how wide.
    pub search: SearchConfig,
}

/// The share that every layer of a tower loses in the best division found. `model` carries no masks and is given back as it was.
pub(super) fn search(
    model: &mut dyn VisionLanguage,
    tower: Tower,
    space: Space,
    seed: u64,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, PruneError> {
    no_grad(|| {
        let units = units(model, tower, &space);
        let mut candidates = Candidates::new(model, tower, &space, seed, &units, samples)?;
        let best = evolve(&units, space.search, seed, samples.len(), progress, &mut |levels, sample| {
            candidates.divergence(levels, sample)
        });
        candidates.restore()?;
        let best = best?;
        let shares = units
            .iter()
            .zip(&best)
            .flat_map(|(unit, &level)| unit.layers.iter().map(move |layer| (layer.name.clone(), unit.share(level))));
        Ok(shares.collect())
    })
}

/// Layers that get one share, and the shares that they can have.
#[derive(Clone, Debug, PartialEq)]
struct Unit {
    layers: Vec<Layer>,
    sparsity: f64,
    /// A step, as a share of the unit's weights.
    step: f64,
    /// The lowest and the highest rung, 0 being the tower's share.
    rungs: (i32, i32),
}

#[derive(Clone, Debug, PartialEq)]
struct Layer {
    name: String,
    /// Position among the model's layers.
    at: usize,
}

impl Unit {
    fn share(&self, level: i32) -> f64 {
        (self.sparsity + f64::from(level) * self.step).clamp(0.0, 1.0)
    }
}

fn units(model: &dyn VisionLanguage, tower: Tower, space: &Space) -> Vec<Unit> {
    let mut groups: BTreeMap<(Tower, usize, &str), (Vec<Layer>, f64)> = BTreeMap::new();
    for (at, (id, linear)) in model.linears().into_iter().enumerate().filter(|(_, (id, _))| id.tower == tower) {
        let (layers, elements) = groups.entry(group_of(id, space.group)).or_default();
        layers.push(Layer { name: id.name.clone(), at });
        *elements += linear.weight().numel() as f64;
    }
    let mean = groups.values().map(|(_, elements)| elements).sum::<f64>() / groups.len().max(1) as f64;
    let (sparsity, levels) = (space.sparsity, f64::from(space.search.levels));
    let weights = 0.5 * sparsity.min(1.0 - sparsity) / levels * mean;
    let unit = |(layers, elements): (Vec<Layer>, f64)| {
        let step = weights / elements;
        let rungs = |room: f64| (room / step + 1e-9).floor().clamp(0.0, levels) as i32;
        Unit { layers, sparsity, step, rungs: (-rungs(sparsity - space.floor), rungs(space.cap - sparsity)) }
    };
    groups.into_values().map(unit).collect()
}

/// A model whose layers are pruned to the rungs of a candidate.
struct Candidates<'a> {
    model: &'a mut dyn VisionLanguage,
    probe: Probe<'a>,
    /// What the dense model says of every sample's answer.
    dense: Vec<Tensor>,
    units: &'a [Unit],
    /// The rungs that the model's weights are at; `None` while they are whole.
    installed: Vec<Option<i32>>,
    /// Of every unit's layers: the dense weight, and the number of rungs at which each weight is kept, u8.
    ladders: Vec<Vec<(Tensor, Tensor)>>,
}

impl<'a> Candidates<'a> {
    fn new(
        model: &'a mut dyn VisionLanguage,
        tower: Tower,
        space: &Space,
        seed: u64,
        units: &'a [Unit],
        samples: &'a [Sample],
    ) -> Result<Self, PruneError> {
        let metric = metric(space.metric, seed).ok_or(PruneError::NoMetric)?;
        let mut statistics = BlockStatistics::default();
        if !metric.needs().is_empty() {
            let look = Look { needs: metric.needs(), tokens: TokenConfig::default() };
            // What metrics look at are vectors: those of a whole tower are small.
            collect(model, tower, look, samples, &mut |_, of_block| {
                statistics.extend(of_block);
                Ok(())
            })?;
        }
        let linears = model.linears();
        let ladder = |unit: &Unit| {
            let of = |layer: &Layer| {
                let (id, linear) = linears[layer.at];
                (
                    linear.weight().shallow_clone(),
                    ladder(metric.as_ref(), (id, linear), &statistics, unit, space.compared),
                )
            };
            unit.layers.iter().map(of).collect()
        };
        let ladders = units.iter().map(ladder).collect();
        let probe = Probe::new(model, tower, samples);
        let dense = (0..samples.len()).map(|sample| probe.log_probabilities(model, sample)).collect();
        Ok(Self { model, probe, dense, units, installed: vec![None; units.len()], ladders })
    }

    /// How far the answer to a sample is from the dense model's, in nats a word.
    fn divergence(&mut self, levels: &[i32], sample: usize) -> Result<f64, PruneError> {
        let mut linears = self.model.linears_mut();
        for (at, &level) in levels.iter().enumerate() {
            if self.installed[at] == Some(level) {
                continue;
            }
            let rung = i64::from(level - self.units[at].rungs.0);
            for (layer, (weight, kept)) in self.units[at].layers.iter().zip(&self.ladders[at]) {
                linears[layer.at].1.set_weight(weight * kept.gt(rung))?;
            }
            self.installed[at] = Some(level);
        }
        drop(linears);
        let dense = &self.dense[sample];
        let found = self.probe.log_probabilities(self.model, sample);
        let divergence = (dense.exp() * (dense - found)).sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Double);
        Ok(divergence.double_value(&[]))
    }

    /// Gives the model its own weights back.
    fn restore(self) -> Result<(), PruneError> {
        let mut linears = self.model.linears_mut();
        for (unit, ladder) in self.units.iter().zip(self.ladders) {
            for (layer, (weight, _)) in unit.layers.iter().zip(ladder) {
                linears[layer.at].1.set_weight(weight)?;
            }
        }
        Ok(())
    }
}

/// At how many rungs of its unit, counted from the lowest share, each weight of a layer is kept: u8 `[out, in]`.
fn ladder(
    metric: &dyn PruningMetric,
    (id, linear): (&LayerId, &Linear),
    statistics: &BlockStatistics,
    unit: &Unit,
    group: Group,
) -> Tensor {
    let importance = metric.importance(&id.name, linear.weight(), statistics.get(&id.name));
    let mut kept = importance.zeros_like().to_kind(Kind::Uint8);
    for level in unit.rungs.0..=unit.rungs.1 {
        // No share is all: what is compared keeps something.
        let selection = Selection::Unstructured { sparsity: unit.share(level), group };
        kept += selection.keep(&importance).to_kind(Kind::Uint8);
    }
    kept
}

/// Rungs of a candidate, one for each unit.
type Levels = Vec<i32>;

/// How far a candidate's answer to a sample is from the dense model's.
type Divergence<'a, E> = dyn FnMut(&[i32], usize) -> Result<f64, E> + 'a;

/// The best division found. `divergence` compares a candidate with the dense model on one sample; the same question gets the same answer.
fn evolve<E: From<AllocationError>>(
    units: &[Unit],
    search: SearchConfig,
    seed: u64,
    samples: usize,
    progress: &mut dyn FnMut(f64),
    divergence: &mut Divergence<'_, E>,
) -> Result<Levels, E> {
    let mut rng = stream(seed, "evopress");
    let mut on = |levels: &[i32], chosen: &[usize]| -> Result<f64, E> {
        let mut sum = 0.0;
        for &sample in chosen {
            sum += divergence(levels, sample)?;
        }
        let mean = sum / chosen.len().max(1) as f64;
        // A candidate whose answers are no numbers is no better than any other.
        Ok(if mean.is_finite() { mean } else { f64::INFINITY })
    };
    let every: Vec<usize> = (0..samples).collect();
    let mut best: (f64, Levels) = (f64::INFINITY, vec![0; units.len()]);
    best.0 = on(&best.1, &every)?;
    for generation in 0..search.generations {
        let mut drawn: BTreeSet<Levels> = BTreeSet::new();
        // Few groups or rungs have few divisions.
        for _ in 0..4 * search.offspring {
            if drawn.len() < search.offspring as usize {
                drawn.extend(mutated(units, &best.1, &mut rng));
            }
        }
        drawn.remove(&best.1);
        let mut shuffled = every.clone();
        for (survivors, share) in [(4, 8), (8, 2)] {
            let fewer = (search.offspring as usize).div_ceil(survivors);
            if drawn.len() <= fewer {
                continue;
            }
            shuffled.shuffle(&mut rng);
            let chosen = &shuffled[..samples.div_ceil(share)];
            let found = drawn.into_iter().map(|levels| Ok((on(&levels, chosen)?, levels)));
            let mut found: Vec<(f64, Levels)> = found.collect::<Result<_, E>>()?;
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            drawn = found.into_iter().take(fewer).map(|(_, levels)| levels).collect();
        }
        for levels in drawn {
            let found = on(&levels, &every)?;
            if found < best.0 {
                best = (found, levels);
            }
        }
        progress(f64::from(generation + 1) / f64::from(search.generations));
    }
    Ok(best.1)
}

/// A candidate some mutations away from another one; `None` where nothing can move.
fn mutated(units: &[Unit], from: &Levels, rng: &mut impl Rng) -> Option<Levels> {
    let mut levels = from.clone();
    let times = rng.random_range(1..=MUTATIONS).min(rng.random_range(1..=MUTATIONS));
    for _ in 0..times {
        let movable = |up: bool, levels: &Levels| -> Vec<usize> {
            let can = |&at: &usize| match up {
                true => levels[at] < units[at].rungs.1,
                false => levels[at] > units[at].rungs.0,
            };
            (0..units.len()).filter(can).collect()
        };
        let raised = pick(&movable(true, &levels), rng)?;
        let others: Vec<usize> = movable(false, &levels).into_iter().filter(|&at| at != raised).collect();
        let lowered = pick(&others, rng)?;
        levels[raised] += 1;
        levels[lowered] -= 1;
    }
    Some(levels)
}

fn pick(among: &[usize], rng: &mut impl Rng) -> Option<usize> {
    (!among.is_empty()).then(|| among[rng.random_range(0..among.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(step: f64, rungs: (i32, i32)) -> Unit {
        Unit { layers: Vec::new(), sparsity: 0.5, step, rungs }
    }

    #[test]
    fn the_search_finds_a_known_division_within_the_budget() {
        // The best division is written down; a candidate is as bad as it is far away. Weights of a step are the same, whatever a unit's size.
        let units = [unit(0.05, (-4, 4)), unit(0.05, (-4, 4)), unit(0.1, (-2, 2)), unit(0.05, (-4, 4))];
        let goal = [3, -2, 1, -2];
        let mut asked = 0;
        let mut divergence = |levels: &[i32], sample: usize| {
            asked += 1;
            assert_eq!(levels.iter().sum::<i32>(), 0, "the budget is kept");
            assert!(levels.iter().zip(&units).all(|(level, unit)| (unit.rungs.0..=unit.rungs.1).contains(level)));
            let far: i32 = levels.iter().zip(goal).map(|(level, goal)| (level - goal).pow(2)).sum();
            Ok::<f64, AllocationError>(f64::from(far) + sample as f64)
        };
        let search = SearchConfig { generations: 40, offspring: 16, levels: 4 };
        let found = evolve(&units, search, 3, 8, &mut |_| {}, &mut divergence).unwrap();
        assert_eq!(found, goal);
        let again = evolve(&units, search, 3, 8, &mut |_| {}, &mut divergence).unwrap();
        assert_eq!(found, again);
    }

    #[test]
    fn where_nothing_can_move_every_group_gets_the_same() {
        for units in [vec![unit(0.1, (0, 0)), unit(0.1, (-2, 2))], vec![unit(0.1, (-2, 2))]] {
            let mut divergence = |_: &[i32], _| Ok::<f64, AllocationError>(1.0);
            let search = SearchConfig { generations: 3, offspring: 4, levels: 2 };
            let found = evolve(&units, search, 0, 2, &mut |_| {}, &mut divergence).unwrap();
            assert_eq!(found, vec![0; units.len()]);
        }
    }
}
