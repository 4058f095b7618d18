//! What holds whatever the constants are.

use std::path::Path;

use ressa_checkpoint::published_config;
use ressa_experiment::{
    RunConfig, Stage, StageNode, Task,
    config::{Corpus, Metric, RestoreMethod, SmoothingMethod},
    job::Compute,
    loading::LoadingMethod,
    stage::stages,
};
use ressa_predict::{Model, Predictor, Shared};

use crate::{HOST, of_kind, paper, predictions};

const XL: &str = "instructblip-flan-t5-xl";

fn with(change: impl Fn(&mut RunConfig)) -> RunConfig {
    let mut run = paper(XL, 64);
    change(&mut run);
    run
}

#[test]
fn more_work_takes_longer_and_more_memory() {
    let base = predictions(&paper(XL, 64), "h200");
    for kind in ["adapt", "evaluate"] {
        let own = of_kind(&base, kind);
        let single = of_kind(&predictions(&with(|run| run.model.compute = Some(Compute::Float32)), "h200"), kind);
        assert!(single.seconds > own.seconds && single.peak_bytes > own.peak_bytes, "{kind}: f32 is slower and larger");
        let faster = of_kind(&base, kind).seconds < of_kind(&predictions(&paper(XL, 64), "a100-80"), kind).seconds;
        assert!(faster, "{kind}: an H200 is faster than an A100");
    }
    let doubled = of_kind(&predictions(&with(|run| run.restore.steps *= 2), "h200"), "adapt");
    let own = of_kind(&base, "adapt");
    assert!((doubled.seconds / own.seconds - 2.0).abs() < 0.01 && doubled.peak_bytes == own.peak_bytes);
    // Six exchanges, each with the gradients of a part of the weights at a time.
    let evolving =
        |run: &mut RunConfig| (run.restore.evolve.every, run.restore.method) = (10, RestoreMethod::SparseLora);
    let evolved = of_kind(&predictions(&with(evolving), "h200"), "adapt");
    let masked = of_kind(&predictions(&with(|run| run.restore.method = RestoreMethod::SparseLora), "h200"), "adapt");
    assert!(evolved.seconds > masked.seconds && evolved.peak_bytes > masked.peak_bytes);
    let noisy = of_kind(&predictions(&with(|run| run.restore.perturb.sigma = 0.03), "h200"), "adapt");
    assert!(noisy.seconds > own.seconds && noisy.tflop > own.tflop);
    // Held-out losses of two corpora in 390 steps: the dense model's once, and the student's 38 or 77 times.
    let divided = |every| {
        let change = |run: &mut RunConfig| {
            run.data.restoration.corpora = vec![Corpus::Coco, Corpus::Cc3m];
            (run.restore.loading.method, run.restore.loading.every) = (LoadingMethod::Dynamic, every);
        };
        of_kind(&predictions(&with(change), "h200"), "adapt")
    };
    let (seldom, often) = (divided(10), divided(5));
    assert!(seldom.seconds > own.seconds && seldom.peak_bytes == own.peak_bytes);
    assert!(((often.tflop - own.tflop) / (seldom.tflop - own.tflop) - 2.0).abs() < 1e-3, "39 and 78 measurements");
    let untaught = of_kind(&predictions(&with(|run| run.restore.distill.weight = 0.0), "h200"), "adapt");
    assert!(untaught.tflop < own.tflop * 0.8, "a teacher is a fourth of the work");
}

#[test]
fn a_training_that_does_not_fit_is_tried_with_recomputation() {
    let small = of_kind(&predictions(&paper(XL, 8), "rtx-4090"), "adapt");
    let large = of_kind(&predictions(&paper(XL, 8), "h200"), "adapt");
    assert_eq!((small.fallback.as_deref(), small.fits), (Some("recomputes blocks"), true));
    assert!(small.peak_bytes < large.peak_bytes && small.tflop > large.tflop);
    let many = of_kind(&predictions(&paper(XL, 1024), "rtx-4090"), "adapt");
    assert!(many.fits && many.fallback.expect("it must be divided").ends_with(" images at a time"));
    let never = of_kind(&predictions(&paper("instructblip-vicuna-13b", 16), "rtx-4090"), "adapt");
    assert!(!never.fits);
}

#[test]
fn methods_cost_what_they_do() {
    let seconds = |metric| {
        let run = with(|run| {
            run.prune.metric = metric;
            run.prune.calibration.images = 128;
            (run.prune.calibration.questions, run.prune.calibration.captions) = (0, 1);
        });
        let found = predictions(&run, "h100");
        let of_prune = found.iter().filter(|(node, _)| node.stage.kind() == "prune");
        of_prune.map(|(_, prediction)| prediction.seconds).sum::<f64>()
    };
    assert!(seconds(Metric::Magnitude) < seconds(Metric::Wanda));
    assert!(seconds(Metric::Wanda) < seconds(Metric::SparseGpt));
}

/// Searches of wide decoder-only models take fewer prompts at once instead of more memory.
#[test]
fn an_evaluation_takes_at_most_12_gb_beside_the_weights() {
    for model in [XL, "instructblip-vicuna-7b", "instructblip-vicuna-13b", "blip2-opt-6.7b"] {
        let mut run = paper(model, 16);
        run.evaluate.tasks = vec![Task::Vqav2, Task::Nocaps];
        (run.evaluate.caption.min_new_tokens, run.evaluate.caption.max_new_tokens) = (Some(79), Some(79));
        let config = published_config(model).expect("published");
        let weights = Model::of(&config).expect("supported").parameters * 2.0;
        for (node, prediction) in predictions(&run, "h200").iter().filter(|(node, _)| node.stage.kind() == "evaluate") {
            let beside = prediction.peak_bytes as f64 - weights;
            assert!(beside > 0.0 && beside < 12e9, "{model}, {:?}: {beside:.2e}", node.stage);
        }
    }
}

#[test]
fn an_evaluation_that_does_not_fit_is_tried_with_fewer_prompts() {
    let run = paper("instructblip-vicuna-7b", 16);
    let [small, large] = ["rtx-4090", "h100"].map(|card| of_kind(&predictions(&run, card), "evaluate"));
    assert_eq!((small.fits, small.fallback.as_deref()), (true, Some("at most 32 prompts at a time")));
    assert_eq!((large.fits, large.fallback), (true, None));
    assert!(small.peak_bytes < large.peak_bytes && small.launches > large.launches);
}

/// Votes answer every copy, retrieved captions are read, and what is perturbed costs nothing.
#[test]
fn evaluations_that_ask_otherwise_cost_what_they_ask() {
    let of = |change: &dyn Fn(&mut RunConfig)| {
        let run = with(|run| {
            run.evaluate.tasks = vec![Task::Vqav2];
            change(run);
        });
        of_kind(&predictions(&run, "h200"), "evaluate")
    };
    let plain = of(&|_| ());
    let perturbed = of(&|run| run.evaluate.perturb.rate = 0.3);
    assert_eq!((perturbed.tflop, perturbed.peak_bytes), (plain.tflop, plain.peak_bytes));
    let voted = |method| move |run: &mut RunConfig| run.evaluate.smoothing.method = method;
    let (masked, denoised) = (of(&voted(SmoothingMethod::Masked)), of(&voted(SmoothingMethod::SelfDenoised)));
    assert!(plain.seconds < masked.seconds && masked.seconds < 5.0 * plain.seconds, "images are read once");
    assert!(masked.seconds < denoised.seconds);
    let retrieved = of(&|run| run.evaluate.retrieved.captions = 3);
    assert!(retrieved.tflop > plain.tflop && retrieved.tflop < 4.0 * plain.tflop);
    let large = of(&|run| (run.evaluate.retrieved.captions, run.evaluate.retrieved.pool) = (3, 600_000));
    let more = large.peak_bytes as f64 - retrieved.peak_bytes as f64;
    assert!((5e8..2e9).contains(&more), "embeddings and the similarities at once: {more}");
}

/// What stages share is counted once, as the program shares it.
#[test]
fn later_stages_take_what_earlier_ones_left_in_the_cache() {
    let run = with(|run| {
        run.restore.method = RestoreMethod::None;
        run.evaluate.tasks = vec![Task::Gqa, Task::Vqav2];
    });
    let nodes = stages(&run);
    let predictor = Predictor::new(&nodes, Path::new("."), |_| None).expect("known");
    let cards = crate::cards();
    let card = cards.get("h100").expect("a card");
    let evaluation = |task: Task| {
        let is_task = |node: &&StageNode| matches!(&*node.stage, Stage::Evaluate { task: own, .. } if *own == task);
        nodes.iter().find(is_task).expect("the run has one")
    };
    let mut shared = Shared::new(20_000_000_000);
    let mut tflop = |task| predictor.stage(evaluation(task), card, HOST, &mut shared).expect("known").tflop;
    let [first, second] = [tflop(Task::Gqa), tflop(Task::Gqa)];
    assert!(second < first * 0.95, "features of the first are there: {first}, {second}");
    let [first, second] = [tflop(Task::Vqav2), tflop(Task::Vqav2)];
    assert_eq!(first, second, "features of 40,504 images take more than half of the cache");

    let distilled = |top_k| with(move |run| run.restore.distill.top_k = top_k);
    let twice = |run: &RunConfig, card: &str| {
        let card = cards.get(card).expect("a card");
        let nodes = stages(run);
        let predictor = Predictor::new(&nodes, Path::new("."), |_| None).expect("known");
        let adapt = nodes.iter().find(|node| node.stage.kind() == "adapt").expect("a training");
        let mut shared = Shared::new(20_000_000_000);
        [(), ()].map(|()| predictor.stage(adapt, card, HOST, &mut shared).expect("known"))
    };
    let work = |run: &RunConfig| twice(run, "h100").map(|found| found.tflop);
    let [first, second] = work(&distilled(Some(256)));
    assert!(second < first * 0.8, "the teacher's outputs are there: {first}, {second}");
    let [first, second] = work(&distilled(None));
    assert_eq!(first, second, "whole logits are not kept");

    // The weights of another teacher are read by the first training alone.
    let mut run = distilled(Some(256));
    run.restore.distill.teacher = Some("instructblip-flan-t5-xxl".into());
    let [first, second] = twice(&run, "h200").map(|found| found.peak_bytes as f64);
    assert!(first - second > 20e9, "11 billion weights in bf16: {first} {second}");
}

/// Behind removed queries the language model reads an image as fewer tokens.
#[test]
fn fewer_queries_are_less_work() {
    let behind = |queries: u32| {
        with(|run| {
            let step = |kind: &str, body: serde_json::Value| serde_json::from_value(serde_json::json!({ kind: body }));
            let target = serde_json::json!({ "name": "fewer", "score": "random", "connector.queries": queries });
            let named = |name: &str| serde_json::json!({ "name": name });
            let steps = [("structure", target), ("prune", named("half")), ("restore", named("tune"))];
            run.steps =
                steps.into_iter().map(|(kind, body)| step(kind, body).expect("a step")).collect::<Vec<_>>().into();
        })
    };
    let [all, few] = [32, 8].map(|queries| predictions(&behind(queries), "h200"));
    for kind in ["adapt", "evaluate"] {
        let [all, few] = [&all, &few].map(|found| of_kind(found, kind));
        assert!(few.tflop < all.tflop && few.peak_bytes < all.peak_bytes, "{kind}: {} {}", few.tflop, all.tflop);
    }
}
