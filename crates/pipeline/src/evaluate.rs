//! Stage `evaluate`: predictions of one task, stored per item, and the scores they give.

use ressa_eval::{
    Batching, Lemmas, MatchOptions, PredictOptions, ScoreOptions, match_both_ways, predict, score, to_json_lines,
};
use ressa_experiment::{
    Stage, StageNode,
    config::{DataSource, Lemmatizer, RetrievalConfig},
};
use ressa_store::Draft;
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
    let Stage::Evaluate { task, items, beams, data, asking, okvqa, retrieval, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not an evaluate stage".to_owned()));
    };
    let name = task.name();
    let mut show = |share| progress(share, name);
    let batching = executor.loading.batching(executor.device);
    let predictions = match retrieval.as_deref() {
        Some(RetrievalConfig { checkpoint: Some(folder), rerank, text_tokens }) => {
            let model = executor.evaluated(node)?;
            let matcher = executor.matcher(folder, node.stage.compute())?;
            let prepared = executor.matched(&matcher, data, *task, *items, *text_tokens as usize)?;
            let matcher = matcher.model.with_vision_of(model.as_ref())?;
            retry_smaller(batching.rows, |rows| {
                let options = MatchOptions { rerank: *rerank as usize, batching: batching.shrunk(rows) };
                Ok(match_both_ways(matcher.as_ref(), &prepared, &options, &mut show)?)
            })?
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
                Ok(predict(model.as_ref(), &prepared, &options, &mut show)?)
            })?
        }
    };
    let lemmas = match okvqa.as_deref().map(|okvqa| okvqa.lemmatizer) {
        None | Some(Lemmatizer::None) => Lemmas::None,
        Some(Lemmatizer::Rules) => Lemmas::Rules,
    };
    let options = ScoreOptions { published: data.source == DataSource::Folder, lemmas };
    draft.write(PREDICTIONS, to_json_lines(*task, &predictions, &options)?.as_bytes())?;
    plain(&score(*task, &predictions, &options)?)
}
