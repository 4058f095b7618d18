//! One teacher-forced pass over inputs as another implementation has them.

use std::{collections::BTreeMap, time::Instant};

use ressa_experiment::job::Forward;
use ressa_models::{ForwardInputs, ForwardOutputs};
use ressa_runtime::Device;
use serde_json::{Value, json};

use crate::{
    LabError, Progress,
    loaded::network,
    tensors::{Inputs, save},
};

/// Runs the network and writes its parts.
pub(crate) fn run(job: &Forward, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    let given = Inputs::open(&job.inputs, device)?;
    let inputs = ForwardInputs {
        pixel_values: given.get("pixel_values")?,
        input_ids: given.get("input_ids")?,
        attention_mask: given.get("attention_mask")?,
        labels: given.find("labels")?,
        qformer_input_ids: given.find("qformer_input_ids")?,
        qformer_attention_mask: given.find("qformer_attention_mask")?,
    };
    progress(0.0, "loading");
    let start = Instant::now();
    let model = network(&job.model, device)?;
    let load_seconds = start.elapsed().as_secs_f64();

    progress(0.5, "computing");
    let start = Instant::now();
    let ForwardOutputs { vision_last_hidden_state, qformer_query_output, language_model_inputs, logits, loss } =
        match given.find("image_grid_thw")? {
            Some(grids) if model.config().grid().is_some() => model.forward_grids(&inputs, &grids)?,
            _ if model.config().pinpoints().is_some() => match given.find("image_sizes")? {
                Some(sizes) => model.forward_sizes(&inputs, &sizes)?,
                None => model.forward(&inputs)?,
            },
            _ if model.config().tile().is_some() => {
                model.forward_tiles(&inputs, given.find("pixel_attention_mask")?.as_ref())?
            }
            _ => model.forward(&inputs)?,
        };
    let loss_value = loss.as_ref().map(|loss| loss.double_value(&[]));
    let seconds = start.elapsed().as_secs_f64();

    let mut outputs = BTreeMap::from([
        ("vision_last_hidden_state".to_owned(), vision_last_hidden_state),
        ("qformer_query_output".to_owned(), qformer_query_output),
        ("language_model_inputs".to_owned(), language_model_inputs),
        ("logits".to_owned(), logits),
    ]);
    outputs.extend(loss.map(|loss| ("loss".to_owned(), loss.reshape([1]))));
    save(&job.output, &outputs)?;
    Ok(json!({
        "output": job.output,
        "loss": loss_value,
        "load_seconds": load_seconds,
        "seconds": seconds,
        "peak_memory_bytes": ressa_runtime::peak_memory_bytes(),
    }))
}
