//! Perplexity of a text by the language model of a folder.

use std::time::Instant;

use ressa_data::{text_of, tokens_of};
use ressa_eval::{
    Prediction, ScoreOptions, Windows,
    perplexity::{check, perplexity, perplexity_of_text},
    score,
};
use ressa_experiment::{
    Task,
    job::{Compute, Perplexity},
};
use ressa_models::{LoadOptions, TextModel};
use ressa_runtime::Device;
use serde_json::{Value, json};

use crate::{LabError, Progress, loaded::network};

/// Cuts the text, predicts each window and answers with what the task `perplexity` would store.
pub(crate) fn run(job: &Perplexity, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    let text = text_of(&job.text)?;
    progress(0.0, "loading");
    let windows = Windows { tokens: job.window, most: job.windows };
    let start;
    let mut show = |share| progress(share, "predicting");
    let (ids, predictions) = if TextModel::is_in(&job.model.folder)? {
        let ids = tokens_of(&job.model.folder, &text)?;
        let compute = job.model.compute.unwrap_or(Compute::Float32);
        let model = TextModel::load(&job.model.folder, &LoadOptions { compute, ..LoadOptions::on(device) })?;
        start = Instant::now();
        let predictions = perplexity_of_text(&model, &ids, windows, device, &mut show)?;
        (ids, predictions)
    } else {
        let model = network(&job.model, device)?;
        check(&model, job.window)?;
        let ids = tokens_of(&job.model.folder, &text)?;
        start = Instant::now();
        let predictions = perplexity(&model, &ids, windows, device, &mut show)?;
        (ids, predictions)
    };
    let seconds = start.elapsed().as_secs_f64();
    let scored = score(Task::Perplexity, &predictions, &ScoreOptions::default())?;
    let mut answer = json!({
        "tokens": ids.len(),
        "window": job.window,
        "scores": scored,
        "seconds": seconds,
        "peak_memory_bytes": ressa_runtime::peak_memory_bytes(),
    });
    if job.list {
        let nll = |prediction: &Prediction| match prediction {
            Prediction::Window { nll, .. } => Some(*nll),
            _ => None,
        };
        answer["nll"] = predictions.iter().filter_map(nll).collect::<Vec<_>>().into();
    }
    Ok(answer)
}
