//! Who looks at results: what is remembered of experiments must never be older than their files, and nobody has to name what was swept.

use std::fs;

use serde_json::{Value, json};

use crate::house::House;

impl House {
    fn status(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.ressa(&[&["status", "--json"], arguments].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let status: Value = serde_json::from_str(&ended.stdout).unwrap();
        status["experiments"].as_array().unwrap().clone()
    }

    /// Distinct stages and those that are made.
    fn stages(&self, arguments: &[&str]) -> (u64, u64) {
        let status = self.status(arguments);
        (status[0]["stages"].as_u64().unwrap(), status[0]["made"].as_u64().unwrap())
    }

    fn outlines(&self) -> Vec<std::path::PathBuf> {
        let below =
            |path: std::path::PathBuf| fs::read_dir(path).into_iter().flatten().map(|item| item.unwrap().path());
        below(self.path("results/store/outlines/outline")).flat_map(below).collect()
    }
}

#[test]
fn what_is_remembered_is_what_the_files_say() {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    assert_eq!(house.outlines().len(), 1, "the sweep remembers what it asked for");
    let text = house.ressa(&["status", "small"]).stdout;
    for _ in 0..2 {
        assert_eq!(house.stages(&["small"]), (29, 29));
        assert_eq!(house.ressa(&["status", "small"]).stdout, text);
    }
    // Overrides and options ask for something else, and are remembered apart.
    for _ in 0..2 {
        assert_eq!(house.stages(&["small", "prune.metric=magnitude"]), (13, 13));
        assert_eq!(house.stages(&["small", "-E", "seed = 0 and metric = magnitude"]), (9, 9));
        let half =
            ["1/2", "2/2"].map(|part| house.status(&["small", "--partition", part])[0]["runs"].as_u64().unwrap());
        assert_eq!(half.iter().sum::<u64>(), 7);
    }
    // An edited base.
    let base = fs::read_to_string(house.path("experiments/base/model.yaml")).unwrap();
    house.write("experiments/base/model.yaml", &base.replace("0.5", "0.25"));
    assert_eq!(house.stages(&["small"]), (29, 1), "only the dense model is as it was");
    house.write("experiments/base/model.yaml", &base);
    assert_eq!(house.stages(&["small"]), (29, 29));
    // A mistake is said, whatever is remembered.
    house.write("experiments/base/model.yaml", "modle: 1\n");
    assert_eq!(house.ressa(&["status", "small"]).code, 78);
    house.write("experiments/base/model.yaml", &base);
    // What is lost or damaged is made anew.
    for path in house.outlines() {
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(house.stages(&["small"]), (29, 29));
    fs::remove_dir_all(house.path("results/store/outlines")).unwrap();
    fs::write(house.path("results/store/outlines"), "in the way").unwrap();
    for _ in 0..2 {
        assert_eq!(house.stages(&["small"]), (29, 29));
    }
}

#[test]
fn a_table_of_published_numbers_decides_about_what_is_remembered() {
    let house = House::new();
    house.write("experiments/paper/expected.csv", "id,value\nours,1\n");
    let report = "report: { tables: [{ id: main, rows: [prune.metric], columns: metric, values: [vqav2], published: [ours] }] }\n";
    let small = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    house.write("experiments/shapes/small.yaml", &format!("{small}\n{report}"));
    let swept = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(swept.code, 0, "{}", swept.stderr);
    assert_eq!(house.stages(&["small"]), (29, 29));
    house.write("experiments/paper/expected.csv", "id,value\ntheirs,1\n");
    assert_eq!(house.ressa(&["status", "small"]).code, 78);
}

#[test]
fn an_edited_checkpoint_makes_what_is_remembered_old() {
    let house = House::new();
    house.write_checkpoint("checkpoints/blip", 1.0);
    let taken = "extends: ../base/model.yaml\nmodel: { preset: null, checkpoint: checkpoints/blip }\n\
                 axes: { prune.metric: [magnitude, random] }\n";
    house.write("experiments/shapes/taken.yaml", taken);
    let swept = house.ressa(&["sweep", "taken", "--no-report"]);
    assert_eq!(swept.code, 0, "{}", swept.stderr);
    let (all, made) = house.stages(&["taken"]);
    assert_eq!(all, made);
    house.write_checkpoint("checkpoints/blip", 2.0);
    assert_eq!(house.stages(&["taken"]), (all, 0));
    house.write_checkpoint("checkpoints/blip", 1.0);
    assert_eq!(house.stages(&["taken"]), (all, all));
}

#[test]
fn without_a_file_status_speaks_of_what_was_swept() {
    let house = House::new();
    let small = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    house.write("experiments/shapes/other.yaml", &small.replace("name: small", "name: other").replace("0..1", "0..2"));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report", "prune.metric=wanda", "-E", "seed = 0"]).code, 0);
    assert_eq!(house.ressa(&["sweep", "other", "--no-report"]).code, 0);
    let found: Vec<(Value, Value, Value)> = (house.status(&[]).iter())
        .map(|row| (row["experiment"].clone(), row["overrides"].clone(), row["runs"].clone()))
        .collect();
    let words = json!(["prune.metric=wanda", "-E 'seed = 0'"]);
    assert_eq!(found, [(json!("other"), Value::Null, json!(10)), (json!("small"), words, json!(2))]);
    let text = house.ressa(&["status"]).stdout;
    assert!(text.contains("  small prune.metric=wanda -E 'seed = 0'  "), "{text}");
    // A file that is gone: its results are spoken of still.
    let before = house.status(&[])[1]["made"].clone();
    fs::remove_file(house.path("experiments/shapes/small.yaml")).unwrap();
    let gone = &house.status(&[])[1];
    assert_eq!((&gone["runs"], &gone["made"]), (&Value::Null, &before));
    let status = house.ressa(&["status"]);
    assert_eq!(status.code, 0);
    assert!(
        status.stderr.contains("its runs are not known, because it cannot be planned any more"),
        "{}",
        status.stderr
    );
    // One that was given up is not.
    assert_eq!(house.ressa(&["gc", "--forget", "small"]).code, 0);
    assert_eq!(house.status(&[]).len(), 1);
}

#[test]
fn a_silent_stage_has_what_the_sweep_wrote_down_of_it() {
    let house = House::new();
    house.instruct(json!({ "evaluate vqav2": { "log": "one by one" }, "merge": { "fail": "bug" } }));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 100);
    let logs = house.ressa(&["logs", "magnitude pruned, seed 0"]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    assert!(logs.stdout.contains("one by one"), "{}", logs.stdout);
    let silent = logs.stdout.matches("its worker printed nothing; the sweep wrote down:").count();
    assert_eq!(silent, 4, "{}", logs.stdout);
    for part in [
        "  attempt 1 started by worker-",
        ": prune vision magnitude 50%, small: ",
        "  50 %  half way\n",
        "  made by worker-",
    ] {
        assert!(logs.stdout.contains(part), "{part}: {}", logs.stdout);
    }
    let merge = &house.ressa(&["logs", "--json"]).stdout;
    let merge: Value = serde_json::from_str(merge).unwrap();
    let key = merge[0]["key"].as_str().unwrap();
    let answer: Value = serde_json::from_str(&house.ressa(&["logs", key, "--json"]).stdout).unwrap();
    let events = answer["events"].as_array().unwrap();
    assert!(
        events[0]["event"]["started"].is_object() && events.iter().any(|entry| entry["event"]["failed"].is_object())
    );
}

#[test]
fn scripts_and_pages_are_json_where_that_is_asked_for() {
    let house = House::new();
    let answer = |arguments: &[&str]| serde_json::from_str::<Value>(&house.ressa(arguments).stdout).unwrap();
    let script = answer(&["completions", "bash", "--json"]);
    assert!(script["shell"] == "bash" && script["script"].as_str().unwrap().contains("_ressa"));
    assert!(answer(&["man", "--json"])["page"].as_str().unwrap().contains(".TH"));
}
