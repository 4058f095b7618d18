//! Pilots that a coordinator has no use for, and folders that pilots worked in before.

use std::{thread, time::Duration};

use ressa_runlog::{Comparison, LogEvent};
use ressa_sweep::{Devices, Graph, PilotEnd, PilotOptions, Stop, SweepError, SweepEvent, pilot};
use serde_json::json;

use crate::bench::{Bench, cells};

/// A pilot of a build.
pub fn options(bench: &Bench, name: &str, program: &str) -> PilotOptions {
    PilotOptions {
        results: bench.folder.path().to_owned(),
        worker: bench.options.worker.clone(),
        devices: vec!["cpu".to_owned()],
        machine: "cpu".to_owned(),
        name: Some(name.to_owned()),
        job: String::new(),
        class: None,
        node: None,
        time_limit: None,
        grace: Duration::from_secs(5),
        wait: Duration::from_secs(60),
        program: program.to_owned(),
    }
}

fn log(bench: &Bench) -> Vec<LogEvent> {
    ressa_runlog::history(&bench.store).unwrap().0.into_iter().map(|entry| entry.event).collect()
}

#[test]
fn a_pilot_of_another_build_is_sent_away_whatever_it_holds() {
    let mut bench = Bench::new();
    let graph = Graph::new("test", &cells(), &[]);
    bench.options.devices = Devices::cpu(0);
    bench.instruct(json!({ "dense": { "sleep": 20.0 } }));
    let away = options(&bench, "away", "a test");
    thread::scope(|scope| {
        let joined = scope.spawn(|| pilot(&away, &Stop::new(), &mut |_| {}));
        // The first coordinator gives it a stage and is interrupted.
        let stop = Stop::new();
        let summary = bench.listen(&graph, &stop, &mut |event| {
            if matches!(event, SweepEvent::StageStarted { .. }) {
                stop.request(ressa_sweep::Interruption::Terminate);
            }
        });
        assert_eq!(summary.unwrap().detached, 1);
        // The second is of another build, and works itself.
        bench.instruct(json!({}));
        bench.options.program = "another build".to_owned();
        bench.options.devices = Devices::cpu(1);
        let mut told = Vec::new();
        let summary = bench.listen(&graph, &Stop::new(), &mut |event| {
            if let SweepEvent::Told(line) = event {
                told.push(line);
            }
        });
        assert_eq!(summary.unwrap().complete, 4);
        let away = "`away` was sent away: it runs a test, this sweep another build";
        assert!(told.iter().any(|line| line == away), "{told:?}");
        assert!(matches!(joined.join().unwrap(), Ok(PilotEnd::Done(_))));
    });
}

#[test]
fn what_pilots_said_in_an_earlier_sweep_is_not_heard_again() {
    let mut bench = Bench::new();
    bench.options.devices = Devices::cpu(0);
    for (round, cells) in cells().chunks(2).enumerate() {
        let graph = Graph::new("test", cells, &[]);
        let helper = options(&bench, &format!("helper-{round}"), "a test");
        thread::scope(|scope| {
            let joined = scope.spawn(|| pilot(&helper, &Stop::new(), &mut |_| {}));
            assert_eq!(bench.sweep(&graph).complete, 2);
            assert!(matches!(joined.join().unwrap(), Ok(PilotEnd::Done(_))));
        });
    }
    assert!(!log(&bench).iter().any(|event| matches!(event, LogEvent::Refused { .. })));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let bench = Bench::new();
    for name in ["../../x", "a b", "", ".x", "a/b"] {
        let ended = pilot(&options(&bench, name, "a test"), &Stop::new(), &mut |_| {});
        assert!(matches!(ended, Err(SweepError::Name { .. })), "{name}: {ended:?}");
    }
    let waiting = PilotOptions { wait: Duration::ZERO, ..options(&bench, "alone", "a test") };
    assert_eq!(pilot(&waiting, &Stop::new(), &mut |_| {}).unwrap(), PilotEnd::NoSweep);
}

#[test]
fn what_came_too_late_is_compared_when_something_is_published() {
    let bench = Bench::new();
    let graph = Graph::new("test", &cells(), &[]);
    bench.sweep(&graph);
    // An attempt came too late under a coordinator that died before anything was published.
    let key = graph.stages.last().unwrap().node.key;
    let aside = bench.store.root().join("superseded");
    std::fs::create_dir(&aside).unwrap();
    std::fs::rename(bench.store.folder(&key.hex()), aside.join(format!("{key}.7"))).unwrap();
    bench.sweep(&graph);
    let compared = log(&bench).into_iter().filter_map(|event| match event {
        LogEvent::Superseded { key: of, attempt, comparison, kept, .. } if of == key => {
            Some((attempt, comparison, kept))
        }
        _ => None,
    });
    let kept = Some(format!("store/superseded/{key}.7").into());
    assert_eq!(compared.collect::<Vec<_>>(), [(7, Comparison::Same, kept)]);
}
