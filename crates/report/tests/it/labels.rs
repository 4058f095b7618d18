//! Labels in tables and figures: exact, distinct, and harmless in every format.

use crate::probe::{self, Probe};

fn filled(yaml: &str) -> Probe {
    let probe = Probe::new(yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    probe.render(true).unwrap();
    probe
}

#[test]
fn sparsities_that_differ_have_rows_that_differ() {
    let probe = filled(
        "
name: probe
model.preset: shapes-flant5
prune: { metric: magnitude, pattern: unstructured, vision.sparsity: 0 }
axes: { prune.language.sparsity: [0.001, 0.625, 0.7, 0.704, 0.99, 0.995, 0.999] }
report:
  tables: [ { id: t, rows: [prune.language.sparsity], columns: metric, values: [average] } ]
  figures: [ { id: f, kind: lines, x: prune.language.sparsity, y: average } ]
",
    );
    let first = |line: &str| line.split('|').nth(1).unwrap_or_default().trim().to_owned();
    let rows: Vec<String> = probe.read("t.md").lines().filter(|l| l.starts_with("| ")).skip(2).map(first).collect();
    assert_eq!(rows, ["0.1 %", "62.5 %", "70 %", "70.4 %", "99 %", "99.5 %", "99.9 %"]);
    assert!(probe.read("t.csv").contains("\n0.625,average,"), "the label itself: {}", probe.read("t.csv"));
}

/// Labels that are no finite numbers of one kind are categories: every tick is there, and no coordinate is infinite.
#[test]
fn an_axis_of_odd_numbers_has_places() {
    for labels in [
        "\"1\", \"10\", inf",
        "\"1\", \"10\", \"nan\"",
        "\"1\", \"10\", \"1e400\"",
        "\"0.5\", \"50%\", \"60%\"",
        "\"1\", \"1.0\", \"2\"",
    ] {
        let probe = filled(&format!(
            "
name: probe
model.preset: shapes-flant5
prune: {{ metric: magnitude, pattern: unstructured, vision.sparsity: 0.5 }}
zip:
  a: {{ prune.language.sparsity: [0.1, 0.2, 0.3], labels: [{labels}] }}
report:
  figures: [ {{ id: f, kind: lines, x: a, y: average }} ]
"
        ));
        let svg = ressa_report::figure::output::without_font(&probe.read("f.svg"));
        assert!(!svg.contains("NaN") && !svg.contains("=\"inf"), "{labels}: {svg}");
        for label in labels.split(", ").map(|label| label.trim_matches('"')) {
            assert!(svg.contains(&format!(">{label}</text>")), "{label} of {labels}: {svg}");
        }
    }
}

#[test]
fn latex_takes_no_label_for_a_command() {
    let probe = filled(
        r##"
name: probe
model.preset: shapes-flant5
prune: { metric: magnitude, pattern: unstructured, vision.sparsity: 0.5 }
zip:
  split:
    prune.language.sparsity: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    labels: ["[50, 50]", "*best*", "a|b", "x--y", "\"q\"", "#1_a & 50 %"]
report:
  tables: [ { id: t, rows: [split], columns: metric, values: [average] } ]
"##,
    );
    let tex = probe.read("t.tex");
    let first = |line: &str| line.split(" & ").next().unwrap_or_default().to_owned();
    let rows: Vec<String> = tex.lines().filter(|line| line.ends_with("\\\\")).skip(1).map(first).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    {[}50, 50{]}
    {*}best{*}
    a\textbar{}b
    x-{}-y
    \texttt{\char34}q\texttt{\char34}
    \#1\_a \& 50 \%
    ");
}

#[test]
fn columns_have_heads_that_differ() {
    let probe = filled(
        "
name: probe
model.preset: shapes-flant5
prune: { metric: magnitude, vision.sparsity: 0.5, language.sparsity: 0.5 }
restore: { method: sparse-lora, steps: 1, batch: 4, samples: 16, warmup: 0 }
axes: { restore.vision.rank: [1], restore.language.rank: [2] }
report: { tables: [ { id: t, rows: [restore.vision.rank, restore.language.rank], columns: metric, values: [average] } ] }
",
    );
    assert!(probe.read("t.md").contains("| Vision rank | Language rank | Average |"), "{}", probe.read("t.md"));
    assert!(probe.read("t.csv").starts_with("restore.vision.rank,restore.language.rank,column,"));
}
