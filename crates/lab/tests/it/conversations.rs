//! Models that read prompts as turns of a conversation: questions with their image in different places, prompts without room, settings that do
//! not fit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_data::Processor;
use ressa_experiment::job::{
    CalibrationRequest, Compute, Generate, Generated, Job, ModelAt, Perplexity, PromptRequest, RandomCheckpoint, Stats,
};
use ressa_lab::{LabError, run};
use serde_json::{Value, json};
use tch::Device;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens")
}

/// A folder of LLaVA with all its files.
fn llava() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let like = goldens().join("llava-default/config.json").display().to_string();
    let work = RandomCheckpoint { like, output: root.path().join("model"), seed: 1, dtype: Compute::Float32 };
    run(&Job::RandomCheckpoint(work), Device::Cpu, &mut |_, _| ()).unwrap();
    root
}

fn at(root: &tempfile::TempDir) -> ModelAt {
    ModelAt { folder: root.path().join("model"), compute: None }
}

/// Changes a JSON file of a folder.
fn change(root: &tempfile::TempDir, file: &str, change: impl Fn(&mut Value)) {
    let path = root.path().join("model").join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn answers(root: &tempfile::TempDir, prompts: &[&str], new: Option<usize>) -> Result<Vec<Generated>, LabError> {
    let image = goldens().join("images/wide.png");
    let requests = prompts.iter().map(|prompt| PromptRequest { image: image.clone(), prompt: (*prompt).to_owned() });
    let search = serde_json::from_value(json!({ "max_new_tokens": new })).unwrap();
    let job = Generate { model: at(root), requests: requests.collect(), search };
    let found = run(&Job::Generate(job), Device::Cpu, &mut |_, _| ())?;
    Ok(serde_json::from_value(found).unwrap())
}

#[test]
fn questions_about_one_image_may_have_it_in_different_places() {
    let root = llava();
    let prompts = ["is it red", "is <image> red", "what is it", "the <image> is"];
    let together = answers(&root, &prompts, Some(3)).unwrap();
    for (prompt, found) in prompts.iter().zip(together) {
        assert_eq!(answers(&root, &[prompt], Some(3)).unwrap()[0], found, "{prompt}");
    }
}

#[test]
fn prompts_and_samples_without_room_are_refused_and_answers_end_where_positions_do() {
    let root = llava();
    let long = "red ".repeat(70);
    let error = answers(&root, &["is it red", &long], None).unwrap_err().to_string();
    assert!(error.contains("request 2: of the model's 64 positions, 0 are left"), "{error}");
    // Fewer positions are left than a search has new tokens where nothing says how many.
    let most = answers(&root, &["red ".repeat(40).as_str()], None).unwrap();
    assert!(most[0].tokens.len() < 20, "{most:?}");

    let request =
        CalibrationRequest { image: goldens().join("images/wide.png"), prompt: long, answer: "red".to_owned() };
    let output = root.path().join("stats.safetensors");
    let job = Stats { model: at(&root), requests: vec![request], end_token: false, output };
    let error = run(&Job::Stats(job), Device::Cpu, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("calibration sample 1 takes") && error.contains("64"), "{error}");
}

#[test]
fn settings_that_do_not_fit_the_model_are_named() {
    let refused = |file: &str, field: [&str; 2], value: Value, part: &str| {
        let root = llava();
        change(&root, file, |settings| match field {
            ["", name] => settings[name] = value.clone(),
            [part, name] => settings[part][name] = value.clone(),
        });
        let error = Processor::load(&at(&root).folder).err().expect("it does not fit").to_string();
        assert!(error.contains(part) && error.contains(".json"), "{part}: {error}");
    };
    let vision = |name| ["vision_config", name];
    refused("config.json", vision("image_size"), json!(21_474_836_480u64), "`vision_config.image_size` is 21474836480");
    refused("config.json", vision("image_size"), json!(-15), "`vision_config.image_size` is -15");
    refused("config.json", vision("patch_size"), json!(0), "`vision_config.patch_size` is 0");
    refused("processor_config.json", ["", "patch_size"], json!(-4), "`patch_size` is -4");
    refused("config.json", ["", "image_token_index"], json!(7), "`image_token_index` in config.json is 7");
    refused("config.json", ["", "image_token_index"], json!("x"), "`image_token_index` is \"x\"");
}

#[test]
fn perplexity_needs_no_part_that_sees_and_no_template() {
    let root = llava();
    let text = root.path().join("text");
    fs::write(&text, "is it red ".repeat(20)).unwrap();
    let taken = || {
        let job = Perplexity { model: at(&root), text: text.clone(), window: 8, windows: Some(2), list: true };
        run(&Job::Perplexity(job), Device::Cpu, &mut |_, _| ())
    };
    let nll = taken().unwrap()["nll"].clone();
    for file in ["preprocessor_config.json", "processor_config.json", "chat_template.jinja", "chat_template.json"] {
        let _ = fs::remove_file(at(&root).folder.join(file));
    }
    assert!(Processor::load(&at(&root).folder).is_err());
    assert_eq!(taken().unwrap()["nll"], nll);
    change(&root, "config.json", |config| config["text_config"]["max_position_embeddings"] = json!(-1));
    let error = taken().unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("`text_config.max_position_embeddings` is -1"), "{error}");
}
