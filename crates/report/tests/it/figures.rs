//! What figures promise: looks that differ, gaps, axes, published numbers, characters that the font has not.

use crate::probe::{self, Probe};

const KINDS: &str = "
name: probe
model.preset: shapes-flant5
replicate: { seed: 0..1 }
prune: { metric: magnitude, pattern: unstructured, vision.sparsity: 0.5 }
axes: { prune.language.sparsity: [0.5, 0.6, 0.7] }
variants:
  kind:
    magnitude: { prune.metric: magnitude }
    owl: { prune.metric: wanda, prune.allocation.method: owl }
    wanda: { prune.metric: wanda }
    ecoflap: { prune.metric: wanda, prune.allocation.method: ecoflap }
    random: { prune.metric: random }
report:
  figures:
    - { id: lines, kind: lines, x: prune.language.sparsity, y: average, series: kind }
    - { id: some, kind: bars, x: prune.language.sparsity, y: average, series: kind, where: { kind: [owl, ecoflap] } }
";

fn filled(yaml: &str) -> Probe {
    let probe = Probe::new(yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    probe
}

#[test]
fn methods_of_one_figure_differ_and_keep_their_look_in_others() {
    let probe = filled(KINDS);
    let rendered = probe.render(true).unwrap();
    let [lines, some] = &rendered.figures[..] else { panic!("two figures") };
    for (at, one) in lines.model.series.iter().enumerate() {
        assert!(lines.model.series[..at].iter().all(|other| other.style != one.style), "{}", one.label);
    }
    for one in &some.model.series {
        let same = lines.model.series.iter().find(|other| other.label == one.label).unwrap();
        assert_eq!(one.style, same.style, "{}", one.label);
    }
    // Magnitude and OWL share a colour; one line of each, the dashed one in pieces.
    let pieces = lines.svg.matches("stroke=\"#D55E00\" stroke-width=\"10\"").count();
    assert!(pieces > 10, "{pieces}");
}

#[test]
fn more_series_than_can_be_told_apart_are_refused_before_anything_runs() {
    let mut yaml = KINDS.replace(", where: { kind: [owl, ecoflap] }", "");
    let more: String = (0..45).map(|n| format!("    v{n}: {{ prune.metric: wanda }}\n")).collect();
    yaml = yaml.replace("report:\n", &format!("{more}report:\n"));
    let probe = Probe::new(&yaml);
    insta::assert_snapshot!(ressa_report::check(&probe.experiment, None).unwrap_err(), @"figure `lines` has 50 series, and no more than 49 can be told apart by colour, marker and dash; choose some with `where`, or divide them among figures");
}

/// A point that is missing is no point of the line.
#[test]
fn a_missing_point_is_a_gap() {
    let yaml = KINDS.replace("[0.5, 0.6, 0.7]", "[0.4, 0.5, 0.6, 0.7]");
    let probe = Probe::new(&yaml);
    let lost = |cell: &ressa_experiment::Cell| cell.label("prune.language.sparsity").as_deref() == Some("0.5");
    crate::world::fill(&probe.store, &probe.experiment.cells, |cell, task| {
        probe::score(cell, task).filter(|_| !lost(cell))
    });
    let rendered = probe.render(false).unwrap();
    let svg = &rendered.figures[0].svg;
    // Legend and baseline apart, every line of the data has two points.
    let lines = svg.lines().filter(|line| line.contains("polyline") && line.contains("stroke-width=\"10\""));
    let points =
        |line: &str| line.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split_whitespace().count();
    let longest = lines.map(points).max();
    assert_eq!(longest, Some(2), "{svg}");
}

#[test]
fn figures_are_files_of_three_kinds_and_the_same_every_time() {
    let probe = filled(KINDS);
    probe.render(true).unwrap();
    let read = |name: &str| std::fs::read(probe.results().join("probe").join(name)).unwrap();
    let (pdf, png) = (read("lines.pdf"), read("lines.png"));
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() < 40_000, "{} bytes", pdf.len());
    std::fs::remove_dir_all(probe.results().join("probe")).unwrap();
    probe.render(true).unwrap();
    assert_eq!((pdf, png), (read("lines.pdf"), read("lines.png")));
}

/// `published (InstructBLIP)` on the same axis for published checkpoints, a row of its own for the embedded world.
#[test]
fn published_numbers_stand_on_our_axis_where_the_scale_is_theirs() {
    let yaml = probe::YAML.replace(
        "model.preset: shapes-flant5",
        "model.checkpoint: checkpoints/instructblip\ndata: { source: folder, root: data, calibration: { corpora: [cc3m] } }\nprune.calibration: { questions: 0, captions: 1 }\nevaluate.retrieval.checkpoint: checkpoints/itm\ndense.gate: {}",
    );
    let probe = filled(&yaml);
    let rendered = probe.render(true).unwrap();
    let figure = &rendered.figures[0];
    assert!(figure.model.has_published() && !figure.model.has_lower_row());
    assert!(figure.model.caption.contains("Hollow: published (InstructBLIP)."), "{}", figure.model.caption);
    assert!(!figure.svg.contains("other scale"));
    assert!(probe.read("metrics.csv").lines().next().unwrap().ends_with(",published"));
    assert!(probe.read("metrics.md").contains("published (InstructBLIP)."));
}

#[test]
fn what_the_font_has_not_is_said() {
    let yaml = probe::YAML
        .replace("labels: [\"50 %\", \"2:4\"]", "labels: [\"50 %\", \"2:4 中文\"]")
        .replace("\"2:4\", toler", "\"2:4 中文\", toler");
    let probe = filled(&yaml);
    let rendered = probe.render(true).unwrap();
    insta::assert_snapshot!(rendered.notes.join("\n"), @r"
    figure `metrics-bars`: the font of PNG and PDF has no glyph for 中 (U+4E2D), 文 (U+6587), so a box stands there; the SVG shows it where the reader's fonts do
    table `metrics`: pdfLaTeX prints codes for 中, 文; LuaLaTeX and XeLaTeX print the signs
    ");
}
