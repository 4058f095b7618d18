//! Workers of other machines: processes of their own that meet a coordinator in the results folder.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use ressa_runlog::{Comparison, LogEvent, history};
use ressa_store::Store;
use serde_json::json;

use crate::{
    house::{House, fake_worker},
    killing::signal,
};

/// Stages of the small grid.
const STAGES: usize = 29;

impl House {
    fn away(&self, arguments: &[&str]) -> Child {
        let mut command = self.plain(arguments);
        command.arg("--worker").arg(fake_worker());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A coordinator without workers of its own.
    fn coordinator(&self) -> Child {
        self.away(&["sweep", "small", "--no-report", "--device", "cpu", "--slots", "0", "--lease", "2"])
    }

    /// A pilot with some workers.
    fn pilot(&self, name: &str, slots: &str) -> Child {
        self.away(&["work", "--device", "cpu", "--slots", slots, "--name", name, "--grace", "5"])
    }

    fn events(&self) -> Vec<LogEvent> {
        let store = Store::reading(self.path("results/store"), Vec::new());
        history(&store).unwrap().0.into_iter().map(|entry| entry.event).collect()
    }

    fn wait_until(&self, what: &str, test: impl Fn(&[LogEvent]) -> bool) {
        let start = Instant::now();
        while !test(&self.events()) {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}: {:#?}", self.events());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn published_once(&self) {
        let published = self.events().into_iter().filter_map(|event| match event {
            LogEvent::Published { key, .. } => Some(key),
            _ => None,
        });
        let mut keys: Vec<_> = published.collect();
        keys.sort();
        let many = keys.len();
        keys.dedup();
        assert_eq!((keys.len(), many), (STAGES, STAGES));
    }
}

fn code(child: &mut Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn workers_of_other_machines_do_a_sweep_and_end_with_it() {
    let house = House::new();
    // The sweep cannot be over before the late one is there, however slowly its process starts.
    house.instruct(json!({ "evaluate": { "until": "late" } }));
    let mut early = house.pilot("early", "2");
    let mut sweep = house.coordinator();
    let mut late = house.pilot("late", "1");
    house.wait_until("the late one works", |events| {
        events.iter().any(|event| matches!(event, LogEvent::WorkerUp { worker, .. } if worker.starts_with("late")))
    });
    house.write("results/late", "");
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!((code(&mut early), code(&mut late)), (Some(0), Some(0)));
    house.published_once();
    let by = |name: &str| {
        house
            .events()
            .iter()
            .any(|event| matches!(event, LogEvent::Published { worker, .. } if worker.starts_with(name)))
    };
    assert!(by("early/"));
    assert!(!house.path("results/meet/token").exists(), "who comes later finds no sweep");
    // What a stage logged is found, whoever made it.
    let events = house.events();
    let key = events.iter().find_map(|event| match event {
        LogEvent::Published { key, .. } => Some(key.to_string()),
        _ => None,
    });
    let logs = house.ressa(&["logs", &key.unwrap()]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    assert!(logs.stdout.contains("made"), "{}", logs.stdout);
}

#[test]
fn a_coordinator_that_dies_finds_its_workers_again() {
    let house = House::new();
    house.instruct(json!({ "prune": { "sleep": 1.5 } }));
    let mut pilot = house.pilot("there", "2");
    for how in ["-KILL", "-TERM"] {
        let mut sweep = house.coordinator();
        let has_stage = |events: &[LogEvent]| {
            let last = events.iter().rposition(|event| matches!(event, LogEvent::Began { .. })).unwrap_or(0);
            events[last..]
                .iter()
                .any(|event| matches!(event, LogEvent::Started { what, .. } if what.starts_with("prune")))
        };
        house.wait_until("a prune stage runs", has_stage);
        signal(how, sweep.id());
        let _ = sweep.wait();
    }
    let mut sweep = house.coordinator();
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!(code(&mut pilot), Some(0));
    house.published_once();
    // Nothing that a worker had was done again.
    let again = house.events().iter().filter(|event| matches!(event, LogEvent::Started { attempt: 2.., .. })).count();
    assert_eq!(again, 0);
}

#[test]
fn a_worker_that_is_asked_to_end_gives_back_and_says_so() {
    let house = House::new();
    house.instruct(json!({ "dense": { "sleep": 600.0 } }));
    let mut sweep = house.coordinator();
    let mut first = house.pilot("first", "1");
    house.wait_until("the dense stage runs", |events| {
        events.iter().any(|event| matches!(event, LogEvent::WorkerUp { .. }))
    });
    signal("-USR2", first.id());
    assert_eq!(code(&mut first), Some(75));
    house
        .wait_until("it is given back", |events| events.iter().any(|event| matches!(event, LogEvent::Returned { .. })));
    house.instruct(json!({}));
    let mut second = house.pilot("second", "2");
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!(code(&mut second), Some(0));
    house.published_once();
}

/// A machine that hangs, and comes back when its stage has been made elsewhere.
#[test]
fn one_that_comes_back_late_harms_nothing_and_is_compared() {
    let house = House::new();
    house.instruct(json!({ "evaluate": { "sleep": 0.7 }, "dense": { "sleep": 1.0 } }));
    let mut sweep = house.coordinator();
    let mut zombie = house.pilot("zombie", "1");
    house.wait_until("it has the dense stage", |events| {
        events.iter().any(|event| matches!(event, LogEvent::WorkerUp { .. }))
    });
    signal("-STOP", zombie.id());
    let mut other = house.pilot("other", "1");
    house.wait_until("somebody else made it", |events| {
        events.iter().any(|event| matches!(event, LogEvent::Published { .. }))
    });
    signal("-CONT", zombie.id());
    house.wait_until("its output is compared", |events| {
        events.iter().any(|event| matches!(event, LogEvent::Superseded { .. }))
    });
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!((code(&mut zombie), code(&mut other)), (Some(0), Some(0)));
    house.published_once();
    let (comparison, kept) = house
        .events()
        .into_iter()
        .find_map(|event| match event {
            LogEvent::Superseded { comparison, kept, .. } => Some((comparison, kept)),
            _ => None,
        })
        .unwrap();
    assert_eq!(comparison, Comparison::Same);
    assert!(house.path("results").join(kept.unwrap()).join("data.bin").is_file());
}

#[test]
fn a_killed_pilot_gives_its_stage_back_within_the_lease() {
    let house = House::new();
    house.instruct(json!({ "dense": { "sleep": 600.0 } }));
    let mut sweep = house.coordinator();
    let mut first = house.pilot("first", "1");
    house.wait_until("it has a stage", |events| events.iter().any(|event| matches!(event, LogEvent::WorkerUp { .. })));
    signal("-KILL", first.id());
    let _ = first.wait();
    house.instruct(json!({}));
    let mut second = house.pilot("second", "2");
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!(code(&mut second), Some(0));
    house.published_once();
}

#[test]
fn messages_without_the_token_doubled_or_cut_are_refused_and_said() {
    let house = House::new();
    house.instruct(json!({ "dense": { "sleep": 1.0 } }));
    let mut sweep = house.coordinator();
    let mut pilot = house.pilot("good", "1");
    house.wait_until("a stage runs", |events| events.iter().any(|event| matches!(event, LogEvent::WorkerUp { .. })));
    let up = house.path("results/meet/up");
    let own = fs::read_to_string(up.join("good")).unwrap();
    let first = own.lines().next().unwrap();
    // Somebody without the token; a replay; a message of one worker under the name of another; a path; half a line.
    fs::write(up.join("forged"), format!("0 {} {{\"up\":\"bye\",\"why\":\"\"}}\n", "0".repeat(64))).unwrap();
    fs::write(up.join("stolen"), format!("{first}\n")).unwrap();
    fs::write(up.join("..nasty"), "x\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", up.join("link")).unwrap();
    use std::io::Write;
    let mut file = fs::File::options().append(true).open(up.join("good")).unwrap();
    file.write_all(format!("{first}\n{}\n", &first[..first.len() / 2]).as_bytes()).unwrap();
    drop(file);
    house.wait_until("all are refused", |events| {
        let count = |name: &str, why: &str| {
            let is = |event: &&LogEvent| {
                matches!(event, LogEvent::Refused { worker, why: said } if worker == name && said.contains(why))
            };
            events.iter().filter(is).count()
        };
        count("forged", "token") > 0
            && count("stolen", "token") > 0
            && count("link", "cannot be read") > 0
            && count("good", "replay") > 0
            && count("good", "token") > 0
    });
    assert_eq!(code(&mut sweep), Some(0));
    assert_eq!(code(&mut pilot), Some(0));
    house.published_once();
}
