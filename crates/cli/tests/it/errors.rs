//! Mistakes: where they are shown, and with which exit code.

use serde_json::json;

use crate::house::House;

#[test]
fn a_mistyped_key_is_pointed_at() {
    let house = House::new();
    house
        .write("experiments/shapes/typo.yaml", "extends: ../base/model.yaml\naxes:\n  prune.metrik: [wanda, random]\n");
    let ended = house.ressa(&["plan", "typo"]);
    assert_eq!(ended.code, 78);
    insta::assert_snapshot!(ended.stderr, @"
    experiment::unknown-key

      × there is no setting `prune.metrik`
       ╭─[HOUSE/experiments/shapes/typo.yaml:3:3]
     2 │ axes:
     3 │   prune.metrik: [wanda, random]
       ·   ──────┬─────
       ·         ╰── unknown key
       ╰────
      help: did you mean `prune.metric`?
    ");
}

#[test]
fn a_bad_override_is_pointed_at() {
    let house = House::new();
    let ended = house.ressa(&["plan", "small", "prune.metric=wander"]);
    assert_eq!(ended.code, 78);
    insta::assert_snapshot!(ended.stderr, @"
    experiment::bad-value

      × `prune.metric` cannot be `wander`
       ╭─[command line:1:14]
     1 │ prune.metric=wander
       ·              ───┬──
       ·                 ╰── not one of the choices
       ╰────
      help: did you mean `wanda`? choices: `none`, `random`, `magnitude`, `wanda`, `ria`, `sparsegpt`, `alps`,
            `dsnot`
    ");
}

#[test]
fn a_table_that_cannot_be_made_is_refused_before_anything_runs() {
    let house = House::new();
    let small = std::fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    let table = "report:\n  tables:\n    - { id: main, rows: [prune.metric], columns: metric, values: [vqav2] }\n";
    house.write("experiments/shapes/small.yaml", &(small + table));
    let ended = house.ressa(&["plan", "small"]);
    assert_eq!(ended.code, 78);
    for part in ["`main` would average over `restoration` (pruned, ressa)", "experiments/shapes/small.yaml:13:13"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(house.ressa(&["sweep", "small"]).code, 78);
    assert!(house.published().is_empty());
    assert_eq!(house.ressa(&["plan", "small", "restoration=pruned"]).code, 0, "one of the two is no mixture");
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
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
    assert_eq!(code(&["report", "small", "--strict"]), 106);
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
    house.write("checkpoints/blip/config.json", &json!({ "model_type": "instructblip" }).to_string());
    let index = json!({ "weight_map": { "a": "model-1.safetensors", "b": "../escape.safetensors" } }).to_string();
    house.write("checkpoints/blip/model.safetensors.index.json", &index);
    house.write("checkpoints/blip/model-1.safetensors", "");
    let plan = house.ressa(&["plan", "experiments/paper/paper.yaml"]);
    assert_eq!(plan.code, 66, "{}", plan.stderr);
    let missing = plan.stdout.split("\nmissing\n").nth(1).unwrap();
    insta::assert_snapshot!(missing, @r#"
    HOUSE/checkpoints/blip/model.safetensors.index.json  (checkpoint: `"../escape.safetensors"` is not the name of a safetensors file in this folder)
    HOUSE/checkpoints/blip/preprocessor_config.json  (checkpoint: image preprocessing)
    HOUSE/checkpoints/blip/qformer_tokenizer/tokenizer.json  (checkpoint: tokenizer of the Q-Former)
    HOUSE/checkpoints/blip/tokenizer.json  (checkpoint: tokenizer of the language model)
    HOUSE/data/gqa/annotations/testdev_balanced_questions.json  (gqa: image, question and answer)
    HOUSE/data/gqa/images  (gqa: GQA images)
    "#);
    let sweep = house.ressa(&["sweep", "experiments/paper/paper.yaml"]);
    assert_eq!(sweep.code, 66);
    insta::assert_snapshot!(sweep.stderr, @r#"
    error: `HOUSE/checkpoints/blip/model.safetensors.index.json` is missing (checkpoint: `"../escape.safetensors"` is not the name of a safetensors file in this folder), and 5 files more; `ressa plan` lists what a sweep needs
    "#);
}

#[test]
fn settings_of_a_single_pruning_are_checked_like_those_of_an_experiment() {
    let house = House::new();
    house.write("m/config.json", "{}");
    let prune = |arguments: &[&str]| {
        let fixed = ["prune", "--model", "m", "--output", "o", "--metric", "magnitude", "--vision", "0.5"];
        house.ressa(&[&fixed, arguments].concat())
    };
    let mistyped = prune(&["--set", "prune.sparsegpt.dampping=always"]);
    assert_eq!(mistyped.code, 78);
    insta::assert_snapshot!(mistyped.stderr, @"
    experiment::override

      × there is no setting `prune.sparsegpt.dampping`
       ╭─[command line:1:1]
     1 │ prune.sparsegpt.dampping=always
       · ────────────┬───────────
       ·             ╰── unknown name
       ╰────
      help: did you mean `prune.sparsegpt.damping`?
    ");
    for (setting, said) in [
        ("prune.sparsegpt.block=0", "must be a whole number of at least 1"),
        ("prune.rounding=upwards", "choices: `decimal`, `truncated`, `nearest`"),
        ("prune.rounding=decimal,nearest", "takes one value"),
        ("prune.vision.sparsity=0.4", "it has an option of its own: --vision"),
        ("prune.allocation.epsilon=0.1", "a single pruning has no such setting"),
        ("restore.method=lora", "a single pruning has no such setting"),
        ("on-failure", "write for example `prune.sparsegpt.damping=on-failure`"),
    ] {
        let refused = prune(&["--set", setting]);
        assert_eq!(refused.code, 78, "{setting}");
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    house.write("table.yaml", "language.0: 0.3\nvision: 30\n");
    let table = prune(&["--allocation", "table.yaml"]);
    assert!(table.code == 78 && table.stderr.contains("table.yaml:2"), "{}", table.stderr);
    house.write("none.yaml", "# no layers yet\n");
    let none = prune(&["--allocation", "none.yaml"]);
    assert!(none.code == 78 && none.stderr.contains("such as `language.0: 0.3`"), "{}", none.stderr);
    for (arguments, said) in [
        (&["--allocation", "ecoflap"][..], "run an experiment"),
        (&["--allocation", "owl"], "--allocation owl needs --calibration"),
        (&["--allocation", "nowhere.yaml"], "neither `uniform`, `owl` nor a file"),
        (&["--calibration", "cc3m"], "say with --data-root where it is"),
        (&["--calibration", "cc4m", "--data-root", ".", "--samples", "2"], "`cc4m` is not one of coco, vg, cc3m"),
        (&["--calibration", "cc3m", "--data-root", "."], "--samples"),
        (&["--calibration", "vg,vg", "--data-root", ".", "--samples", "2"], "names a corpus twice"),
        (&["--language", "nan"], "a fraction from 0 to below 1"),
        (&["--language", "-0.5"], "a fraction from 0 to below 1"),
        (&["--calibration", "c.json", "--set", "data.calibration.form=prefix"], "is about corpora"),
    ] {
        let refused = prune(arguments);
        assert_eq!(refused.code, 2, "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    let help = house.ressa(&["prune", "--help"]);
    assert!(help.stdout.contains("prune.dsnot.cycles") && !help.stdout.contains("restore."), "{}", help.stdout);
}
