//! Entries that are not what was published.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::{
    StageKey,
    config::{Metric, RestoreMethod},
};
use ressa_sweep::{Graph, Stop, SweepEvent};
use serde_json::json;

use crate::bench::{Bench, cell, cells, graph, run};

fn key(graph: &Graph, kind: &str) -> StageKey {
    graph.stages.iter().find(|stage| stage.node.stage.kind() == kind).unwrap().node.key
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_entries_are_named_put_aside_and_made_again() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    let folder = |kind: &str| bench.store.folder(&key(&graph, kind).hex());
    flip(&folder("prune").join("data.bin"));
    fs::remove_file(folder("adapt").join("data.bin")).unwrap();
    let manifest = folder("merge").join("manifest.json");
    fs::write(&manifest, &fs::read(&manifest).unwrap()[..80]).unwrap();
    fs::remove_file(folder("evaluate").join("manifest.json")).unwrap();

    let mut named: Vec<(String, Option<PathBuf>)> = Vec::new();
    let summary = bench
        .listen(&graph, &Stop::new(), &mut |event| {
            if let SweepEvent::Damaged(damage) = event {
                let what = damage.what.replace(&bench.folder.path().display().to_string(), "RESULTS");
                named.push((what.replace(&*damage.key.hex(), "KEY"), damage.aside));
            }
        })
        .unwrap();
    assert_eq!((summary.totals.made, summary.complete), (4, 4));
    assert!(named.iter().all(|(_, aside)| aside.as_ref().is_some_and(|folder| folder.is_dir())), "nothing is deleted");
    let mut lines: Vec<String> = named.into_iter().map(|(what, _)| mask_shard(&what)).collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @"
    `RESULTS/store/../KEY/data.bin` is damaged: it is missing
    `RESULTS/store/../KEY/data.bin` is damaged: its content differs from what was published
    `RESULTS/store/../KEY/manifest.json` is damaged: not a manifest (EOF while parsing a value at line 3 column 1)
    `RESULTS/store/../KEY` has no manifest
    ");
    assert_eq!(bench.sweep(&graph).totals.made, 0);
}

/// An evaluation of a merged model opens the training behind the merge, which its list of inputs does not name.
#[test]
fn what_is_gone_behind_a_published_stage_is_made_before_it_is_opened() {
    let bench = Bench::new();
    let graph = graph(&[cell(run(Metric::Magnitude, RestoreMethod::SparseLora, 0))]);
    bench.sweep(&graph);
    let folder = |kind: &str| bench.store.folder(&key(&graph, kind).hex());
    fs::remove_dir_all(folder("adapt")).unwrap();
    fs::remove_dir_all(folder("evaluate")).unwrap();
    bench.instruct(json!({ "adapt": { "sleep": 0.5 } }));
    let mut told = Vec::new();
    let mut listen = |event| match event {
        SweepEvent::StageStarted { what, .. } => told.push(format!("{what} begins")),
        SweepEvent::StageFinished { what, .. } => told.push(format!("{what} is made")),
        _ => {}
    };
    bench.listen(&graph, &Stop::new(), &mut listen).unwrap();
    let last = graph.stages.iter().find(|stage| stage.node.stage.kind() == "evaluate").unwrap();
    let evaluate = ressa_sweep::describe(&last.node.stage);
    let expected = ["adapt sparse begins", "adapt sparse is made", "evaluate begins", "evaluate is made"];
    assert_eq!(told, expected.map(|line| line.replace("evaluate", &evaluate)));

    // Without it, nothing that opens it can be made.
    fs::remove_dir_all(folder("adapt")).unwrap();
    fs::remove_dir_all(folder("evaluate")).unwrap();
    bench.instruct(json!({ "adapt": { "fail": "bug" } }));
    let summary = bench.sweep(&graph);
    assert_eq!((summary.failed.len(), summary.totals.skipped), (1, 1));
}

#[test]
fn a_damaged_shipped_entry_is_made_anew_in_the_writable_root() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    let dense = key(&graph, "dense").hex();
    let shipped = bench.folder.path().join("shipped").join(&dense[..2]);
    fs::create_dir_all(&shipped).unwrap();
    fs::rename(bench.store.folder(&dense), shipped.join(&*dense)).unwrap();
    assert_eq!(bench.sweep(&graph).totals.made, 0, "a shipped entry is found like any other");

    flip(&shipped.join(&*dense).join("data.bin"));
    let summary = bench.sweep(&graph);
    assert_eq!((summary.totals.made, summary.damaged.len()), (1, 1));
    assert!(shipped.join(&*dense).join("data.bin").is_file(), "a read-only root is left alone");
    assert!(bench.store.require(&dense).unwrap().is_writable());
    assert_eq!(bench.sweep(&graph).totals.made, 0);
}

/// `/ab/KEY` is `/../KEY`: the folder between is part of the key.
fn mask_shard(text: &str) -> String {
    let Some(at) = text.find("/KEY") else { return text.to_owned() };
    format!("{}..{}", &text[..at - 2], &text[at..])
}
