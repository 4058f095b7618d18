//! Entries of corpora that losses are measured on, beside those that batches are drawn from.

use std::{collections::BTreeSet, path::PathBuf};

use ressa_data::{Captioned, Captions, stream::Purpose};
use ressa_experiment::{
    RunConfig, Stage,
    config::{CorporaConfig, Corpus, RestoreMethod},
    loading::{LoadingConfig, LoadingMethod},
    model::{ModelConfig, Preset},
    stage::{AdaptTraining, stages},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/published")
}

fn training(held_out: u32) -> AdaptTraining {
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    (run.restore.method, run.restore.samples) = (RestoreMethod::Lora, 5);
    let method = if held_out > 0 { LoadingMethod::Dynamic } else { LoadingMethod::Fixed };
    run.restore.loading = LoadingConfig { method, held_out, ..LoadingConfig::default() };
    let found = stages(&run).into_iter().find_map(|node| match &*node.stage {
        Stage::Adapt { training, .. } => Some((**training).clone()),
        _ => None,
    });
    found.expect("a training")
}

#[test]
fn no_batch_is_drawn_from_what_is_held_out() {
    // Four entries each.
    let config = CorporaConfig { corpora: vec![Corpus::Coco, Corpus::Cc3m], ..CorporaConfig::default() };
    let parts = |held_out| Captions::of_training(&config, &root(), &training(held_out), 3);
    let [fixed, none] = parts(0).expect("complete corpora");
    let before = Captions::drawn(&config, &root(), 5, 3, Purpose::RestorationEntry).expect("complete corpora");
    assert_eq!((fixed.entries(), fixed.of_corpora()), (before.entries(), &[3, 2][..]));
    assert_eq!((none.entries().len(), none.of_corpora()), (0, &[0, 0][..]));

    let [drawn, held_out] = parts(1).expect("complete corpora");
    assert_eq!(drawn.entries(), fixed.entries(), "corpora have enough for both");
    assert_eq!(held_out.of_corpora(), [1, 1]);
    let [fewer, held_out] = parts(2).expect("complete corpora");
    assert_eq!((fewer.of_corpora(), held_out.of_corpora()), (&[2, 2][..], &[2, 2][..]));
    let all: BTreeSet<(&PathBuf, &str)> = fewer.entries().iter().chain(held_out.entries()).map(named).collect();
    assert_eq!(all.len(), 8);
    assert_eq!(Captions::available_beside(&config, &root(), 5, 2).expect("counted"), 4);

    let error = parts(4).expect_err("nothing is left").to_string();
    assert!(error.contains("of its 4 entries, 4 held out leave none") && error.contains("held-out"), "{error}");
    assert_eq!(Captions::available_beside(&config, &root(), 5, 4).expect_err("nothing is left").to_string(), error);
}

fn named(entry: &Captioned) -> (&PathBuf, &str) {
    (&entry.image, &entry.caption)
}
