//! A whole run on benchmarks and corpora from disk, with checkpoints given by path: the protocol of the paper in miniature.

use std::{fs, path::Path};

use ressa_data::{Family, tokenizer::VOCABULARY_SIZE, write_processor_files};
use ressa_experiment::{
    RunConfig, Stage, StageNode, Task,
    config::{
        AskingConfig, Augment, CorporaConfig, Corpus, DataConfig, DataSource, Metric, RestoreMethod, RetrievalConfig,
        SampleForm, TextRule,
    },
    model::ModelConfig,
    record::{Certificate, TaskScore},
    stage::stages,
};
use ressa_models::{Blip2Config, Storage, presets};
use ressa_pipeline::Loading;
use ressa_store::{Cache, Store};

use crate::{digests, execute, executor};

/// A random checkpoint whose tokenizer reads a few words of the fixture.
fn checkpoint(folder: &Path, config: &mut Blip2Config, family: Family, image: i64, seed: u64) {
    config.vision_config.image_size = image;
    config.qformer_config.max_position_embeddings = 64;
    let tensors = presets::random_tensors(config, seed).unwrap();
    ressa_models::save_folder(folder, config, &tensors, Storage::F32).unwrap();
    write_processor_files(folder, family, config.num_query_tokens as usize).unwrap();
    let path = folder.join("preprocessor_config.json");
    let mut processor: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    processor["size"] = serde_json::json!({ "height": image, "width": image });
    fs::write(path, processor.to_string()).unwrap();
}

pub(crate) fn paper_run(folder: &Path, family: Family) -> RunConfig {
    let vocabulary = VOCABULARY_SIZE as i64;
    let model = folder.join("model");
    let mut config = match family {
        Family::T5 => presets::tiny_flant5(vocabulary),
        Family::Llama => presets::tiny_vicuna(vocabulary),
    };
    config.image_text_hidden_size = None;
    checkpoint(&model, &mut config, family, 16, 5);
    let matcher = folder.join("matcher");
    checkpoint(&matcher, &mut presets::tiny_retrieval(vocabulary), Family::T5, 24, 6);
    // A matching model has one tokenizer, and it is the Q-Former's.
    for file in fs::read_dir(matcher.join("qformer_tokenizer")).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, matcher.join(file.file_name().unwrap())).unwrap();
    }
    fs::remove_dir_all(matcher.join("qformer_tokenizer")).unwrap();
    // It reads no text with an image in it.
    let path = matcher.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("image_token_index");
    fs::write(path, config.to_string()).unwrap();

    let corpora = CorporaConfig { corpora: vec![Corpus::Coco, Corpus::Cc3m], ..CorporaConfig::default() };
    let mut run = RunConfig {
        model: ModelConfig { checkpoint: Some(model), ..ModelConfig::default() }.into(),
        data: DataConfig {
            source: DataSource::Folder,
            root: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published")),
            calibration: CorporaConfig { form: SampleForm::Prefix, corpora: vec![Corpus::Vg], ..corpora.clone() },
            restoration: CorporaConfig { augment: Augment::Crop, ..corpora },
            ..DataConfig::default()
        }
        .into(),
        seed: 1,
        ..RunConfig::of(ModelConfig::default())
    };
    run.prune.metric = Metric::Wanda;
    (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.5, 0.5);
    let calibration = &mut run.prune.calibration;
    (calibration.images, calibration.questions, calibration.captions) = (3, 0, 1);
    run.restore.method = RestoreMethod::SparseLora;
    // Steps pass the end of the samples: the second round has another order.
    (run.restore.steps, run.restore.batch, run.restore.samples, run.restore.questions) = (3, 3, 5, 0);
    run.restore.contrastive = 0.0;
    run.restore.distill.weight = 0.1;
    run.evaluate.beams = 3;
    run.evaluate.answer = AskingConfig {
        prompt: Some("Question: {} Short answer:".to_owned()),
        text: TextRule::BlipQuestion,
        max_new_tokens: Some(4),
        repetition_penalty: Some(1.5),
        ..AskingConfig::default()
    };
    run.evaluate.caption = AskingConfig {
        prompt: Some(String::new()),
        max_new_tokens: Some(6),
        min_new_tokens: Some(6),
        ..AskingConfig::default()
    };
    run.evaluate.retrieval = RetrievalConfig { checkpoint: Some(matcher), rerank: 3, ..RetrievalConfig::default() };
    run
}

pub(crate) fn predictions(store: &Store, node: &StageNode) -> Vec<serde_json::Value> {
    let path = store.require(&node.key.hex()).unwrap().file("predictions.jsonl").unwrap();
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_paper_run_on_folders_is_certified_scored_and_repeated_to_the_bit() {
    for family in [Family::T5, Family::Llama] {
        let (models, first, second) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut run = paper_run(models.path(), family);
        // One of the two with planted scales, which make another folder of the given one.
        run.model.channel_spread = if family == Family::T5 { 0.7 } else { 0.0 };
        let nodes = stages(&run);
        let mut one = executor(first.path());
        for (executor, nodes) in [(&mut one, &nodes), (&mut executor(second.path()), &nodes)] {
            for node in nodes {
                crate::make(executor, node).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
            }
        }
        assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));

        let store = Store::open(first.path(), Vec::new()).unwrap();
        for node in &nodes {
            let entry = store.require(&node.key.hex()).unwrap();
            match &*node.stage {
                Stage::Prune { .. } | Stage::Merge { .. } => {
                    assert!(entry.result::<Certificate>().unwrap().holds());
                    assert_eq!(one.verify(node).unwrap(), Vec::<String>::new());
                }
                Stage::Evaluate { task, .. } => {
                    let score: TaskScore = entry.result().unwrap();
                    assert_eq!(score.task, *task);
                    assert!(score.score.as_ref().is_some_and(|score| score.value.is_finite()));
                    let predictions = predictions(&store, node);
                    let expected = match task {
                        Task::Vqav2 | Task::Gqa | Task::Okvqa => 4,
                        Task::Nocaps => 2,
                        // Two images searched with, and ten captions.
                        Task::Flickr30k => 2 + 10,
                        other => panic!("{other} was not asked for"),
                    };
                    assert_eq!(predictions.len(), expected, "{task}");
                    match task {
                        Task::Gqa => {
                            let prompt = predictions[0]["prompt"].as_str().unwrap();
                            assert!(prompt.starts_with("Question: what color is the "), "{prompt}");
                        }
                        Task::Nocaps => {
                            assert_eq!(score.score.as_ref().unwrap().metric, "cider");
                            assert!(score.parts.contains_key("bleu-1"));
                            assert_eq!(score.parts["in-domain"].items, 1);
                            assert_eq!(predictions[0]["prompt"], "");
                        }
                        Task::Flickr30k => assert!(score.parts.contains_key("text-recall@1")),
                        _ => {}
                    }
                }
                Stage::Dense { .. }
                | Stage::Rescale { .. }
                | Stage::Sensitivity { .. }
                | Stage::Statistics { .. }
                | Stage::Refine { .. }
                | Stage::Structure { .. }
                | Stage::Reconstruct { .. }
                | Stage::Adapt { .. } => {}
            }
        }
    }
}

/// Batches made ahead, pixels and features kept by one run for the next: the bytes of every stage are those without.
#[test]
fn loading_ahead_and_a_cache_change_no_byte() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = paper_run(models.path(), Family::T5);
    run.restore.vision.tune = false;
    let nodes = stages(&run);
    let plain = tempfile::tempdir().unwrap();
    execute(&mut executor(plain.path()), &nodes);
    for _ in 0..2 {
        let store = tempfile::tempdir().unwrap();
        let cache = Some(Cache::new(cache.path(), 100 << 20));
        let loading = Loading { ahead: Some(2), cache, ..Loading::default() };
        execute(&mut executor(store.path()).with_loading(loading), &nodes);
        assert_eq!(digests(store.path(), &nodes), digests(plain.path(), &nodes));
    }
    let usage = Cache::new(cache.path(), 100 << 20).usage();
    assert!(usage["pixels"].entries > 0 && usage["features"].entries > 0, "{usage:?}");
}

/// Features of an image encoder whose norms were trained are those of no other run, whichever came first.
#[test]
fn an_encoder_that_was_trained_at_all_shares_no_features() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = paper_run(models.path(), Family::T5);
    run.evaluate.tasks = vec![Task::Vqav2];
    run.restore.distill.weight = 0.0;
    let mut norms = run.clone();
    (norms.restore.vision.rank, norms.restore.vision.norms) = (0, true);
    norms.restore.learning_rate = 0.1;
    run.restore.vision.tune = false;
    let made = |run: &RunConfig, cache: Option<&Path>| {
        let (store, nodes) = (tempfile::tempdir().unwrap(), stages(run));
        let cache = cache.map(|folder| Cache::new(folder, 100 << 20));
        execute(&mut executor(store.path()).with_loading(Loading { cache, ..Loading::default() }), &nodes);
        digests(store.path(), &nodes)
    };
    for run in [&norms, &run, &norms, &run] {
        assert_eq!(made(run, Some(cache.path())), made(run, None));
    }
}

/// What a teacher said about captions is not what it says about others in the same folder.
#[test]
fn a_teacher_is_asked_again_about_other_captions() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = paper_run(models.path(), Family::T5);
    let root = models.path().join("data");
    copy(run.data.root.as_deref().unwrap(), &root);
    run.data.root = Some(root.clone());
    run.data.restoration.corpora = vec![Corpus::Coco];
    run.restore.distill.top_k = Some(4);
    run.evaluate.tasks = Vec::new();
    let made = |cache: Option<&Path>| {
        let store = tempfile::tempdir().unwrap();
        let mut nodes = stages(&run);
        let contents = Store::open(store.path(), Vec::new()).unwrap();
        let contents = ressa_contents::Contents::new(&contents, "");
        let adapt = nodes.iter().find(|node| node.stage.kind() == "adapt").expect("a training");
        let readings = contents.readings(&adapt.stage);
        for node in nodes.iter_mut().filter(|node| ["adapt", "merge"].contains(&node.stage.kind())) {
            node.readings = readings.clone();
        }
        let cache = cache.map(|folder| Cache::new(folder, 100 << 20));
        execute(&mut executor(store.path()).with_loading(Loading { cache, ..Loading::default() }), &nodes);
        digests(store.path(), &nodes)
    };
    let first = made(Some(cache.path()));
    assert!(Cache::new(cache.path(), 100 << 20).usage()["teacher"].entries > 0);
    let captions = root.join("coco/annotations/coco_karpathy_train.json");
    let text = fs::read_to_string(&captions).unwrap();
    fs::write(&captions, text.replace("A yellow box, in the grass.", "A black kite, on a table.")).unwrap();
    let second = made(Some(cache.path()));
    assert_ne!(first, second, "the captions are others");
    assert_eq!(second, made(None));
}

/// A teacher of another folder whose answers are all in the cache: its weights are not opened.
#[test]
fn a_teacher_that_was_asked_before_is_not_read_again() {
    let (models, others, cache) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let teacher = paper_run(&others.path().join("one"), Family::T5).model.checkpoint.clone().unwrap();
    let twin = paper_run(&others.path().join("two"), Family::T5).model.checkpoint.clone().unwrap();
    let mut run = paper_run(models.path(), Family::T5);
    run.restore.distill.top_k = Some(4);
    run.evaluate.tasks = Vec::new();
    let mut taught_by = |folder: &Path| {
        run.restore.distill.teacher = Some(folder.to_owned());
        stages(&run)
    };
    // A stage compares what it reads with its plan, so that is done on a copy of the same content.
    let planned = taught_by(&twin);
    let root = tempfile::tempdir().unwrap();
    let contents = Store::open(root.path(), Vec::new()).unwrap();
    let contents = ressa_contents::Contents::new(&contents, "");
    let adapt = planned.iter().find(|node| node.stage.kind() == "adapt").expect("a training");
    let readings = contents.readings(&adapt.stage);
    let mut nodes = taught_by(&teacher);
    for node in nodes.iter_mut().filter(|node| ["adapt", "merge"].contains(&node.stage.kind())) {
        node.readings = readings.clone();
    }
    let made = |cache: Option<&Path>| {
        let store = tempfile::tempdir().unwrap();
        let cache = cache.map(|folder| Cache::new(folder, 100 << 20));
        let mut executor = executor(store.path()).with_loading(Loading { cache, ..Loading::default() });
        let found = nodes.iter().try_for_each(|node| crate::make(&mut executor, node).map(drop));
        found.map(|()| digests(store.path(), &nodes)).map_err(|error| error.to_string())
    };
    let first = made(Some(cache.path())).unwrap();
    fs::remove_file(teacher.join("model.safetensors")).unwrap();
    assert_eq!(made(Some(cache.path())).unwrap(), first);
    let error = made(None).unwrap_err();
    assert!(error.contains("model.safetensors"), "{error}");
}

/// A teacher whose vocabulary is padded to another width teaches, whether its answers are in the cache or not; one that lacks tokens is refused before.
#[test]
fn a_teacher_may_be_padded_otherwise() {
    let (models, others, cache) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = paper_run(models.path(), Family::T5);
    run.evaluate.tasks = Vec::new();
    let mut made = |words: i64, cached: bool| {
        let teacher = others.path().join(words.to_string());
        checkpoint(&teacher, &mut presets::tiny_flant5(words), Family::T5, 16, 8);
        let distill = &mut run.restore.distill;
        (distill.top_k, distill.teacher) = (Some(4), Some(teacher));
        let store = tempfile::tempdir().unwrap();
        let mut nodes = stages(&run);
        let contents = Store::open(store.path(), Vec::new()).unwrap();
        let contents = ressa_contents::Contents::new(&contents, "");
        let readings =
            nodes.iter().find(|node| node.stage.kind() == "adapt").map(|node| contents.readings(&node.stage));
        for node in nodes.iter_mut().filter(|node| ["adapt", "merge"].contains(&node.stage.kind())) {
            node.readings = readings.clone().expect("a training");
        }
        let cache = cached.then(|| Cache::new(cache.path(), 100 << 20));
        let mut executor = executor(store.path()).with_loading(Loading { cache, ..Loading::default() });
        let found = nodes.iter().try_for_each(|node| crate::make(&mut executor, node).map(drop));
        found.map(|()| digests(store.path(), &nodes)).map_err(|error| error.to_string())
    };
    let words = VOCABULARY_SIZE as i64;
    let first = made(words + 7, true).unwrap();
    assert_eq!(made(words + 7, true).unwrap(), first);
    assert_eq!(made(words + 7, false).unwrap(), first);
    let tokens = ressa_data::tokens_made(&models.path().join("model")).unwrap() as i64;
    let error = made(tokens - 1, true).unwrap_err();
    assert!(error.contains("ends before the") && error.contains("tokens of the tokenizer"), "{error}");
}

/// A training that leaves the image encoder as it is reads features from the cache, and publishes the same bytes whenever it does; those of one
/// without a cache up to rounding. Pruning, training and evaluation ask easy-VQA's questions.
#[test]
fn a_connector_trains_on_features_that_are_kept() {
    let (models, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = paper_run(models.path(), Family::Llama);
    run.restore.method = RestoreMethod::Lora;
    run.prune = Default::default();
    (run.restore.vision.tune, run.restore.language.tune) = (false, false);
    run.restore.distill.weight = 0.0;
    (run.restore.align, run.restore.samples) = (2, 3);
    let qformer = &mut run.restore.connector;
    (qformer.full, qformer.queries) = (true, true);
    qformer.targets = vec!["crossattention".to_owned(), "language_projection".to_owned()];
    run.data.restoration = CorporaConfig {
        corpora: vec![Corpus::EasyVqa],
        question: Some("Question: {} Short answer:".to_owned()),
        ..CorporaConfig::default()
    };
    run.evaluate.tasks = vec![Task::EasyVqa];
    let nodes = stages(&run);
    let plain = tempfile::tempdir().unwrap();
    execute(&mut executor(plain.path()), &nodes);
    let run = |cache: &Path, size| {
        let store = tempfile::tempdir().unwrap();
        let loading = Loading { cache: Some(Cache::new(cache, size)), ..Loading::default() };
        execute(&mut executor(store.path()).with_loading(loading), &nodes);
        store
    };
    // Features computed for all images beforehand are rounded as those of other batches are; kept ones are what they were.
    let last_loss = |store: &Path| -> f64 {
        let adapt = nodes.iter().find(|node| node.stage.kind() == "adapt").expect("a training");
        let store = Store::open(store, Vec::new()).unwrap();
        let result: serde_json::Value = store.require(&adapt.key.hex()).unwrap().result().unwrap();
        result["last-loss"].as_f64().expect("a number")
    };
    let (first, second) = (run(cache.path(), 100 << 20), run(cache.path(), 100 << 20));
    assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));
    assert!((last_loss(first.path()) - last_loss(plain.path())).abs() < 1e-4);
    // No room for features: pixels, as without a cache.
    let small = tempfile::tempdir().unwrap();
    assert_eq!(digests(run(small.path(), 100).path(), &nodes), digests(plain.path(), &nodes));
    let store = Store::open(plain.path(), Vec::new()).unwrap();
    let evaluated = nodes.last().unwrap();
    let score: TaskScore = store.require(&evaluated.key.hex()).unwrap().result().unwrap();
    assert_eq!((score.score.unwrap().items, score.parts["yes-no"].items), (4, 2));
    let prompt = predictions(&store, evaluated)[0]["prompt"].as_str().unwrap().to_owned();
    assert_eq!(prompt, "Question: what is the red shape? Short answer:");
}

/// An image of a training and one of the calibration cannot be read: the next ones stand in for them, and the training counts it. Whether
/// a file is damaged or missing makes no difference, nor whether batches are made ahead.
#[test]
fn unreadable_images_are_replaced_and_counted() {
    let models = tempfile::tempdir().unwrap();
    let mut run = paper_run(models.path(), Family::T5);
    let root = models.path().join("data");
    copy(run.data.root.as_deref().unwrap(), &root);
    let trained = root.join("coco/images/train2014/COCO_train2014_000000000001.jpg");
    fs::write(&trained, "no image").unwrap();
    fs::write(root.join("vg/images/VG_100K/2.jpg"), "").unwrap();
    run.data.root = Some(root.clone());
    run.prune.calibration.images = 4;
    run.evaluate.tasks = Vec::new();
    let nodes = stages(&run);
    let mut outputs = Vec::new();
    for ahead in [0, 3] {
        let folder = tempfile::tempdir().unwrap();
        let loading = Loading { ahead: Some(ahead), ..Loading::default() };
        execute(&mut executor(folder.path()).with_loading(loading), &nodes);
        outputs.push(digests(folder.path(), &nodes));
        let _ = fs::remove_file(&trained);
    }
    assert_eq!(outputs[0], outputs[1]);
    let adapted = outputs[0].iter().find(|line| line.starts_with("adapt")).unwrap();
    assert!(adapted.contains(r#""skipped-images":"#), "{adapted}");
    // Five samples are asked for, and the two corpora have eight; of four calibration entries two show the image that cannot be read.
    assert!(!adapted.contains(r#""images":"#), "{adapted}");
    for pruned in outputs[0].iter().filter(|line| line.starts_with("prune")) {
        assert!(pruned.contains(r#""calibration":{"used":2,"asked":4}"#), "{pruned}");
    }

    // Most of a draw: it is not what was asked for.
    fs::remove_file(root.join("coco/images/train2014/COCO_train2014_000000000002.jpg")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let failure = nodes.iter().find_map(|node| crate::make(&mut executor, node).err()).unwrap().to_string();
    assert!(failure.contains("images cannot be read") && failure.contains("data.root"), "{failure}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let (item, target) = (item.as_ref().unwrap().path(), to.join(item.as_ref().unwrap().file_name()));
        if item.is_dir() {
            copy(&item, &target);
        } else {
            fs::copy(&item, &target).unwrap();
        }
    }
}

#[test]
fn an_image_that_is_no_image_is_named() {
    let models = tempfile::tempdir().unwrap();
    let mut run = paper_run(models.path(), Family::T5);
    let root = models.path().join("data");
    let annotations = root.join("gqa/annotations");
    fs::create_dir_all(&annotations).unwrap();
    fs::create_dir_all(root.join("gqa/images")).unwrap();
    let entry = r#"[{"image": "n1.jpg", "question": "is it?", "answer": "no", "question_id": "1"}]"#;
    fs::write(annotations.join("testdev_balanced_questions.json"), entry).unwrap();
    fs::write(root.join("gqa/images/n1.jpg"), "").unwrap();
    run.data.root = Some(root);
    run.prune = Default::default();
    run.restore = Default::default();
    run.evaluate.tasks = vec![Task::Gqa];
    let store = tempfile::tempdir().unwrap();
    let mut executor = executor(store.path());
    let nodes = stages(&run);
    crate::make(&mut executor, &nodes[0]).unwrap();
    let error = crate::make(&mut executor, &nodes[1]).unwrap_err().to_string();
    assert!(error.contains("gqa/images/n1.jpg"), "{error}");
}
