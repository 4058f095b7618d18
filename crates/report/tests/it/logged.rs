//! Results that the log knows, and outputs that were touched since.

use std::fs;

use ressa_experiment::Stage;
use ressa_runlog::{Log, LogEvent, Proof, Published};
use serde_json::value::RawValue;

use crate::probe::{self, Probe};

/// Writes down every published output of a probe, as a sweep does. `result` makes the text of a result.
fn write_log(probe: &Probe, result: impl Fn(String) -> String) {
    let mut log = Log::begin(&probe.store, "a test").unwrap();
    for node in probe.experiment.stages() {
        let Some(entry) = probe.store.entry(&node.key.hex()).unwrap() else { continue };
        let proof = Proof::of(entry.folder(), entry.manifest.files.keys().map(String::as_str)).unwrap();
        let mut record = Published::of(&entry.manifest, "shapes-flant5", proof);
        record.result = RawValue::from_string(result(record.result.get().to_owned())).unwrap().into();
        log.write(LogEvent::Found { key: node.key, record }).unwrap();
    }
}

/// The manifests of evaluations.
fn manifests(probe: &Probe) -> Vec<std::path::PathBuf> {
    let evaluations =
        probe.experiment.stages().into_iter().filter(|node| matches!(*node.stage, Stage::Evaluate { .. }));
    evaluations.map(|node| probe.store.folder(&node.key.hex()).join("manifest.json")).collect()
}

#[test]
fn a_report_from_the_log_is_that_from_manifests() {
    let probe = Probe::filled(probe::score);
    probe.render(true).unwrap();
    let from_manifests = probe::files(&probe.results());
    write_log(&probe, |result| result);
    probe.render(true).unwrap();
    assert!(from_manifests == probe::files(&probe.results()));
}

#[test]
fn the_log_counts_while_an_output_is_untouched() {
    let probe = Probe::filled(probe::score);
    // Values that no manifest has show which of the two was read.
    write_log(&probe, |result| result.replace("\"value\":", "\"value\":1"));
    probe.render(true).unwrap();
    let is_magnitude = |line: &&str| line.starts_with("magnitude,50 %,average,");
    let mean = || probe.read("summary.csv").lines().find(is_magnitude).unwrap().split(',').nth(3).unwrap().to_owned();
    assert_eq!(mean(), "160.000000");
    for manifest in manifests(&probe) {
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text + "\n").unwrap();
    }
    probe.render(true).unwrap();
    assert_eq!(mean(), "60.000000");
}

#[test]
fn an_output_that_was_damaged_since_is_missing_although_the_log_knows_it() {
    let probe = Probe::filled(probe::score);
    write_log(&probe, |result| result);
    for manifest in manifests(&probe) {
        fs::write(manifest, "{").unwrap();
    }
    let rendered = probe.render(false).unwrap();
    assert_eq!((rendered.done, rendered.expected), (0, 9));
}

#[test]
fn predictions_that_were_damaged_since_are_not_compared() {
    let probe = Probe::filled(probe::score);
    write_log(&probe, |result| result);
    for manifest in manifests(&probe) {
        fs::write(manifest.with_file_name("predictions.jsonl"), "").unwrap();
    }
    probe.render(true).unwrap();
    let table = probe.read("metrics.md");
    assert!(table.contains("differences with the standard errors of both"), "{table}");
}
