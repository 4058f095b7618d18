//! Input statistics of every prunable linear: what `ressa prune` would calibrate on, block by block.

use std::collections::BTreeMap;

use ressa_data::Processor;
use ressa_experiment::{
    Tower,
    config::TokenConfig,
    job::{Compute, Stats},
};
use ressa_models::{InBlocks, folder::load_options};
use ressa_prune::{
    statistics::Needs,
    walk::{InMemory, Look, Onward, Place, Together, Walk},
};
use ressa_runtime::Device;
use serde_json::{Value, json};
use tch::Tensor;

use crate::{LabError, Progress, calibration::Samples, loaded::Reader, streamed::Streamed, tensors::save};

/// Runs the samples in their order and writes `<name>.sqsum`, `.sum` (f64 `[in]`) and `.rows` (i64, a scalar) of the inputs of each prunable
/// linear. The image encoder sees each distinct image once.
pub(crate) fn run(job: &Stats, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    progress(0.0, "loading");
    let processor = Processor::load(&job.model.folder)?;
    let reader = Reader { processor: &processor, device };
    let mut samples = Samples::listed(&job.requests, reader)?;
    let compute: Compute = match job.model.compute {
        Some(compute) => compute,
        None => load_options(&job.model.folder, device, None)?.compute,
    };
    let mut streamed = Streamed::open(&job.model.folder, compute, device)?;
    streamed.converts = true;
    let model = streamed.network();
    if job.end_token && !model.config().text_config().has_encoder() {
        let end = model.special_tokens().eos.first().and_then(|&id| u32::try_from(id).ok());
        samples.texts.iter_mut().for_each(|text| text.answer.extend(end));
    }
    samples.fit(model.config())?;
    let towers: Vec<(Tower, usize)> =
        Tower::ALL.map(|tower| (tower, model.blocks(tower))).into_iter().filter(|(_, blocks)| *blocks > 0).collect();
    let total: usize = towers.iter().map(|(_, blocks)| blocks).sum();

    let look = Look { needs: Needs::NORMS | Needs::MOMENTS, tokens: TokenConfig::default() };
    let (mut tensors, mut linears, mut done) = (BTreeMap::new(), 0, 0);
    let mut walk = Walk::new(streamed, InMemory::new(device));
    for (tower, blocks) in towers {
        walk.enter(tower, &samples.first(None, reader), Together::on(device, look))?;
        for block in 0..blocks {
            progress(done as f64 / total as f64, "collecting");
            walk.block(Place { tower, block }, Some(look), Onward::Before, &mut |_, seen| {
                for (layers, statistics) in seen.groups() {
                    let found = statistics.to_tensors();
                    for layer in layers {
                        linears += 1;
                        for (part, name) in [("squares", "sqsum"), ("sum", "sum"), ("tokens", "rows")] {
                            if let Some(tensor) = found.get(part) {
                                tensors.insert(format!("{layer}.{name}"), Tensor::shallow_clone(tensor));
                            }
                        }
                    }
                }
                Ok(())
            })?;
            done += 1;
        }
    }
    save(&job.output, &tensors)?;
    Ok(json!({
        "output": job.output,
        "linears": linears,
        "samples": job.requests.len(),
        "peak_memory_bytes": ressa_runtime::peak_memory_bytes(),
    }))
}
