//! From what was measured to how many weights each layer gives.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::{
    Tower,
    allocation::{
        Aggregate, AllocationConfig, AllocationGroup, AllocationMethod, AllocationScope, BudgetConfig, Sensitivities,
    },
};
use ressa_models::{LayerId, VisionLanguage};

use super::{
    AllocationError,
    solver::{Group, Rule, solve},
    table,
};
use crate::select::pruned_count;

/// Weights that each layer gives, by module path.
pub type Counts = BTreeMap<String, u64>;

/// A prunable layer and its size.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Where it is.
    pub id: LayerId,
    /// Weights.
    pub elements: u64,
}

/// The prunable layers of `towers`, in the order they run.
pub fn places(model: &dyn VisionLanguage, towers: impl IntoIterator<Item = Tower>) -> Vec<Place> {
    let towers: BTreeSet<Tower> = towers.into_iter().collect();
    let layers = model.linears().into_iter().filter(|(id, _)| towers.contains(&id.tower));
    layers
        .map(|(id, linear)| {
            let (rows, columns) = linear.shape();
            Place { id: id.clone(), elements: (rows * columns) as u64 }
        })
        .collect()
}

/// Divides a budget: the towers of `budget` lose the sum of their own budgets, to one weight.
///
/// `places` has the layers of these towers, and of others only so that a table may name them too; `sensitivities` has what [`super::measure`] found
/// for every layer with a budget, and may be empty for methods that measure nothing.
///
/// # Errors
/// A budget that cannot be met as asked; layers that were not measured.
pub fn allocate(
    places: &[Place],
    budget: &BudgetConfig,
    sensitivities: &Sensitivities,
) -> Result<Counts, AllocationError> {
    let rule = &budget.rule;
    if rule.method == AllocationMethod::Table
        && let Some((pattern, example)) = table::unknown(&rule.table, places)
    {
        return Err(AllocationError::NoSuchLayer { pattern, example });
    }
    let places: Vec<Place> = places.iter().filter(|p| budget.towers.contains_key(&p.id.tower)).cloned().collect();
    let places = places.as_slice();
    let mut removed = 0;
    for (&tower, &sparsity) in &budget.towers {
        let elements: u64 = places.iter().filter(|place| place.id.tower == tower).map(|place| place.elements).sum();
        if elements == 0 {
            return Err(AllocationError::NoLayers { tower });
        }
        removed += pruned_count(elements as i64, sparsity) as u64;
    }
    let (groups, of_places) = match rule.method {
        AllocationMethod::Table => return table::allocate(places, budget, removed),
        AllocationMethod::Uniform => grouped(places, AllocationGroup::Tower),
        AllocationMethod::Losa => grouped(places, AllocationGroup::Block),
        AllocationMethod::Owl | AllocationMethod::Ecoflap | AllocationMethod::Tamp | AllocationMethod::Evopress => {
            grouped(places, rule.group)
        }
    };
    let mut sums = vec![0.0; groups.len()];
    if rule.is_measured() {
        for (place, &group) in places.iter().zip(&of_places) {
            let layer = || place.id.name.clone();
            let value =
                *sensitivities.get(&place.id.name).ok_or_else(|| AllocationError::NotMeasured { layer: layer() })?;
            if !value.is_finite() || value < 0.0 {
                return Err(AllocationError::NotFinite { layer: layer() });
            }
            // Counts and scores of layers add up; what is said of a whole group is the same for each of its weights.
            let whole = matches!(rule.method, AllocationMethod::Losa | AllocationMethod::Evopress);
            sums[group] += if whole { value * place.elements as f64 / groups[group].1 as f64 } else { value };
        }
    }
    let sparsity = |group: usize| budget.towers.get(&groups[group].0).copied().unwrap_or(0.0);
    let dense = |group: usize| 1.0 - sparsity(group);
    let scores: Vec<f64> = match rule.method {
        AllocationMethod::Ecoflap if rule.aggregate == Aggregate::Average => {
            sums.iter().zip(&groups).map(|(sum, (_, elements))| sum / (*elements as f64)).collect()
        }
        AllocationMethod::Ecoflap | AllocationMethod::Tamp | AllocationMethod::Losa => sums,
        AllocationMethod::Evopress => sums.iter().map(|share| 1.0 - share).collect(),
        AllocationMethod::Owl => {
            let ratios: Vec<f64> = sums.iter().zip(&groups).map(|(sum, (_, n))| sum / (*n as f64)).collect();
            shifts(&ratios, rule.lambda).iter().enumerate().map(|(group, shift)| dense(group) + shift).collect()
        }
        AllocationMethod::Uniform | AllocationMethod::Table => (0..groups.len()).map(dense).collect(),
    };
    let solver = match rule.method {
        AllocationMethod::Ecoflap | AllocationMethod::Tamp => Rule::Proportional,
        AllocationMethod::Losa => Rule::Extreme,
        _ => Rule::Shifted,
    };
    let bounded = |(at, (&(_, elements), score)): (usize, (&(Tower, u64), f64))| {
        let mut group = group(elements, score, rule);
        if let Some(margin) = rule.margin(sparsity(at)) {
            group.cap = group.cap.min(sparsity(at) + margin).max(group.floor);
            if rule.method == AllocationMethod::Losa {
                group.floor = group.floor.max(sparsity(at) - margin).min(group.cap);
            }
        }
        group
    };
    let solved: Vec<Group> = groups.iter().zip(scores).enumerate().map(bounded).collect();
    let counts = solve(&solved, solver, removed)?;
    Ok(split(places, &of_places, &counts)?.into_iter().collect())
}

/// Divides the budgets of `towers`, each for itself or all together, as `rule` says. `places` and `sensitivities` are as for [`allocate`].
///
/// # Errors
/// As for [`allocate`].
pub fn divide(
    places: &[Place],
    rule: &AllocationConfig,
    towers: &BTreeMap<Tower, f64>,
    sensitivities: &Sensitivities,
) -> Result<Counts, AllocationError> {
    let budgets: Vec<BTreeMap<Tower, f64>> = match rule.towers {
        AllocationScope::Joint => vec![towers.clone()],
        AllocationScope::Each => towers.iter().map(|(&tower, &sparsity)| BTreeMap::from([(tower, sparsity)])).collect(),
    };
    let mut counts = Counts::new();
    for towers in budgets {
        // Which layers there are, `places` says.
        let budget = BudgetConfig { rule: rule.clone(), towers, projection: false };
        counts.extend(allocate(places, &budget, sensitivities)?);
    }
    Ok(counts)
}

fn group(elements: u64, score: f64, rule: &AllocationConfig) -> Group {
    Group { elements, score, floor: rule.floor, cap: rule.cap }
}

/// What layers of one group have in common.
pub(super) fn group_of(id: &LayerId, by: AllocationGroup) -> (Tower, usize, &str) {
    match by {
        AllocationGroup::Layer => (id.tower, id.block, id.name.as_str()),
        AllocationGroup::Block => (id.tower, id.block, ""),
        AllocationGroup::Tower => (id.tower, 0, ""),
    }
}

/// Groups in the order they run, with their tower and size, and the group of every place.
fn grouped(places: &[Place], by: AllocationGroup) -> (Vec<(Tower, u64)>, Vec<usize>) {
    let mut groups: Vec<(Tower, u64)> = Vec::new();
    let mut known = BTreeMap::new();
    let of_places = places
        .iter()
        .map(|place| {
            let group = *known.entry(group_of(&place.id, by)).or_insert_with(|| {
                groups.push((place.id.tower, 0));
                groups.len() - 1
            });
            groups[group].1 += place.elements;
            group
        })
        .collect();
    (groups, of_places)
}

/// The layers of a group get one sparsity, to one weight each.
pub(super) fn split(
    places: &[Place],
    of_places: &[usize],
    counts: &[u64],
) -> Result<Vec<(String, u64)>, AllocationError> {
    let mut given = Vec::with_capacity(places.len());
    for (group, &count) in counts.iter().enumerate() {
        let members: Vec<&Place> = places.iter().zip(of_places).filter(|(_, g)| **g == group).map(|(p, _)| p).collect();
        let alike: Vec<Group> =
            members.iter().map(|p| Group { elements: p.elements, score: 0.0, floor: 0.0, cap: 1.0 }).collect();
        let shares = solve(&alike, Rule::Shifted, count)?;
        given.extend(members.iter().zip(shares).map(|(place, share)| (place.id.name.clone(), share)));
    }
    Ok(given)
}

/// How far from the mean each group's kept fraction lies: outlier ratios stretched to a range of `2 lambda`, their mean taken away.
/// Equal ratios say nothing and shift nothing (the published code divides by zero).
fn shifts(ratios: &[f64], lambda: f64) -> Vec<f64> {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most <= least {
        return vec![0.0; ratios.len()];
    }
    let stretched: Vec<f64> = ratios.iter().map(|ratio| (ratio - least) / (most - least) * 2.0 * lambda).collect();
    let mean = stretched.iter().sum::<f64>() / stretched.len() as f64;
    stretched.iter().map(|shift| shift - mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_are_centred_and_span_two_lambda() {
        let shifts = shifts(&[0.01, 0.03, 0.02], 0.1);
        let expected = [-0.1, 0.1, 0.0];
        assert!(shifts.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{shifts:?}");
        assert_eq!(super::shifts(&[0.02, 0.02], 0.1), [0.0, 0.0]);
    }
}
