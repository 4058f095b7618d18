//! Perplexities beside those of transformers (`scripts/export_perplexity_goldens.py`).

use std::path::{Path, PathBuf};

use ressa_eval::{
    EvalError, Prediction, ScoreOptions, Windows,
    perplexity::{check, perplexity},
    score,
};
use ressa_experiment::Task;
use ressa_models::{Model, folder::load_options, load_model};
use ressa_runtime::Device;
use serde::Deserialize;

/// Largest difference of a mean log-likelihood in f32: sums of another order.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    folder: String,
    window: usize,
    ids: Vec<u32>,
    nll: Vec<f64>,
    perplexity: f64,
}

fn model(name: &str) -> Model {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens").join(name);
    load_model(&folder, &load_options(&folder, Device::Cpu, None).expect("options")).expect("a model")
}

#[test]
fn windows_have_the_likelihoods_that_transformers_finds() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../fixtures/perplexity.json")).expect("JSON");
    assert_eq!(goldens.len(), 2);
    for golden in goldens {
        let model = model(&golden.folder);
        let windows = Windows { tokens: golden.window, most: None };
        let found = perplexity(&model, &golden.ids, windows, Device::Cpu, &mut |_| ()).expect("a perplexity");
        assert_eq!(found.len(), golden.nll.len());
        for (prediction, expected) in found.iter().zip(&golden.nll) {
            let Prediction::Window { nll, tokens, .. } = prediction else { panic!("{prediction:?}") };
            assert_eq!(*tokens as usize, golden.window - 1);
            assert!((nll - expected).abs() < TOLERANCE, "{}: {nll} instead of {expected}", golden.folder);
        }
        let scored = score(Task::Perplexity, &found, &ScoreOptions::default()).expect("a score");
        let value = scored.score.expect("defined").value;
        assert!((value / golden.perplexity - 1.0).abs() < TOLERANCE, "{value} instead of {}", golden.perplexity);
        // The first windows alone are the first of all.
        let windows = Windows { most: Some(2), ..windows };
        let first = perplexity(&model, &golden.ids, windows, Device::Cpu, &mut |_| ()).expect("a perplexity");
        assert_eq!(first, found[..2]);
    }
}

#[test]
fn what_has_no_perplexity_is_refused() {
    let opt = model("blip2-opt");
    let said = |result: Result<Vec<Prediction>, EvalError>| result.expect_err("refused").to_string();
    let of = |ids: usize, tokens| {
        said(perplexity(&opt, &vec![5; ids], Windows { tokens, most: None }, Device::Cpu, &mut |_| ()))
    };
    assert_eq!(of(6, 7), "the text has 6 tokens, and a window 7; set a smaller window");
    assert_eq!(of(6, 1), "perplexity: a window of 1 tokens has none to predict; it needs at least 2");
    let long = of(1 << 20, 1 << 20);
    assert!(long.contains("positions; set a smaller window"), "{long}");
    let t5 = check(&model("blip2-flant5"), 8).expect_err("an encoder reads").to_string();
    assert!(t5.contains("decoder-only"), "{t5}");
    let mute = check(&model("blip2-itm"), 8).expect_err("nothing writes").to_string();
    assert!(mute.contains("no language model"), "{mute}");
}
