//! `ressa plan --device`: what an experiment takes on a card that is not here.

use crate::house::House;

/// A published checkpoint that is nowhere, and the cards of the repository.
fn published() -> House {
    let house = House::new();
    house.write("experiments/devices.yaml", include_str!("../../../../experiments/devices.yaml"));
    let model = "model: { preset: null, checkpoint: checkpoints/instructblip-flan-t5-xl, compute: bfloat16 }\n\
        data: { source: folder, root: data, calibration: { corpora: [cc3m] }, restoration: { corpora: [cc3m] } }\n\
        prune.calibration: { questions: 0, captions: 1 }\n\
        restore: { batch: 16, questions: 0, contrastive: 0, steps: 100 }\n\
        evaluate: { tasks: [gqa, nocaps], beams: 5 }\n";
    house.write("experiments/base/published.yaml", model);
    let grid = "extends: [small.yaml, ../base/published.yaml]\nname: published\n";
    house.write("experiments/shapes/published.yaml", grid);
    house
}

#[test]
fn a_card_says_what_fits_and_how_long_it_takes() {
    let house = published();
    let plan = house.ressa(&["plan", "published", "--device", "h100,rtx-4090"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    // The figures themselves are the cost model's, which its own tests look at.
    let shape = |line: &str| {
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        let mut text = line.replace(digits, "#");
        while text.contains("##") {
            text = text.replace("##", "#");
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let tables = plan.stdout.split("\nmissing").next().unwrap_or_default();
    for wanted in ["stage to do fits peak each together", "adapt # ", "prune vision # yes", "evaluate gqa # yes"] {
        assert!(tables.lines().any(|line| shape(line).starts_with(wanted)), "{wanted}\n{tables}");
    }
    assert!(tables.contains("rtx-4090: NVIDIA GeForce RTX 4090, 24.0 GB of memory, 16 host cores"), "{tables}");
    assert!(tables.contains("fits: about "), "{tables}");
    let json = house.ressa(&["plan", "published", "--device", "h100", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let card = &json["devices"][0];
    assert_eq!((card["device"].as_str(), card["memory-bytes"].as_u64()), (Some("h100"), Some(80_000_000_000)));
    let kinds = card["kinds"].as_array().unwrap();
    let adapt = kinds.iter().find(|kind| kind["kind"] == "adapt").unwrap();
    assert_eq!((adapt["stages"].as_u64(), adapt["timed"].as_u64()), (Some(4), Some(0)));
    assert!(adapt["worst"]["tflop"].as_f64().unwrap() > 1000.0);
}

#[test]
fn cards_and_models_that_are_not_known_are_named() {
    let house = published();
    let ended = house.ressa(&["plan", "published", "--device", "h101"]);
    let known = "h100, h200, a100-80, rtx-4090";
    assert_eq!(ended.code, 2);
    assert_eq!(ended.stderr, format!("error: no card is called `h101`; `experiments/devices.yaml` has {known}\n"));
    let ended = house.ressa(&["plan", "published", "model.checkpoint=checkpoints/mine", "--device", "h100"]);
    assert_eq!(ended.code, 66);
    assert!(ended.stderr.contains("the sizes of `HOUSE/checkpoints/mine` are not known"), "{}", ended.stderr);
    assert_eq!(house.ressa(&["plan", "published", "--cores", "4"]).code, 2);
}

/// The card file is not an experiment.
#[test]
fn cards_do_not_keep_garbage_from_being_collected() {
    let house = published();
    assert_eq!(house.ressa(&["gc"]).code, 0);
}
