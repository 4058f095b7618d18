//! One module per command; each takes its arguments and answers with an exit code.

pub mod bench_kernels;
pub mod data;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod export_run;
pub mod fetch;
mod force;
pub mod forecast;
pub mod gc;
mod gc_cache;
pub mod generate;
pub mod inspect;
pub mod lab;
pub mod logs;
pub mod manual;
pub mod plan;
pub mod pretrain;
pub mod prune;
pub mod report;
pub mod results;
pub mod retry;
pub mod schema;
pub mod score;
pub mod show;
pub mod status;
pub mod sweep;
pub mod verify;
pub mod verify_folder;
mod watch;
pub mod work;

use std::path::{Path, PathBuf};

use ressa_checkpoint::adapter;
use ressa_experiment::{job::ModelAt, json::without_mark};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    arguments::model::ModelOptions,
    exit::{Exit, Failure},
};

/// The model of a job.
fn model_at(options: &ModelOptions) -> Result<ModelAt, Failure> {
    Ok(ModelAt { folder: model_folder(&options.model)?, compute: options.dtype })
}

/// The folder that `--model` names.
fn model_folder(model: &Path) -> Result<PathBuf, Failure> {
    if model.join("config.json").is_file() {
        return Ok(model.to_owned());
    }
    let shown = model.display();
    if model.is_dir() {
        let reason = adapter(model).unwrap_or_else(|| "it has no config.json".to_owned());
        let message = format!("`{shown}` is no model folder: {reason}");
        return Err(Failure::new(Exit::MissingInput, message));
    }
    let message = match model.to_str().filter(|name| ressa_hub::is_repository_name(name)) {
        Some(name) => match ressa_hub::cached(name, None, &crate::hub::settings()?) {
            Some(snapshot) => return Ok(snapshot),
            None => format!(
                "there is no folder `{shown}`; if it is a repository of the hub, `ressa fetch {name}` brings it"
            ),
        },
        None => format!("there is no folder `{shown}`; --model expects one with config.json"),
    };
    Err(Failure::new(Exit::MissingInput, message))
}

/// Reads a JSON list of requests. Image paths are taken relative to the file's own folder where they are not there as written.
fn read_requests<T: DeserializeOwned + Request>(file: &Path) -> Result<Vec<T>, Failure> {
    let unusable = |reason: String| Failure::new(Exit::Unusable, format!("`{}`: {reason}", file.display()));
    let text = std::fs::read(file).map_err(|e| unusable(e.to_string()))?;
    let value = serde_json::from_slice(without_mark(&text)).map_err(|e| unusable(format!("it is not JSON: {e}")))?;
    let Value::Array(entries) = value else {
        return Err(unusable(format!("expected a list of `{}`, found {}", T::FORM, sort(&value))));
    };
    let beside = file.parent().unwrap_or(Path::new(""));
    let read = |(number, entry): (usize, Value)| -> Result<T, Failure> {
        let wrong = |what: String| unusable(format!("entry {} must be `{}`: {what}", number + 1, T::FORM));
        if !entry.is_object() {
            return Err(wrong(format!("it is {}", sort(&entry))));
        }
        let mut request: T = serde_json::from_value(entry).map_err(|e| wrong(e.to_string()))?;
        let image = request.image_mut();
        let moved = beside.join(&*image);
        if !image.exists() && moved.exists() {
            *image = moved;
        }
        Ok(request)
    };
    entries.into_iter().enumerate().map(read).collect()
}

/// What a JSON value is, in words.
fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What a file of requests lists.
trait Request {
    /// How one is written.
    const FORM: &str;

    /// The image it is about.
    fn image_mut(&mut self) -> &mut PathBuf;
}

impl Request for ressa_experiment::job::PromptRequest {
    const FORM: &str = r#"{"image": FILE, "prompt": TEXT}"#;

    fn image_mut(&mut self) -> &mut PathBuf {
        &mut self.image
    }
}

impl Request for ressa_experiment::job::CalibrationRequest {
    const FORM: &str = r#"{"image": FILE, "prompt": TEXT, "answer": TEXT}` or `{"image": FILE, "caption": TEXT}"#;

    fn image_mut(&mut self) -> &mut PathBuf {
        &mut self.image
    }
}
