//! The program as users meet it: real processes, the fake worker, exit codes and texts.

mod errors;
mod house;
mod killing;
mod sweeping;

use house::House;

#[test]
fn help_is_complete_and_cheap() {
    let house = House::new();
    let help = house.ressa(&["--help"]);
    assert_eq!(help.code, 0);
    insta::assert_snapshot!(help.stdout, @"");
}

#[test]
fn a_plan_counts_runs_and_shared_stages() {
    let house = House::new();
    let plan = house.ressa(&["plan", "small"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let text: Vec<&str> = plan.stdout.lines().filter(|line| !line.starts_with("about ")).collect();
    insta::assert_snapshot!(text.join("\n"), @"");
}

#[test]
fn an_added_seed_is_exactly_what_a_plan_then_has_to_do() {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    let to_do = |arguments: &[&str]| {
        let plan = house.ressa(&[&["plan", "small", "--json"], arguments].concat());
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        plan["stages"]["to-do"].as_u64().unwrap()
    };
    assert_eq!(to_do(&[]), 0);
    // Wanda alone knows the seed without restoration: two towers, then two tasks; one training, one merge and two tasks for each of two metrics.
    assert_eq!(to_do(&["replicate.seed=0..2"]), 2 + 2 + 2 * 4);
}
