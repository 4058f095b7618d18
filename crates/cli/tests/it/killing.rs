//! Signals: graceful, at once, and the ones nobody can catch.

use std::{
    collections::HashSet,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::house::House;

pub fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn an_interrupted_sweep_ends_with_130_and_goes_on_later() {
    for (name, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 143)] {
        let house = House::new();
        house.instruct(json!({ "prune": { "sleep": 0.2 }, "adapt": { "sleep": 0.2 } }));
        let mut sweep = house.start(&["sweep", "small", "--no-report"]);
        house.wait_for(2);
        signal(name, sweep.id());
        assert_eq!(sweep.wait().unwrap().code(), Some(code));
        let made = house.published().len();
        let rest = house.ressa(&["sweep", "small", "--no-report"]);
        assert_eq!(rest.code, 0);
        let published = house.published();
        assert!(made < published.len());
        assert_eq!(published.iter().collect::<HashSet<_>>().len(), published.len());
    }
}

#[test]
fn what_asked_for_the_end_is_what_the_message_speaks_of() {
    for (name, says_key) in [("-INT", true), ("-TERM", false), ("-HUP", false)] {
        let house = House::new();
        house.instruct(json!({ "prune": { "sleep": 0.2 } }));
        let mut command = house.command(&["sweep", "small", "--no-report", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let sweep = command.spawn().unwrap();
        house.wait_for(2);
        signal(name, sweep.id());
        let output = sweep.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.contains("Ctrl-C"), says_key, "{stderr}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["exit"].as_i64(), output.status.code().map(i64::from), "{answer}");
    }
}

/// Where no worker runs, nothing is lost by ending at once.
#[test]
fn a_signal_is_answered_while_no_worker_runs() {
    let house = House::new();
    let pipe = house.path("requests.json");
    for (name, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 143)] {
        let _ = std::fs::remove_file(&pipe);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut command = house.plain(&["generate", "--json", "--model", "m", "--requests", "requests.json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let reading = command.spawn().unwrap();
        // Opens once the program waits for what is in it.
        let open = std::fs::File::options().write(true).open(&pipe).unwrap();
        signal(name, reading.id());
        let output = reading.wait_with_output().unwrap();
        drop(open);
        assert_eq!(output.status.code(), Some(code));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["exit"], code);
    }
}

#[test]
fn a_killed_coordinator_loses_only_what_was_running() {
    let house = House::new();
    house.instruct(json!({ "prune": { "sleep": 0.1 }, "adapt": { "sleep": 0.1 }, "evaluate": { "sleep": 0.05 } }));
    let stages = 29;
    for kill in 0..4 {
        let mut sweep = house.start(&["sweep", "small", "--no-report"]);
        house.wait_for((kill + 1) * stages / 6);
        signal("-KILL", sweep.id());
        sweep.wait().unwrap();
    }
    let rest = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(rest.code, 0, "{}", rest.stderr);
    let published = house.published();
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), published.len(), "no stage is published twice");
    assert_eq!(published.len(), stages);
}

#[test]
fn a_second_sweep_on_the_same_results_is_turned_away() {
    let house = House::new();
    house.instruct(json!({ "dense": { "sleep": 600.0 } }));
    let mut sweep = house.start(&["sweep", "small", "--no-report"]);
    while house.ressa(&["status", "small"]).stdout.starts_with("no sweep is running") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(second.code, 75);
    assert!(second.stderr.contains(&format!("process {}", sweep.id())), "{}", second.stderr);
    signal("-INT", sweep.id());
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal("-INT", sweep.id());
    assert_eq!(sweep.wait().unwrap().code(), Some(130));
}
