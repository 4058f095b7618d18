//! Who watches a sweep: the live view in words and as JSON lines, and logs that are followed.

use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};

use crate::house::House;

impl House {
    fn watch(&self, arguments: &[&str]) -> Child {
        let mut command = self.plain(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The live view, once it shows a stage of a kind.
    fn until_running(&self, kind: &str) -> Value {
        loop {
            let view = std::fs::read(self.path("results/live/status.json")).ok();
            let view: Option<Value> = view.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(view) = view {
                let stages = view["workers"].as_array().unwrap().iter().map(|worker| worker["stage"].clone());
                let found =
                    stages.into_iter().find(|stage| stage["what"].as_str().is_some_and(|what| what.starts_with(kind)));
                if let Some(stage) = found {
                    return stage;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_sweep_is_watched_until_it_ends() {
    let house = House::new();
    house.instruct(json!({ "adapt": { "sleep": 8.0, "log": "step by step" } }));
    let mut sweep = house.start(&["sweep", "small", "--no-report"]);
    let stage = house.until_running("adapt");
    let (words, lines) = (house.watch(&["status", "--watch"]), house.watch(&["status", "--watch", "--json"]));
    let followed = house.watch(&["logs", stage["key"].as_str().unwrap(), "-f"]);
    // Of a run, by its label; it has stages that have ended and one that runs.
    let (_, run) = stage["label"].as_str().unwrap().split_once(": ").unwrap();
    let of_run = house.ressa(&["logs", run]);
    assert_eq!(of_run.code, 0, "{}", of_run.stderr);
    assert!(of_run.stdout.contains("running\nstep by step"), "{}", of_run.stdout);

    assert!(sweep.wait().unwrap().success());
    let [words, lines, followed] = [words, lines, followed].map(|child| child.wait_with_output().unwrap());
    assert!(words.status.success() && lines.status.success() && followed.status.success());
    let words = text(&words);
    assert!(words.contains("adapt") && words.contains("7 of 7 runs complete; ended after"), "{words}");
    let lines: Vec<Value> = text(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!((&first["ended"], &last["ended"], &last["complete"]), (&json!(false), &json!(true), &json!(7)));
    assert_eq!(text(&followed), "step by step\nstep by step\n");
}

/// The clock of a coordinator on another machine may be off, in either direction: what changes is a sign of life.
#[test]
fn a_sweep_is_watched_whatever_its_clock_says() {
    let house = House::new();
    let view = |at: u64, ended: bool| {
        let status = ressa_sweep::Status {
            title: "small".to_owned(),
            at,
            ended,
            host: "elsewhere".to_owned(),
            ..Default::default()
        };
        let text = serde_json::to_vec(&status).unwrap();
        house.write("results/live/index.html", "");
        ressa_store::replace(&house.path("results/live/status.json"), &text).unwrap();
    };
    // 1970, and long after this program.
    for at in [1, 1 << 50] {
        view(at, false);
        let watching = house.watch(&["status", "--watch"]);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        view(at + 1, true);
        let said = text(&watching.wait_with_output().unwrap());
        assert!(said.contains("ended after") && !said.contains("has not been heard of"), "{at}: {said}");
    }
}
