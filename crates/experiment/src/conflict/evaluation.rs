//! What an evaluation cannot be: prompts, captions before them, votes on masked questions.

use super::{Conflict, found};
use crate::{
    RunConfig,
    aids::{CAPTIONS, SmoothingMethod},
    config::DataSource,
};

/// How tasks are asked.
pub(super) fn asking(run: &RunConfig) -> Option<Conflict> {
    let evaluate = &run.evaluate;
    if let Some(prompt) = &evaluate.answer.prompt
        && prompt.matches("{}").count() != 1
    {
        return found(
            "evaluate.answer.prompt",
            format!("`{prompt}` does not say where the question goes"),
            "write `{}` there, once, as in `Question: {} Short answer:`",
        );
    }
    for (path, asking) in
        [("evaluate.answer.min-new-tokens", &evaluate.answer), ("evaluate.caption.min-new-tokens", &evaluate.caption)]
    {
        if let (Some(least), Some(most)) = (asking.min_new_tokens, asking.max_new_tokens)
            && least > most
        {
            return found(
                path,
                format!("at least {least} new tokens, but at most {most}"),
                "lower it, or raise `max-new-tokens` beside it",
            );
        }
    }
    None
}

/// The first contradiction among the settings that change what an evaluation asks, where its tasks are asked so.
pub(super) fn aids(run: &RunConfig) -> Option<Conflict> {
    let tasks = &run.evaluate.tasks;
    retrieved(run)
        .filter(|_| tasks.iter().any(|task| task.writes()))
        .or_else(|| smoothing(run).filter(|_| tasks.iter().any(|task| task.has_questions())))
}

fn retrieved(run: &RunConfig) -> Option<Conflict> {
    let retrieved = &run.evaluate.retrieved;
    if !retrieved.is_on() {
        return None;
    }
    let template = &retrieved.template;
    if template.matches(CAPTIONS).count() != 1 || template.matches("{}").count() != 1 {
        return found(
            "evaluate.retrieved.template",
            format!("`{template}` does not say where captions and prompt go"),
            format!("write `{CAPTIONS}` and `{{}}` there, each once, as in `Similar images: {CAPTIONS}. {{}}`"),
        );
    }
    if retrieved.captions > retrieved.pool {
        return found(
            "evaluate.retrieved.pool",
            format!("{} captions cannot come from a pool of {}", retrieved.captions, retrieved.pool),
            "raise `evaluate.retrieved.pool` or lower `evaluate.retrieved.captions`",
        );
    }
    if run.data.source == DataSource::Folder && retrieved.corpora.is_empty() {
        return found(
            "evaluate.retrieved.captions",
            "captions are retrieved, but no corpus is named that they come from",
            "set `evaluate.retrieved.corpora`, for instance to [cc3m]",
        );
    }
    None
}

fn smoothing(run: &RunConfig) -> Option<Conflict> {
    let smoothing = &run.evaluate.smoothing;
    if smoothing.method != SmoothingMethod::SelfDenoised {
        return None;
    }
    if let Some(preset) = run.model.preset {
        return found(
            "evaluate.smoothing.method",
            format!(
                "`{}` cannot fill masked words: the embedded world's models only learn to answer and to describe",
                preset.name()
            ),
            "set it to masked, where masked words stay masked, or to removed, or evaluate a checkpoint with a Flan-T5 or an instructed decoder",
        );
    }
    let prompt = &smoothing.prompt;
    if prompt.matches("{}").count() != 1 {
        return found(
            "evaluate.smoothing.prompt",
            format!("`{prompt}` does not say where the question goes"),
            "write `{}` there, once, as in `Fill in each ___: {}`",
        );
    }
    None
}
