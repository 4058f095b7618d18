//! A division that is written down: sparsities by layer pattern, the rest of the budget spread evenly over the other layers.

use std::collections::BTreeMap;

use ressa_experiment::{Tower, allocation::BudgetConfig};

use super::{
    AllocationError,
    groups::{Counts, Place, split},
    solver::{Group, Rule, solve},
};
use crate::select::pruned_count;

/// Layers that a pattern names get its sparsity; the others fill the budget with one sparsity (towers that share a budget: with one shift of
/// their own sparsities).
pub(super) fn allocate(places: &[Place], budget: &BudgetConfig, removed: u64) -> Result<Counts, AllocationError> {
    let table = &budget.rule.table;
    let mut counts = Counts::new();
    let (mut rest, mut of_rest) = (Vec::new(), Vec::new());
    let mut towers: BTreeMap<Tower, usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for place in places {
        if let Some(sparsity) = entry(table, place)? {
            counts.insert(place.id.name.clone(), pruned_count(place.elements as i64, sparsity) as u64);
            continue;
        }
        let group = *towers.entry(place.id.tower).or_insert_with(|| {
            let score = 1.0 - budget.towers.get(&place.id.tower).copied().unwrap_or(0.0);
            groups.push(Group { elements: 0, score, floor: budget.rule.floor, cap: budget.rule.cap });
            groups.len() - 1
        });
        groups[group].elements += place.elements;
        rest.push(place.clone());
        of_rest.push(group);
    }
    let fixed: u64 = counts.values().sum();
    let solved = removed.checked_sub(fixed).map(|removed| solve(&groups, Rule::Shifted, removed));
    let shares = match solved {
        Some(Ok(shares)) => shares,
        Some(Err(AllocationError::Infeasible { least, most, .. })) => {
            return Err(AllocationError::Table { fixed, removed, least, most });
        }
        Some(Err(other)) => return Err(other),
        None => return Err(AllocationError::Table { fixed, removed, least: 0, most: 0 }),
    };
    counts.extend(split(&rest, &of_rest, &shares)?);
    Ok(counts)
}

/// A pattern that names none of `places`, and what one of them is called.
pub(super) fn unknown(table: &BTreeMap<String, f64>, places: &[Place]) -> Option<(String, String)> {
    let pattern = table.keys().find(|pattern| !places.iter().any(|place| names(pattern, place)))?;
    Some((pattern.clone(), places.first().map(short).unwrap_or_default()))
}

/// What the table says about a layer: its most specific pattern counts, the one with most characters that are not `*`.
fn entry(table: &BTreeMap<String, f64>, place: &Place) -> Result<Option<f64>, AllocationError> {
    let mut found: Option<(usize, &String, f64)> = None;
    for (pattern, &sparsity) in table.iter().filter(|(pattern, _)| names(pattern, place)) {
        let specific = pattern.chars().filter(|&c| c != '*').count();
        match found {
            Some((most, first, other)) if most == specific && other != sparsity => {
                return Err(AllocationError::Ambiguous {
                    layer: place.id.name.clone(),
                    first: first.clone(),
                    second: pattern.clone(),
                });
            }
            Some((most, ..)) if most >= specific => {}
            _ => found = Some((specific, pattern, sparsity)),
        }
    }
    Ok(found.map(|(_, _, sparsity)| sparsity))
}

/// `tower.block.role`, such as `language.3.wi_0`.
fn short(place: &Place) -> String {
    below(place.id.tower.name(), place)
}

fn below(tower: &str, place: &Place) -> String {
    format!("{tower}.{}.{}", place.id.block, place.id.role)
}

/// Whether a pattern names a layer: by `tower.block.role` or by module path, or by the beginning of one of them up to a dot.
fn names(pattern: &str, place: &Place) -> bool {
    let mut written = place.id.tower.spellings().map(|tower| below(tower, place)).chain([place.id.name.clone()]);
    written.any(|name| {
        let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
        ends.into_iter().any(|end| matches(pattern.as_bytes(), &name.as_bytes()[..end]))
    })
}

/// `*` stands for any characters, also none.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            (p, t) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use ressa_experiment::allocation::{AllocationConfig, AllocationMethod};
    use ressa_models::LayerId;

    use super::*;

    fn place(tower: Tower, block: usize, role: &str, elements: u64) -> Place {
        let name = format!("{tower}_model.layers.{block}.self_attn.{role}");
        Place { id: LayerId { tower, block, role: role.to_owned(), name }, elements }
    }

    fn places() -> Vec<Place> {
        let block = |block| ["q", "wi"].map(|role| place(Tower::Language, block, role, 100));
        (0..11).flat_map(block).collect()
    }

    fn budget(table: &[(&str, f64)], sparsity: f64) -> BudgetConfig {
        let table = table.iter().map(|(pattern, sparsity)| ((*pattern).to_owned(), *sparsity)).collect();
        BudgetConfig {
            rule: AllocationConfig { method: AllocationMethod::Table, table, ..AllocationConfig::default() },
            towers: BTreeMap::from([(Tower::Language, sparsity)]),
            projection: false,
        }
    }

    #[test]
    fn named_layers_get_what_is_written_and_the_rest_fills_the_budget() {
        let budget = budget(&[("language.1", 0.8), ("language.1.q", 0.3), ("*.10.*wi", 0.0)], 0.5);
        let counts = allocate(&places(), &budget, 1100).unwrap();
        let of = |block: usize, role: &str| counts[&place(Tower::Language, block, role, 0).id.name];
        assert_eq!((of(1, "q"), of(1, "wi"), of(10, "wi")), (30, 80, 0));
        // 990 over 19 layers: 52.1 each.
        let rest: Vec<u64> = (0..11).flat_map(|b| [of(b, "q"), of(b, "wi")]).filter(|c| [52, 53].contains(c)).collect();
        assert!(rest.len() == 19 && counts.values().sum::<u64>() == 1100, "{counts:?}");
    }

    #[test]
    fn what_the_table_cannot_say_is_pointed_at() {
        let message = |table: &[(&str, f64)]| {
            super::super::allocate(&places(), &budget(table, 0.5), &BTreeMap::new()).unwrap_err().to_string()
        };
        let unknown = message(&[("language.11", 0.5)]);
        assert!(unknown.contains("`language.11`") && unknown.contains("language.0.q"), "{unknown}");
        assert!(message(&[("*.q", 0.4), ("l*.3.*", 0.5), ("*.q*", 0.6)]).contains("two sparsities"));
        let all = message(&[("language", 0.6)]);
        assert!(all.contains("fixes 1320 of the 1100"), "{all}");
    }
}
