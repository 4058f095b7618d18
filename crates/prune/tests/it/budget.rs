//! What must hold for every budget, and how the reference's repair loop compares.

use proptest::prelude::*;
use ressa_prune::allocation::solver::{Group, Rule, solve};

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let score = prop_oneof![1 => Just(0.0), 2 => (0u8..6).prop_map(f64::from), 5 => 0.0f64..50.0];
    let group = (1u64..4000, score, 0.0f64..0.4, 0.5f64..1.0).prop_map(|(elements, score, floor, cap)| Group {
        elements,
        score,
        floor,
        cap,
    });
    proptest::collection::vec(group, 1..12)
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![Just(Rule::Proportional), Just(Rule::Shifted)]
}

fn range(groups: &[Group]) -> (u64, u64) {
    let least = |g: &Group| (g.elements as f64 * g.floor - 1e-6).ceil().max(0.0);
    // Around a single weight no count may lie between floor and cap: the floor counts.
    let most = |g: &Group| (g.elements as f64 * g.cap + 1e-6).floor().max(least(g));
    (groups.iter().map(least).sum::<f64>() as u64, groups.iter().map(most).sum::<f64>() as u64)
}

/// A feasible total.
fn removed(groups: &[Group], share: f64) -> u64 {
    let (least, most) = range(groups);
    least + ((most.saturating_sub(least)) as f64 * share) as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_total_is_exact_and_bounds_are_kept(groups in groups(), rule in rule(), share in 0.0f64..=1.0) {
        let removed = removed(&groups, share);
        let counts = solve(&groups, rule, removed).expect("feasible");
        prop_assert_eq!(counts.iter().sum::<u64>(), removed);
        for (group, &count) in groups.iter().zip(&counts) {
            let elements = group.elements as f64;
            prop_assert!(count as f64 >= elements * group.floor - 1e-5);
            prop_assert!(count as f64 <= (elements * group.cap + 1e-5).max((elements * group.floor).ceil()));
        }
        let (least, most) = range(&groups);
        prop_assert!(solve(&groups, rule, most + 1).is_err());
        prop_assert!(least == 0 || solve(&groups, rule, least - 1).is_err());
    }

    /// Raising one score takes nothing from that group; removing one weight more gives none back.
    #[test]
    fn it_is_monotone(groups in groups(), rule in rule(), share in 0.0f64..=1.0, at in any::<prop::sample::Index>(), more in 0.0f64..9.0) {
        let removed = removed(&groups, share);
        let counts = solve(&groups, rule, removed).expect("feasible");
        let g = at.index(groups.len());
        let mut raised = groups.clone();
        raised[g].score += more;
        prop_assert!(solve(&raised, rule, removed).expect("feasible")[g] <= counts[g]);
        for (a, b) in counts.iter().zip(&solve(&groups, rule, removed.min(range(&groups).1 - 1) + 1).expect("feasible")) {
            // Largest remainders may move a single weight the other way, as with seats.
            prop_assert!(*b + 1 >= *a);
        }
    }

    /// Of two groups with the same elements and bounds, the one with the higher score keeps at least as many.
    #[test]
    fn a_higher_score_keeps_more(groups in groups(), rule in rule(), share in 0.0f64..=1.0) {
        let alike: Vec<Group> = groups.iter().map(|g| Group { score: g.score, ..groups[0] }).collect();
        let counts = solve(&alike, rule, removed(&alike, share)).expect("feasible");
        for (a, x) in alike.iter().zip(&counts) {
            for (b, y) in alike.iter().zip(&counts) {
                prop_assert!(a.score <= b.score || x <= y);
            }
        }
    }

    /// Scores mean their ratios (proportional) or their differences (shifted).
    #[test]
    fn units_of_scores_do_not_matter(groups in groups(), share in 0.0f64..=1.0, exponent in -40i32..40, factor in 0.01f64..100.0) {
        let removed = removed(&groups, share);
        let scaled = |by: f64| groups.iter().map(|g| Group { score: g.score * by, ..*g }).collect::<Vec<_>>();
        let counts = solve(&groups, Rule::Proportional, removed).expect("feasible");
        prop_assert_eq!(&solve(&scaled(2f64.powi(exponent)), Rule::Proportional, removed).expect("feasible"), &counts);
        // Another factor rounds the scores themselves, which can move a remainder.
        for (a, b) in solve(&scaled(factor), Rule::Proportional, removed).expect("feasible").iter().zip(&counts) {
            prop_assert!(a.abs_diff(*b) <= 1);
        }
        let shifted: Vec<Group> = groups.iter().map(|g| Group { score: g.score + 3.0, ..*g }).collect();
        let counts = solve(&groups, Rule::Shifted, removed).expect("feasible");
        for (a, b) in solve(&shifted, Rule::Shifted, removed).expect("feasible").iter().zip(&counts) {
            prop_assert!(a.abs_diff(*b) <= 1);
        }
    }

    /// Groups in another order get the same; only which of several equal groups has one more follows the order.
    #[test]
    fn the_order_of_groups_does_not_matter(groups in groups(), rule in rule(), share in 0.0f64..=1.0, turn in 0usize..12) {
        let removed = removed(&groups, share);
        let named = |groups: &[Group]| {
            let counts = solve(groups, rule, removed).expect("feasible");
            let mut named: Vec<([u64; 4], u64)> = groups
                .iter()
                .zip(counts)
                .map(|(g, count)| ([g.elements, g.score.to_bits(), g.floor.to_bits(), g.cap.to_bits()], count))
                .collect();
            named.sort_unstable();
            named
        };
        let mut other = groups.clone();
        other.rotate_left(turn % groups.len());
        other.reverse();
        prop_assert_eq!(named(&groups), named(&other));
    }
}

/// Kept weights per group as ECoFLaP's code computes them: start at the cap, hand out rounded-up shares until there are enough, and repair
/// what is too much with its sign error. In f32, like the original once a tensor has been added.
fn reference(groups: &[Group], sparsity: f64, cap: f64) -> Vec<f32> {
    let elements: Vec<f32> = groups.iter().map(|g| g.elements as f32).collect();
    let goal = (groups.iter().map(|g| g.elements).sum::<u64>() as f64 * (1.0 - sparsity) + 1e-6).floor() as f32;
    let mut scores: Vec<f32> = groups.iter().map(|g| g.score as f32).collect();
    let mut kept: Vec<f32> = groups.iter().map(|g| (g.elements as f64 * (1.0 - cap)).ceil() as f32).collect();
    while kept.iter().sum::<f32>() < goal {
        let missing = goal - kept.iter().sum::<f32>();
        let all: f32 = scores.iter().sum();
        let before = kept.clone();
        if all > 0.0 {
            for g in 0..kept.len() {
                kept[g] += (scores[g] / all * missing).ceil();
                if kept[g] >= elements[g] {
                    (kept[g], scores[g]) = (elements[g], 0.0);
                }
            }
        }
        if kept == before {
            break;
        }
    }
    let mut excess = kept.iter().sum::<f32>() - goal;
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by(|&a, &b| kept[b].total_cmp(&kept[a]));
    for g in order {
        if excess <= 0.0 {
            break;
        }
        let room = (kept[g] - (elements[g] as f64 * (1.0 - cap)).floor() as f32).min(excess);
        kept[g] += room;
        excess -= room;
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where no group is full, the reference keeps our shares rounded up, plus that rounding once more in its largest group: up to two
    /// weights per group too many. Ours are the shares themselves.
    #[test]
    fn the_reference_overshoots_by_twice_its_rounding(
        drawn in proptest::collection::vec((2000u64..4000, 1.0f64..1.5), 2..12), sparsity in 0.55f64..0.8,
    ) {
        let cap = 0.95;
        let groups: Vec<Group> =
            drawn.into_iter().map(|(elements, score)| Group { elements, score, floor: 0.0, cap }).collect();
        let total: u64 = groups.iter().map(|g| g.elements).sum();
        let goal = (total as f64 * (1.0 - sparsity) + 1e-6).floor() as u64;
        let ours = solve(&groups, Rule::Proportional, total - goal).expect("feasible");
        let theirs = reference(&groups, sparsity, cap);
        prop_assume!(theirs.iter().zip(&groups).all(|(k, g)| *k < g.elements as f32));
        let overshoot = theirs.iter().sum::<f32>() as u64 - goal;
        prop_assert!(overshoot.is_multiple_of(2) && overshoot <= 2 * groups.len() as u64, "{}", overshoot);
        let mut apart: Vec<f32> = theirs.iter().zip(&groups).zip(&ours).map(|((k, g), o)| k - (g.elements - o) as f32).collect();
        apart.sort_by(f32::total_cmp);
        let last = apart.pop().expect("a group");
        // Two: its start is rounded up from a binary fraction, so 5 % of 3580 are 180 weights rather than 179.
        prop_assert!(apart.iter().all(|d| (-1.0..=2.0).contains(d)), "{:?}", apart);
        prop_assert!((-1.0..=overshoot as f32 + 2.0).contains(&last), "{} {}", last, overshoot);
    }
}

/// The published default, a cap of 1.01, starts every group at minus one percent: a group with a small score then keeps less than nothing.
#[test]
fn the_reference_starts_below_nothing_at_its_default_cap() {
    let group = |score| Group { elements: 10_000, score, floor: 0.0, cap: 1.0 };
    let groups = [group(1.0), group(60.0), group(39.0)];
    let theirs = reference(&groups, 0.7, 1.01);
    // 9000 are to stay; 9300 are handed out over a start of -100 each.
    assert_eq!(theirs, [-7.0, 5480.0, 3527.0]);
    assert_eq!(solve(&groups, Rule::Proportional, 21_000).unwrap().map_kept(&groups), [90, 5400, 3510]);
    // With equal scores and shares that come out even, both say the same.
    let even = [group(1.0), group(1.0)];
    assert_eq!(reference(&even, 0.5, 0.9), [5000.0, 5000.0]);
    assert_eq!(solve(&even.map(|g| Group { cap: 0.9, ..g }), Rule::Proportional, 10_000).unwrap(), [5000, 5000]);
}

trait Kept {
    fn map_kept(&self, groups: &[Group]) -> Vec<u64>;
}

impl Kept for Vec<u64> {
    fn map_kept(&self, groups: &[Group]) -> Vec<u64> {
        self.iter().zip(groups).map(|(removed, group)| group.elements - removed).collect()
    }
}
