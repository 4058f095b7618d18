//! `ressa gc`: nothing that anybody wants is ever gone, and nothing is gone in one step.

use std::{collections::BTreeSet, fs};

use proptest::{prelude::*, test_runner::Config};
use serde_json::{Value, json};

use crate::house::{House, SMALL};

fn json(house: &House, arguments: &[&str]) -> Value {
    let ended = house.ressa(arguments);
    serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}{}", ended.stdout, ended.stderr))
}

#[test]
fn what_a_recorded_sweep_made_is_kept_until_it_is_forgotten() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report"]);
    house.ressa(&["sweep", "small", "replicate.seed=0..2", "--no-report"]);
    let all = house.stored().len();
    assert!(
        house.ressa(&["gc", "--delete"]).stdout.starts_with("nothing to remove"),
        "the second sweep wants its seed"
    );

    assert!(house.ressa(&["gc", "--sweeps"]).stdout.contains("small.yaml replicate.seed=0..2"));
    let sweeps = json(&house, &["gc", "--sweeps", "--json"]);
    let id = sweeps["sweeps"][0]["id"].as_str().unwrap().to_owned();
    assert_ne!(house.ressa(&["gc", "--forget", "nothing-of-that-name"]).code, 0);
    let listed = house.ressa(&["gc", "--forget", &id]).stdout;
    assert!(listed.contains("forgotten: ") && listed.contains("12 folders,"), "{listed}");
    assert!(listed.contains("made by `ressa sweep experiments/shapes/small.yaml replicate.seed=0..2`"), "{listed}");
    assert_eq!(house.stored().len(), all, "a list moves nothing");

    assert!(house.ressa(&["gc", "--delete"]).stdout.contains("12 folders moved to the trash"));
    assert_eq!(house.stored().len(), all - 12);
    let again = house.ressa(&["sweep", "small", "--no-report"]);
    assert!(again.stderr.contains("nothing to do"), "what is asked for is kept: {}", again.stderr);
    assert!(house.ressa(&["gc", "--restore"]).stdout.contains("12 folders brought back"));
    assert_eq!(house.stored().len(), all);
    house.ressa(&["gc", "--delete"]);
    assert!(house.ressa(&["gc", "--empty"]).stdout.contains("12 folders deleted"));
    assert!(house.ressa(&["gc", "--restore"]).stdout.contains("0 folders brought back"));
}

#[test]
fn results_of_a_published_checkpoint_are_kept_wherever_its_file_is() {
    let house = House::new();
    house.write_checkpoint("checkpoints/blip", 1.0);
    let study = "extends: ../base/model.yaml\nmodel: { preset: null, checkpoint: checkpoints/blip }\n\
                 axes: { prune.metric: [magnitude, random] }\n";
    house.write("experiments/paper/mine.yaml", study);
    house.write("elsewhere.yml", &study.replace("../base", "experiments/base").replace("random", "wanda"));
    assert_eq!(house.ressa(&["sweep", "experiments/paper/mine.yaml", "--no-report"]).code, 0);
    assert_eq!(house.ressa(&["sweep", "elsewhere.yml", "--no-report"]).code, 0);
    let all = house.stored().len();
    for _ in 0..2 {
        assert!(house.ressa(&["gc", "--delete"]).stdout.starts_with("nothing to remove"));
        assert_eq!(house.stored().len(), all);
        // Also when the checkpoint itself is gone.
        let _ = fs::remove_dir_all(house.path("checkpoints"));
    }
}

#[test]
fn strangers_in_the_folders_are_passed_over() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report"]);
    let all = house.stored().len();
    for stranger in ["store/ab/a\u{e9}x", "store/drafts/.nfs0001", "store/damaged/notes", "store/\u{e9}"] {
        fs::create_dir_all(house.path("results").join(stranger)).unwrap();
    }
    for file in [
        "store/.DS_Store",
        "store/ab/.DS_Store",
        "store/drafts/.DS_Store",
        "store/failures/.nfs2",
        "store/sweeps/.DS_Store",
    ] {
        fs::write(house.path("results").join(file), "stranger").unwrap();
    }
    for command in [
        &["gc", "--delete"][..],
        &["sweep", "small", "--no-report"],
        &["status", "small"],
        &["doctor"],
        &["plan", "small"],
    ] {
        let ended = house.ressa(command);
        assert!(!ended.stderr.contains("panic") && [0, 1].contains(&ended.code), "{command:?}: {}", ended.stderr);
    }
    assert_eq!(house.stored().len(), all);
    assert!(house.path("results/store/damaged/notes").is_dir(), "what the program did not make it does not move");
}

/// Overrides of `small` with few stages each.
const SWEEPS: [&[&str]; 4] = [
    &["replicate.seed=0", "prune.metric=magnitude"],
    &["replicate.seed=1", "prune.metric=wanda", "evaluate.tasks=vqav2"],
    &["prune.vision.sparsity=0.7", "restoration=pruned", "replicate.seed=0"],
    &["prune.metric=magnitude", "replicate.seed=0..1"],
];

proptest! {
    #![proptest_config(Config { cases: 4, max_shrink_iters: 0, ..Config::default() })]

    /// Whatever happens in whatever order, what a recorded sweep wants and was made is in the store, or can be brought back until the trash
    /// is emptied after the sweep was forgotten.
    #[test]
    fn nothing_a_recorded_sweep_wants_is_ever_gone(steps in proptest::collection::vec((0_usize..7, 0_usize..4), 4..8)) {
        let house = House::new();
        house.write("experiments/shapes/small.yaml", SMALL);
        let mut made: BTreeSet<(usize, String)> = BTreeSet::new();
        for (step, which) in steps {
            let overrides = SWEEPS[which];
            match step {
                0..=2 => {
                    // Some stages fail.
                    let fails = json!({ "evaluate flickr30k": { "fail": "data" }, "evaluate": { "fail": "data" } });
                    house.instruct(if step == 2 { fails } else { json!({}) });
                    house.ressa(&[&["sweep", "small", "--no-report"], overrides].concat());
                    let wanted = json(&house, &[&["plan", "small", "--json"], overrides].concat());
                    let published = house.stored();
                    prop_assert!(wanted["stages"]["distinct"].as_u64().unwrap() > 0);
                    made.extend(published.into_iter().map(|key| (which, key)));
                }
                3 => drop(house.ressa(&["gc", "--delete"])),
                4 => drop(house.ressa(&["gc", "--empty"])),
                5 => drop(house.ressa(&["gc", "--restore"])),
                _ => house.write("experiments/shapes/small.yaml", &SMALL.replace("0..1", "5..6")),
            }
            let published = house.stored();
            // Nothing was forgotten, so whatever was ever published is wanted.
            let gone: Vec<_> = made.iter().filter(|(_, key)| !published.contains(key)).collect();
            prop_assert!(gone.is_empty(), "{:?}", gone);
        }
    }
}
