//! Stages and workers that fail, disks that refuse.

use std::fs;

use ressa_experiment::protocol::FailureKind;
use ressa_store::Store;
use ressa_sweep::{Stop, SweepError, SweepEvent, clear_failure, read_failure, read_failures};
use serde_json::json;

use crate::bench::{Bench, cells, graph};

#[test]
fn a_failed_stage_skips_its_dependents_and_nothing_else() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "adapt sparse": { "fail": "oom" } }));
    let summary = bench.sweep(&graph);
    // Two trainings fail; two merges and four evaluations depend on them.
    assert_eq!((summary.failed.len(), summary.totals.skipped, summary.complete), (2, 6, 2));
    let failed = &summary.failed[0];
    assert_eq!(failed.failure.kind, FailureKind::Oom);
    let log = fs::read_to_string(failed.failure.log.as_ref().unwrap()).unwrap();
    assert_eq!(log, "this stage was told to fail\n");
    assert!(summary.skipped.iter().all(|skipped| summary.failed.iter().any(|failed| failed.key == skipped.cause)));

    bench.instruct(json!({}));
    let mut remembered = 0;
    let again = bench
        .listen(&graph, &Stop::new(), &mut |event| {
            remembered += usize::from(matches!(event, SweepEvent::Remembered(_)))
        })
        .unwrap();
    assert_eq!((again.totals.made, again.failed.len(), remembered), (0, 2, 2), "a failure is not tried again unasked");

    for record in read_failures(&bench.store) {
        clear_failure(&bench.store, &record.key).unwrap();
    }
    let retried = bench.sweep(&graph);
    assert_eq!((retried.totals.made, retried.complete), (8, 4));
}

#[test]
fn a_killed_worker_costs_one_stage_until_the_next_sweep() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "evaluate flickr30k": { "kill": true } }));
    let mut deaths = 0;
    let summary = bench
        .listen(&graph, &Stop::new(), &mut |event| {
            deaths += usize::from(matches!(event, SweepEvent::WorkerDied { .. }))
        })
        .unwrap();
    assert_eq!((summary.failed.len(), deaths, summary.totals.made), (4, 4, 13));
    let failed = &summary.failed[0];
    assert_eq!(failed.failure.kind, FailureKind::Killed);
    assert_eq!(failed.failure.message, "the worker died (killed by SIGKILL): about to die");

    bench.instruct(json!({}));
    let again = bench.sweep(&graph);
    assert_eq!((again.totals.made, again.complete), (4, 4), "what was killed is tried again by itself");
    assert_eq!(read_failure(&bench.store, &failed.key), None, "a success clears the record");
}

#[test]
fn max_failures_stops_the_sweep() {
    let mut bench = Bench::new();
    bench.options.slots = Some(1);
    bench.options.max_failures = Some(1);
    bench.instruct(json!({ "prune": { "fail": "bug" } }));
    let summary = bench.sweep(&graph(&cells()));
    assert_eq!((summary.failed.len(), summary.totals.made), (1, 1));
}

#[test]
fn a_store_that_refuses_is_named_and_ends_the_sweep() {
    let bench = Bench::new();
    let graph = graph(&cells());
    // A file where the folder of a key must be: refuses like a full disk, also for root.
    let merge = graph.stages.iter().find(|stage| stage.node.stage.kind() == "merge").unwrap();
    let folder = bench.store.folder(&merge.node.key.0);
    let shard = folder.parent().unwrap();
    let others =
        graph.stages.iter().any(|s| s.node.key != merge.node.key && s.node.key.0[..2] == merge.node.key.0[..2]);
    assert!(!others, "another stage shares the folder; change the seeds");
    fs::write(shard, "").unwrap();
    let summary = bench.sweep(&graph);
    let message = summary.storage.clone().unwrap();
    assert!(message.starts_with("cannot write `"), "{message}");
    assert!(summary.failed.iter().any(|failed| failed.failure.kind == FailureKind::Storage));
    let made = summary.totals.made;

    fs::remove_file(shard).unwrap();
    let again = bench.sweep(&graph);
    assert_eq!((again.totals.cached, again.complete), (made, 4), "nothing is lost, and no retry is needed");
}

#[test]
fn a_results_folder_that_is_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results");
    fs::write(&file, "").unwrap();
    let error = Store::open(file.join("store"), Vec::new()).unwrap_err();
    assert!(error.is_storage());
    let mut bench = Bench::new();
    bench.options.results = file.join("below");
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).unwrap_err();
    assert!(error.is_storage(), "{error}");
}

#[test]
fn a_worker_that_cannot_start_is_an_error_with_its_reason() {
    let mut bench = Bench::new();
    bench.options.worker.program = bench.folder.path().join("no-such-worker");
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, SweepError::Spawn { .. }), "{error}");

    bench.options.worker.program = bench.folder.path().join("fake-worker");
    let script = "#!/bin/sh\necho 'libtorch_cpu.so: cannot open shared object file' >&2\nexit 127\n";
    fs::write(&bench.options.worker.program, script).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&bench.options.worker.program, fs::Permissions::from_mode(0o755)).unwrap();
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit code 127") && text.contains("libtorch_cpu.so"), "{text}");
}

#[test]
fn a_worker_that_cannot_start_is_quoted_once() {
    let mut bench = Bench::new();
    let program = bench.folder.path().join("worker");
    fs::write(&program, "#!/bin/sh\necho 'libtorch is not there' >&2\nexit 3\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bench.options.worker.program = program;
    bench.options.slots = Some(1);
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).expect_err("no worker, no sweep");
    let SweepError::NotReady { how, message, .. } = error else { panic!("{error}") };
    assert_eq!((how.as_str(), message.as_str()), ("exit code 3", "libtorch is not there"));
}
