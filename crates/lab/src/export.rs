//! Job `export`: the weights of a run as a model folder. The dense folder's files are the template; only pruned and merged linears get new
//! bytes, rounded once into the type that the file has. What was removed as a whole is not in it, unless the full size is asked for.

use std::collections::BTreeSet;

use ressa_checkpoint::{
    Checkpoint, Dtype, Entry, ExportRequest, File, Making, Smaller, card, export as write, export_smaller,
    names::counted_in,
};
use ressa_experiment::job::Export;
use ressa_pipeline::{Executor, RunWeights};
use ressa_runtime::{Device, count_nonzero, is_finite};
use ressa_store::{Environment, Store};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{LabError, Progress};

/// Writes the folder and answers with what it holds.
///
/// # Errors
/// When a stage of the run is missing or damaged, when the folder cannot be written, or when what was written is not what the run's
/// certificate says.
pub(crate) fn run(job: &Export, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    // Only read: results may lie on a disk that cannot be written.
    let store = Store::reading(&job.store, job.shipped.clone());
    let mut executor = Executor::new(store, device, Environment::default());
    let weights = executor.run_weights(&job.inputs, &job.readings, &job.root)?;
    let making: Making = serde_json::from_value(job.card.clone())
        .map_err(|e| LabError::Unsupported(format!("the card of the job is of another version: {e}")))?;
    check_layers(&weights)?;
    let name = job.output.file_name().unwrap_or_default().to_string_lossy();
    let smaller = weights.smaller();
    if job.full_size && smaller.as_ref().is_some_and(Smaller::has_fewer_queries) {
        let reason = "the run has removed learned queries, and no model of the full size computes what is left: a query of zeros is still a token that is \
                      looked at; leave `--full-size` out";
        return Err(LabError::Unsupported(reason.to_owned()));
    }
    let mut patterns = weights.patterns();
    if let Some(smaller) = smaller.as_ref().filter(|_| job.full_size) {
        // Between removed columns, groups are others.
        patterns.retain(|name, _| !smaller.columns.contains_key(name));
    }
    let request = ExportRequest {
        source: &weights.source,
        output: &job.output,
        max_shard_size: job.max_shard_size,
        container: job.container,
        patterns: &patterns,
        program: &making.program,
        run: Some(json!(making)),
    };
    let make = |found: &_| card(&name, Some(&making), found, &weights.source);
    let mut change = |file: &File, entry: &Entry| changed(&weights, file, entry, device);
    let done = match smaller.filter(|_| !job.full_size) {
        Some(smaller) => export_smaller::<LabError>(&request, &smaller, &mut change, Some(&make), progress)?,
        None => write::<LabError>(&request, &mut change, Some(&make), progress)?,
    };
    Ok(done.summary())
}

/// Every weight of the run must be in the folder: a prunable matrix where it is masked, else one that was tuned. Those have no copies under
/// other names.
fn check_layers(weights: &RunWeights) -> Result<(), LabError> {
    let source = Checkpoint::open(&weights.source)?;
    let unknown: BTreeSet<&str> = weights
        .layers()
        .filter(|layer| {
            let name = tensor_of(&source, layer);
            // A bias is masked where its outputs were removed.
            let free = weights.mask(layer).is_none() || name.ends_with(".bias");
            source.get(&name).is_none_or(|(_, entry)| counted_in(&name, &entry.shape, true).is_none() && !free)
        })
        .collect();
    match unknown.first() {
        None => Ok(()),
        Some(first) => {
            let reason = format!(
                "it has no weight `{first}` that the run could change ({} such weights of the run)",
                unknown.len()
            );
            Err(LabError::input(&weights.source, reason))
        }
    }
}

/// The tensor behind the name of a changed weight: biases and learned queries are called by their whole name.
fn tensor_of(source: &Checkpoint, weight: &str) -> String {
    if source.get(weight).is_some() { weight.to_owned() } else { format!("{weight}.weight") }
}

/// The bytes of a tensor that the run changes.
fn changed(weights: &RunWeights, file: &File, entry: &Entry, device: Device) -> Result<Option<Vec<u8>>, LabError> {
    let layer = entry.name.strip_suffix(".weight").unwrap_or(&entry.name);
    if !weights.is_changed(layer) {
        return Ok(None);
    }
    let kind = match entry.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        // The run was made from weights; whole numbers are none.
        _ => return Ok(None),
    };
    let shape: Vec<i64> = entry.shape.iter().map(|&size| size as i64).collect();
    let torch = |e: tch::TchError| LabError::from(ressa_models::ModelError::from(e));
    let dense = Tensor::f_from_data_size(&file.read(entry), &shape, kind).map_err(torch)?;
    let dense = dense.f_to_device(device).map_err(torch)?;
    let Some(weight) = weights.weight(layer, &dense)? else { return Ok(None) };
    let weight = weight.f_to_kind(kind).and_then(|w| w.f_to_device(Device::Cpu)?.f_contiguous()).map_err(torch)?;
    if let Some(keep) = weights.mask(layer) {
        let revived = weight.to_kind(Kind::Bool).gt_tensor(&keep.keep().to_device(Device::Cpu).view_as(&weight));
        if count_nonzero(&revived) > 0 {
            return Err(LabError::input(file.path(), format!("`{}`: a pruned weight holds a value", entry.name)));
        }
    }
    if !is_finite(&weight) {
        let reason = format!("`{}`: the run's weights do not fit into {}", entry.name, entry.dtype);
        return Err(LabError::input(file.path(), reason));
    }
    let mut bytes = vec![0; entry.bytes()];
    weight.f_copy_data_u8(&mut bytes, entry.elements()).map_err(torch)?;
    Ok(Some(bytes))
}
