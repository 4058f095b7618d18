//! Verdicts on results made for them.

use ressa_experiment::{Cell, Pattern, Task, config::Metric};

use crate::probe::{self, Probe};

fn verdicts(score: impl Fn(&Cell, Task) -> Option<f64>) -> Vec<String> {
    let rendered = Probe::filled(score).render(false).unwrap();
    rendered.claims.iter().map(|claim| format!("{}: {}: {}", claim.id, claim.verdict, claim.reason)).collect()
}

#[test]
fn clear_results_decide() {
    insta::assert_snapshot!(verdicts(probe::score).join("\n"), @r#"
    wanda-better: holds: above at 2 of 2, below at 0; on balance +10.0 ± 2.5 (n = 3)
    magnitude-better: does not hold: above at 0 of 2, below at 2; on balance -10.0 ± 2.5 (n = 3)
    magnitude-steady: holds: all 2 are equal
    all-one: does not hold: 6 of 6 differ: 69.0 against 60.0 at 50 %, seed 0
    loose-best: holds: 50 % is the best of 2 with 70.0; next is 2:4 with 60.0: -10.0 ± 0.0 (n = 3)
    tight-best: does not hold: 50 % is the best of 2 with 70.0, 2:4 has 60.0: +10.0 ± 0.0 (n = 3), tolerance 1
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
    assert_eq!(claim.verdict, ressa_report::Verdict::DoesNotHold);
    assert!(claim.reason.contains("1 instead of 0"), "{}", claim.reason);
    assert!(rendered.provenance.iter().any(|(_, text)| text.contains("w: 1 revived")));
}
