//! The budget solver: how many weights each group gives, so that a total is met to one weight.
//!
//! A group keeps `clamp(start + rate * level, least, most)` weights, and one `level` serves all groups. The sum is a piecewise linear
//! function of the level that never falls, so the level at which the total is met lies between two of its corners: they are sorted
//! and searched, nothing is iterated towards. [`Rule`] says what start and rate are; bounds come from floor and cap.
//!
//! Whole numbers follow by largest remainder: every group gets the integer part of its share, and what is left goes one by one to the
//! largest remainders. Equal remainders: the higher score first, then the larger group, then the earlier one. All sums run in an order that
//! depends on the groups' numbers alone, so the answer does not depend on the order of the groups.

use std::cmp::Ordering;

use super::AllocationError;

/// Slack of decimal fractions: `1000 * 0.29` is meant to be 290, although its binary product lies just below.
const DECIMAL: f64 = 1e-6;

/// A score this far below the largest is none: the levels at which such groups fill could not be told apart in f64.
const NEGLIGIBLE: f64 = 1e-15;

/// Weights that share one budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Weights in the group.
    pub elements: u64,
    /// What the rule goes by: finite, and as a shift no more than a million.
    pub score: f64,
    /// Smallest fraction removed, 0 to 1.
    pub floor: f64,
    /// Largest fraction removed, 0 to 1, at least `floor`.
    pub cap: f64,
}

/// What a score means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Kept weights beyond what the cap guarantees are proportional to the score, which is not negative (ECoFLaP). Groups of score
    /// zero keep more only when all others keep all they may; then in proportion to their elements.
    Proportional,
    /// The kept fraction is the score plus a shift that all groups share (OWL; equal scores give one sparsity to all).
    Shifted,
    /// Groups of the least scores give all they may, those of the largest as little as they may, and one lies between (LoSA: what minimises the
    /// removed weights' sum of scores).
    Extreme,
}

/// The line `start + rate * level` between two bounds, in kept weights.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: f64,
    rate: f64,
    least: f64,
    most: f64,
}

impl Line {
    fn at(&self, level: f64) -> f64 {
        (self.start + self.rate * level).clamp(self.least, self.most)
    }

    /// Levels at which the line leaves its lower and reaches its upper bound.
    fn corners(&self) -> Option<(f64, f64)> {
        (self.rate > 0.0).then(|| ((self.least - self.start) / self.rate, (self.most - self.start) / self.rate))
    }
}

/// Weights that each group gives so that `removed` go in all, exactly.
///
/// Every group stays within `ceil(elements * floor)` and `floor(elements * cap)`. A higher score never gives more.
pub fn solve(groups: &[Group], rule: Rule, removed: u64) -> Result<Vec<u64>, AllocationError> {
    for (position, group) in groups.iter().enumerate() {
        let fractions = (0.0..=1.0).contains(&group.floor) && (group.floor..=1.0).contains(&group.cap);
        let score = match rule {
            Rule::Proportional | Rule::Extreme => group.score.is_finite() && group.score >= 0.0,
            Rule::Shifted => group.score.abs() <= 1e6,
        };
        if !fractions || !score {
            return Err(AllocationError::Group { position, score: group.score, floor: group.floor, cap: group.cap });
        }
    }
    let bounds: Vec<(u64, u64)> = groups.iter().map(removable).collect();
    let total: u64 = groups.iter().map(|group| group.elements).sum();
    let (least, most) = bounds.iter().fold((0, 0), |(least, most), bound| (least + bound.0, most + bound.1));
    if !(least..=most).contains(&removed) {
        return Err(AllocationError::Infeasible { removed, total, least, most });
    }

    if rule == Rule::Extreme {
        return Ok(extreme(groups, &bounds, removed));
    }
    let unit = groups.iter().map(|group| group.score).fold(0.0, f64::max);
    let lines: Vec<Line> = groups.iter().zip(&bounds).map(|(group, bounds)| line(group, *bounds, rule, unit)).collect();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| canonical(&lines[a], &lines[b]).then(a.cmp(&b)));
    let mut kept = fill(&lines, &order, (total - removed) as f64);

    let short = (total - removed) as f64 - sum(&order, |g| kept[g]);
    if short >= 0.5 {
        // Whatever has a score keeps all it may: the rest is shared by the groups without one.
        let rest: Vec<Line> = lines
            .iter()
            .map(|line| match line.rate > 0.0 {
                true => Line { start: line.most, rate: 0.0, ..*line },
                false => Line { start: line.least, rate: line.most - line.least, ..*line },
            })
            .collect();
        kept = fill(&rest, &order, (total - removed) as f64);
    }
    Ok(whole(groups, &bounds, &kept, removed))
}

/// As few as every group must give, and what is missing from groups of rising scores; equal scores: the earlier group first.
fn extreme(groups: &[Group], bounds: &[(u64, u64)], removed: u64) -> Vec<u64> {
    let mut counts: Vec<u64> = bounds.iter().map(|bound| bound.0).collect();
    let mut missing = removed.saturating_sub(counts.iter().sum());
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| groups[a].score.total_cmp(&groups[b].score));
    for group in order {
        let more = missing.min(bounds[group].1 - bounds[group].0);
        counts[group] += more;
        missing -= more;
    }
    counts
}

/// Fewest and most weights that a group may give.
fn removable(group: &Group) -> (u64, u64) {
    let elements = group.elements as f64;
    let least = ((elements * group.floor - DECIMAL).ceil().max(0.0) as u64).min(group.elements);
    let most = ((elements * group.cap + DECIMAL).floor() as u64).min(group.elements);
    // A floor and a cap around less than one weight leave none between them: the floor counts.
    (least, most.max(least))
}

fn line(group: &Group, (fewest, most): (u64, u64), rule: Rule, unit: f64) -> Line {
    let (kept_least, kept_most) = ((group.elements - most) as f64, (group.elements - fewest) as f64);
    let (start, rate) = match rule {
        Rule::Proportional => {
            let rate = if unit > 0.0 { group.score / unit } else { 0.0 };
            (kept_least, if rate < NEGLIGIBLE { 0.0 } else { rate })
        }
        Rule::Shifted | Rule::Extreme => (group.elements as f64 * group.score, group.elements as f64),
    };
    Line { start, rate, least: kept_least, most: kept_most }
}

fn canonical(a: &Line, b: &Line) -> Ordering {
    let key = |line: &Line| [line.rate, line.start, line.least, line.most];
    key(a).iter().zip(&key(b)).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn sum(order: &[usize], value: impl Fn(usize) -> f64) -> f64 {
    order.iter().map(|&g| value(g)).sum()
}

/// Real shares that add up to `kept`, or as near to it as lines with a rate can come.
fn fill(lines: &[Line], order: &[usize], kept: f64) -> Vec<f64> {
    let mut corners: Vec<f64> =
        lines.iter().filter_map(Line::corners).flat_map(|(from, to)| [from, to]).filter(|c| c.is_finite()).collect();
    corners.sort_by(f64::total_cmp);
    corners.dedup();
    let at = |level: f64| sum(order, |g| lines[g].at(level));
    let above = corners.partition_point(|&corner| at(corner) < kept);
    if above == 0 || above == corners.len() {
        let level = if above == 0 { corners.first() } else { corners.last() };
        return lines.iter().map(|line| line.at(level.copied().unwrap_or(0.0))).collect();
    }
    let (from, to) = (corners[above - 1], corners[above]);
    // Between two corners a line is at a bound or moves; those that move share what the others leave.
    let moves = |g: usize| lines[g].corners().is_some_and(|(enter, leave)| enter <= from && leave >= to);
    let fixed = sum(order, |g| if moves(g) { lines[g].start } else { lines[g].at(from) });
    let rate = sum(order, |g| if moves(g) { lines[g].rate } else { 0.0 });
    let level = if rate > 0.0 { ((kept - fixed) / rate).clamp(from, to) } else { to };
    (0..lines.len()).map(|g| if moves(g) { lines[g].at(level) } else { lines[g].at(from) }).collect()
}

/// Largest remainder within the bounds, on kept weights; answers with removed ones.
fn whole(groups: &[Group], bounds: &[(u64, u64)], kept: &[f64], removed: u64) -> Vec<u64> {
    let bound = |g: usize| (groups[g].elements - bounds[g].1, groups[g].elements - bounds[g].0);
    let mut counts: Vec<u64> =
        kept.iter().enumerate().map(|(g, &kept)| (kept.floor() as u64).clamp(bound(g).0, bound(g).1)).collect();
    let total: u64 = groups.iter().map(|group| group.elements).sum();
    let remainder = |g: usize| kept[g] - kept[g].floor();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| {
        let larger = remainder(b).total_cmp(&remainder(a)).then(groups[b].score.total_cmp(&groups[a].score));
        larger.then(groups[b].elements.cmp(&groups[a].elements)).then(a.cmp(&b))
    });
    // One round of single weights is the rule: real shares miss the total by rounding of binary fractions only. Whatever they miss it by, the
    // second round meets it, because the bounds leave room.
    let goal = total - removed;
    let mut have: u64 = counts.iter().sum();
    for most in [1, u64::MAX] {
        for &g in &order {
            let more = most.min(bound(g).1 - counts[g]).min(goal.saturating_sub(have));
            counts[g] += more;
            have += more;
        }
        for &g in order.iter().rev() {
            let less = most.min(counts[g] - bound(g).0).min(have.saturating_sub(goal));
            counts[g] -= less;
            have -= less;
        }
    }
    groups.iter().zip(counts).map(|(group, kept)| group.elements - kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(elements: u64, score: f64) -> Group {
        Group { elements, score, floor: 0.0, cap: 1.0 }
    }

    #[test]
    fn the_least_scores_give_all_they_may() {
        let group = |score| Group { elements: 100, score, floor: 0.4, cap: 0.6 };
        let groups = [group(0.9), group(0.1), group(0.5), group(0.7)];
        assert_eq!(solve(&groups, Rule::Extreme, 200).unwrap(), [40, 60, 60, 40]);
        assert_eq!(solve(&groups, Rule::Extreme, 175).unwrap(), [40, 55, 40, 40]);
        assert!(solve(&groups, Rule::Extreme, 241).is_err());
    }

    #[test]
    fn two_groups_by_hand() {
        // 100 + 100 weights, half go. Scores 1 : 3 share the 100 kept as 25 : 75.
        let groups = [group(100, 1.0), group(100, 3.0)];
        assert_eq!(solve(&groups, Rule::Proportional, 100).unwrap(), [75, 25]);
        // With at most 60 % gone, 40 of each are safe, and the other 20 are shared as 5 : 15.
        let capped = groups.map(|group| Group { cap: 0.6, ..group });
        assert_eq!(solve(&capped, Rule::Proportional, 100).unwrap(), [55, 45]);
        // With at least 40 % gone the second keeps no more than 60.
        let floored = groups.map(|group| Group { floor: 0.4, ..group });
        assert_eq!(solve(&floored, Rule::Proportional, 100).unwrap(), [60, 40]);
        // Kept fractions that differ by 0.2 around a mean of 0.5, weighted by 100 : 300.
        let shifted = [group(100, 0.2), group(300, 0.0)];
        assert_eq!(solve(&shifted, Rule::Shifted, 200).unwrap(), [35, 165]);
    }

    #[test]
    fn what_a_full_group_cannot_take_goes_to_the_others() {
        // 9 : 1 of 100 kept would be 90, but the first has 50 weights only.
        assert_eq!(solve(&[group(50, 9.0), group(150, 1.0)], Rule::Proportional, 100).unwrap(), [0, 100]);
        // Without a score a group keeps what the others cannot, in proportion to its elements.
        let mut groups = [group(10, 2.0), group(30, 0.0), group(60, 0.0)];
        assert_eq!(solve(&groups, Rule::Proportional, 90).unwrap(), [0, 30, 60]);
        assert_eq!(solve(&groups, Rule::Proportional, 60).unwrap(), [0, 20, 40]);
        groups[0].score = 0.0;
        assert_eq!(solve(&groups, Rule::Proportional, 50).unwrap(), [5, 15, 30]);
    }

    /// Scores as far apart as f64 allows, in groups as large as any model's.
    #[test]
    fn extreme_scores_and_sizes_are_met_exactly() {
        let large = 11_000_000_000;
        for scores in [[1e-320, 1e300, 1e-10], [f64::MIN_POSITIVE, f64::MAX, 0.0], [1e-14, 1.0, 1e-13]] {
            let groups = scores.map(|score| Group { cap: 0.99, ..group(large, score) });
            for removed in [0, 1, 10_890_000_001, 17_777_777_777, 32_669_999_999, 32_670_000_000] {
                let counts = solve(&groups, Rule::Proportional, removed).unwrap();
                assert_eq!(counts.iter().sum::<u64>(), removed, "{scores:?}");
                assert!(counts.iter().all(|count| *count <= 10_890_000_000) && counts[1] <= counts[0], "{counts:?}");
            }
        }
    }

    #[test]
    fn among_equal_remainders_the_higher_score_then_the_larger_then_the_earlier_keeps() {
        assert_eq!(solve(&[group(3, 0.5), group(3, 0.5)], Rule::Shifted, 3).unwrap(), [1, 2]);
        assert_eq!(solve(&[group(3, 1.0), group(5, 1.0)], Rule::Shifted, 4).unwrap(), [2, 2]);
        assert_eq!(solve(&[group(8, 1.0), group(8, 3.0)], Rule::Proportional, 10).unwrap(), [7, 3]);
    }

    #[test]
    fn what_cannot_be_met_is_said_with_what_could() {
        let groups = [Group { cap: 0.6, ..group(100, 1.0) }, Group { floor: 0.1, cap: 0.5, ..group(100, 1.0) }];
        let message = |removed| solve(&groups, Rule::Proportional, removed).unwrap_err().to_string();
        assert!(message(111).contains("111 of 200") && message(111).contains("110"), "{}", message(111));
        assert!(message(9).contains("at least 10"), "{}", message(9));
        for wrong in [group(9, f64::NAN), group(9, -1.0), Group { floor: 0.6, cap: 0.5, ..group(9, 1.0) }] {
            assert!(solve(&[wrong], Rule::Proportional, 3).is_err());
        }
        assert_eq!(solve(&[], Rule::Shifted, 0).unwrap(), Vec::<u64>::new());
        assert!(solve(&[], Rule::Shifted, 1).is_err());
    }
}
