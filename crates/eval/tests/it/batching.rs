//! How a benchmark is cut, loaded ahead and kept changes no answer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_data::{
    Benchmark, Content, Family, Item, Processor, World, tokenizer::VOCABULARY_SIZE, write_processor_files,
};
use ressa_eval::{Batching, FeatureCache, PredictOptions, Prediction, Prepared, predict};
use ressa_experiment::{Task, config::DataConfig};
use ressa_models::{VisionLanguage, folder::load_options, load_folder_with, presets};
use ressa_runtime::Device;
use ressa_store::Cache;

fn answers(model: &dyn VisionLanguage, prepared: &Prepared, beams: usize, batching: Batching) -> Vec<Prediction> {
    let options = PredictOptions { beams, batching, ..PredictOptions::default() };
    predict(model, prepared, &options, &mut |_| ()).expect("predictions")
}

/// The model folders that come with the repository.
fn shipped() -> Vec<PathBuf> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/store");
    let inside = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).expect("a folder").map(|item| item.expect("an item").path()).collect()
    };
    inside(&store)
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|shard| inside(shard))
        .map(|key| key.join("model"))
        .collect()
}

/// Padding is masked, so sums differ only in the order in which a product of another size is added up. Where two words are that close,
/// either may be said: one item of a task may differ, and none has been seen to.
#[test]
fn padded_batches_of_the_shipped_models_say_what_each_prompt_alone_does() {
    let world = World::new(&DataConfig::default()).expect("shapes");
    let folders = shipped();
    assert_eq!(folders.len(), 2);
    for folder in folders {
        let processor = Processor::load(&folder).expect("files are read");
        let options = load_options(&folder, Device::Cpu, None).expect("options");
        let model = load_folder_with(&folder, &options).expect("a model");
        for (task, beams) in Task::PAPER.into_iter().zip([1, 3].into_iter().cycle()) {
            let prepared = Prepared::new(&processor, &world.benchmark(task, 12), Device::Cpu).expect("known words");
            let alone = answers(model.as_ref(), &prepared, beams, Batching::exact(1));
            let padded = answers(model.as_ref(), &prepared, beams, Batching::padded(64));
            let differ = alone.iter().zip(&padded).filter(|(alone, padded)| alone != padded).count();
            assert!(padded.len() == alone.len() && differ <= 1, "{task}, {beams} beams: {differ}");
        }
    }
}

/// Image files, and questions of several lengths about them.
fn files(folder: &Path, count: usize) -> Benchmark {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published/gqa/images");
    let image = |number: usize| {
        let path = folder.join(format!("{number}.jpg"));
        fs::copy(source.join(format!("n00000{}.jpg", number % 2)), &path).expect("a copy");
        path
    };
    let item = |number: usize| Item {
        id: number.to_string(),
        image: number * 5 % count,
        content: Content::Question {
            text: ["is it", "is there a red circle", "red", "what color is the square"][number % 4].to_owned(),
            answers: vec!["yes".to_owned()],
            template: None,
        },
    };
    Benchmark::on_disk(Task::Gqa, (0..count).map(image).collect(), (0..3 * count).map(item).collect())
}

#[test]
fn loading_ahead_and_keeping_pixels_and_features_change_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_processor_files(folder.path(), Family::T5, 10).expect("files are written");
    let processor = Processor::load(folder.path()).expect("files are read");
    let model = presets::random(&presets::shapes_flant5(VOCABULARY_SIZE as i64), 3).expect("a model");
    let benchmark = files(folder.path(), 7);
    let prepared = Prepared::new(&processor, &benchmark, Device::Cpu).expect("known words");
    let small = |ahead| Batching { images: 4, ahead, ..Batching::exact(3) };
    let expected = answers(&model, &prepared, 2, small(0));
    for ahead in 1..4 {
        assert_eq!(answers(&model, &prepared, 2, small(ahead)), expected, "{ahead} ahead");
    }

    let cache = Cache::new(folder.path().join("cache"), 100 << 20);
    let features = FeatureCache::new(&cache, "this encoder");
    let entries = |kind: &str| cache.usage().get(kind).map_or(0, |usage| usage.entries);
    for (pixels, features) in [(true, false), (true, true), (false, true)] {
        let features = features.then(|| FeatureCache::new(&cache, "this encoder"));
        for ahead in [0, 2] {
            let batching =
                Batching { pixels: pixels.then(|| cache.clone()), features: features.clone(), ..small(ahead) };
            assert_eq!(answers(&model, &prepared, 2, batching), expected);
        }
    }
    assert_eq!((entries("pixels"), entries("features")), (7, 7));

    // Some known, some not: one image is changed, and another one's features are lost.
    fs::copy(folder.path().join("0.jpg"), folder.path().join("3.jpg")).expect("a copy");
    let batching = Batching { pixels: Some(cache.clone()), features: Some(features), ..small(1) };
    let mixed = answers(&model, &prepared, 2, batching.clone());
    assert_eq!(mixed, answers(&model, &prepared, 2, small(0)));
    // Features of another encoder are others.
    let other = Batching { features: Some(FeatureCache::new(&cache, "another encoder")), ..batching };
    assert_eq!(answers(&model, &prepared, 2, other), mixed);
    assert!(entries("features") >= 14);
}

#[test]
fn features_that_do_not_fit_are_not_kept_and_a_missing_image_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_processor_files(folder.path(), Family::T5, 10).expect("files are written");
    let processor = Processor::load(folder.path()).expect("files are read");
    let model = presets::random(&presets::shapes_flant5(VOCABULARY_SIZE as i64), 3).expect("a model");
    let prepared = Prepared::new(&processor, &files(folder.path(), 7), Device::Cpu).expect("known words");
    let cache = Cache::new(folder.path().join("cache"), 20_000);
    let features = Some(FeatureCache::new(&cache, "this encoder"));
    let batching = Batching { ahead: 2, features, ..Batching::exact(3) };
    answers(&model, &prepared, 1, batching.clone());
    assert!(cache.usage().is_empty());

    fs::remove_file(folder.path().join("5.jpg")).expect("it was there");
    let options = PredictOptions { batching, ..PredictOptions::default() };
    let error = predict(&model, &prepared, &options, &mut |_| ()).expect_err("an image is missing").to_string();
    assert!(error.contains("5.jpg"), "{error}");
}
