//! Evaluations behind retrieved captions, of perturbed questions and with votes: in the embedded world and on folders, with the model's own head and with a
//! named one.

use std::{fs, path::Path};

use ressa_data::Family;
use ressa_experiment::{
    RunConfig, StageNode, Task,
    aids::{PerturbConfig, Perturbation, RetrievedConfig, SmoothingConfig, SmoothingMethod},
    config::{Corpus, RestoreMethod},
    model::Preset,
    record::TaskScore,
    stage::stages,
};
use ressa_store::Store;
use serde_json::Value;

use crate::{
    digests, execute, executor, make,
    published::{paper_run, predictions},
    short_run,
};

/// Evaluations of a run on their own, behind the stages that they read, which come first.
fn evaluations(store: &Store, nodes: &[StageNode]) -> Vec<(Task, Vec<Value>, TaskScore)> {
    let of = |node: &StageNode| match &*node.stage {
        ressa_experiment::Stage::Evaluate { task, .. } => {
            Some((*task, predictions(store, node), store.require(&node.key.hex()).unwrap().result().unwrap()))
        }
        _ => None,
    };
    nodes.iter().filter_map(of).collect()
}

fn texts<'v>(line: &'v Value, field: &str) -> Vec<&'v str> {
    line[field].as_array().map(|all| all.iter().map(|text| text.as_str().unwrap()).collect()).unwrap_or_default()
}

#[test]
fn the_embedded_world_retrieves_with_its_own_head_and_votes() {
    let mut run = short_run(Preset::ShapesVicuna, RestoreMethod::None);
    run.evaluate.tasks = vec![Task::Gqa, Task::Nocaps, Task::Flickr30k];
    let plain = stages(&run);
    run.evaluate.retrieved = RetrievedConfig { captions: 2, pool: 40, ..RetrievedConfig::default() };
    run.evaluate.perturb = PerturbConfig { rate: 0.3, kind: Perturbation::Drop, seed: 0 };
    run.evaluate.smoothing =
        SmoothingConfig { method: SmoothingMethod::Masked, copies: 3, ..SmoothingConfig::default() };
    let nodes = stages(&run);
    // Retrieval as a task asks nothing.
    assert_eq!(plain.last(), nodes.last());

    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = executor(first.path());
    execute(&mut one, &plain);
    for node in nodes.iter().filter(|node| !plain.contains(node)) {
        make(&mut one, node).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
    }
    execute(&mut executor(second.path()), &nodes);
    assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));

    let store = Store::open(first.path(), Vec::new()).unwrap();
    let asked = evaluations(&store, &plain);
    for ((task, lines, score), (_, before, _)) in evaluations(&store, &nodes).iter().zip(&asked) {
        assert_eq!(lines.len(), before.len(), "{task}");
        for (line, before) in lines.iter().zip(before).filter(|_| *task != Task::Flickr30k) {
            let retrieved = texts(line, "retrieved");
            assert_eq!(retrieved.len(), 2, "{line}");
            assert_ne!(retrieved[0], retrieved[1]);
            assert_eq!(line["id"], before["id"]);
            assert!(before.get("retrieved").is_none() && before.get("copies").is_none());
            if *task == Task::Nocaps {
                assert!(line.get("copies").is_none(), "a caption has no question to copy");
                continue;
            }
            // Of five words at least one is dropped, and of the copies' words some are masked.
            let words = |value: &Value| value.as_str().unwrap().split(' ').count();
            assert!(words(&line["prompt"]) < words(&before["prompt"]), "{line}");
            let copies = line["copies"].as_array().unwrap();
            assert_eq!(copies.len(), 3);
            assert!(copies.iter().all(|copy| words(&copy["prompt"]) == words(&line["prompt"])));
            assert!(copies.iter().any(|copy| copy["prompt"].as_str().unwrap().contains("___")), "{line}");
            assert!(copies.iter().any(|copy| copy["prediction"] == line["prediction"]));
            assert!(copies.iter().all(|copy| copy.get("filled").is_none()));
        }
        let is_voted = score.parts.contains_key("agreement");
        assert_eq!(is_voted, *task == Task::Gqa, "{task}");
        assert!(!score.parts.contains_key("filled"));
    }
    for node in nodes.iter().filter(|node| node.stage.kind() == "evaluate") {
        assert_eq!(one.verify(node).unwrap(), Vec::<String>::new());
    }
}

/// Captions come from a matching model where the model has no head, and never from the image that is asked about.
#[test]
fn folders_retrieve_with_a_named_model_and_never_an_images_own_captions() {
    let (models, data, store) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published");
    copy(&fixture.join("vqav2"), &data.path().join("vqav2"));
    copy(&fixture.join("coco"), &data.path().join("coco"));
    // A corpus with captions of the images that VQAv2 asks about, as COCO's is.
    let entry = |split: &str, image: u32, caption: &str| {
        format!(r#"{{"image": "{split}2014/COCO_{split}2014_{image:012}.jpg", "caption": "{caption}"}}"#)
    };
    let entries = [entry("val", 1, "a red cube"), entry("val", 2, "a blue ring"), entry("train", 3, "a green cross")];
    fs::write(data.path().join("coco/annotations/coco_karpathy_train.json"), format!("[{}]", entries.join(",")))
        .unwrap();

    for family in [Family::T5, Family::Llama] {
        let models = models.path().join(format!("{family:?}"));
        fs::create_dir(&models).unwrap();
        let mut run = dense(paper_run(&models, family));
        run.data.root = Some(data.path().to_owned());
        run.evaluate.tasks = vec![Task::Vqav2];
        run.evaluate.retrieved =
            RetrievedConfig { captions: 2, pool: 10, corpora: vec![Corpus::Coco], ..RetrievedConfig::default() };
        let mut executor = executor(store.path());
        let nodes = stages(&run);
        make(&mut executor, &nodes[0]).unwrap();
        let error = make(&mut executor, &nodes[1]).unwrap_err().to_string();
        assert!(error.contains("`evaluate.retrieved.checkpoint`"), "{error}");

        run.evaluate.retrieved.checkpoint = run.evaluate.retrieval.checkpoint.clone();
        let nodes = stages(&run);
        make(&mut executor, &nodes[1]).unwrap();
        let store = Store::open(store.path(), Vec::new()).unwrap();
        let lines = &evaluations(&store, &nodes)[0].1;
        let benchmark = ressa_data::Benchmark::load(&run.data, Task::Vqav2, 1000).unwrap();
        assert_eq!(lines.len(), benchmark.items().len());
        for (line, item) in lines.iter().zip(benchmark.items()) {
            let own = match benchmark.images()[item.image].name().as_deref() {
                Some("000000000001") => "a red cube",
                Some("000000000002") => "a blue ring",
                other => panic!("{other:?}"),
            };
            let retrieved = texts(line, "retrieved");
            assert!(retrieved.len() == 2 && !retrieved.contains(&own), "{line}");
        }
    }
}

/// Every family is asked to fill masks in its own way; what random weights write is no question, so words stay masked and are counted.
#[test]
fn models_are_asked_to_fill_masks_and_what_they_leave_stays_masked() {
    for family in [Family::T5, Family::Llama] {
        let (models, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut run = dense(paper_run(models.path(), family));
        run.evaluate.tasks = vec![Task::Gqa, Task::Scienceqa];
        run.evaluate.smoothing =
            SmoothingConfig { method: SmoothingMethod::SelfDenoised, copies: 2, ..SmoothingConfig::default() };
        let nodes = stages(&run);
        let mut executor = executor(store.path());
        execute(&mut executor, &nodes);
        let store = Store::open(store.path(), Vec::new()).unwrap();
        for (task, lines, score) in evaluations(&store, &nodes) {
            let filled = &score.parts["filled"];
            assert!((0.0..=100.0).contains(&filled.value), "{task}");
            for line in &lines {
                for copy in line["copies"].as_array().unwrap() {
                    let is_masked = copy["prompt"].as_str().unwrap().contains("___");
                    assert_eq!(copy["filled"].as_bool().unwrap(), !is_masked, "{copy}");
                }
            }
            if task == Task::Scienceqa {
                assert!(lines.iter().all(|line| !line["log-likelihoods"].as_array().unwrap().is_empty()));
            }
        }
        for node in nodes.iter().filter(|node| node.stage.kind() == "evaluate") {
            assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new());
        }
    }
}

/// The run without pruning and restoration.
fn dense(mut run: RunConfig) -> RunConfig {
    (run.prune, run.restore) = (Default::default(), Default::default());
    run.evaluate.beams = 1;
    run
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::copy(entry.path(), to).map(drop).unwrap(),
        }
    }
}
