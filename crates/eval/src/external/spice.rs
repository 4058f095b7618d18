//! SPICE 1.0 (Anderson et al., 2016) by its own jar, as pycocoevalcap 1.2 calls it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ressa_experiment::record::Score;
use serde_json::{Value, json};

use super::{captions, last_words, place, points};
use crate::{EvalError, Prediction};

const PROGRAM: &str = "SPICE";

/// SPICE of captions in points: the mean of the F-scores of all tuples.
///
/// `jar` is `spice-1.0.jar`, with its `lib` folder (CoreNLP 3.6.0 and its models among others) beside it. `scratch` is an existing folder,
/// absolute, in which it keeps what it has parsed.
///
/// # Errors
/// A program that cannot be started or fails, an answer that is not its list of scores.
pub fn spice(java: &Path, jar: &Path, scratch: &Path, predictions: &[Prediction]) -> Result<Score, EvalError> {
    let captions = captions(predictions, PROGRAM)?;
    let failed = |reason: String| EvalError::External { program: PROGRAM, reason };
    let (folder, name) = place(jar).ok_or_else(|| failed(format!("`{}` is no file", jar.display())))?;
    let question: Vec<Value> = captions
        .iter()
        .enumerate()
        .map(|(image, (caption, references))| json!({ "image_id": image, "test": caption, "refs": references }))
        .collect();
    let at = |name: &str| -> PathBuf { scratch.join(format!("{name}-{}", std::process::id())) };
    let (asked, answered, cache) = (at("asked"), at("answered"), scratch.join("parsed"));
    let wrote = fs::create_dir_all(&cache).and_then(|()| fs::write(&asked, json!(question).to_string()));
    wrote.map_err(|e| failed(format!("`{}` cannot be written: {e}", scratch.display())))?;
    let mut command = Command::new(java);
    command.args(["-Dfile.encoding=UTF-8", "-Xmx8G", "-jar"]).arg(name).arg(&asked).arg("-cache").arg(&cache);
    command.arg("-out").arg(&answered).args(["-subset", "-silent"]);
    if !folder.as_os_str().is_empty() {
        command.current_dir(folder);
    }
    let output = command.stdin(Stdio::null()).output();
    let answer = fs::read(&answered);
    for file in [&asked, &answered] {
        let _ = fs::remove_file(file);
    }
    let output = output.map_err(|e| failed(format!("`{}` cannot be started: {e}", java.display())))?;
    if !output.status.success() {
        return Err(failed(format!("it ended with {}; {}", output.status, last_words(&output.stderr))));
    }
    let answer = answer.map_err(|e| failed(format!("it wrote no scores ({e}); {}", last_words(&output.stderr))))?;
    let answer: Vec<Value> =
        serde_json::from_slice(&answer).map_err(|e| failed(format!("its answer is no list of scores: {e}")))?;
    let mut items = vec![None; captions.len()];
    for one in &answer {
        let image = one["image_id"].as_u64().and_then(|image| usize::try_from(image).ok());
        // A caption without a tuple has no F-score; it counts as 0, as it does in the mean of the original.
        let score = one["scores"]["All"]["f"].as_f64().unwrap_or(0.0);
        if let Some(slot) = image.and_then(|image| items.get_mut(image)) {
            *slot = Some(score);
        }
    }
    let items: Vec<f64> = items
        .into_iter()
        .collect::<Option<_>>()
        .ok_or_else(|| failed(format!("it scored {} of {} captions", answer.len(), captions.len())))?;
    let mean = items.iter().sum::<f64>() / items.len().max(1) as f64;
    Ok(points("spice", mean, &items))
}
