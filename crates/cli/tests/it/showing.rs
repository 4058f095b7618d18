//! A run shown, two things compared, results in an archive, and what shells and `man` read.

use std::fs;

use serde_json::{Value, json};

use crate::house::House;

fn swept() -> House {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    house
}

fn answer(house: &House, code: i32, arguments: &[&str]) -> Value {
    let ended = house.ressa(&[arguments, &["--json"]].concat());
    assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn every_setting_has_the_line_that_decided_it() {
    let house = House::new();
    let small = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    let more = "restore.steps: 7\nzip:\n  split:\n    restore.batch: [4, 8]\n    restore.samples: [40, 80]\n    labels: [few, many]\n\
                include:\n  - { name: dense, prune.metric: none, evaluate.questions: 9 }\n";
    house.write("experiments/shapes/small.yaml", &(small + more));
    let show = |which: &str| {
        let shown = answer(&house, 0, &["show", which, "small", "restore.learning-rate=0.5"]);
        shown["settings"].as_array().unwrap().clone()
    };
    let of = |settings: &[Value], path: &str| settings.iter().find(|setting| setting["path"] == path).unwrap().clone();
    let run = show("small: wanda many ressa, seed 1");
    let at = |setting: &Value| format!("{}:{}", setting["at"]["file"].as_str().unwrap(), setting["at"]["line"]);
    let by = |setting: &Value| setting["by"]["kind"].as_str().unwrap().to_owned();
    for (path, value, file, kind) in [
        ("model.preset", json!("shapes-flant5"), "experiments/base/model.yaml:1", "file"),
        ("prune.vision.sparsity", json!(0.5), "experiments/base/model.yaml:3", "file"),
        ("prune.metric", json!("wanda"), "experiments/shapes/small.yaml:6", "axis"),
        ("restore.method", json!("sparse-lora"), "experiments/shapes/small.yaml:10", "axis"),
        ("restore.steps", json!(7), "experiments/shapes/small.yaml:11", "file"),
        ("restore.batch", json!(8), "experiments/shapes/small.yaml:14", "axis"),
        ("restore.samples", json!(80), "experiments/shapes/small.yaml:15", "axis"),
        ("restore.learning-rate", json!(0.5), "command line:1", "command-line"),
        ("seed", json!(1), "experiments/shapes/small.yaml:4", "replicate"),
    ] {
        let setting = of(&run, path);
        assert_eq!(
            (setting["value"].clone(), at(&setting).as_str(), by(&setting).as_str()),
            (value, file, kind),
            "{path}"
        );
    }
    assert_eq!(of(&run, "restore.learning-rate")["argument"], "restore.learning-rate=0.5");
    assert_eq!(
        (by(&of(&run, "evaluate.beams")), of(&run, "evaluate.beams")["at"].clone()),
        ("default".to_owned(), Value::Null)
    );
    let dense = show("small: none dense dense, seed 0");
    assert_eq!(
        (of(&dense, "evaluate.questions")["value"].clone(), by(&of(&dense, "prune.metric"))),
        (json!(9), "include".to_owned())
    );
    // What the run cannot see has no effect, and what was written is still said.
    let unseen = of(&dense, "restore.steps");
    assert_eq!((unseen["written"].clone(), at(&unseen).as_str()), (json!(7), "experiments/shapes/small.yaml:11"));
}

#[test]
fn a_run_is_shown_with_its_stages_and_numbers() {
    let house = swept();
    house.instruct(json!({ "evaluate vqav2": { "score": 33.0 } }));
    let shown = house.ressa(&["show", "wanda pruned, seed 0", "small"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let text: Vec<&str> = shown.stdout.lines().collect();
    insta::assert_snapshot!(text.join("\n"));
    let json = answer(&house, 0, &["show", "wanda pruned, seed 0", "small"]);
    assert_eq!(json["scores"][0]["unit"], "%");
    assert_eq!(json["stages"].as_array().unwrap().len(), 5);
    // A stage alone, with what it was told.
    let key = json["stages"][1]["key"].as_str().unwrap();
    let stage = answer(&house, 0, &["show", &key[..12], "small"]);
    assert_eq!(
        (stage["stages"][0]["configuration"]["metric"].as_str(), stage["settings"].as_array().unwrap().len()),
        (Some("wanda"), 0)
    );
    assert_eq!(house.ressa(&["show", "nobody", "small"]).code, 4);
}

/// Puts stored predictions into an evaluation of the house.
fn predict(house: &House, key: &str, lines: &str) {
    let folder = house.path("results/store").join(&key[..2]).join(key);
    fs::write(folder.join("predictions.jsonl"), lines).unwrap();
    let manifest = folder.join("manifest.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let digest = blake3::hash(lines.as_bytes()).to_hex().to_string();
    value["files"]["predictions.jsonl"] = json!({ "bytes": lines.len(), "blake3": digest });
    fs::write(manifest, value.to_string()).unwrap();
}

#[test]
fn predictions_stand_beside_their_images() {
    let house = swept();
    let json = answer(&house, 0, &["show", "wanda pruned, seed 0", "small"]);
    let key = |what: &str| {
        let stage = json["stages"].as_array().unwrap().iter().find(|stage| stage["what"] == what).unwrap().clone();
        stage["key"].as_str().unwrap().to_owned()
    };
    let line = |id: &str, said: &str, points: f64| json!({ "kind": "answer", "id": id, "prompt": "what <is> it", "prediction": said, "answers": ["a", "a", "b"], "template": null, "points": points });
    predict(
        &house,
        &key("evaluate vqav2"),
        &format!("{}\n{}\n", line("00000-0", "red & blue", 100.0), line("00003-1", "no", 0.0)),
    );
    let rank =
        json!({ "kind": "rank", "id": "image-0", "direction": "image-to-text", "image": 0, "rank": 4, "points": 0.0 });
    predict(&house, &key("evaluate flickr30k"), &format!("{rank}\n"));
    let shown = house.ressa(&["show", "wanda pruned, seed 0", "small", "--predictions", "5", "--html", "page.html"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let (_, predictions) = shown.stdout.split_once("\npredictions").unwrap();
    insta::assert_snapshot!(predictions);
    let page = fs::read_to_string(house.path("page.html")).unwrap();
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 3);
    assert!(page.contains("red &amp; blue") && page.contains("what &lt;is&gt; it") && !page.contains("<is>"));
    assert!(!page.contains("http") && !page.contains("<script"), "the page needs nothing else");
    let nothing = house.ressa(&[
        "show",
        "magnitude pruned",
        "small",
        "evaluate.images=9",
        "evaluate.questions=3",
        "--predictions",
        "1",
    ]);
    assert!(nothing.code == 4 && nothing.stderr.contains("no evaluation of it is in the store"), "{}", nothing.stderr);
}

#[test]
fn two_runs_differ_in_settings_and_scores() {
    let house = swept();
    let found = answer(&house, 108, &["diff", "wanda pruned, seed 0", "magnitude pruned", "small"]);
    let settings: Vec<&str> =
        found["settings"].as_array().unwrap().iter().map(|s| s["setting"].as_str().unwrap()).collect();
    assert!(settings.contains(&"prune.metric"), "{settings:?}");
    let metric = found["settings"].as_array().unwrap().iter().find(|s| s["setting"] == "prune.metric").unwrap();
    assert_eq!((&metric["a"], &metric["b"]), (&json!("wanda"), &json!("magnitude")));
    assert_eq!(found["stages"], json!([1, 4, 4]));
    let values = found["values"].as_array().unwrap();
    let vqav2 = values.iter().find(|value| value["value"] == "vqav2").unwrap();
    assert_eq!((&vqav2["a"], &vqav2["b"], &vqav2["difference"]), (&json!(75.0), &json!(75.0), &json!(0.0)));
    let same = answer(&house, 0, &["diff", "wanda pruned, seed 0", "wanda pruned, seed 0", "small"]);
    assert_eq!((same["differs"].clone(), same["settings"].clone()), (json!(false), json!([])));
    assert_eq!(house.ressa(&["diff", "wanda", "magnitude pruned", "small"]).code, 4, "many runs");
    assert_eq!(house.ressa(&["diff", "wanda pruned, seed 0", "results", "small"]).code, 2, "a run and a folder");
}

#[test]
fn two_results_folders_differ_in_runs_scores_and_verdicts() {
    let house = House::new();
    let claims = "claims:\n  - { id: good, text: Scores are good., equals: { metric: vqav2, to: 75, tolerance: 1 } }\n";
    let small = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    house.write("experiments/shapes/small.yaml", &(small + claims));
    assert_eq!(house.ressa(&["sweep", "small"]).code, 0);
    fs::create_dir(house.path("other")).unwrap();
    fs::write(house.path("other/fake.json"), json!({ "evaluate vqav2": { "score": 20.0 } }).to_string()).unwrap();
    let other = house.ressa(&["sweep", "small", "--results", "other", "-E", "metric = wanda"]);
    assert_eq!(other.code, 0, "{}", other.stderr);
    let report = house.ressa(&["report", "small", "--results", "other"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
    let found = answer(&house, 108, &["diff", "results", "other", "small"]);
    assert_eq!(
        (&found["runs-in-both"], found["only-a"].as_array().unwrap().len(), found["only-b"].clone()),
        (&json!(4), 3, json!([]))
    );
    assert_eq!(found["scores"].as_array().unwrap().len(), 4);
    assert_eq!(found["verdicts"]["small"][0]["id"], "good");
    let verdict = house.ressa(&["diff", "results/small", "other/small/claims.json"]);
    assert_eq!(verdict.code, 108);
    insta::assert_snapshot!(verdict.stdout);
    assert_eq!(answer(&house, 0, &["diff", "results", "results", "small"])["differs"], false);
    assert_eq!(house.ressa(&["diff", "results/small/report.json", "results/small"]).code, 0);
    house.write("bad.json", "{}");
    assert_eq!(house.ressa(&["diff", "bad.json", "results/small"]).code, 65);
}

#[test]
fn results_travel_in_an_archive() {
    let house = swept();
    let packed = house.ressa(&["results", "export", "part.tar.gz", "small", "-E", "metric = wanda and seed = 0"]);
    assert_eq!(packed.code, 0, "{}", packed.stderr);
    assert!(packed.stdout.starts_with("9 stages, "), "{}", packed.stdout);
    let taken = house.ressa(&["results", "import", "part.tar.gz", "--results", "other"]);
    assert_eq!((taken.code, taken.stdout.as_str()), (0, "9 stages taken, 0 were there\n"), "{}", taken.stderr);
    let plan = answer(&house, 0, &["plan", "small", "--results", "other", "-E", "metric = wanda and seed = 0"]);
    assert_eq!((&plan["stages"]["to-do"], &plan["complete"]), (&json!(0), &json!(2)));
    assert!(house.ressa(&["gc", "--results", "other"]).stdout.contains("nothing to remove"));
    let verified = house.ressa(&["results", "import", "part.tar.gz"]);
    assert_eq!(verified.stdout, "0 stages taken, 9 were there\n");
    // What it is, its content says.
    fs::rename(house.path("part.tar.gz"), house.path("renamed.tar")).unwrap();
    let renamed = house.ressa(&["results", "import", "renamed.tar"]);
    assert_eq!(renamed.stdout, "0 stages taken, 9 were there\n", "{}", renamed.stderr);
    // Refusals.
    assert_eq!(house.ressa(&["results", "export", "renamed.tar", "small"]).code, 110, "it is there");
    assert_eq!(house.ressa(&["results", "export", "x.tar", "small", "--results", "nowhere"]).code, 4);
    assert_eq!(house.ressa(&["results", "import", "nowhere.tar"]).code, 66);
    house.write("bad.tar", "x");
    let refused = house.ressa(&["results", "import", "bad.tar", "--results", "third"]);
    assert!(refused.code == 65 && refused.stderr.contains("nothing of it was taken"), "{}", refused.stderr);
    house.write("strange.tar", &"\u{1b}[31m\n".repeat(200));
    let refused = house.ressa(&["results", "import", "strange.tar", "--results", "third"]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (65, 1), "{}", refused.stderr);
    assert!(!refused.stderr.contains('\u{1b}'), "{:?}", refused.stderr);
}

#[test]
fn shells_and_man_know_every_command() {
    let house = House::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = house.ressa(&["completions", shell]);
        assert!(script.code == 0 && script.stdout.contains("partition") && script.stdout.contains("doctor"), "{shell}");
    }
    assert_eq!(house.ressa(&["completions", "tcsh"]).code, 2);
    assert!(house.ressa(&["man"]).stdout.contains(".TH ressa 1"));
    assert_eq!(house.ressa(&["man", "pages"]).code, 0);
    let help = house.ressa(&["--help"]).stdout;
    let commands = help.split("Commands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    for command in commands.map(|line| line.split_whitespace().next().unwrap()) {
        assert!(house.path(&format!("pages/ressa-{command}.1")).is_file(), "{command}");
    }
}

#[test]
fn the_steps_of_a_run_are_swept_shown_and_explained() {
    let house = House::new();
    let small = fs::read_to_string(house.path("experiments/shapes/small.yaml")).unwrap();
    let steps = "steps:\n  - prune: { name: first, vision.sparsity: 0.3, language.sparsity: 0.3 }\n  - restore: { steps: 20 }\n\
                 \x20 - prune: { name: last }\n  - restore\n";
    house.write("experiments/shapes/small.yaml", &(small + steps));
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    let which = "wanda ressa, seed 0";
    let json = answer(&house, 0, &["show", which, "small"]);
    let step = |name: &str, step: &str, what: &str| json!({ "name": name, "step": step, "what": what });
    assert_eq!(
        json["steps"],
        json!([
            step("first", "prune", "wanda, vision 30 %, language 30 %"),
            step("restore-1", "restore", "sparse-lora, 20 steps of 16 images"),
            step("last", "prune", "wanda, vision 50 %, language 50 %"),
            step("restore-2", "restore", "sparse-lora, 60 steps of 16 images"),
        ])
    );
    let settings = json["settings"].as_array().unwrap();
    let of = |path: &str| settings.iter().find(|setting| setting["path"] == path).unwrap();
    assert_eq!(of("steps.first.vision.sparsity")["value"], 0.3);
    assert_eq!(of("steps.first.vision.sparsity")["at"]["line"], 12);
    assert_eq!(of("steps.last.vision.sparsity")["at"]["file"], "experiments/base/model.yaml");
    assert!(settings.iter().all(|setting| !setting["path"].as_str().unwrap().starts_with("prune.")));
    let kinds: Vec<&str> =
        json["stages"].as_array().unwrap().iter().map(|stage| stage["kind"].as_str().unwrap()).collect();
    let round = ["prune", "prune", "adapt", "merge"];
    assert_eq!(kinds, [&["dense"], &round[..], &round[..], &["evaluate", "evaluate"]].concat());
    assert!(house.ressa(&["show", which, "small"]).stdout.contains("\nsteps\n"));
    assert_eq!(house.ressa(&["explain", which, "small"]).code, 0);
    assert_eq!(house.ressa(&["plan", "small", "steps.last.language.sparsity=0.6,0.7"]).code, 0);
    assert_eq!(house.ressa(&["status", "small"]).code, 0);
    assert_eq!(house.ressa(&["plan", "small", "steps.lst.metric=ria"]).code, 78);
}
