//! Answers about images. Prompts about one image share its features, and are searched for together.

use std::{path::PathBuf, sync::Arc};

use ressa_data::Prompt;
use ressa_experiment::job::{Generate, Generated};
use ressa_models::{Architecture, Infer, Layout, Prompts, Search, TextBatch, folder::read_generation};
use ressa_runtime::Device;
use serde_json::Value;
use tch::Tensor;

use crate::{LabError, Progress, loaded::Loaded};

/// A request's number and the ids of its prompt.
type Numbered = (usize, Vec<u32>);

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
        // What is wrong with a prompt is said before the image is encoded, which takes longest.
        let batches = batches(job, &loaded, &members, &pixels)?;
        let searches = batches
            .iter()
            .map(|(rows, prompts)| {
                let checked = loaded.model.check_prompts(prompts).map_err(|error| error.to_string());
                let search =
                    checked.and_then(|()| within(&search, job.search.max_new_tokens, config, &prompts.language));
                search.map_err(|reason| of_requests(job, rows, &reason))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let features = loaded.model.encode_images(&pixels);
        for ((rows, prompts), search) in batches.iter().zip(&searches) {
            progress(done as f64 / answers.len() as f64, "answering");
            for (&row, answer) in rows.iter().zip(loaded.model.answer(&features, prompts, search)?) {
                let text = loaded.processor.decode(&answer.tokens)?;
                answers[row] = Some(Generated { tokens: answer.tokens, text });
            }
            done += rows.len();
        }
    }
    let answers: Vec<Generated> = answers.into_iter().flatten().collect();
    serde_json::to_value(answers).map_err(|e| LabError::Unsupported(e.to_string()))
}

/// Requests about one image in batches whose images are in the same places.
fn batches(
    job: &Generate,
    loaded: &Loaded,
    members: &[usize],
    pixels: &Tensor,
) -> Result<Vec<(Vec<usize>, Prompts)>, LabError> {
    let mut groups: Vec<(Option<Layout>, Vec<Numbered>)> = Vec::new();
    for &row in members {
        let Prompt { layout, text } = loaded.prompt(&job.requests[row].prompt, pixels)?;
        match groups.iter_mut().find(|(known, _)| *known == layout) {
            Some((_, rows)) => rows.push((row, text)),
            None => groups.push((layout, vec![(row, text)])),
        }
    }
    let mut batches = Vec::new();
    for (layout, rows) in groups {
        let layout = layout.map(Arc::new);
        for rows in rows.chunks(ROWS) {
            let (rows, texts): (Vec<usize>, Vec<Vec<u32>>) = rows.iter().cloned().unzip();
            let asked: Vec<&str> = rows.iter().map(|&row| job.requests[row].prompt.as_str()).collect();
            let prompts = Prompts {
                image: Tensor::zeros([rows.len() as i64], (tch::Kind::Int64, loaded.device)),
                qformer: loaded.qformer(&asked)?,
                language: TextBatch::pad(&texts, loaded.processor.pad(), loaded.device).behind(layout.clone()),
            };
            batches.push((rows, prompts));
        }
    }
    Ok(batches)
}

/// A search for answers behind a prompt, of `wanted` new tokens; where nothing says how many, of as many as a model whose positions are bounded
/// has left.
///
/// # Errors
/// What does not fit, in words.
fn within(
    search: &Search,
    wanted: Option<usize>,
    config: &dyn Architecture,
    prompt: &TextBatch,
) -> Result<Search, String> {
    let Some(positions) = config.text_config().positions().and_then(|count| i64::try_from(count).ok()) else {
        return Ok(*search);
    };
    let (all, image) = match prompt.layout() {
        Some(layout) => (layout.tokens() as i64, layout.features() as i64),
        None => (config.image_tokens(), config.image_tokens()),
    };
    let tokens = prompt.ids.size()[1] + all - image;
    let room = usize::try_from(positions - image - tokens).unwrap_or_default();
    let left = format!(
        "of the model's {positions} positions, {room} are left behind {image} of the image and {tokens} of the prompt"
    );
    match wanted {
        Some(wanted) if wanted > room => Err(format!("`max_new_tokens` is {wanted}; {left}")),
        None if room == 0 => Err(format!("{left}; ask with a shorter prompt")),
        _ => Ok(Search { max_new_tokens: search.max_new_tokens.min(room), ..*search }),
    }
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
