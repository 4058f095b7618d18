//! Filters: what they select, how they are read, and what is said about those that cannot be meant.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ressa_experiment::{Cell, Experiment, ExperimentError, Filter};

use crate::load;

const GRID: &str = r#"
replicate: { seed: 0..2 }
model: { preset: shapes-flant5 }
prune: { vision: { sparsity: 0.5 } }
evaluate: { tasks: [vqav2, gqa] }
axes:
  prune.metric: [magnitude, wanda]
zip:
  pattern:
    prune.pattern: [unstructured, "2:4", unstructured]
    prune.language.sparsity: [0.5, 0.5, 0.7]
    labels: ["50 %", "2:4", "and so, on"]
variants:
  restoration:
    pruned: { restore.method: none }
    lora: { restore.method: lora }
include:
  - { name: dense, prune.metric: none }
"#;

fn grid() -> Experiment {
    load(GRID, &[]).unwrap()
}

/// Whether a filter selects a cell, and of which stages, in an experiment alone.
fn bound(expression: &str, experiment: &Experiment) -> Result<ressa_experiment::filter::Bound, ExperimentError> {
    let filter = Filter::parse(&[expression.to_owned()])?.expect("one expression");
    filter.bind(std::slice::from_ref(experiment))
}

/// Cells that a filter selects, by their labels and seeds.
fn selected(expression: &str) -> BTreeSet<String> {
    let experiment = grid();
    let bound = bound(expression, &experiment).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let name = |cell: &Cell| {
        let labels: Vec<&str> = cell.coordinates.iter().map(|(_, label)| label.as_str()).collect();
        format!("{} {}", labels.join(" "), cell.seed)
    };
    experiment.cells.iter().filter(|cell| bound.selects(0, cell)).map(name).collect()
}

#[test]
fn names_are_axes_settings_and_what_every_experiment_has() {
    // 2 metrics, 3 patterns, 2 restorations, 3 seeds, and a dense point.
    for (expression, count) in [
        ("seed = 0", 13),
        ("metric = wanda", 18),
        ("prune.metric=wanda", 18),
        ("prune.metric = wanda and seed in (0, 2)", 12),
        ("pattern = 50 %", 12),
        ("pattern in (2:4, \"50 %\")", 24),
        ("pattern = \"and so, on\"", 12),
        ("pattern ~ *%", 12),
        ("prune.pattern = 2:4", 12),
        ("prune.language.sparsity >= 0.6", 12),
        ("language.sparsity > 0.5", 12),
        ("restoration != lora", 21),
        ("not restoration = lora", 21),
        ("restoration !~ l*a and not (seed = 0 | seed = 1)", 7),
        ("restore.method = lora and metric = wanda or point = dense", 12),
        ("restore.method = lora and (metric = wanda or point = dense)", 9),
        ("metric = none", 3),
        ("metric = dense", 0),
        ("point = null", 36),
        ("prune.vision.group != null", 24),
        ("evaluate.tasks = vqav2+gqa", 39),
        ("experiment = experiment", 39),
        ("seed not in (0, 1)", 13),
        ("seed = 0.0", 13),
        ("seed < 1 or seed >= 2", 26),
        ("restore.vision.rank > 0 && model.preset = shapes-flant5", 39),
        ("kind = adapt", 18),
        ("task = gqa", 39),
        ("kind = adapt or point = dense", 21),
    ] {
        assert_eq!(selected(expression).len(), count, "{expression}");
    }
    let run = &grid().cells[7].run_id;
    assert!(!selected(&format!("run = {}", &run[..8])).is_empty());
    assert!(selected("run = 0").is_empty());
}

#[test]
fn stages_are_selected_with_what_they_read() {
    let mut experiment = grid();
    let bound = bound("task = gqa and seed = 1", &experiment).unwrap();
    assert!(bound.is_of_stages());
    experiment.select(vec!["-E 'task = gqa and seed = 1'".to_owned()], &mut |cell| bound.selects(0, cell));
    experiment.limit(&|cell, node| bound.selects_stage(0, cell, node));
    let kinds: BTreeSet<&str> =
        experiment.cells.iter().flat_map(|cell| &cell.stages).map(|node| node.stage.kind()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["adapt", "dense", "evaluate", "merge", "prune"]);
    assert!(experiment.cells.iter().flat_map(|cell| &cell.stages).all(|node| match &*node.stage {
        ressa_experiment::Stage::Evaluate { task, .. } => task.name() == "gqa",
        _ => true,
    }));
    assert!(!experiment.origin.is_whole());
}

#[test]
fn a_selection_leaves_keys_as_they_are() {
    let whole = grid();
    let known: BTreeSet<String> = whole.stages().iter().map(|node| node.key.to_string()).collect();
    let mut part = grid();
    let bound = bound("metric = wanda and seed = 2", &part).unwrap();
    part.select(vec!["-E x".to_owned()], &mut |cell| bound.selects(0, cell));
    assert_eq!((part.counts.cells, part.counts.runs, part.cells.len()), (6, 6, 6));
    assert!(part.stages().iter().all(|node| known.contains(&node.key.to_string())));
    assert_ne!(part.origin.digest(), whole.origin.digest());
}

/// The message, the place and the advice of what is refused.
fn refused(expression: &str) -> String {
    let error = bound(expression, &grid()).expect_err(expression);
    let at = error.position().map(|at| format!("{at}: ")).unwrap_or_default();
    format!("{at}{error}; {}", error.advice().unwrap_or_default())
}

#[test]
fn mistakes_point_at_their_column() {
    let lines: Vec<String> = [
        "metrik = wanda",
        "metric = wander",
        "pattern = 4:8",
        "sparsity = 0.5",
        "seed = 9",
        "kind = prunee",
        "prune.vision.sparsity = 1.5",
        "metric > 3",
        "seed > many",
        "metric",
        "metric =",
        "= wanda",
        "metric = wanda seed = 0",
        "seed in 0, 1",
        "seed in (0; 1)",
        "(seed = 0",
        "seed = 0)",
        "seed = 0 and",
        "pattern = \"50 %",
        "",
        "bananas = 1",
    ]
    .map(refused)
    .into();
    insta::assert_snapshot!(lines.join("\n"));
    let deep = format!("{}seed = 0{}", "(".repeat(100), ")".repeat(100));
    assert!(refused(&deep).contains("nested deeper than 64"));
}

#[test]
fn a_name_of_one_experiment_selects_nothing_of_another() {
    let other = load("replicate: { seed: 0..1 }\nmodel: { preset: shapes-flant5 }\naxes: { dense.steps: [1, 2] }", &[]);
    let both = [grid(), other.unwrap()];
    let bind = |text: &str| Filter::parse(&[text.to_owned()]).unwrap().unwrap().bind(&both);
    let count = |text: &str| {
        let bound = bind(text).unwrap();
        [0, 1].map(|at: usize| both[at].cells.iter().filter(|cell| bound.selects(at, cell)).count())
    };
    assert_eq!(count("pattern = 2:4"), [12, 0]);
    assert_eq!(count("dense.steps = 1"), [0, 2]);
    assert_eq!(count("not pattern = 2:4"), [27, 4]);
    assert_eq!(count("seed = 1"), [13, 2]);
    assert!(bind("restoration = 3:4").is_err());
}

#[test]
fn several_expressions_are_alternatives() {
    let texts = ["seed = 0 or seed = 1", "metric = wanda and not point = x"].map(str::to_owned);
    let filter = Filter::parse(&texts).unwrap().unwrap();
    assert_eq!(filter.to_string(), "(seed = 0 or seed = 1) or (metric = wanda and not point = x)");
    assert_eq!(Filter::parse(&[]).unwrap(), None);
}

/// Any expression over the grid's names.
fn expressions() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just("wanda"), Just("\"50 %\""), Just("2:4"), Just("0"), Just("'a \" b'"), Just("\"not\"")];
    let name = prop_oneof![Just("prune.metric"), Just("pattern"), Just("seed"), Just("restoration"), Just("run")];
    let sign = prop_oneof![Just("="), Just("!="), Just("~"), Just("!~"), Just("<="), Just(">")];
    let list = prop::collection::vec(word.clone(), 1..3).prop_map(|words| words.join(" , "));
    let test = prop_oneof![
        (name.clone(), sign, word).prop_map(|(name, sign, word)| format!("{name}{sign}{word}")),
        (name, prop::bool::ANY, list)
            .prop_map(|(name, not, list)| { format!("{name} {} in ({list})", if not { "not" } else { "" }) }),
    ];
    test.prop_recursive(4, 24, 3, |inner| {
        let join = prop_oneof![Just("and"), Just("or"), Just("&&"), Just("|")];
        prop_oneof![
            (inner.clone(), join, inner.clone()).prop_map(|(a, join, b)| format!("{a} {join} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_as_itself(text in expressions()) {
        let filter = Filter::parse(&[text]).unwrap().unwrap();
        let shown = filter.to_string();
        let again = Filter::parse(std::slice::from_ref(&shown)).unwrap().unwrap();
        prop_assert_eq!(&again, &filter, "{}", shown);
        prop_assert_eq!(again.to_string(), shown);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~é]{0,40}") {
        if let Ok(Some(filter)) = Filter::parse(&[text]) {
            let _ = filter.bind(&[]);
        }
    }

    #[test]
    fn not_selects_what_is_left(metric in 0..3_usize, seed in 0..3_usize) {
        let one = format!("metric = {} and seed = {seed}", ["wanda", "magnitude", "none"][metric]);
        let (yes, no) = (selected(&one), selected(&format!("not ({one})")));
        prop_assert!(yes.is_disjoint(&no));
        prop_assert_eq!(yes.len() + no.len(), 39);
    }
}
