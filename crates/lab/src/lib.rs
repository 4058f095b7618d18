//! Single steps on a model folder: run it, look inside, compare, write it back.

mod calibration;
pub mod error;
mod export;
mod forward;
mod generate;
mod kernels;
mod loaded;
mod perplexity;
pub mod prune;
mod prune_layer;
pub mod random;
mod score;
mod sparse_lora;
mod stats;
mod streamed;
mod tensors;

use ressa_experiment::job::Job;
use ressa_runtime::Device;
use serde_json::Value;

pub use error::LabError;

/// Told the share done, 0 to 1, and what is going on.
pub type Progress<'a> = &'a mut dyn FnMut(f64, &str);

/// Does a job on a device and answers with what it found.
///
/// # Errors
/// What is wrong with the folder, the inputs or the place to write to.
pub fn run(job: &Job, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    let _no_grad = tch::no_grad_guard();
    match job {
        Job::Generate(job) => generate::run(job, device, progress),
        Job::Forward(job) => forward::run(job, device, progress),
        Job::Stats(job) => stats::run(job, device, progress),
        Job::RandomCheckpoint(job) => random::random_checkpoint(job, progress),
        Job::PruneLayer(job) => prune_layer::run(job, device),
        Job::SparseLora(job) => sparse_lora::run(job, device),
        Job::Export(job) => export::run(job, device, progress),
        Job::Prune(job) => prune::run(job, device, progress),
        Job::Score(job) => score::run(job, progress),
        Job::Perplexity(job) => perplexity::run(job, device, progress),
        Job::BenchKernels(job) => kernels::run(job, device, progress),
    }
}
