//! Answers about images. Prompts about one image share its features, and are searched for together.

use std::path::PathBuf;

use ressa_experiment::job::{Generate, Generated};
use ressa_models::{Architecture, Infer, Prompts, Search, TextBatch, folder::read_generation};
use ressa_runtime::Device;
use serde_json::Value;
use tch::Tensor;

use crate::{LabError, Progress, loaded::Loaded};

/// Prompts searched for at once. Changes memory and time, not answers.
const ROWS: usize = 32;

/// Answers every request, in the order of the requests.
pub(crate) fn run(job: &Generate, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    progress(0.0, "loading");
    let loaded = Loaded::open(&job.model, device)?;
    let config = loaded.model.config();
    let search = Search::resolve(&job.search, &read_generation(&job.model.folder)?, config.text_config())?;
    let mut answers: Vec<Option<Generated>> = vec![None; job.requests.len()];
    let mut done = 0;
    for (image, members) in by_image(job) {
        let pixels = loaded.pixels(image)?;
        let features = loaded.model.encode_images(&pixels);
        for rows in members.chunks(ROWS) {
            progress(done as f64 / answers.len() as f64, "answering");
            let texts: Vec<&str> = rows.iter().map(|&row| job.requests[row].prompt.as_str()).collect();
            let prompts = Prompts {
                image: Tensor::zeros([rows.len() as i64], (tch::Kind::Int64, device)),
                qformer: loaded.qformer(&texts)?,
                language: loaded.language(&texts, &pixels)?,
            };
            loaded.model.check_prompts(&prompts).map_err(|error| of_requests(job, rows, &error.to_string()))?;
            if let Some(message) = too_long(job, config, &prompts.language) {
                return Err(of_requests(job, rows, &message));
            }
            for (&row, answer) in rows.iter().zip(loaded.model.answer(&features, &prompts, &search)?) {
                let text = loaded.processor.decode(&answer.tokens)?;
                answers[row] = Some(Generated { tokens: answer.tokens, text });
            }
            done += rows.len();
        }
    }
    let answers: Vec<Generated> = answers.into_iter().flatten().collect();
    serde_json::to_value(answers).map_err(|e| LabError::Unsupported(e.to_string()))
}

/// Why a model whose positions are bounded cannot write so many new tokens behind its image and a prompt of `tokens`; `None` where it can.
fn too_long(job: &Generate, config: &dyn Architecture, prompt: &TextBatch) -> Option<String> {
    let wanted = job.search.max_new_tokens?;
    let positions = i64::try_from(config.text_config().positions()?).ok()?;
    let (all, image) = match prompt.layout() {
        Some(layout) => (layout.tokens() as i64, layout.features() as i64),
        None => (config.image_tokens(), config.image_tokens()),
    };
    let tokens = prompt.ids.size()[1] + all - image;
    let room = usize::try_from(positions - image - tokens).unwrap_or_default();
    (wanted > room).then(|| {
        format!(
            "`max_new_tokens` is {wanted}; of the model's {positions} positions, {room} are left behind {image} of the image and {tokens} of the prompt"
        )
    })
}

/// What is wrong with the longest prompt of some rows, with the place of that prompt in the job.
fn of_requests(job: &Generate, rows: &[usize], error: &str) -> LabError {
    let worst = rows.iter().copied().max_by_key(|&row| job.requests[row].prompt.len()).unwrap_or_default();
    LabError::Unsupported(match job.requests.len() {
        1 => error.to_owned(),
        _ => format!("request {}: {error}", worst + 1),
    })
}

/// Images in the order in which they are first asked about, with the requests about each.
fn by_image(job: &Generate) -> Vec<(&PathBuf, Vec<usize>)> {
    let mut groups: Vec<(&PathBuf, Vec<usize>)> = Vec::new();
    for (row, request) in job.requests.iter().enumerate() {
        match groups.iter_mut().find(|(image, _)| **image == request.image) {
            Some((_, members)) => members.push(row),
            None => groups.push((&request.image, vec![row])),
        }
    }
    groups
}
