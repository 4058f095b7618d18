//! The closed form over seeds and items against a bootstrap of both, and what must never happen to an interval.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rand_distr::{Distribution, StandardNormal};
use ressa_experiment::Task;
use ressa_report::{
    claim::{Verdict, greater, peak},
    evidence::{Difference, Row, Seeds, TestSet, contributions, looks},
};

fn set(units: usize) -> TestSet {
    TestSet { weights: vec![1.0; units], reach: 0.0 }
}

fn row(values: Vec<f64>) -> Row {
    Row { value: values.iter().sum::<f64>() / values.len() as f64, sets: vec![values] }
}

/// Rows with effects of seeds, items and both.
fn drawn(seeds: usize, items: usize, std: [f64; 3], rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let mut normal = |std: f64| -> f64 {
        let z: f64 = StandardNormal.sample(rng);
        std * z
    };
    let own: Vec<f64> = (0..items).map(|_| normal(std[1])).collect();
    (0..seeds)
        .map(|_| {
            let seed = normal(std[0]);
            own.iter().map(|item| seed + item + normal(std[2])).collect()
        })
        .collect()
}

/// Variance of the mean when seeds and items are drawn again with replacement, each for itself (Owen's pigeonhole bootstrap).
fn bootstrap(rows: &[Vec<f64>], rng: &mut ChaCha8Rng) -> f64 {
    let (seeds, items) = (rows.len(), rows[0].len());
    let means: Vec<f64> = (0..4000)
        .map(|_| {
            let mut times = vec![0.0; items];
            (0..items).for_each(|_| times[(rng.next_u64() % items as u64) as usize] += 1.0);
            let drawn = (0..seeds).map(|_| &rows[(rng.next_u64() % seeds as u64) as usize]);
            let sum: f64 = drawn.map(|row| row.iter().zip(&times).map(|(v, t)| v * t).sum::<f64>()).sum();
            sum / (seeds * items) as f64
        })
        .collect();
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / means.len() as f64
}

/// The bootstrap of crossed factors expects `S (n-1)/n + I (m-1)/m` and a third share `R` of what both contain, where the closed form is
/// `S + I - R`. Where neither factor is all there is, both say the same but for that.
#[test]
fn the_closed_form_is_what_a_bootstrap_of_seeds_and_items_finds() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for std in [[1.0, 20.0, 4.0], [4.0, 3.0, 10.0], [0.0, 30.0, 0.0], [2.0, 0.0, 40.0]] {
        let (seeds, items) = (12, 300);
        let rows = drawn(seeds, items, std, &mut rng);
        let difference = Difference::paired(&[set(items)], rows.iter().cloned().map(row).collect(), items).unwrap();
        let found = bootstrap(&rows, &mut rng);
        let spread = &difference.spread;
        let (s, i, r) = spread.mean_squares();
        let expected = s * (seeds as f64 - 1.0) / seeds as f64 + i * (items as f64 - 1.0) / items as f64 + r;
        assert!((found / expected - 1.0).abs() < 0.1, "{std:?}: bootstrap {found}, expected {expected}");
        assert!(spread.variance() <= 1.05 * found * seeds as f64 / (seeds as f64 - 1.0), "{std:?}");
        assert!(spread.variance() >= s.max(i), "{std:?}");
    }
}

#[test]
fn the_error_over_items_never_vanishes() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let items = drawn(1, 200, [0.0, 40.0, 0.0], &mut rng).remove(0);
    let of = |n: usize| Difference::paired(&[set(200)], vec![row(items.clone()); n], 200).unwrap();
    // Seeds that agree add nothing, and take nothing away.
    for n in [2, 3, 5, 20] {
        assert!((of(n).half_width() - of(1).half_width()).abs() < 1e-9, "n = {n}");
        assert_eq!(of(n).seeds, Seeds::Paired(n));
    }
    // Where seeds vary much more than items, the interval is Student's over seeds.
    let rows: Vec<Row> = [1.0, 2.0, 3.0].map(|value| row(vec![value; 200])).to_vec();
    let d = Difference::paired(&[set(200)], rows, 200).unwrap();
    assert!((d.half_width() - 4.302_652_73 / 3f64.sqrt()).abs() < 1e-6, "{}", d.half_width());
}

#[test]
fn sides_with_seeds_of_their_own_are_compared_item_by_item() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let common = drawn(1, 400, [0.0, 45.0, 0.0], &mut rng).remove(0);
    let mut side = |n: usize, shift: f64| -> Vec<Row> {
        let own = drawn(n, 400, [0.5, 3.0, 1.0], &mut rng);
        own.iter().map(|own| row(own.iter().zip(&common).map(|(a, b)| a + b + shift).collect())).collect()
    };
    let (a, b) = (side(3, 10.0), side(5, 0.0));
    let d = Difference::apart(&[set(400)], a, b, 400).unwrap();
    assert_eq!(d.seeds.n(), 3);
    // What the items are for both sides is gone: 45 points over 400 items alone would be ± 4.4.
    assert!(d.half_width() < 2.5 && d.is_above(5.0, 0.05), "{} ± {}", d.mean, d.half_width());
}

#[test]
fn rounding_decides_nothing() {
    let rows = vec![row(vec![1e-15; 50]), row(vec![1.1e-15; 50]), row(vec![1e-15; 50])];
    let d = Difference::paired(&[set(50)], rows, 50).unwrap();
    assert_eq!(greater::decide(&[Some(&d)], None).verdict, Verdict::Undecided);
    assert_eq!(peak::decide(&[Some(&d)], 0.0).verdict, Verdict::Holds, "a lead of rounding is no lead");
}

#[test]
fn more_looks_ask_for_more() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    // Below zero by 2.1 standard errors: enough for one look.
    let mut values = drawn(1, 500, [0.0, 20.0, 0.0], &mut rng).remove(0);
    let (mean, error) = (values.iter().sum::<f64>() / 500.0, 20.0 / 500f64.sqrt());
    values.iter_mut().for_each(|v| *v -= mean + 2.15 * error);
    let d = Difference::paired(&[set(500)], vec![row(values)], 500).unwrap();
    let zero =
        Difference::paired(&[set(500)], drawn(1, 500, [0.0, 20.0, 0.0], &mut rng).into_iter().map(row).collect(), 500)
            .unwrap();
    assert_eq!(greater::decide(&[Some(&d)], None).verdict, Verdict::DoesNotHold);
    let seven = [Some(&d), Some(&zero), Some(&zero), Some(&zero), Some(&zero), Some(&zero), Some(&zero)];
    assert_eq!(greater::decide(&seven, None).verdict, Verdict::Undecided);
    // Looks at the same thing are one look; independent ones ask for Bonferroni's level.
    let same = looks::max_level(&[&d, &d, &d, &d], 4, 0.05);
    assert!((same - 0.05).abs() < 0.006, "{same}");
    let rows = drawn(4, 500, [0.0, 0.0, 20.0], &mut rng);
    let apart: Vec<Difference> =
        rows.into_iter().map(|r| Difference::paired(&[set(500)], vec![row(r)], 500).unwrap()).collect();
    let apart = looks::max_level(&apart.iter().collect::<Vec<_>>(), 4, 0.05);
    assert!((0.0125..0.017).contains(&apart), "{apart}");
}

#[test]
fn few_items_decide_little() {
    // Four items of which all differ, and two hundred of which four do: neither is enough.
    for (items, differing) in [(4, 4), (200, 4)] {
        let values: Vec<f64> = (0..items).map(|i| if i < differing { 100.0 } else { 0.0 }).collect();
        let set = TestSet { weights: vec![1.0; items], reach: 100.0 };
        let d = Difference::paired(&[set], vec![row(values)], items).unwrap();
        assert!(!d.is_above(0.0, 0.05), "{items}: {} ± {}", d.mean, d.half_width());
        assert!(d.detectable() > d.half_width());
    }
}

#[test]
fn what_is_needed_is_enough() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let rows: Vec<Row> = drawn(3, 200, [1.0, 30.0, 5.0], &mut rng).into_iter().map(row).collect();
    let d = Difference::paired(&[set(200)], rows, 200).unwrap();
    let gap = 0.6 * d.detectable();
    let needed = d.needed(gap, 0.05);
    // The items alone hide such a difference, whatever the seeds.
    assert!(needed.seeds.is_none() || needed.seeds > Some(3), "{needed:?}");
    assert!(needed.items.is_none_or(|items| items > 200), "{needed:?}");
    assert_eq!(d.needed(2.0 * d.detectable(), 0.05).seeds, Some(3), "enough already");
    assert_eq!(d.needed(0.0, 0.05).items, None, "no difference is never shown");
}

#[test]
fn contributions_add_up_to_the_score() {
    let answers = br#"{"kind":"answer","id":"00000-0","prompt":"a \"b\"","points":100.0,"template":"color"}
{"kind":"answer","id":"00000-1","points":0.0,"template":"shape"}
{"kind":"answer","id":"00001-0","points":30.0,"template":"color"}
"#;
    let all = contributions(Task::Gqa, None, answers).unwrap();
    assert_eq!((all.values.len(), all.items), (2, 3), "questions about one image are one unit");
    assert!((all.values.iter().sum::<f64>() / 2.0 - 130.0 / 3.0).abs() < 1e-12);
    let color = contributions(Task::Gqa, Some("color"), answers).unwrap();
    assert_eq!(color.values, [100.0, 30.0]);
    assert!(contributions(Task::Gqa, Some("size"), answers).is_none());

    let ranks = br#"{"kind":"rank","id":"image-0","direction":"image-to-text","image":0,"rank":1,"points":100.0}
{"kind":"rank","id":"image-1","direction":"image-to-text","image":1,"rank":4,"points":0.0}
{"kind":"rank","id":"0-0","direction":"text-to-image","image":0,"rank":1,"points":100.0}
{"kind":"rank","id":"0-1","direction":"text-to-image","image":0,"rank":2,"points":0.0}
{"kind":"rank","id":"1-0","direction":"text-to-image","image":1,"rank":1,"points":100.0}
{"kind":"rank","id":"1-1","direction":"text-to-image","image":1,"rank":1,"points":100.0}
"#;
    let mean = |part: Option<&str>| {
        let scores = contributions(Task::Flickr30k, part, ranks).unwrap();
        scores.values.iter().sum::<f64>() / scores.values.len() as f64
    };
    assert_eq!(mean(None), 62.5, "half of text recall 50 and image recall 75");
    assert_eq!(mean(Some("image-recall@1")), 75.0);
    assert_eq!(mean(Some("text-recall@5")), 100.0);
    assert!(contributions(Task::Nocaps, Some("bleu-4"), answers).is_none(), "no mean over items");
}
