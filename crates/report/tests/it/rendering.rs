//! Tables in every format, figures, pages, bytes.

use insta::assert_snapshot;
use ressa_experiment::{
    Task,
    config::Metric,
    protocol::{Failure, FailureKind},
};
use ressa_report::ReportError;
use ressa_runlog::{Circumstances, FailureRecord, Log, LogEvent};

use crate::probe::{self, Probe};

#[test]
fn a_table_reads_the_same_in_four_formats() {
    let probe = Probe::filled(probe::score);
    let rendered = probe.render(true).unwrap();
    assert_snapshot!(probe.read("metrics.tex"), @r#"
    % made by `ressa report` for `probe` from records.csv; table `metrics`
    % \caption{Scores \& more, 100 \% of them}
    \begin{tabular}{lrr}
    \toprule
    Pruning & 50 \% & 2:4 \\
    \midrule
    Dense & 90.0 & 90.0 \\
    \midrule
    Magnitude & 60.0 & 50.0 \\
    Wanda & \textbf{70.0}\,{\scriptsize$\pm$\,2.5} & \textbf{60.0}\,{\scriptsize$\pm$\,2.5}\,{\scriptsize[55.7]} \\
    \bottomrule
    \end{tabular}
    \par\smallskip{\footnotesize Mean $\pm$ half-width of the 95 \% t-interval over replicate seeds, on these test items (n = 3; n = 1 where a setting does not depend on the seed). Bold: the best of its column and what cannot be told from it (differences paired item by item, over n = 3 seeds and 3900 items; 5 \%, one-sided, for all rows together). {[} {]}: published (InstructBLIP, other scale). Average: mean of VQAv2, GQA, OK-VQA, NoCaps, Flickr30k.\par}
    "#);
    assert_snapshot!(probe.read("metrics.md"), @r#"
    **Scores & more, 100 % of them**

    | Pruning | 50 % | 2:4 |
    | --- | ---: | ---: |
    | Dense | 90.0 | 90.0 |
    | Magnitude | 60.0 | 50.0 |
    | Wanda | **70.0** ± 2.5 | **60.0** ± 2.5 \[55.7\] |

    Mean ± half-width of the 95 % t-interval over replicate seeds, on these test items (n = 3; n = 1 where a setting does not depend on the seed). Bold: the best of its column and what cannot be told from it (differences paired item by item, over n = 3 seeds and 3900 items; 5 %, one-sided, for all rows together). \[ \]: published (InstructBLIP, other scale). Average: mean of VQAv2, GQA, OK-VQA, NoCaps, Flickr30k.
    "#);
    assert_snapshot!(probe.read("metrics.csv"), @r#"
    prune.metric,column,mean,half_width_95,n,expected,standard_error,not_below_best,published_other_scale
    dense,50 %,90.000000,,1,1,0.447214,false,
    dense,2:4,90.000000,,1,1,0.447214,false,
    magnitude,50 %,60.000000,,1,1,0.447214,false,
    magnitude,2:4,50.000000,,1,1,0.447214,false,
    wanda,50 %,70.000000,2.484138,3,3,0.447214,true,
    wanda,2:4,60.000000,2.484138,3,3,0.447214,true,55.7
    "#);
    assert_snapshot!(ressa_report::table::html::render(&rendered.tables[0]), @r#"
    <figure class="table"><figcaption>Scores &amp; more, 100 % of them</figcaption>
    <div class="scroll"><table>
    <thead><tr><th scope="col" class="stub">Pruning</th><th scope="col">50 %</th><th scope="col">2:4</th></tr></thead>
    <tbody>
    <tr class="baseline"><th scope="row" class="stub">Dense</th><td>90.0</td><td>90.0</td></tr>
    <tr><th scope="row" class="stub">Magnitude</th><td>60.0</td><td>50.0</td></tr>
    <tr><th scope="row" class="stub">Wanda</th><td><b>70.0</b> <small>± 2.5</small></td><td><b>60.0</b> <small>± 2.5</small> <small class="published" title="published (InstructBLIP, other scale)">[55.7]</small></td></tr>
    </tbody></table></div>
    <p class="note">Mean ± half-width of the 95 % t-interval over replicate seeds, on these test items (n = 3; n = 1 where a setting does not depend on the seed). Bold: the best of its column and what cannot be told from it (differences paired item by item, over n = 3 seeds and 3900 items; 5 %, one-sided, for all rows together). [ ]: published (InstructBLIP, other scale). Average: mean of VQAv2, GQA, OK-VQA, NoCaps, Flickr30k.</p>
    </figure>
    "#);
}

#[test]
fn rendering_again_gives_the_same_bytes() {
    let probe = Probe::filled(probe::score);
    let render = || {
        probe.render(false).unwrap();
        ressa_report::render_index(&probe.results()).unwrap();
        probe::files(&probe.results())
    };
    let first = render();
    assert!(first.iter().any(|(name, _)| name.ends_with("index.html")));
    assert_eq!(first, render(), "cached rasters");
    std::fs::remove_dir_all(probe.results().join("probe")).unwrap();
    assert_eq!(first, render(), "from nothing");
}

#[test]
fn a_raster_that_is_damaged_is_drawn_again() {
    let probe = Probe::filled(probe::score);
    probe.render(false).unwrap();
    let path = probe.results().join("probe/metrics-bars.png");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    probe.render(false).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn figures_carry_their_text_size_and_resolution() {
    let probe = Probe::filled(probe::score);
    probe.render(false).unwrap();
    let svg = probe.read("metrics-bars.svg");
    for text in
        ["Magnitude", "Wanda", "Dense (90.0)", "50 %", "2:4", "70.0", "55.7", "Published (InstructBLIP, other scale)"]
    {
        assert!(svg.contains(&format!(">{text}</text>")), "`{text}` is not in the figure");
    }
    assert!(svg.contains("width=\"3.3000in\"") && svg.contains("@font-face"));
    let png = std::fs::File::open(probe.results().join("probe/metrics-bars.png")).unwrap();
    let reader = png::Decoder::new(std::io::BufReader::new(png)).read_info().unwrap();
    assert_eq!(reader.info().width, 990, "3.3 inches at 300 dots");
    assert_eq!(reader.info().pixel_dims.map(|dims| dims.xppu), Some(11811), "dots per metre");
    assert_snapshot!(probe.read("metrics-bars.csv"), @r#"
    panel,series,x,mean,half_width_95,n,expected,standard_error,published_other_scale
    ,magnitude,50 %,60.000000,,1,1,0.447214,
    ,magnitude,2:4,50.000000,,1,1,0.447214,
    ,wanda,50 %,70.000000,2.484138,3,3,0.447214,
    ,wanda,2:4,60.000000,2.484138,3,3,0.447214,55.7
    ,dense,,90.000000,,,,,
    "#);
}

const DIVISIONS: &str = "
name: probe
description: What do divisions of a budget look like?
model.preset: shapes-flant5
replicate: { seed: 0..2 }
prune.metric: wanda
axes:
  prune.allocation.method: [uniform, owl]
zip:
  sparsity:
    prune.vision.sparsity: [0.5, 0.7]
    prune.language.sparsity: [0.5, 0.7]
report:
  figures:
    - id: blocks
      kind: heat-map
      x: prune.allocation.method
      y: sparsity
      width: double
      where: { sparsity: 50 % }
";

/// Rows are labels, columns the blocks of each stack, encoders before decoders; the numbers are the certificates'.
#[test]
fn a_heat_map_shows_the_sparsity_of_every_block() {
    let filled = |yaml: &str| {
        let probe = Probe::new(yaml);
        crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
        probe
    };
    let probe = filled(DIVISIONS);
    probe.render(false).unwrap_or_else(|e| panic!("{e}"));
    let csv = probe.read("blocks.csv");
    let csv: Vec<String> = csv.lines().map(|line| line.split(',').take(6).collect::<Vec<_>>().join(",")).collect();
    assert_snapshot!(csv.join("\n"), @r"
    panel,series,x,mean,half_width_95,n
    Vision,uniform,0,0.500000,0.000000,3
    Vision,uniform,1,0.500000,0.000000,3
    Vision,uniform,2,0.500000,0.000000,3
    Vision,uniform,3,0.500000,0.000000,3
    Vision,owl,0,0.260000,0.000000,3
    Vision,owl,1,0.420000,0.000000,3
    Vision,owl,2,0.580000,0.000000,3
    Vision,owl,3,0.740000,0.000000,3
    Language encoder,uniform,0,0.500000,0.000000,3
    Language encoder,uniform,1,0.500000,0.000000,3
    Language encoder,owl,0,0.260000,0.000000,3
    Language encoder,owl,1,0.420000,0.000000,3
    Language decoder,uniform,0,0.500000,0.000000,3
    Language decoder,uniform,1,0.500000,0.000000,3
    Language decoder,owl,0,0.580000,0.000000,3
    Language decoder,owl,1,0.740000,0.000000,3
    ");
    let svg = probe.read("blocks.svg");
    let texts = ["Vision", "Language encoder", "Language decoder", "Uniform", "OWL", "26", "74", "50", "20 %", "80 %"];
    for text in texts {
        assert!(svg.contains(&format!(">{text}</text>")), "`{text}` is not in the figure");
    }
    let path = probe.results().join("probe/blocks.png");
    let first = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    probe.render(false).unwrap();
    assert_eq!(first, std::fs::read(&path).unwrap());

    // Before anything runs as well as after.
    for (from, to, what) in [
        ("y: sparsity", "y: gqa", "cannot show `gqa`"),
        ("y: sparsity", "y: sparsity\n      series: prune.metric", "remove `series`"),
        ("      where: { sparsity: 50 % }\n", "", "average over `sparsity`"),
    ] {
        let probe = filled(&DIVISIONS.replacen(from, to, 1));
        for refused in [probe.render(false).unwrap_err(), ressa_report::check(&probe.experiment, None).unwrap_err()] {
            assert!(refused.to_string().contains(what), "{refused}");
            assert_eq!(refused.item(), Some("blocks"));
        }
    }
}

#[test]
fn what_is_missing_is_shown_and_never_averaged_away() {
    let probe = Probe::filled(|cell, task| {
        let lost = cell.run.prune.metric == Metric::Wanda && cell.seed == 2 && task == Task::Gqa;
        probe::score(cell, task).filter(|_| !lost)
    });
    let rendered = probe.render(false).unwrap();
    assert_eq!((rendered.done, rendered.expected), (7, 9));
    let table = probe.read("metrics.md");
    assert!(table.contains("**69.5** ± 6.4 2/3†"), "{table}");
    assert!(probe.read("metrics.tex").contains("2/3$^\\dagger$"));
    assert!(probe.read("metrics-bars.svg").contains(">69.5†</text>"));
    assert!(probe.read("report.html").contains("Provisional: 7 of 9"));
    let lost = probe.experiment.cells.iter().find(|c| c.run.prune.metric == Metric::Wanda && c.seed == 2).unwrap();
    let node =
        lost.stages.iter().find(|n| !probe.store.contains(&n.key.hex()) && n.stage.kind() == "evaluate").unwrap();
    let record = FailureRecord {
        key: node.key,
        what: "evaluate gqa".to_owned(),
        label: String::new(),
        failure: Failure { kind: FailureKind::Oom, message: "out of memory".to_owned(), log: None },
        at: 0,
        circumstances: Circumstances::default(),
    };
    let mut log = Log::begin(&probe.store, "a test").unwrap();
    log.write(LogEvent::Failed { key: node.key, attempt: 1, worker: String::new(), record }).unwrap();
    probe.render(false).unwrap();
    assert!(
        probe.read("report.md").contains("Failed: evaluate gqa: oom: out of memory"),
        "{}",
        probe.read("report.md")
    );
    let refused = probe.render(true).unwrap_err();
    assert!(matches!(refused, ReportError::Incomplete { done: 7, expected: 9, .. }), "{refused}");
}

#[test]
fn a_setting_that_ignores_the_seed_counts_once() {
    let probe = Probe::filled(probe::score);
    probe.render(false).unwrap();
    let summary = probe.read("summary.csv");
    let line = |start: &str| summary.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert_eq!(line("magnitude,50 %,average,"), "magnitude,50 %,average,60.000000,,,1,1,0.447214");
    assert_eq!(line("wanda,50 %,average,"), "wanda,50 %,average,70.000000,2.484138,1.000000,3,3,0.447214");
}

#[test]
fn an_empty_store_has_nothing_to_show() {
    let probe = Probe::filled(|_, _| None);
    std::fs::remove_dir_all(probe.results().join("store")).unwrap();
    assert!(matches!(probe.render(false), Err(ReportError::Nothing(name)) if name == "probe"));
    assert!(matches!(probe.render(true), Err(ReportError::Incomplete { done: 0, expected: 9, .. })));
}

#[test]
fn a_table_that_would_hide_an_axis_is_refused() {
    let yaml =
        probe::YAML.replace("rows: [prune.metric]\n      columns: pattern", "rows: [pattern]\n      columns: metric");
    let probe = Probe::new(&yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    let planned = ressa_report::check(&probe.experiment, None).unwrap_err();
    assert_eq!(planned.to_string(), probe.render(false).unwrap_err().to_string());
    assert_eq!(probe.experiment.mistake("metrics", String::new()).position().unwrap().line, 17);
    assert_snapshot!(planned, @r#"`metrics` would average over `prune.metric` (magnitude, wanda) at `50 %`, `average`; add it to the table or figure, or choose with `where`"#);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let probe = Probe::filled(probe::score);
    std::fs::write(probe.results().join("probe"), "a file where the folder should be").unwrap();
    let error = probe.render(false).unwrap_err();
    assert!(error.is_storage() && error.to_string().contains("results/probe"), "{error}");
}

/// On a handful of items nothing can be told from the best, 0 beside 100: then nothing is bold, and no note claims a comparison.
#[test]
fn a_handful_of_items_makes_nothing_bold() {
    let markdown = |items: u32| {
        let yaml = format!("evaluate: {{ questions: {items}, images: {items} }}\n{}", probe::YAML);
        let probe = Probe::new(&yaml);
        crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
        probe.render(true).unwrap();
        probe.read("metrics.md")
    };
    let (few, enough) = (markdown(1), markdown(200));
    assert!(enough.contains("| **") && enough.contains("Bold:"), "{enough}");
    assert!(!few.contains("| **") && !few.contains("Bold:"), "{few}");
}
