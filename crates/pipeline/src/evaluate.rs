//! Stage `evaluate`: predictions of one task, stored per item, and the scores they give.

mod aided;

use std::collections::BTreeSet;

use ressa_data::text_of;
use ressa_eval::{
    Batching, Lemmas, MatchOptions, PredictOptions, ScoreOptions, Windows, from_json_lines, match_both_ways,
    perplexity, predict, score, to_json_lines,
};
use ressa_experiment::{
    Asks, Stage, StageNode,
    config::{DataConfig, DataSource, Lemmatizer, OkvqaConfig, RetrievalConfig},
    record::{Score, TaskScore},
};
use ressa_store::{Draft, Entry, StoreError};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    executor::{Progress, plain},
    memory::retry_smaller,
};

/// File of the predictions, one JSON object per line.
const PREDICTIONS: &str = "predictions.jsonl";

/// Predicts, publishes the predictions and scores them.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Evaluate { task, items, beams, data, asking, okvqa, retrieval, window, aids, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not an evaluate stage".to_owned()));
    };
    let name = task.name();
    let mut show = |share| progress(share, name);
    let batching = executor.loading.batching(executor.device);
    let predictions = match (retrieval.as_deref(), aids.as_deref()) {
        (Some(RetrievalConfig { checkpoint: Some(folder), rerank, text_tokens }), _) => {
            let model = executor.evaluated(node)?;
            let matcher = executor.matcher(folder, node.stage.compute())?;
            let prepared = executor.matched(&matcher, data, *task, *items, *text_tokens as usize)?;
            let matcher = matcher.model.with_vision_of(model.as_ref())?;
            retry_smaller(batching.rows, |rows| {
                let options = MatchOptions { rerank: *rerank as usize, batching: batching.shrunk(rows) };
                Ok(match_both_ways(&*matcher, &prepared, &options, &mut show)?)
            })?
        }
        _ if task.asks() == Asks::Text => {
            let model = executor.evaluated(node)?;
            let path = data.text.as_deref().ok_or_else(|| PipelineError::Internal("no text is named".to_owned()))?;
            let windows =
                Windows { tokens: window.unwrap_or_default() as usize, most: (*items > 0).then_some(*items as usize) };
            // A model that cannot is refused before the text is read.
            perplexity::check(&*model, windows.tokens)?;
            let ids = executor.processor(node)?.tokenize(&text_of(path)?, true)?;
            perplexity(&*model, &ids, windows, executor.device, &mut show)?
        }
        (_, Some(aids)) => {
            let asked = aided::Request {
                task: *task,
                items: *items as usize,
                data,
                asking: asking.as_deref().cloned().unwrap_or_default(),
                okvqa: okvqa.as_deref(),
                aids,
                beams: beams.unwrap_or(1) as usize,
            };
            aided::predictions(executor, node, &asked, &batching, &mut show)?
        }
        _ => {
            let prepared = executor.prepared(node, data, (*task, *items), (asking.as_deref(), okvqa.as_deref()))?;
            let model = executor.evaluated(node)?;
            let batching = Batching { features: executor.feature_cache(node, data)?, ..batching };
            retry_smaller(batching.rows, |rows| {
                let options = PredictOptions {
                    beams: beams.unwrap_or(1) as usize,
                    asking: asking.as_deref().cloned().unwrap_or_default(),
                    published: data.source == DataSource::Folder,
                    batching: batching.shrunk(rows),
                };
                Ok(predict(&*model, &prepared, &options, &mut show)?)
            })?
        }
    };
    let options = scoring(data, okvqa.as_deref());
    draft.write(PREDICTIONS, to_json_lines(*task, &predictions, &options)?.as_bytes())?;
    plain(&score(*task, &predictions, &options)?)
}

/// How predictions are scored.
fn scoring(data: &DataConfig, okvqa: Option<&OkvqaConfig>) -> ScoreOptions {
    let lemmas = match okvqa.map(|okvqa| okvqa.lemmatizer) {
        None | Some(Lemmatizer::None) => Lemmas::None,
        Some(Lemmatizer::Rules) => Lemmas::Rules,
    };
    ScoreOptions { published: data.source == DataSource::Folder, lemmas }
}

/// Relative distance of two scores of the same predictions: sums of another processor round otherwise.
const SAME: f64 = 1e-9;

/// Scores the published predictions again and compares with the published scores.
pub(crate) fn verify(node: &StageNode, entry: &Entry) -> Result<Vec<String>, PipelineError> {
    let Stage::Evaluate { task, data, okvqa, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not an evaluate stage".to_owned()));
    };
    let path = entry.file(PREDICTIONS)?;
    let text = std::fs::read_to_string(&path).map_err(|source| StoreError::Read { path, source })?;
    let found = score(*task, &from_json_lines(&text)?, &scoring(data, okvqa.as_deref()))?;
    let published: TaskScore = entry.result()?;
    let is_same = |a: &Score, b: &Score| {
        let near = |a: f64, b: f64| (a - b).abs() <= SAME * a.abs().max(b.abs());
        a.metric == b.metric && a.items == b.items && near(a.value, b.value) && near(a.standard_error, b.standard_error)
    };
    let mut violations = Vec::new();
    let mut compare = |name: &str, published: Option<&Score>, found: Option<&Score>| {
        if published.zip(found).map_or(published.is_none() && found.is_none(), |(a, b)| is_same(a, b)) {
            return;
        }
        let text = |score: Option<&Score>| {
            score.map_or("none".to_owned(), |score| format!("{} {}", score.metric, score.value))
        };
        violations.push(format!("the score `{name}` is {}, its predictions give {}", text(published), text(found)));
    };
    compare(task.name(), published.score.as_ref(), found.score.as_ref());
    let names: BTreeSet<&String> = published.parts.keys().chain(found.parts.keys()).collect();
    names.into_iter().for_each(|name| compare(name, published.parts.get(name), found.parts.get(name)));
    Ok(violations)
}
