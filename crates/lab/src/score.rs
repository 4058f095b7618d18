//! Scores of stored predictions, by ours and by other programs.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use ressa_eval::{Lemmas, Prediction, ScoreOptions, external, from_json_lines, score};
use ressa_experiment::{
    job::ScorePredictions,
    json::without_mark,
    record::{Score, TaskScore},
};
use serde_json::Value;

use crate::{LabError, Progress};

/// Scores the predictions; what other programs found stands among the parts.
pub(crate) fn run(job: &ScorePredictions, progress: Progress<'_>) -> Result<Value, LabError> {
    let path = &job.predictions;
    let bytes = fs::read(path).map_err(|e| LabError::input(path, e))?;
    let text = std::str::from_utf8(without_mark(&bytes)).map_err(|e| LabError::input(path, e))?;
    let predictions = from_json_lines(text).map_err(|e| LabError::input(path, e))?;
    once(&predictions).map_err(|e| LabError::input(path, e))?;
    let lemmas = match &job.lemmas {
        Some(table) => Lemmas::Table(Arc::new(lemmas(table)?)),
        None if job.lemmatize => Lemmas::Rules,
        None => Lemmas::None,
    };
    let options = ScoreOptions { published: job.published, lemmas };
    let mut scored: TaskScore = score(job.task, &predictions, &options).map_err(|e| LabError::input(path, e))?;
    let mut add = |score: Score| scored.parts.insert(score.metric.clone(), score);
    if let Some(jar) = &job.meteor {
        progress(0.0, "METEOR");
        add(external::meteor::meteor(job.java.as_deref(), jar, &predictions).map_err(|e| LabError::input(jar, e))?);
    }
    if let Some(jar) = &job.spice {
        progress(0.5, "SPICE");
        let java = job.java.as_deref().unwrap_or(Path::new("java"));
        fs::create_dir_all(&job.scratch).map_err(|e| LabError::input(&job.scratch, e))?;
        add(external::spice::spice(java, jar, &job.scratch, &predictions).map_err(|e| LabError::input(jar, e))?);
    }
    serde_json::to_value(&scored).map_err(|e| LabError::input(path, e))
}

/// Refuses items that are predicted twice: they would count twice, and nobody could say which prediction is meant.
fn once(predictions: &[Prediction]) -> Result<(), String> {
    let mut lines: HashMap<&str, usize> = HashMap::new();
    for (at, prediction) in predictions.iter().enumerate() {
        if let Some(first) = lines.insert(prediction.id(), at) {
            let (first, line) = (first + 1, at + 1);
            return Err(format!(
                "line {line}: item `{}` is predicted in line {first} already; leave one of them",
                prediction.id()
            ));
        }
    }
    Ok(())
}

/// A table of answers and their lemmas, divided by a tab.
fn lemmas(path: &Path) -> Result<HashMap<String, String>, LabError> {
    let text = fs::read_to_string(path).map_err(|e| LabError::input(path, e))?;
    let pair = |(number, line): (usize, &str)| {
        let (answer, lemmas) = line.split_once('\t').ok_or_else(|| {
            LabError::input(
                path,
                format!("line {}: expected an answer, a tab and its lemmas, found `{line}`", number + 1),
            )
        })?;
        Ok((answer.to_owned(), lemmas.to_owned()))
    };
    text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.is_empty()).map(pair).collect()
}
