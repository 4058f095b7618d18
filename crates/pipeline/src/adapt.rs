//! Stage `adapt`: trains adapters on a pruned model. Resumable from its last checkpoint.

use ressa_experiment::{Stage, StageNode};
use ressa_restore::{AdaptRequest, train_adapters};
use ressa_store::Draft;
use serde_json::{Value, json};

use crate::{
    Executor, PipelineError,
    executor::Progress,
    samples::{ShapesBatches, Source},
};

/// File of the trained adapters.
pub(crate) const ADAPTER: &str = "adapter.safetensors";
/// File of the loss curve.
const LOSSES: &str = "losses.csv";

/// Trains and publishes the adapters.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Adapt { masked, training, data, seed } = &node.stage else {
        return Err(PipelineError::Internal("not an adapt stage".to_owned()));
    };
    let world = executor.world(data)?;
    let dense = executor.dense(&node.inputs)?;
    let mut student = executor.masked(&node.inputs)?;
    let teacher = training.distill.as_ref().map(|_| dense.model.as_ref());
    let source = Source { world: &world, processor: &dense.processor, device: executor.device };
    let retrieval = training.contrastive > 0.0;
    let mut batches = ShapesBatches::new(source, training, retrieval, *seed);
    let resume = executor.store.scratch(&node.key.0)?;
    let request = AdaptRequest { training, masked: *masked, seed: *seed, resume: Some(&resume) };
    let trained = train_adapters(student.as_mut(), teacher, &request, &mut batches, progress)?;
    trained.adapters.save(&draft.folder().join(ADAPTER))?;
    let mut curve = String::from("step,loss\n");
    for (step, loss) in trained.losses.iter().enumerate() {
        curve.push_str(&format!("{},{loss:.6}\n", step + 1));
    }
    draft.write(LOSSES, curve.as_bytes())?;
    Ok(json!({
        "steps": training.steps,
        "first-loss": trained.losses.first(),
        "last-loss": trained.losses.last(),
    }))
}
