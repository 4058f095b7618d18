//! Selections of runs and stages on the command line.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::house::House;

/// The plan of a selection.
fn plan(house: &House, arguments: &[&str]) -> Value {
    let plan = house.ressa(&[&["plan", "small", "--json"], arguments].concat());
    serde_json::from_str(&plan.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", plan.stdout, plan.stderr))
}

fn runs(plan: &Value) -> BTreeSet<String> {
    plan["list"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_plan_of_some_runs_is_part_of_the_plan_of_all() {
    let house = House::new();
    let whole = plan(&house, &[]);
    let wanda = plan(&house, &["-E", "metric = wanda and seed = 1"]);
    assert_eq!((wanda["runs"].as_u64(), &wanda["selection"]), (Some(2), &json!(["-E 'metric = wanda and seed = 1'"])));
    assert!(runs(&wanda).is_subset(&runs(&whole)));
    // Magnitude alone does not know the seed, so its run is that of any seed.
    assert_eq!(plan(&house, &["-E", "seed = 1"])["runs"], 4);
    assert_eq!(plan(&house, &["-E", "seed = 1", "-E", "metric = wanda"])["runs"], 6);
    let answers = plan(&house, &["-E", "task = vqav2 and restoration = pruned"]);
    let kinds = answers["stages"]["kinds"].as_array().unwrap();
    let kinds: Vec<(&str, u64)> =
        kinds.iter().map(|row| (row["kind"].as_str().unwrap(), row["distinct"].as_u64().unwrap())).collect();
    // The gate measures nothing here: the dense model, six towers, three runs' answers.
    assert_eq!(kinds, [("dense", 1), ("prune", 6), ("evaluate", 3)]);
}

#[test]
fn parts_of_the_runs_are_disjoint_and_complete() {
    let house = House::new();
    let whole = runs(&plan(&house, &["replicate.seed=0..19"]));
    let mut found = BTreeSet::new();
    for part in 1..=3 {
        let part = runs(&plan(&house, &["replicate.seed=0..19", "--partition", &format!("{part}/3")]));
        assert!(part.is_disjoint(&found) && part.len() > whole.len() / 6, "{} of {}", part.len(), whole.len());
        found.extend(part);
    }
    assert_eq!(found, whole);
    // A larger grid leaves runs in their part.
    let small = runs(&plan(&house, &["replicate.seed=0..9", "--partition", "2/3"]));
    assert!(small.is_subset(&runs(&plan(&house, &["replicate.seed=0..19", "--partition", "2/3"]))));
    let both = runs(&plan(&house, &["replicate.seed=0..19", "--partition", "2/3", "-E", "seed < 10"]));
    assert_eq!(both, small);
}

#[test]
fn what_a_filter_cannot_mean_is_pointed_at() {
    let house = House::new();
    let wrong = house.ressa(&["plan", "small", "-E", "seed = 0 and metrik = wanda"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (78, ""));
    insta::assert_snapshot!(wrong.stderr, @"
    experiment::unknown-name

      × no axis or setting is named `metrik`
       ╭─[-E:1:14]
     1 │ seed = 0 and metrik = wanda
       ·              ───┬──
       ·                 ╰── unknown name
       ╰────
      help: did you mean `prune.metric`?
    ");
    let nothing = house.ressa(&["sweep", "small", "-E", "run = 00000000"]);
    assert_eq!(nothing.code, 4);
    insta::assert_snapshot!(nothing.stderr, @"error: no run is selected by -E 'run = 00000000'; `ressa plan -v` lists all of them");
    let part = house.ressa(&["sweep", "small", "--partition", "9/8"]);
    assert!(part.code == 2 && part.stderr.contains("the second of eight"), "{}", part.stderr);
}

/// Elsewhere they count as there once nobody is going to read them.
#[test]
fn statistics_that_are_chosen_for_themselves_are_made() {
    let house = House::new();
    let chosen = ["prune.calibration.propagate=dense", "-E", "kind = statistics"];
    let to_do = |arguments: &[&str]| {
        let plan = plan(&house, arguments);
        let kinds = plan["stages"]["kinds"].as_array().unwrap();
        let row = kinds.iter().find(|row| row["kind"] == "statistics").unwrap();
        (row["distinct"].as_u64().unwrap(), row["to-do"].as_u64().unwrap())
    };
    let (distinct, open) = to_do(&chosen);
    assert!(distinct > 0 && open == distinct, "{open} of {distinct}");
    let sweep = house.ressa(&[&["sweep", "small", "--no-gate"], &chosen[..]].concat());
    assert_eq!(sweep.code, 0, "{}", sweep.stderr);
    assert_eq!(to_do(&chosen), (distinct, 0));
    let made = house.ressa(&["status", "--json", "small", chosen[0]]);
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert!(made["experiments"][0]["made"].as_u64().unwrap() > distinct, "{made}");
}

#[test]
fn the_report_of_a_selection_lies_beside_that_of_the_whole() {
    let house = House::new();
    let report =
        "report:\n  tables:\n    - { id: main, rows: [prune.metric, restoration], columns: metric, values: [vqav2] }\n";
    let small = std::fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    house.write("experiments/shapes/small.yaml", &(small + report));
    assert_eq!(house.ressa(&["sweep", "small"]).code, 0);
    let text = || std::fs::read_to_string(house.path("results/small/main.csv")).unwrap();
    let whole = text();
    let part = house.ressa(&["report", "small", "-E", "seed = 0 and metric = wanda"]);
    assert_eq!(part.code, 0, "{}", part.stderr);
    assert!(
        part.stdout.contains("this one, of `shapes/small.yaml -E 'seed = 0 and metric = wanda'`"),
        "{}",
        part.stdout
    );
    assert_eq!(text(), whole);
    let beside = |name: &str| name.starts_with("small@");
    let names = std::fs::read_dir(house.path("results")).unwrap().map(|item| item.unwrap().file_name());
    let folders: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).filter(|n| beside(n)).collect();
    let part = std::fs::read_to_string(house.path(&format!("results/{}/main.csv", folders[0]))).unwrap();
    assert!(folders.len() == 1 && part.contains("wanda") && !part.contains("magnitude"), "{part}");
    // Of single stages there is nothing to report.
    assert_eq!(house.ressa(&["report", "small", "-E", "kind = prune"]).code, 2);
    let done = house.ressa(&["sweep", "small", "-E", "kind = prune"]);
    assert!(done.code == 0 && !done.stdout.contains("report:"), "{}", done.stdout);
}

#[test]
fn sweeps_make_what_is_selected_and_its_inputs() {
    let house = House::new();
    let made = house.ressa(&["sweep", "small", "-E", "kind = prune and metric = wanda and seed = 0"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(house.stored().len(), 3, "a dense model and two towers");
    let status = house.ressa(&["status", "small", "-E", "metric = wanda and seed = 0"]);
    insta::assert_snapshot!(status.stdout, @"
    no sweep is running

      experiment  runs  complete  stages  made
      small          2         0       9     3
    ");
    let explained = house.ressa(&["explain", "-E", "kind = prune and seed = 0", "small"]);
    assert_eq!((explained.code, explained.stdout.matches("  prune ").count()), (0, 4), "{}", explained.stdout);
    let verified = house.ressa(&["verify", "-E", "kind = prune", "--file", "small"]);
    assert!(verified.stdout.contains("2 stages checked, 2 certificates recounted"), "{}", verified.stdout);

    // Failures of what is selected are cleared, and no others.
    house.instruct(json!({ "evaluate vqav2": { "fail": "bug" } }));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 100);
    let failed = |house: &House| house.ressa(&["logs"]).stdout.matches("told to fail").count();
    assert_eq!(failed(&house), 7);
    let cleared = house.ressa(&["retry", "-E", "metric = magnitude and restoration = pruned", "--file", "small"]);
    assert!(cleared.stdout.contains("1 failure cleared"), "{}", cleared.stdout);
    let cleared = house.ressa(&["retry", "-E", "task = flickr30k", "--file", "small"]);
    assert!(cleared.stdout.contains("0 failures cleared"), "{}", cleared.stdout);
    assert_eq!(failed(&house), 6);
}
