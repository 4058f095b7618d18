//! Stages that are made again although they are there.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::house::House;

/// The answer of a forced sweep.
fn forced(house: &House, arguments: &[&str]) -> Value {
    let ended = house.ressa(&[&["sweep", "small", "--no-report", "--json"], arguments].concat());
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    serde_json::from_str::<Value>(&ended.stdout).unwrap()["forced"].clone()
}

fn swept() -> House {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    house
}

/// Stages in the trash.
fn trashed(house: &House) -> usize {
    let held = house.ressa(&["gc", "--json"]);
    serde_json::from_str::<Value>(&held.stdout).unwrap()["trash"]["folders"].as_u64().unwrap() as usize
}

#[test]
fn what_was_made_of_a_stage_stays_where_its_bytes_do() {
    let house = swept();
    let stored = house.stored();
    let again = forced(&house, &["--force", "adapt"]);
    assert_eq!(again, json!({ "forced": 4, "same": 4, "kept": 4 + 8, "remade": 0, "away": 0 }));
    assert_eq!(house.stored(), stored);
    // The old outputs of the trainings alone are left in the trash.
    assert_eq!(trashed(&house), 4);
    assert_eq!(house.published().len(), 29 + 4, "nothing else was made again");
}

#[test]
fn what_was_made_of_other_bytes_is_made_again() {
    let house = swept();
    let stored = house.stored();
    house.instruct(json!({ "adapt dense distilled": {}, "adapt": { "output": "other weights" } }));
    let changed = forced(&house, &["--force", "kind = adapt and metric = wanda and seed = 0"]);
    // The merge says as little as it did, and stands for other weights: what it was evaluated to is evaluated again.
    assert_eq!(changed, json!({ "forced": 1, "same": 0, "kept": 0, "remade": 3, "away": 0 }));
    assert_eq!(house.stored(), stored);
    house.instruct(json!({ "merge": { "output": "other" } }));
    let changed = forced(&house, &["--force", "merge"]);
    assert_eq!(changed, json!({ "forced": 4, "same": 0, "kept": 0, "remade": 8, "away": 0 }));
    // Everything is there, so nothing is left to do.
    assert!(house.ressa(&["sweep", "small", "--no-report"]).stderr.contains("nothing to do"));
}

/// What was made of a forced stage and is no part of what was asked for must not stand beside its new form.
#[test]
fn what_others_made_of_other_bytes_is_put_away() {
    let house = swept();
    let stored = house.stored();
    let part = ["--force", "adapt", "-E", "task = vqav2"];
    assert_eq!(forced(&house, &part), json!({ "forced": 4, "same": 4, "kept": 8, "remade": 0, "away": 0 }));
    assert_eq!(house.stored(), stored);
    house.instruct(json!({ "adapt": { "output": "other weights" } }));
    assert_eq!(forced(&house, &part), json!({ "forced": 4, "same": 0, "kept": 0, "remade": 8, "away": 4 }));
    assert_eq!(house.stored().len(), stored.len() - 4);
    let again = house.ressa(&["gc", "--restore"]);
    assert!(again.stdout.starts_with("0 folders"), "evaluations of the old weights stay away: {}", again.stdout);
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    assert_eq!(house.stored(), stored);
}

#[test]
fn dependents_are_made_again_when_asked_for() {
    let house = swept();
    let all = forced(&house, &["--force", "adapt", "--dependents"]);
    assert_eq!(all, json!({ "forced": 4, "same": 0, "kept": 0, "remade": 12, "away": 0 }));
    assert_eq!((house.published().len(), trashed(&house)), (29 + 16, 16));
}

#[test]
fn a_killed_forcing_leaves_nothing_that_does_not_belong_together() {
    let house = swept();
    house.instruct(json!({ "prune vision wanda 50%": { "fail": "bug", "output": "x" } }));
    let failed = house.ressa(&["sweep", "small", "--no-report", "--force", "prune"]);
    assert_eq!(failed.code, 100, "{}", failed.stdout);
    // Whatever was made of a stage that is not there is not there either.
    let stored = house.stored();
    let manifest = |key: &String| -> Value {
        let path = house.path("results/store").join(&key[..2]).join(key).join("manifest.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let mut keys = BTreeSet::new();
    for key in &stored {
        let inputs = manifest(key)["inputs"].clone();
        let masks = inputs["masks"].as_array().cloned().unwrap_or_default();
        keys.extend(masks.iter().map(|key| key.as_str().unwrap().to_owned()));
    }
    assert!(keys.is_subset(&stored), "{keys:?}");
    house.instruct(json!({}));
    assert_eq!(house.ressa(&["retry"]).code, 0);
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    assert_eq!(house.stored().len(), 29);
}

#[test]
fn words_that_name_no_stage_are_refused() {
    let house = swept();
    for (word, code, said) in [
        ("prunee", 2, "nor a kind of stage (dense, "),
        ("00000000", 4, "is no stage of these experiments"),
        ("sensitivity", 4, "is no stage of these experiments"),
        ("task = gqaa", 78, "did you mean `gqa`?"),
    ] {
        let refused = house.ressa(&["sweep", "small", "--no-report", "--force", word]);
        assert!(refused.code == code && refused.stderr.contains(said), "{word}: {}", refused.stderr);
    }
    assert_eq!(house.ressa(&["sweep", "small", "--dependents"]).code, 2);
    let key = house.stored().into_iter().next().unwrap();
    assert_eq!(forced(&house, &["--force", &key[..12]])["forced"], 1);
}

/// What failed is not said to be made, and where its earlier output is, is.
#[test]
fn what_could_not_be_made_again_waits_in_the_trash() {
    let house = swept();
    let stored = house.stored();
    house.instruct(json!({ "adapt": { "fail": "oom" } }));
    let failed = house.ressa(&["sweep", "small", "--no-report", "--force", "adapt"]);
    assert_eq!(failed.code, 100, "{}", failed.stderr);
    let line = failed.stdout.lines().find(|line| line.starts_with("forced: ")).unwrap_or_default();
    insta::assert_snapshot!(line, @"forced: 0 stages made again, 0 with the same bytes; of what was made of them 0 kept, 0 made again; 16 stages not made, their earlier outputs are in the trash; `ressa gc --restore` brings them back");
    assert_eq!(house.ressa(&["gc", "--restore"]).stdout, "16 folders brought back\n");
    assert_eq!(house.stored(), stored);
    // A sweep that cannot even begin.
    let mut command =
        house.plain(&["sweep", "small", "--force", "adapt", "--device", "cpu", "--slots", "1", "--worker"]);
    let output = command.arg(house.path("nowhere")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("forced: 16 stages not made"), "{said}");
    assert_eq!(house.ressa(&["gc", "--restore"]).stdout, "16 folders brought back\n");
    assert_eq!(house.stored(), stored);
}
