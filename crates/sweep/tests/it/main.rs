//! Sweeps with a worker that has no tensors.

mod bench;
mod damage;
mod gate;
mod order;
mod stopping;
mod trouble;

use std::collections::HashSet;

use bench::{Bench, cells, graph};

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
    cells.push(bench::cell(bench::run(
        ressa_experiment::config::Metric::Wanda,
        ressa_experiment::config::RestoreMethod::None,
        2,
    )));
    let grown = bench.sweep(&graph(&cells));
    // Two towers and two tasks; the dense model is shared.
    assert_eq!((grown.totals.cached, grown.totals.made), (17, 4));
}
