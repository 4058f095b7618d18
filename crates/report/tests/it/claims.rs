//! Verdicts on results made for them.

use ressa_experiment::{Cell, Pattern, Task, config::Metric};
use ressa_report::Verdict;

use crate::probe::{self, Probe};

fn verdicts(score: impl Fn(&Cell, Task) -> Option<f64>) -> Vec<String> {
    let rendered = Probe::filled(score).render(false).unwrap();
    rendered.claims.iter().map(|claim| format!("{}: {}: {}", claim.id, claim.verdict, claim.reason)).collect()
}

#[test]
fn clear_results_decide() {
    insta::assert_snapshot!(verdicts(probe::score).join("\n"), @r#"
    wanda-better: holds: above at 2 of 2, below at 0; on balance +10.0 ± 2.6 (n = 3 seeds, 3900 items); differences of 3.4 are seen with 80 % power
    magnitude-better: does not hold: above at 0 of 2, below at 2; on balance -10.0 ± 2.6 (n = 3 seeds, 3900 items); differences of 3.4 are seen with 80 % power
    magnitude-steady: holds: all 2 are equal
    all-one: does not hold: 6 of 6 differ: 69.0 against 60.0 at 50 %, seed 0
    loose-best: holds: 50 % is the best of 2 with 70.0; next is 2:4 with 60.0: -10.0 ± 0.9 (n = 3 seeds, 3900 items), tolerance 1; differences of 1.3 are seen with 80 % power
    tight-best: does not hold: 50 % is the best of 2 with 70.0, 2:4 has 60.0: +10.0 ± 0.9 (n = 3 seeds, 3900 items), tolerance 1; differences of 1.3 are seen with 80 % power
    nothing-revived: holds: all 9 are exactly 0
    sparse: holds: all 8 are the target sparsity (vision); largest deviation 0.000, tolerance 0.001
    half: does not hold: 6 of 6 contradict: 0.500 instead of 0.250 at wanda, 50 %, seed 0
    "#);
}

#[test]
fn a_difference_within_the_spread_of_seeds_is_undecided() {
    let score = |cell: &Cell, task| match cell.run.prune.metric {
        Metric::Wanda => Some(60.5 + [-3.0, 0.0, 3.0][cell.seed as usize]),
        _ => probe::score(cell, task).map(|_| 60.0),
    };
    let verdicts = verdicts(score);
    assert!(verdicts[0].starts_with("wanda-better: undecided: above at 0 of 2, below at 0"), "{}", verdicts[0]);
    assert!(verdicts[1].starts_with("magnitude-better: undecided"), "{}", verdicts[1]);
}

#[test]
fn one_label_against_is_enough_to_contradict() {
    let score = |cell: &Cell, task| {
        let spread = [-0.1, 0.0, 0.1][cell.seed as usize];
        match (cell.run.prune.metric, cell.run.prune.pattern) {
            (Metric::Wanda, Pattern::Unstructured) => Some(80.0 + spread),
            (Metric::Wanda, _) => Some(45.0 + spread),
            _ => probe::score(cell, task),
        }
    };
    assert!(verdicts(score)[0].starts_with("wanda-better: does not hold: above at 1 of 2, below at 1"));
}

#[test]
fn a_claim_waits_for_missing_results() {
    let score = |cell: &Cell, task| match (cell.run.prune.metric, cell.run.prune.pattern) {
        (Metric::Wanda, Pattern::Unstructured) => None,
        _ => probe::score(cell, task),
    };
    let verdicts = verdicts(score);
    assert!(verdicts[0].starts_with("wanda-better: undecided: above at 1 of 2"), "{}", verdicts[0]);
    assert!(verdicts[3].starts_with("all-one: does not hold: 3 of 3 differ"), "{}", verdicts[3]);
    assert!(
        verdicts[5].contains("undecided") && verdicts[5].contains("1 of 2 labels have no result"),
        "{}",
        verdicts[5]
    );
}

#[test]
fn a_revived_weight_contradicts() {
    let probe = Probe::new(probe::YAML);
    let cell = &probe.experiment.cells[0];
    let node = cell.stages.iter().find(|node| node.stage.kind() == "prune").unwrap();
    let revived = serde_json::json!({ "tensors": { "w": {
        "tower": "vision", "zeros": 49, "total": 100, "revived": 1, "pattern": null, "group_violations": 0 } },
        "violations": ["w: 1 revived"] });
    crate::world::publish(&probe.store, node, revived);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    let rendered = probe.render(false).unwrap();
    let claim = rendered.claims.iter().find(|claim| claim.id == "nothing-revived").unwrap();
    assert_eq!(claim.verdict, Verdict::DoesNotHold);
    assert!(claim.reason.contains("1 instead of 0"), "{}", claim.reason);
    assert!(rendered.provenance.iter().any(|(_, text)| text.contains("w: 1 revived")));
}

/// A claim decided with one of three planned seeds says so, in the text, the table and the page; its note names what n is.
#[test]
fn fewer_seeds_than_planned_decide_provisionally() {
    let score = |cell: &Cell, task| match (cell.run.prune.metric, cell.seed) {
        (Metric::Wanda, 1 | 2) => None,
        _ => probe::score(cell, task),
    };
    let probe = Probe::filled(score);
    let rendered = probe.render(false).unwrap();
    let claim = &rendered.claims[0];
    assert_eq!((claim.verdict, claim.provisional), (Verdict::Holds, Some((1, 3))));
    assert_eq!(claim.outcome(), "holds (provisional, 1 of 3 seeds)");
    assert!(claim.reason.contains("(n = 1 of 3 seeds, 3900 items)"), "{}", claim.reason);
    for file in ["claims.md", "claims.csv", "report.md", "report.html"] {
        assert!(probe.read(file).contains("holds (provisional, 1 of 3 seeds)"), "{file}");
    }
    let json: serde_json::Value = serde_json::from_str(&probe.read("claims.json")).unwrap();
    assert_eq!(json[0]["provisional"], serde_json::json!({ "seeds": 1, "planned": 3 }));
    assert!(json[0]["detectable-80"].as_f64().is_some_and(|d| d > 0.0));
    // One measurement is there; that is not for want of a seed to depend on.
    let table = probe.read("metrics.md");
    assert!(table.contains("(n = 1 of 3 planned; n = 1 where a setting does not depend on the seed)"), "{table}");
    assert!(table.contains("with one seed, so other seeds are not covered") && !table.contains("t-test"), "{table}");
    let page = probe.read("report.md");
    assert!(!page.contains("Means over n = 1"), "{page}");
}

/// Where the points of single items are not stored, the standard errors of both sides stand in, and the numbers say so.
#[test]
fn scores_without_items_are_compared_by_their_errors() {
    let probe = Probe::filled(probe::score);
    for entry in walkdir::WalkDir::new(probe.store.root()).into_iter().filter_map(Result::ok) {
        if entry.file_name() == "predictions.jsonl" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let rendered = probe.render(false).unwrap();
    let claim = &rendered.claims[0];
    assert_eq!(claim.verdict, Verdict::Holds);
    assert!(claim.reason.contains("(n = 3 seeds, 3600 items, unpaired)"), "{}", claim.reason);
    assert!(probe.read("metrics.md").contains("with the standard errors of both over items"));
}

/// A file that does not add up to the published score is not used.
#[test]
fn predictions_of_another_score_are_not_used() {
    let probe = Probe::filled(probe::score);
    for entry in walkdir::WalkDir::new(probe.store.root()).into_iter().filter_map(Result::ok) {
        if entry.file_name() == "predictions.jsonl" {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            std::fs::write(entry.path(), text.replace("\"points\":100.0", "\"points\":101.0")).unwrap();
        }
    }
    let claim = probe.render(false).unwrap().claims.remove(0);
    assert!(claim.reason.contains("items, unpaired"), "{}", claim.reason);
}

const DENSE: &str = r#"
name: probe
description: Where does a dense point stand?
model.preset: shapes-flant5
replicate: { seed: [0] }
axes:
  prune.metric: [magnitude, wanda]
  model.channel-spread: [0, 0.7]
zip:
  pattern:
    prune.pattern:           [unstructured, "2:4"]
    prune.vision.sparsity:   [0.5, 0.5]
    prune.language.sparsity: [0.5, 0.5]
    labels: ["50 %", "2:4"]
include: [{ name: dense, prune.metric: none }]
claims:
  - id: dense-better
    text: Dense is better.
    greater: { a: { prune.metric: none }, b: { prune.metric: magnitude }, over: pattern, metric: average }
  - id: dense-better-at-one
    text: Dense is better.
    greater: { a: { prune.metric: none }, b: { prune.metric: wanda }, over: pattern, metric: average, where: { pattern: "2:4" } }
  - id: dense-and-spread
    text: Dense is better whatever the spread.
    greater: { a: { prune.metric: none }, b: { prune.metric: magnitude }, over: model.channel-spread, metric: average }
  - id: best-pattern
    text: Unstructured is best.
    peak: { x: pattern, at: "50 %", tolerance: 1, metric: average, where: { prune.metric: [none, wanda] } }
"#;

/// A dense point stands at every label of an axis that says how to prune, passes a `where` on it, and is no label of its own there. Where
/// the axis changes the model, it stands only where it is.
#[test]
fn a_dense_point_stands_at_every_label() {
    let probe = Probe::new(DENSE);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    let claims = probe.render(false).unwrap().claims;
    assert!(claims[0].reason.starts_with("above at 2 of 2"), "{}", claims[0].reason);
    assert_eq!((claims[1].verdict, claims[1].evidence.len()), (Verdict::Holds, 1));
    assert!(claims[1].reason.starts_with("90.0 against 59.0"), "{}", claims[1].reason);
    assert_eq!(claims[2].verdict, Verdict::Undecided, "{}", claims[2].reason);
    assert!(claims[3].reason.starts_with("50 % is the best of 2"), "{}", claims[3].reason);
}

/// An undecided claim says what would decide it, in the direction in which the differences point.
#[test]
fn an_undecided_claim_says_what_it_needs() {
    let of = |shift: f64| {
        let score = move |cell: &Cell, task| match cell.run.prune.metric {
            Metric::Wanda => Some(60.0 + shift + [-1.5, 0.0, 1.5][cell.seed as usize]),
            _ => probe::score(cell, task).map(|_| 60.0),
        };
        Probe::filled(score).render(false).unwrap().claims.remove(0)
    };
    let (above, below) = (of(2.0), of(-2.0));
    assert_eq!((above.verdict, below.verdict), (Verdict::Undecided, Verdict::Undecided));
    assert!(above.reason.contains("would show that it holds"), "{}", above.reason);
    assert!(below.reason.contains("would show that it does not hold"), "{}", below.reason);
    let seeds = |claim: &ressa_report::Claim| claim.power.unwrap().needed.unwrap().needed.seeds.unwrap();
    assert!(seeds(&above) > 3 && seeds(&below) > seeds(&above), "{} and {}", seeds(&above), seeds(&below));
    assert!(of(20.0).power.unwrap().needed.is_none(), "decided");
}

/// A counted value has no error over items: seeds alone vary, and nothing is said of items.
#[test]
fn a_counted_value_is_compared_without_items() {
    let claim = "claims:
  - id: sparser
    text: Wanda is as sparse.
    greater: { a: { prune.metric: wanda }, b: { prune.metric: none }, metric: sparsity }
";
    let yaml = format!("{}{claim}", &probe::YAML[..probe::YAML.find("claims:").unwrap()]);
    let probe = Probe::new(&yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    let claim = probe.render(false).unwrap().claims.remove(0);
    assert_eq!(claim.verdict, Verdict::Holds, "{}", claim.reason);
    assert!(claim.reason.contains("0.500 against 0.000: +0.500 ± 0.000 (n = 3 seeds)"), "{}", claim.reason);
}
