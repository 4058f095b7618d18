//! Interrupts, locks, timeouts.

use ressa_experiment::protocol::FailureKind;
use ressa_sweep::{CoordinatorLock, Interruption, Stop, SweepError, SweepEvent, running_coordinator};
use serde_json::json;

use crate::bench::{Bench, cells, graph};

#[test]
fn one_interrupt_lets_running_stages_finish() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "prune": { "sleep": 0.3 } }));
    let stop = Stop::new();
    let mut running = 0;
    let summary = bench
        .listen(&graph, &stop, &mut |event| match event {
            SweepEvent::StageStarted { what, .. } if what.starts_with("prune") && stop.requests() == 0 => {
                stop.request(Interruption::Interrupt);
            }
            SweepEvent::Stopping { running: now, .. } => running = now,
            _ => {}
        })
        .unwrap();
    assert_eq!(summary.interrupted, Some(Interruption::Interrupt));
    assert!(running > 0);
    assert_eq!(summary.totals.made, 1 + running, "the dense model, and what was running");
    assert!(summary.failed.is_empty());
    let rest = bench.sweep(&graph);
    assert_eq!((rest.totals.cached, rest.complete), (summary.totals.made, 4));
}

#[test]
fn two_interrupts_stop_at_once_and_leave_no_failure() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.instruct(json!({ "prune": { "sleep": 600.0 } }));
    let stop = Stop::new();
    let summary = bench
        .listen(&graph, &stop, &mut |event| {
            if let SweepEvent::StageStarted { what, .. } = event
                && what.starts_with("prune")
            {
                stop.request(Interruption::Interrupt);
                stop.request(Interruption::Terminate);
            }
        })
        .unwrap();
    assert_eq!(summary.interrupted, Some(Interruption::Terminate));
    assert_eq!((summary.totals.made, summary.failed.len()), (1, 0));
    bench.instruct(json!({}));
    assert_eq!(bench.sweep(&graph).complete, 4);
}

#[test]
fn a_second_coordinator_is_turned_away() {
    let bench = Bench::new();
    assert_eq!(running_coordinator(bench.folder.path()), None);
    let lock = CoordinatorLock::acquire(bench.folder.path(), bench.options.lease).unwrap();
    let own = std::process::id().to_string();
    assert_eq!(running_coordinator(bench.folder.path()), Some(own.clone()));
    match bench.listen(&graph(&cells()), &Stop::new(), &mut |_| {}) {
        Err(SweepError::Busy { pid, .. }) => assert_eq!(pid, own),
        other => panic!("{other:?}"),
    }
    drop(lock);
    assert_eq!(bench.sweep(&graph(&cells())).complete, 4);
}

#[test]
fn a_stage_that_takes_too_long_fails_alone() {
    let mut bench = Bench::new();
    bench.options.timeout = Some(std::time::Duration::from_millis(400));
    bench.instruct(json!({ "merge sparse-lora": { "sleep": 600.0 } }));
    let summary = bench.sweep(&graph(&cells()));
    assert_eq!(summary.failed.len(), 2);
    assert!(summary.failed.iter().all(|failed| failed.failure.kind == FailureKind::Timeout));
    assert_eq!(summary.failed[0].failure.message, "took longer than the 0.4 s that --timeout allows");
    assert_eq!((summary.complete, summary.totals.skipped), (2, 4));
}
