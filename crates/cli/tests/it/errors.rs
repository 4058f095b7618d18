//! Mistakes: where they are shown, and with which exit code.

use serde_json::json;

use crate::house::House;

#[test]
fn a_mistyped_key_is_pointed_at() {
    let house = House::new();
    house.write("experiments/shapes/typo.yaml", "extends: ../base/model.yaml\naxes:\n  prune.metrik: [wanda, random]\n");
    let ended = house.ressa(&["plan", "typo"]);
    assert_eq!(ended.code, 78);
    insta::assert_snapshot!(ended.stderr, @"");
}

#[test]
fn a_bad_override_is_pointed_at() {
    let house = House::new();
    let ended = house.ressa(&["plan", "small", "prune.metric=wander"]);
    assert_eq!(ended.code, 78);
    insta::assert_snapshot!(ended.stderr, @"");
}

#[test]
fn every_kind_of_refusal_has_its_exit_code() {
    let house = House::new();
    let code = |arguments: &[&str]| house.ressa(arguments).code;
    assert_eq!(code(&["plan", "--no-such-option"]), 2);
    assert_eq!(code(&["sweep", "small", "--device", "gpu"]), 2);
    assert_eq!(code(&["plan", "no-such-file.yaml"]), 78);
    assert_eq!(code(&["explain", "no such run", "small"]), 4);
    assert_eq!(code(&["report", "small"]), 4);
    assert_eq!(code(&["retry", "abcd"]), 4);
    house.write("blocked", "a file");
    assert_eq!(code(&["sweep", "small", "--results", "blocked"]), 110);
}

#[test]
fn errors_are_json_where_a_machine_reads() {
    let house = House::new();
    let ended = house.ressa(&["plan", "small", "prune.metric=wander", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["exit"], 78);
    assert!(error["error"].as_str().unwrap().contains("`wander`"), "{error}");
}

#[test]
fn what_a_checkpoint_lacks_is_named_file_by_file() {
    let house = House::new();
    let paper = "model: { checkpoint: checkpoints/blip }\nprune: { metric: magnitude, vision: { sparsity: 0.5 } }\n\
                 evaluate: { tasks: [gqa] }\ndata: { source: folder, root: data }\nreplicate: { seed: 0..1 }\n\
                 axes:\n  prune.metric: [magnitude, random]\n";
    house.write("experiments/paper/paper.yaml", paper);
    house.write("checkpoints/blip/config.json", "{}");
    let index = json!({ "weight_map": { "a": "model-1.safetensors", "b": "../escape.safetensors" } }).to_string();
    house.write("checkpoints/blip/model.safetensors.index.json", &index);
    house.write("checkpoints/blip/model-1.safetensors", "");
    let plan = house.ressa(&["plan", "experiments/paper/paper.yaml"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let missing = plan.stdout.split("\nmissing\n").nth(1).unwrap();
    insta::assert_snapshot!(missing, @"");
    let sweep = house.ressa(&["sweep", "experiments/paper/paper.yaml"]);
    assert_eq!(sweep.code, 66);
    insta::assert_snapshot!(sweep.stderr, @"");
}
