//! Stage `rescale`: the dense model with planted channel scales, the same function to the bit.

use ressa_experiment::{Stage, StageNode};
use ressa_models::{Rescaled, Spread, rescale_folder};
use ressa_store::{Draft, Entry};
use serde_json::{Value, json};

use crate::{Executor, PipelineError, dense::MODEL, executor::Progress};

/// Writes the dense model's folder again, with other channel scales.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let &Stage::Rescale { spread, seed } = &*node.stage else {
        return Err(PipelineError::Internal("not a rescale stage".to_owned()));
    };
    let (source, published) = executor.folder(node)?;
    let spread = Spread { deviation: spread, seed };
    let Rescaled { norms, channels, deviation } =
        rescale_folder(&source, &draft.folder().join(MODEL), spread, progress)?;
    Ok(json!({ "norms": norms, "channels": channels, "deviation": deviation, "published": published }))
}

/// Whether the folder of a rescaled model was a published checkpoint's.
pub(crate) fn is_published(entry: &Entry) -> bool {
    entry.manifest.result.get("published").and_then(Value::as_bool).unwrap_or(false)
}
