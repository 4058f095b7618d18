//! Tables in every format, figures, pages, bytes.

use insta::assert_snapshot;
use ressa_experiment::{Task, config::Metric};
use ressa_report::ReportError;

use crate::probe::{self, Probe};

#[test]
fn a_table_reads_the_same_in_four_formats() {
    let probe = Probe::filled(probe::score);
    let rendered = probe.render(true).unwrap();
    assert_snapshot!(probe.read("metrics.tex"), @"");
    assert_snapshot!(probe.read("metrics.md"), @"");
    assert_snapshot!(probe.read("metrics.csv"), @"");
    assert_snapshot!(ressa_report::table::html::render(&rendered.tables[0]), @"");
}

#[test]
fn rendering_again_gives_the_same_bytes() {
    let probe = Probe::filled(probe::score);
    let render = || {
        let rendered = probe.render(false).unwrap();
        ressa_report::render_index(&probe.results(), &[rendered]).unwrap();
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
    for text in ["Magnitude", "Wanda", "Dense (90.0)", "50 %", "2:4", "70.0", "55.7", "Published (InstructBLIP, other scale)"] {
        assert!(svg.contains(&format!(">{text}</text>")), "`{text}` is not in the figure");
    }
    assert!(svg.contains("width=\"3.3000in\"") && svg.contains("@font-face"));
    let png = std::fs::File::open(probe.results().join("probe/metrics-bars.png")).unwrap();
    let reader = png::Decoder::new(std::io::BufReader::new(png)).read_info().unwrap();
    assert_eq!(reader.info().width, 990, "3.3 inches at 300 dots");
    assert_eq!(reader.info().pixel_dims.map(|dims| dims.xppu), Some(11811), "dots per metre");
    assert_snapshot!(probe.read("metrics-bars.csv"), @"");
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
}

#[test]
fn a_table_that_would_hide_an_axis_is_refused() {
    let yaml = probe::YAML.replace("rows: [prune.metric]\n      columns: pattern", "rows: [pattern]\n      columns: metric");
    let probe = Probe::new(&yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    assert_snapshot!(probe.render(false).unwrap_err(), @"");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let probe = Probe::filled(probe::score);
    std::fs::write(probe.results().join("probe"), "a file where the folder should be").unwrap();
    let error = probe.render(false).unwrap_err();
    assert!(error.is_storage() && error.to_string().contains("results/probe"), "{error}");
}
