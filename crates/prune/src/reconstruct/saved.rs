//! Finished windows on disk, so that a reconstruction that was interrupted goes on with the next one.

use std::path::{Path, PathBuf};

use tch::Tensor;

use super::train::Trained;
use crate::{error::PruneError, refine::Change};

/// The tensor that holds error before, error after and steps.
const NUMBERS: &str = "numbers";
/// What stands before the name of a weight.
const WEIGHT: &str = "weight:";

fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("window-{number:04}.safetensors"))
}

/// Keeps a window.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(folder: &Path, number: usize, trained: &Trained) -> Result<(), PruneError> {
    let Trained { weights, error: Change { before, after }, steps } = trained;
    let numbers = Tensor::from_slice(&[*before, *after, f64::from(*steps)]);
    let weights = weights.iter().map(|(name, weight)| (format!("{WEIGHT}{name}"), weight.shallow_clone()));
    let tensors: Vec<(String, Tensor)> = weights.chain([(NUMBERS.to_owned(), numbers)]).collect();
    Ok(ressa_runtime::replace_tensors(&path(folder, number), &tensors)?)
}

/// A window that was kept; `None` where there is none, or a damaged one, which is then trained again.
pub(super) fn read(folder: &Path, number: usize) -> Option<Trained> {
    let mut weights = Vec::new();
    let mut numbers = None;
    for (name, tensor) in Tensor::read_safetensors(path(folder, number)).ok()? {
        match name.strip_prefix(WEIGHT) {
            Some(weight) => weights.push((weight.to_owned(), tensor)),
            None if name == NUMBERS => numbers = Vec::<f64>::try_from(&tensor).ok(),
            None => return None,
        }
    }
    let [before, after, steps] = numbers?[..] else { return None };
    weights.sort_by(|(left, _), (right, _)| left.cmp(right));
    Some(Trained { weights, error: Change { before, after }, steps: steps as u32 })
}
