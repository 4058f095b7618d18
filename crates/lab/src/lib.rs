//! Single steps on a model folder: run it, look inside, compare, write it back.

pub mod error;
pub mod prune_layer;
pub mod sparse_lora;
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
        Job::Generate(_) | Job::Forward(_) | Job::Stats(_) | Job::RandomCheckpoint(_) | Job::Export(_) => {
            let _ = (device, progress);
            Err(LabError::Unsupported("this job is not wired yet".to_owned()))
        }
    }
}
