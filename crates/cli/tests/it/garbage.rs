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
fn records_that_cannot_be_read_keep_everything() {
    let house = House::new();
    house.ressa(&["sweep", "small", "replicate.seed=0..2", "--no-report"]);
    let all = house.stored();
    let (records, away) = (house.path("results/store/sweeps"), house.path("away"));
    fs::rename(&records, &away).unwrap();
    std::os::unix::fs::symlink("nowhere", &records).unwrap();
    let ended = house.ressa(&["gc", "--delete"]);
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("store/sweeps"), "{}", ended.stderr);
    fs::remove_file(&records).unwrap();
    fs::rename(&away, &records).unwrap();
    let record = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    fs::write(record, "{").unwrap();
    assert_ne!(house.ressa(&["gc", "--delete"]).code, 0);
    assert_eq!(house.stored(), all);
}

#[test]
fn strangers_in_the_folders_are_passed_over() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report"]);
    let all = house.stored().len();
    for stranger in ["store/ab/a\u{e9}x", "store/drafts/.nfs0001", "store/damaged/notes", "store/\u{e9}"] {
        fs::create_dir_all(house.path("results").join(stranger)).unwrap();
    }
    for file in
        ["store/.DS_Store", "store/ab/.DS_Store", "store/drafts/.DS_Store", "store/log/.nfs2", "store/sweeps/.DS_Store"]
    {
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

/// What may happen to a results folder.
#[derive(Clone, Copy, Debug)]
enum Step {
    Sweep(usize),
    /// With evaluations that fail.
    FailingSweep(usize),
    /// Gives up every sweep with these overrides.
    Forget(usize),
    Delete,
    Empty,
    Restore,
    /// The experiment file asks for something else from now on.
    Edit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..SWEEPS.len()).prop_map(Step::Sweep),
        1 => (0..SWEEPS.len()).prop_map(Step::FailingSweep),
        2 => (0..SWEEPS.len()).prop_map(Step::Forget),
        3 => Just(Step::Delete),
        1 => Just(Step::Empty),
        1 => Just(Step::Restore),
        1 => Just(Step::Edit),
    ]
}

/// Recorded sweeps: id, overrides, whether forgotten, and the stages they want.
fn records(house: &House) -> Vec<(String, Vec<String>, bool, BTreeSet<String>)> {
    let files = fs::read_dir(house.path("results/store/sweeps")).into_iter().flatten();
    let read = |path: std::path::PathBuf| {
        let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let texts = |field: &str| -> Vec<String> { serde_json::from_value(record[field].clone()).unwrap() };
        let id = record["id"].as_str().unwrap().to_owned();
        (id, texts("overrides"), record["forgotten"].as_bool().unwrap(), texts("keys").into_iter().collect())
    };
    files.map(|file| read(file.unwrap().path())).collect()
}

/// What the experiment file wants by itself.
fn wanted_by_file(house: &House) -> BTreeSet<String> {
    let plan = json(house, &["gc", "--json"]);
    let kept = plan["kept"].as_array().unwrap().iter();
    let by_file =
        |entry: &&Value| entry["wanted-by"].as_array().unwrap().iter().any(|by| by == "experiments/shapes/small.yaml");
    kept.filter(by_file).map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
}

proptest! {
    #![proptest_config(Config { cases: 6, max_shrink_iters: 0, ..Config::default() })]

    /// Whatever happens in whatever order, a stage that was made leaves the store only in a step `--delete`, and only while neither the file nor
    /// a sweep that is not forgotten wants it; until the trash is emptied, it can be brought back.
    #[test]
    fn nothing_that_is_wanted_ever_leaves_the_store(steps in proptest::collection::vec(step(), 6..12)) {
        let house = House::new();
        house.write("experiments/shapes/small.yaml", SMALL);
        let (mut in_trash, mut edits): (BTreeSet<String>, u32) = (BTreeSet::new(), 0);
        for step in steps {
            let before = house.stored();
            let by_records: BTreeSet<String> =
                records(&house).into_iter().filter(|(_, _, forgotten, _)| !forgotten).flat_map(|record| record.3).collect();
            match step {
                Step::Sweep(which) | Step::FailingSweep(which) => {
                    let fails = json!({ "evaluate flickr30k": { "fail": "data" }, "evaluate": { "fail": "data" } });
                    house.instruct(if matches!(step, Step::FailingSweep(_)) { fails } else { json!({}) });
                    house.ressa(&[&["sweep", "small", "--no-report"], SWEEPS[which]].concat());
                    prop_assert!(house.stored().is_superset(&before));
                }
                Step::Forget(which) => {
                    for (id, ..) in records(&house).iter().filter(|record| record.1 == SWEEPS[which] && !record.2) {
                        let code = house.ressa(&["gc", "--forget", id]).code;
                        prop_assert_eq!(code, 0);
                    }
                    prop_assert_eq!(house.stored(), before);
                }
                Step::Delete => {
                    let by_file = wanted_by_file(&house);
                    house.ressa(&["gc", "--delete"]);
                    let gone: BTreeSet<String> = before.difference(&house.stored()).cloned().collect();
                    let wanted = |key: &&String| by_records.contains(*key) || by_file.contains(*key);
                    prop_assert_eq!(gone.iter().find(wanted), None, "wanted, and gone");
                    let left: Vec<String> = house.stored().into_iter().filter(|key| !wanted(&key)).collect();
                    prop_assert!(left.is_empty(), "unwanted, and left: {:?}", left);
                    in_trash.extend(gone);
                }
                Step::Empty => {
                    house.ressa(&["gc", "--empty"]);
                    in_trash.clear();
                    prop_assert_eq!(house.stored(), before);
                }
                Step::Restore => {
                    house.ressa(&["gc", "--restore"]);
                    prop_assert!(house.stored().is_superset(&before) && house.stored().is_superset(&in_trash));
                }
                Step::Edit => {
                    edits += 1;
                    house.write("experiments/shapes/small.yaml", &SMALL.replace("0..1", &format!("{edits}..{edits}")));
                }
            }
        }
    }
}

#[test]
fn what_came_too_late_can_go() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report"]);
    let key = house.stored().pop_first().unwrap();
    let late = format!("results/store/superseded/{key}.2");
    house.write(&format!("{late}/data.bin"), "late");
    let listed = house.ressa(&["gc"]);
    assert!(listed.stdout.contains("came too late"), "{}", listed.stdout);
    house.ressa(&["gc", "--delete"]);
    assert!(!house.path(&late).exists() && house.stored().contains(&key));
    house.ressa(&["gc", "--restore"]);
    assert!(house.path(&late).join("data.bin").is_file());
}
