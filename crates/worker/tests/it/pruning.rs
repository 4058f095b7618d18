//! Pruning a folder through the worker, as the front program has it done: killed, gone on with, refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use ressa_experiment::{
    Pattern,
    allocation::AllocationMethod,
    config::Metric,
    job::{CalibrationRequest, CalibrationSource, Compute, Job, ModelAt, Prune, RandomCheckpoint},
    protocol::Failure,
};
use serde_json::Value;

use crate::worker;

/// An InstructBLIP with a LLaMA decoder, several blocks deep so that there is a middle to be killed in.
const CONFIG: &str = r#"{"model_type": "instructblip", "dtype": "bfloat16", "num_query_tokens": 4, "image_token_index": 199,
    "architectures": ["InstructBlipForConditionalGeneration"],
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14},
    "qformer_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "encoder_hidden_size": 32, "vocab_size": 200, "max_position_embeddings": 64, "cross_attention_frequency": 2},
    "text_config": {"model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 6,
        "num_attention_heads": 4, "vocab_size": 200, "max_position_embeddings": 128}}"#;

/// Has a job done on the CPU.
fn work(job: &Job) -> Result<Value, Failure> {
    worker::work(worker::program("job", "cpu"), job)
}

fn start(job: &Job) -> Child {
    worker::start(worker::program("job", "cpu"), job)
}

/// A dense folder, and a job that prunes half of both towers by SparseGPT with budgets divided by outliers.
fn begin(root: &Path) -> Prune {
    let like = root.join("config.json");
    fs::write(&like, CONFIG).unwrap();
    let (like, folder) = (like.display().to_string(), root.join("dense"));
    let dense = RandomCheckpoint { like, output: folder.clone(), seed: 1, dtype: Compute::Bfloat16 };
    work(&Job::RandomCheckpoint(dense)).unwrap();
    let sample = |number: u32| {
        let image = root.join(format!("{number}.bmp"));
        let mut bytes = b"BM".to_vec();
        for value in [54 + 24 * 24 * 3, 0, 54, 40, 24, 24, 1 | 24 << 16, 0, 0, 0, 0, 0, 0u32] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend((0..24 * 24 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_mul(number + 1) >> 24) as u8));
        fs::write(&image, bytes).unwrap();
        CalibrationRequest { image, prompt: "what is this".to_owned(), answer: "a circle".to_owned() }
    };
    let mut prune = ressa_experiment::config::PruneConfig { metric: Metric::SparseGpt, ..Default::default() };
    (prune.vision.sparsity, prune.language.sparsity) = (0.5, 0.5);
    (prune.allocation.method, prune.allocation.m) = (AllocationMethod::Owl, 2.0);
    Prune {
        model: ModelAt { folder, compute: None },
        prune,
        calibration: CalibrationSource::Listed((0..6).map(sample).collect()),
        samples: None,
        seed: 0,
        memory_limit: None,
        spill: true,
        device_activations: 0,
        checkpoint_after: 0.0,
        output: root.join("sparse"),
    }
}

fn prune(job: &Prune) -> Result<Value, Failure> {
    work(&Job::Prune(Box::new(job.clone())))
}

/// Steps that an unfinished run has done.
fn done(output: &Path) -> u64 {
    let notes = output.with_extension("partial").join("progress.json");
    let text = fs::read(notes).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).ok().and_then(|notes| notes["done"].as_u64()).unwrap_or(0)
}

fn weights(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    files.into_iter().map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_killed_pruning_goes_on_and_ends_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let job = begin(root.path());
    let whole = prune(&job).unwrap();
    let steps = whole["steps"].as_u64().unwrap();
    assert_eq!(whole["towers"]["vision"]["sparsity"], 0.5);
    assert_eq!(whole["towers"]["language"]["sparsity"], 0.5);

    // Killed once while it measures and once while it prunes, by a signal that nothing can catch.
    let again = Prune { output: root.path().join("again"), ..job.clone() };
    for least in [steps / 4, steps * 2 / 3] {
        let mut child = start(&Job::Prune(Box::new(again.clone())));
        while done(&again.output) < least && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    if !again.output.exists() {
        // Other settings do not go on with it.
        let mut other = again.clone();
        other.prune.sparsegpt.damping_share = 0.1;
        let refused = prune(&other).unwrap_err().message;
        assert!(refused.contains("`prune.sparsegpt.damping-share` was the default, is `0.1`"), "{refused}");
        let resumed = prune(&again).unwrap();
        assert!(resumed["resumed_at"].as_u64() >= Some(steps * 2 / 3), "{resumed}");
        assert_eq!(resumed["mask_hash"], whole["mask_hash"]);
    }
    assert!(weights(&again.output) == weights(&job.output), "other bytes");
}

#[test]
fn what_cannot_be_kept_or_met_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let job = begin(root.path());
    let message = |job: &Prune| prune(job).unwrap_err().message;
    let low = message(&Prune { memory_limit: Some(8 << 20), ..job.clone() });
    assert!(low.contains("a memory limit of `8` MiB cannot be kept") && low.contains("raise the limit"), "{low}");
    // What it asks for is enough.
    let needed: u64 = low.split("needs ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    let kept = prune(&Prune { memory_limit: Some(needed << 20), output: root.path().join("kept"), ..job.clone() });
    assert!(kept.unwrap()["peak_memory_bytes"].as_u64() <= Some(needed << 20));
    let mut change = job.clone();
    change.prune.allocation.method = AllocationMethod::Ecoflap;
    assert!(message(&change).contains("run an experiment"));
    let mut change = job.clone();
    change.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
    assert!(message(&change).contains("pattern `2:4` says every layer's budget"));
    assert!(!job.output.exists() && !job.output.with_extension("partial").exists());
}
