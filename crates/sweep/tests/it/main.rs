//! Sweeps with a worker that has no tensors.

mod archives;
mod bench;
mod damage;
mod estimates;
mod gate;
mod joining;
mod order;
mod recruiting;
mod stopping;
mod trouble;

use std::{collections::HashSet, time::Duration};

use bench::{Bench, cells, graph};
use ressa_experiment::config::{Metric, Propagate, RestoreMethod};
use ressa_sweep::{Interruption, Stop};
use serde_json::json;

#[test]
fn everything_is_made_once_and_then_cached() {
    let bench = Bench::new();
    let graph = graph(&cells());
    assert_eq!(graph.kinds(), [("dense", 1), ("prune", 4), ("adapt", 2), ("merge", 2), ("evaluate", 8)]);
    assert_eq!(graph.unshared(), 2 * (3 + 2) + 2 * (5 + 2));

    let first = bench.sweep(&graph);
    assert_eq!((first.totals.made, first.totals.cached, first.complete, first.runs), (17, 0, 4, 4));
    let again = bench.sweep(&graph);
    assert_eq!((again.totals.made, again.totals.cached, again.complete), (0, 17, 4));

    let published = bench.published();
    assert_eq!(published.len(), 17);
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), 17);
}

#[test]
fn a_new_seed_runs_only_what_is_new() {
    let bench = Bench::new();
    let mut cells = cells();
    bench.sweep(&graph(&cells));
    cells.push(bench::cell(bench::run(Metric::Wanda, RestoreMethod::None, 2)));
    let grown = bench.sweep(&graph(&cells));
    // Two towers and two tasks; the dense model is shared.
    assert_eq!((grown.totals.cached, grown.totals.made), (17, 4));
}

/// Stored statistics are means: once what was pruned with them is there, nobody collects them again.
#[test]
fn statistics_that_nobody_will_read_are_not_missed() {
    let bench = Bench::new();
    let mut run = bench::run(Metric::Wanda, RestoreMethod::None, 0);
    run.prune.calibration.propagate = Propagate::Dense;
    let mut cells = vec![bench::cell(run.clone())];
    assert_eq!(bench.sweep(&graph(&cells)).totals.made, 1 + 2 * 2 + 2);
    for node in cells[0].stages.iter().filter(|node| node.stage.kind() == "statistics") {
        std::fs::remove_dir_all(bench.store.folder(&node.key.hex())).unwrap();
    }
    let again = bench.sweep(&graph(&cells));
    assert_eq!((again.totals.made, again.totals.cached), (0, 7));

    // Another pattern of the language tower needs its statistics, and only those.
    run.prune.language.sparsity = 0.6;
    cells.push(bench::cell(run));
    assert_eq!(bench.sweep(&graph(&cells)).totals.made, 1 + 1 + 1);
}

/// Losses of what trains are in the view while it trains.
#[test]
fn the_live_view_shows_losses() {
    let bench = Bench::new();
    bench.instruct(json!({ "adapt": { "sleep": 600.0, "losses": [4.0, 2.0, 1.0] } }));
    let stop = Stop::new();
    let seen = std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            let losses = || {
                let status = ressa_sweep::live_status(bench.folder.path())?;
                assert!(!status.ended, "the sweep ended before its losses were seen");
                let stages = status.workers.into_iter().filter_map(|worker| worker.stage);
                stages.map(|stage| stage.losses).find(|losses| losses.len() == 3)
            };
            let seen = loop {
                match losses() {
                    Some(losses) => break losses,
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            stop.request(Interruption::Interrupt);
            stop.request(Interruption::Terminate);
            seen
        });
        bench.listen(&graph(&cells()), &stop, &mut |_| {}).unwrap();
        seen.join().unwrap()
    });
    let losses: Vec<f64> = seen.into_iter().map(|(_, loss)| loss).collect();
    assert_eq!(losses, [4.0, 2.0, 1.0]);
}

#[test]
fn the_live_view_of_a_thousand_workers_is_short() {
    let mut bench = Bench::new();
    bench.options.devices.slots = Some(1000);
    bench.sweep(&graph(&cells()));
    let status = ressa_sweep::live_status(bench.folder.path()).unwrap();
    assert_eq!((status.workers.len(), status.other_workers), (100, 900));
}
