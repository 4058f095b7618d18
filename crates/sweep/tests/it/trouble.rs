//! Stages and workers that fail, disks that refuse.

use std::fs;

use ressa_experiment::protocol::FailureKind;
use ressa_store::Store;
use ressa_sweep::{Graph, RetryPolicy, Stop, Summary, SweepError, SweepEvent, verify};
use serde_json::json;

use crate::bench::{Bench, cells, graph};

/// Puts a shell script before the fake worker, which is `$WORKER` there.
fn script(bench: &mut Bench, body: &str) {
    let path = bench.folder.path().join("script");
    let worker = bench.options.worker.program.display();
    fs::write(&path, format!("#!/bin/sh\nFOLDER='{}'\nWORKER='{worker}'\n{body}\n", bench.folder.path().display()))
        .unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    bench.options.worker.program = path;
}

/// A sweep, and how many failures of earlier ones it did not try again.
fn remembering(bench: &Bench, graph: &Graph) -> (Summary, usize) {
    let mut remembered = 0;
    let summary = bench.listen(graph, &Stop::new(), &mut |event| {
        remembered += usize::from(matches!(event, SweepEvent::Remembered(_)));
    });
    (summary.unwrap(), remembered)
}

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

    bench.retry();
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
    assert!(bench.failures().is_empty(), "a success clears the record");
}

#[test]
fn what_may_pass_is_tried_again_within_the_sweep() {
    let mut bench = Bench::new();
    bench.options.retries = RetryPolicy::new(2);
    bench.instruct(json!({ "merge": { "kill": true }, "adapt": { "fail": "timeout" }, "prune": { "fail": "nan" } }));
    let graph = graph(&cells());
    let mut told = Vec::new();
    let summary = bench.listen(&graph, &Stop::new(), &mut |event| {
        if let SweepEvent::Told(text) = event {
            told.push(text);
        }
    });
    // Numbers that diverge would diverge again.
    assert!(told.is_empty() && !summary.unwrap().failed.is_empty(), "{told:?}");

    bench.instruct(json!({ "merge": { "kill": true }, "adapt": { "fail": "timeout" } }));
    bench.retry();
    let mut told = Vec::new();
    let summary = bench.listen(&graph, &Stop::new(), &mut |event| {
        if let SweepEvent::Told(text) = event {
            let good = if text.starts_with("adapt") { json!({ "merge": { "kill": true } }) } else { json!({}) };
            bench.instruct(good);
            told.push(text);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.complete, summary.failed.len()), (4, 0), "{told:?}");
    assert!(told.iter().any(|text| text.contains("is tried again in 1 s (killed: ")), "{told:?}");
    assert!(told.iter().any(|text| text.contains("is tried again in 0 s (timeout: ")), "{told:?}");
    assert!(bench.failures().is_empty());
}

#[test]
fn max_failures_stops_the_sweep() {
    let mut bench = Bench::new();
    bench.options.devices.slots = Some(1);
    bench.options.max_failures = Some(1);
    bench.instruct(json!({ "prune": { "fail": "bug" } }));
    let summary = bench.sweep(&graph(&cells()));
    assert_eq!((summary.failed.len(), summary.totals.made), (1, 1));
}

#[test]
fn max_failures_counts_this_sweep() {
    let mut bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "evaluate flickr30k": { "fail": "bug" } }));
    assert_eq!(bench.sweep(&graph).failed.len(), 4);
    for key in bench.published() {
        fs::remove_dir_all(bench.store.folder(&key)).unwrap();
    }
    bench.options.max_failures = Some(2);
    bench.options.devices.slots = Some(1);
    bench.instruct(json!({ "evaluate vqav2": { "fail": "nan" } }));
    let (summary, remembered) = remembering(&bench, &graph);
    assert_eq!((remembered, summary.failed.len()), (4, 6), "two new ones were allowed");
}

#[test]
fn one_broken_place_is_given_up_and_the_others_do_the_work() {
    let mut bench = Bench::new();
    script(
        &mut bench,
        "if mkdir \"$FOLDER/good\" 2>/dev/null; then exec \"$WORKER\" \"$@\"; fi\necho 'CUDA error: uncorrectable ECC error' >&2; exit 1",
    );
    bench.instruct(json!({ "dense": { "sleep": 0.2 }, "prune": { "sleep": 0.2 } }));
    let mut given_up = Vec::new();
    let summary = bench
        .listen(&graph(&cells()), &Stop::new(), &mut |event| {
            if let SweepEvent::SlotRetired(slot) = event {
                given_up.push(slot);
            }
        })
        .unwrap();
    assert_eq!((summary.complete, summary.failed.len()), (4, 0));
    assert_eq!((given_up.len(), summary.retired.len()), (1, 1));
    let told = &given_up[0];
    assert!(told.device == "cpu" && told.reason.contains("uncorrectable ECC error"), "{told:?}");
}

#[test]
fn without_any_place_left_the_sweep_ends_and_says_why_of_each() {
    let mut bench = Bench::new();
    script(&mut bench, "echo \"broken $$\" >&2; sleep 0.05; exit 3");
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SweepError::NoWorkers { .. } | SweepError::NotReady { .. }), "{text}");
    assert!(text.contains("exit code 3") && text.contains("broken "), "{text}");
}

#[test]
fn foreign_output_of_a_worker_is_ignored_and_logged() {
    let mut bench = Bench::new();
    bench.options.devices.slots = Some(1);
    script(&mut bench, "printf 'caf\\351: a warning\\nplain\\n[1]\\nno end of line'; exec \"$WORKER\" \"$@\"");
    let summary = bench.sweep(&graph(&cells()));
    assert_eq!((summary.complete, summary.failed.len()), (4, 0));
    let log = fs::read(bench.folder.path().join("logs/000001-worker-0.log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains(": a warning\nplain\n[1]\nno end of line\n"), "{log}");
}

/// A store of an earlier version, which kept a file per failure and a journal.
#[test]
fn what_earlier_versions_recorded_is_taken_over_and_kept() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "adapt sparse": { "fail": "bug" } }));
    bench.sweep(&graph);
    let records = bench.failures();
    let root = bench.store.root().to_owned();
    fs::remove_dir_all(root.join("log")).unwrap();
    for folder in ["failures", "claims"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    for record in &records {
        let text = serde_json::to_vec(record).unwrap();
        // What a kill between write and rename leaves, copies, and strangers.
        for name in [format!("{}.json", record.key), format!("{}.draft", record.key), ".DS_Store".to_owned()] {
            fs::write(root.join("failures").join(name), &text).unwrap();
        }
    }
    fs::write(root.join("journal.jsonl"), "{}\n").unwrap();
    assert_eq!(bench.failures(), records, "who only reads sees them");

    bench.instruct(json!({}));
    let (summary, remembered) = remembering(&bench, &graph);
    assert_eq!((summary.complete, remembered, summary.totals.made), (2, 2, 0));
    for gone in ["failures", "claims", "journal.jsonl"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    let record = root.join("log/older/failures").join(format!("{}.json", records[0].key));
    assert!(record.is_file() && root.join("log/older/journal.jsonl").is_file());
    bench.retry();
    assert_eq!(bench.sweep(&graph).complete, 4);
}

#[test]
fn a_cause_that_is_gone_is_tried_again_by_itself() {
    let fail = |bench: &Bench, kind: &str| {
        bench.instruct(json!({ "adapt sparse": { "fail": kind } }));
        assert_eq!(bench.sweep(&graph(&cells())).failed.len(), 2, "{kind}");
        bench.instruct(json!({}));
    };
    let again = |bench: &Bench| remembering(bench, &graph(&cells())).0.complete;

    let bench = Bench::new();
    fail(&bench, "data");
    assert_eq!(again(&bench), 4, "files may have been repaired");

    let mut bench = Bench::new();
    fail(&bench, "oom");
    assert_eq!(again(&bench), 2);
    bench.options.devices.slots = Some(3);
    assert_eq!(again(&bench), 2, "more workers share the memory");
    bench.options.devices.slots = Some(1);
    assert_eq!(again(&bench), 4, "one has it alone");

    for kind in ["nan", "bug", "oom"] {
        let mut bench = Bench::new();
        fail(&bench, kind);
        assert_eq!(again(&bench), 2, "{kind}");
        script(&mut bench, "exec \"$WORKER\" \"$@\"");
        assert_eq!(again(&bench), 4, "{kind}: another program");
    }

    let mut bench = Bench::new();
    fail(&bench, "timeout");
    assert_eq!(again(&bench), 2);
    bench.options.timeout = Some(std::time::Duration::from_secs(59));
    assert_eq!(again(&bench), 2);
    bench.options.timeout = Some(std::time::Duration::from_secs(61));
    assert_eq!(again(&bench), 4, "a longer limit");
    let mut bench = Bench::new();
    fail(&bench, "timeout");
    bench.options.timeout = None;
    assert_eq!(again(&bench), 4, "no limit");
}

#[test]
fn a_worker_that_dies_in_a_recount_is_named_with_its_stage() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    bench.instruct(json!({ "prune": { "kill": true } }));
    let all: Vec<usize> = (0..graph.stages.len()).collect();
    let error = verify(&graph, &all, &bench.store, &bench.options, &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.starts_with("the worker died while it recounted `prune vision wanda 50%` (killed by SIGKILL)"),
        "{error}"
    );
    assert!(error.contains("about to die"), "{error}");
}

#[test]
fn a_store_that_refuses_is_named_and_ends_the_sweep() {
    let bench = Bench::new();
    let graph = graph(&cells());
    // A file where the folder of a key must be: refuses like a full disk, also for root.
    let merge = graph.stages.iter().find(|stage| stage.node.stage.kind() == "merge").unwrap();
    let folder = bench.store.folder(&merge.node.key.hex());
    let shard = folder.parent().unwrap();
    let others =
        graph.stages.iter().any(|s| s.node.key != merge.node.key && s.node.key.hex()[..2] == merge.node.key.hex()[..2]);
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
    bench.options.devices.slots = Some(1);
    let error = bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}).expect_err("no worker, no sweep");
    let SweepError::NotReady { how, message, .. } = error else { panic!("{error}") };
    assert_eq!((how.as_str(), message.as_str()), ("exit code 3", "libtorch is not there"));
}
