//! Earlier names: files, overrides and filters may still say `qformer` where today says `connector`.

use ressa_experiment::{Experiment, Filter, Tower, config::PruneConfig, record::Certificate};

use crate::load;

/// Every place where a file can name a tower.
const STUDY: &str = r#"
model.preset: shapes-flant5
replicate: { seed: [7] }
axes:
  prune.TOWER.sparsity: [0.3, 0.5]
zip:
  rank: { restore.TOWER.rank: [1, 2], restore.vision.rank: [2, 4] }
variants:
  tuned:
    all: { restore: { TOWER: { norms: true }, vision.norms: true } }
    most: { restore: { TOWER.bias: all } }
prune: { metric: wanda, vision.sparsity: 0.5, TOWER.group: matrix, allocation: { method: owl, towers: joint } }
restore: { method: sparse-lora, TOWER: { scale: 3 } }
evaluate.tasks: [gqa]
include: [{ name: more, prune.TOWER.sparsity: 0.5, prune.TOWER.calibration.images: 7 }]
exclude: [{ prune.TOWER.sparsity: 0.3, tuned: most }]
report:
  tables: [{ id: t, rows: [prune.TOWER.sparsity], columns: metric, values: [sparsity-TOWER, gqa] }]
  figures: [{ id: f, kind: bars, x: rank, y: gqa, series: prune.TOWER.sparsity, where: { prune.TOWER.sparsity: [0.5] } }]
claims:
  - { id: c, text: c, equals: { metric: sparsity-TOWER, to: target-sparsity-TOWER, where: { prune.TOWER.sparsity: 0.5 } } }
"#;

fn study(tower: &str, overrides: &[&str]) -> Experiment {
    load(&STUDY.replace("TOWER", tower), overrides).unwrap_or_else(|error| panic!("{error}: {:?}", error.advice()))
}

#[test]
fn a_file_means_the_same_under_both_names() {
    let (today, earlier) = (study("connector", &[]), study("qformer", &[]));
    assert_eq!(today.cells, earlier.cells);
    assert_eq!((&today.report, &today.claims), (&earlier.report, &earlier.claims));
    assert_eq!(earlier.axes[0].name, "prune.connector.sparsity");
    assert_eq!(earlier.report.tables[0].values, ["sparsity-connector", "gqa"]);
}

#[test]
fn overrides_and_filters_take_both_names() {
    let of = |path: &str| study("connector", &[&format!("{path}=0.3,0.6")]).cells;
    assert_eq!(of("prune.connector.sparsity"), of("prune.qformer.sparsity"));
    let today = study("connector", &[]);
    let selected = |expression: &str| {
        let filter = Filter::parse(&[expression.to_owned()]).unwrap().unwrap();
        let bound = filter.bind(std::slice::from_ref(&today)).unwrap_or_else(|error| panic!("{expression}: {error}"));
        today.cells.iter().filter(|cell| bound.selects(0, cell)).count()
    };
    for name in ["prune.connector.sparsity", "prune.qformer.sparsity", "connector.sparsity", "qformer.sparsity"] {
        assert_eq!(selected(&format!("{name} = 0.5")), 5, "{name}");
    }
    assert_eq!(selected("qformer.scale = 3"), today.cells.len());
}

/// A list on the command line is read as in a file, and a step may have the earlier name of the tower.
#[test]
fn lists_of_steps_take_both_names() {
    let head = "model.preset: shapes-flant5\nreplicate: { seed: 1 }\nevaluate.tasks: [gqa]\nprune.metric: magnitude\n";
    let cells = |steps: &str, overrides: &[&str]| {
        load(&format!("{head}{steps}"), overrides).unwrap_or_else(|error| panic!("{steps}: {error}")).cells
    };
    let list = |step: &str, tower: &str| format!("[prune: {{ name: {step}, {tower}.sparsity: 0.5 }}]");
    let of = |step: &str, tower: &str| cells(&format!("steps: {}\n", list(step, tower)), &[]);
    assert_eq!(of("first", "connector"), of("first", "qformer"));
    assert_eq!(cells("", &[&format!("steps={}", list("first", "qformer"))]), of("first", "connector"));
    let named = format!("steps: {}\n", list("qformer", "connector"));
    let expected = cells(&named.replace("0.5", "0.7"), &[]);
    for tower in ["connector", "qformer"] {
        let path = format!("steps.qformer.{tower}.sparsity");
        assert_eq!(cells(&named, &[&format!("{path}=0.7")]), expected);
        assert_eq!(cells(&format!("{named}{path}: 0.7\n"), &[]), expected);
        assert_eq!(
            cells(&format!("{named}variants: {{ a: {{ b: {{ {path}: 0.7 }} }} }}\n"), &[])[0].run,
            expected[0].run
        );
        let found = load(&format!("{head}{named}"), &[&format!("{path}=0.6,0.7")]).unwrap();
        let filter = Filter::parse(&[format!("{path} = 0.7")]).unwrap().unwrap();
        let bound = filter.bind(std::slice::from_ref(&found)).unwrap();
        assert_eq!(found.cells.iter().filter(|cell| bound.selects(0, cell)).count(), 1, "{path}");
    }
}

#[test]
fn both_names_at_once_are_refused() {
    let with = |more: &str| format!("model.preset: shapes-flant5\naxes: {{ restore.steps: [1, 2] }}\n{more}\n");
    for (more, name) in [
        ("prune: { qformer.sparsity: 0.5, connector.sparsity: 0.5 }", "connector.sparsity"),
        ("prune: { connector: { sparsity: 0.5 }, qformer: { group: row } }", "connector"),
        ("prune.qformer.sparsity: 0.5\nprune: { connector: { sparsity: 0.5 } }", "prune.connector.sparsity"),
        ("zip: { z: { restore.qformer.rank: [1, 2], restore.connector.rank: [1, 2] } }", "restore.connector.rank"),
        ("exclude: [{ restore.qformer.rank: 1, restore.connector.rank: 4 }]", "restore.connector.rank"),
    ] {
        let error = load(&with(more), &[]).expect_err(more);
        assert!(error.to_string().contains(&format!("`{name}`")), "{more}: {error}");
    }
    let twice = load(&with(""), &["prune.qformer.sparsity=0.5", "prune.connector.sparsity=0.5"]).unwrap_err();
    assert!(twice.to_string().contains("overridden twice"), "{twice}");
}

#[test]
fn labels_and_texts_of_ones_own_stay_what_they_are() {
    let yaml = "model.preset: shapes-flant5\nvariants: { tower: { qformer: {}, connector: { restore.method: lora } } }\n\
                restore.connector.targets: [qformer]\nprune.allocation.table: { qformer.0: 0.5 }\n";
    let found = load(yaml, &[]).unwrap();
    assert_eq!(found.axes[0].labels, ["qformer", "connector"]);
    assert_eq!(found.cells[1].run.restore.connector.targets, ["qformer"]);
}

/// Results of versions that said `qformer` keep their keys, see [`ressa_experiment::tower`].
#[test]
fn keys_of_a_pruned_and_tuned_connector_are_those_of_earlier_versions() {
    let study = study("connector", &[]);
    let last = study.cells.last().unwrap();
    let mut lines: Vec<String> =
        last.stages.iter().map(|node| format!("{} {}", node.stage.kind(), node.key.short())).collect();
    lines.push(format!("run {}", &last.run_id[..12]));
    insta::assert_snapshot!(lines.join("\n"), @r"
    dense 98f996d01ede
    sensitivity bea1717aa4ed
    sensitivity b8ec594a0144
    prune 088cdcaaef09
    prune 2fd82bc715ce
    adapt 5f7f8d5be5c0
    merge 6120a1bdc421
    evaluate 273c694820a7
    run a8e1da6e9987
    ");
}

#[test]
fn what_earlier_versions_wrote_is_read() {
    for name in ["connector", "qformer"] {
        assert_eq!(serde_json::from_str::<Tower>(&format!("\"{name}\"")).unwrap(), Tower::Connector);
        let prune: PruneConfig = serde_json::from_str(&format!("{{\"{name}\": {{\"sparsity\": 0.5}}}}")).unwrap();
        assert_eq!(prune.connector.sparsity, 0.5);
        let certificate: Certificate = serde_json::from_str(&format!(
            r#"{{ "tensors": {{ "w": {{ "tower": "{name}", "zeros": 2, "total": 4, "revived": 0, "group_violations": 0 }} }}, "violations": [] }}"#
        ))
        .unwrap();
        assert_eq!(certificate.sparsity(Tower::Connector), Some(0.5));
    }
    assert_eq!(serde_json::to_string(&Tower::Connector).unwrap(), "\"connector\"");
}
