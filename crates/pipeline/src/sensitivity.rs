//! Stage `sensitivity`: how much each layer of a tower matters before a step prunes it; and what `prune` makes of it.

use ressa_experiment::{
    Stage, StageNode, Tower,
    allocation::{Measurement, Sensitivities},
    job::Compute,
};
use ressa_prune::{
    PruneError,
    allocation::{Counts, MeasureRequest, WINDOW, allocate, measure, places},
    join_projection,
};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    executor::{Progress, plain},
};

/// Measures the tower; the numbers are the stage's result.
pub(crate) fn run(executor: &mut Executor, node: &StageNode, progress: Progress<'_>) -> Result<Value, PipelineError> {
    let Stage::Sensitivity { tower, projection, measurement, samples: first, calibration, data, seed, .. } =
        &*node.stage
    else {
        return Err(PipelineError::Internal("not a sensitivity stage".to_owned()));
    };
    let node = in_full_precision(node, *measurement);
    let dense = executor.dense(&node)?;
    let mut samples = executor.samples(data, &dense)?.calibration(calibration, *seed)?.samples;
    samples.truncate(first.map_or(usize::MAX, |first| first as usize));
    let request = MeasureRequest { tower: *tower, measurement: *measurement, window: WINDOW, seed: *seed };
    let message = format!("{} {tower}", measurement.name());
    let mut model = dense.model.shallow_clone();
    executor.changes(&node.inputs)?.bake(model.as_mut())?;
    if *projection {
        join_projection(model.as_mut())?;
    }
    let found = measure(model.as_ref(), &request, &samples, &mut |share| progress(share, &message))?;
    plain(&found)
}

/// The stage computing in f32 where it measures by differences of losses, which half precision does not have.
fn in_full_precision(node: &StageNode, measurement: Measurement) -> StageNode {
    let mut node = node.clone();
    let mut stage = (*node.stage).clone();
    if let (Stage::Sensitivity { compute, .. }, Measurement::Perturbation { .. }) = (&mut stage, measurement) {
        *compute = Some(Compute::Float32);
        node.stage = stage.into();
    }
    node
}

/// Weights that each layer loses where a `prune` stage's budget is divided.
pub(crate) fn counts(executor: &mut Executor, node: &StageNode) -> Result<Option<Counts>, PipelineError> {
    let Stage::Prune { budget: Some(budget), .. } = &*node.stage else { return Ok(None) };
    let mut found = Sensitivities::new();
    for key in &node.inputs.sensitivities {
        found.extend(executor.store.require(&key.hex())?.result::<Sensitivities>()?);
    }
    let mut model = executor.dense(node)?.model.shallow_clone();
    if budget.projection {
        join_projection(model.as_mut())?;
    }
    let places = places(model.as_ref(), Tower::ALL);
    Ok(Some(allocate(&places, budget, &found).map_err(PruneError::from)?))
}
