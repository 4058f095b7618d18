//! Sweeps through the command line.

use std::{fs, process::Stdio};

use serde_json::json;

use crate::house::{House, fake_worker};

#[test]
fn a_sweep_a_second_sweep_and_a_verification() {
    let house = House::new();
    let first = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(first.code, 0, "{}{}", first.stdout, first.stderr);
    assert!(first.stderr.lines().count() < 10, "lines are bounded:\n{}", first.stderr);
    let again = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(again.code, 0);
    insta::assert_snapshot!(again.stderr, @"7 runs: 29 of 29 stages cached, nothing to do");

    let status = house.ressa(&["status", "small"]);
    insta::assert_snapshot!(status.stdout, @"
    no sweep is running

      experiment  runs  complete  stages  made
      small          7         7      29    29
    ");
    let verified = house.ressa(&["verify", "--all", "--file", "small"]);
    assert_eq!(verified.code, 0);
    insta::assert_snapshot!(verified.stdout, @"29 stages checked, 10 certificates recounted, 14 scores computed again, 0 wrong, 0 not made yet");

    house.instruct(json!({ "merge": { "violation": "`qkv`: 1 pruned weight is back" } }));
    let revived = house.ressa(&["verify", "--all", "--file", "small"]);
    assert_eq!(revived.code, 104);
    assert_eq!(revived.stdout.matches("1 pruned weight is back").count(), 4);
}

#[test]
fn failures_are_shown_last_kept_and_retried_on_request() {
    let house = House::new();
    house.instruct(json!({ "adapt sparse": { "fail": "oom" } }));
    let failed = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(failed.code, 100);
    let last = failed.stdout.split("\n\n").last().unwrap();
    insta::assert_snapshot!(without_keys(last), @"
    4 stages failed, 12 skipped because of them:
      oom: told to fail
        adapt sparse  small: magnitude ressa, seed 0  [KEY]  (1 run affected)
          log: HOUSE/results/logs/KEY.log
        adapt sparse  small: magnitude ressa, seed 1  [KEY]  (1 run affected)
          log: HOUSE/results/logs/KEY.log
        adapt sparse  small: wanda ressa, seed 0  [KEY]  (1 run affected)
          log: HOUSE/results/logs/KEY.log
        adapt sparse  small: wanda ressa, seed 1  [KEY]  (1 run affected)
          log: HOUSE/results/logs/KEY.log
    `ressa retry` clears recorded failures, so that the next sweep tries those stages again
    ");

    house.instruct(json!({}));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 100, "a failure is not tried again unasked");
    assert_eq!(house.ressa(&["logs"]).stdout.matches("told to fail").count(), 4);
    let retry = house.ressa(&["retry", "--oom"]);
    assert!(retry.stdout.ends_with("4 failures cleared; the next sweep tries again\n"), "{}", retry.stdout);
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
}

#[test]
fn a_running_sweep_tries_again_what_it_is_asked_to() {
    let house = House::new();
    // It cannot end before it was asked, and has workers for all that waits.
    let waits = json!({ "until": "asked" });
    house.instruct(json!({ "adapt sparse": { "fail": "nan" }, "evaluate": waits }));
    let arguments = ["sweep", "small", "--no-report", "--device", "cpu", "--slots", "16", "--worker"];
    let mut sweep =
        house.plain(&arguments).arg(fake_worker()).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while house.ressa(&["logs"]).stdout.matches("told to fail").count() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    house.instruct(json!({ "evaluate": waits }));
    let retry = house.ressa(&["retry"]);
    assert!(
        retry.stdout.ends_with("4 failures cleared; the running sweep tries again what is its own\n"),
        "{}",
        retry.stdout
    );
    house.write("results/asked", "");
    assert!(sweep.wait().unwrap().success());
    assert!(!house.path("results/wishes").read_dir().unwrap().any(|wish| wish.is_ok()), "wishes are taken away");
}

/// A wish that no sweep took is the next one's.
#[test]
fn a_sweep_that_begins_takes_what_was_asked_of_the_last() {
    let house = House::new();
    house.instruct(json!({ "adapt sparse": { "fail": "nan" } }));
    let failed = house.ressa(&["sweep", "small", "--no-report", "--json"]);
    assert_eq!(failed.code, 100);
    let keys: Vec<String> = serde_json::from_str::<serde_json::Value>(&house.ressa(&["status", "--json"]).stdout)
        .unwrap()["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| failure["key"].as_str().unwrap().to_owned())
        .collect();
    house.instruct(json!({}));
    house.write("results/wishes/retry-00", &format!("{}\nnonsense\n", keys.join("\n")));
    house.write("results/wishes/a stranger", "x");
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    assert!(house.path("results/wishes/a stranger").exists());
}

#[test]
fn a_gate_that_is_not_reached_says_what_was_asked_and_found() {
    let house = House::new();
    let text = fs::read_to_string(house.path("experiments/base/model.yaml")).unwrap();
    house.write("experiments/base/model.yaml", &format!("{text}dense: {{ gate: {{ vqav2: 90, flickr30k: 80 }} }}\n"));
    house.instruct(json!({ "evaluate vqav2": { "score": 61.25 }, "evaluate flickr30k": { "score": 85.0 } }));
    let gated = house.ressa(&["sweep", "small", "--no-report"]);
    assert_eq!(gated.code, 102, "{}", gated.stderr);
    insta::assert_snapshot!(gated.stdout.split("\n\n").last().unwrap(), @"
    a dense model does not reach its gate, so nothing was spent on pruning it:
      model                score      at least  found
      dense shapes-flant5  vqav2          90.0   61.2  too low
      dense shapes-flant5  flickr30k      80.0   85.0
    train it again (`ressa pretrain`), correct `dense.gate` in the experiment, or go on regardless with --no-gate
    ");
    assert_eq!(house.published().len(), 3);
    assert_eq!(house.ressa(&["sweep", "small", "--no-report", "--no-gate"]).code, 0);
}

#[test]
fn explain_names_the_nearest_stage_and_where_it_differs() {
    let house = House::new();
    house.ressa(&["sweep", "small", "--no-report"]);
    let arguments = ["explain", "wanda pruned, seed 0", "small", "prune.calibration.images=64", "evaluate.tasks=vqav2"];
    let explained = house.ressa(&arguments);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    insta::assert_snapshot!(without_keys(&explained.stdout), @"
    KEY  small: wanda pruned, seed 0
      KEY  dense shapes-flant5              cached, took 0.0 s
      KEY  prune vision wanda 50%           not cached; nearest is KEY, which differs in
          calibration.images: 48 -> 64
      KEY  prune language wanda 50%         not cached; nearest is KEY, which differs in
          calibration.images: 48 -> 64
          inputs.masks.0: KEY -> KEY
      KEY  evaluate vqav2                   not cached; nearest is KEY, which differs in
          inputs.masks.0: KEY -> KEY
          inputs.masks.1: KEY -> KEY
    ");
}

/// Twelve hexadecimal digits in brackets or at a line's start, and folders, are of no interest.
fn without_keys(text: &str) -> String {
    let is_key = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mask = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let bare = bare.strip_suffix(".log").and_then(|path| path.rsplit('/').next()).unwrap_or(bare);
        if is_key(bare) { word.replace(bare, "KEY") } else { word.to_owned() }
    };
    let line = |line: &str| line.split(' ').map(mask).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A checkpoint that another one took the place of is another model; one that is gone leaves its results where they are.
#[test]
fn a_checkpoint_folder_is_known_by_what_is_in_it() {
    let house = House::new();
    let study = "extends: ../base/model.yaml\nmodel: { preset: null, checkpoint: checkpoints/blip }\n\
                 axes: { prune.metric: [magnitude, random] }\n";
    house.write("experiments/shapes/taken.yaml", study);
    let weights = |value: f32| house.write_checkpoint("checkpoints/blip", value);
    let to_do = || {
        let plan = house.ressa(&["plan", "taken", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        (plan["stages"]["to-do"].as_u64().unwrap(), plan["changed-folders"].as_array().unwrap().len())
    };
    weights(1.0);
    assert_eq!(house.ressa(&["sweep", "taken", "--no-report"]).code, 0);
    assert_eq!(to_do(), (0, 0));
    weights(2.0);
    let all = house.published().len() as u64;
    assert_eq!(to_do(), (all, 1));
    let plan = house.ressa(&["plan", "taken"]).stdout;
    assert!(plan.contains("`checkpoints/blip` is not what earlier results were made from"), "{plan}");
    let explained = house.ressa(&["explain", "random", "taken"]).stdout;
    assert!(explained.contains("checkpoint: content:"), "{explained}");
    weights(1.0);
    assert_eq!(to_do(), (0, 0));
    fs::rename(house.path("checkpoints/blip"), house.path("moved")).unwrap();
    std::os::unix::fs::symlink(house.path("moved"), house.path("checkpoints/blip")).unwrap();
    assert_eq!(to_do(), (0, 0), "a folder that moved is the same");
    fs::remove_dir_all(house.path("checkpoints")).unwrap();
    assert_eq!(to_do(), (0, 0));
}

/// Results of another libtorch are named, and made again where a sweep is told to.
#[test]
fn results_of_another_libtorch_are_never_mixed_in_silence() {
    let house = House::new();
    house.instruct(serde_json::json!({ "prune": { "libtorch": "1.9" } }));
    let first = house.ressa(&["sweep", "small", "--no-report"]);
    let line = "results were made in different ways, which round differently: 6 stages by libtorch 1.9 on cpu, 22 stages by libtorch \
                none on cpu; `ressa sweep --reuse alike` makes the others again";
    assert!(first.stdout.contains(line), "{}", first.stdout);
    assert!(house.ressa(&["plan", "small"]).stdout.contains(line));
    house.instruct(serde_json::json!({}));
    assert!(house.ressa(&["sweep", "small", "--no-report"]).stderr.contains("nothing to do"), "taken as they are");
    let alike = house.ressa(&["sweep", "small", "--no-report", "--reuse", "alike"]);
    let told = "6 stages were made elsewhere\n6 stages made again; of 22 stages made of them: made again where the outputs change";
    assert!(alike.stderr.contains(told), "{}", alike.stderr);
    assert!(alike.stdout.contains("forced: 6 stages made again, 6 with the same bytes"), "{}", alike.stdout);
    assert!(!alike.stdout.contains("round differently"), "{}", alike.stdout);
    assert_eq!(house.ressa(&["gc", "--restore"]).stdout, "0 folders brought back\n", "what was made again stands");
}
