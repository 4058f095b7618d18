//! Allocation: how much of a budget each layer gives.
//!
//! [`measure`] looks at a dense model and gives every layer of a tower one number, which all budgets share (a search's own excepted); [`allocate`] turns these numbers,
//! or a table, into whole numbers of weights per layer; [`solver`] meets the total to one weight.

mod alone;
mod density;
mod error;
mod gradient;
mod groups;
mod outliers;
mod perturbation;
mod probe;
mod search;
mod share;
mod similarity;
pub mod solver;
mod table;

pub use error::AllocationError;
pub use gradient::WINDOW;
pub(crate) use gradient::{differentiate, differentiate_queries};
pub use groups::{Counts, Place, allocate, divide, places};
pub use outliers::outliers_of;
pub(crate) use share::keep_all_but;

use ressa_experiment::{
    Tower,
    allocation::{Measurement, Sensitivities},
};
use ressa_models::{Sample, VisionLanguage};

use crate::error::PruneError;

/// What is measured where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasureRequest {
    /// The tower.
    pub tower: Tower,
    /// What of its layers.
    pub measurement: Measurement,
    /// Most bytes of gradients held at once; changes time and memory, not the numbers.
    pub window: u64,
    /// Replicate seed, for measurements that draw.
    pub seed: u64,
}

/// One number for every layer of a tower, not negative, from the dense weights: masks and adapters of `model` are not looked at, and it is
/// left as it was. Samples run alone and in order. `progress` gets the share done.
pub fn measure(
    model: &dyn VisionLanguage,
    request: &MeasureRequest,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, PruneError> {
    let MeasureRequest { tower, measurement, window, seed } = *request;
    if samples.is_empty() {
        return Err(AllocationError::NoSamples.into());
    }
    let mut dense = model.shallow_clone();
    let mut layers = 0;
    for (id, linear) in dense.linears_mut() {
        linear.set_mask(None)?;
        linear.set_update(None)?;
        layers += usize::from(id.tower == tower);
    }
    if layers == 0 {
        return Err(AllocationError::NoLayers { tower }.into());
    }
    let found = match measurement {
        Measurement::Outliers { group, m } => outliers::outliers(dense.as_ref(), tower, group, m, samples, progress)?,
        Measurement::Gradient { score } => {
            gradient::gradients(dense.as_mut(), tower, score, window, samples, progress)?
        }
        Measurement::Perturbation { score, epsilon, noise: draws } => {
            let noise = perturbation::Noise { epsilon, draws, seed };
            perturbation::perturbations(dense.as_mut(), tower, score, noise, samples, progress)?
        }
        Measurement::Density => density::densities(dense.as_ref(), tower, samples, progress)?,
        Measurement::Similarity => similarity::differences(dense.as_ref(), tower, samples, progress)?,
        Measurement::Search { metric, compared, sparsity, group, floor, cap, search } => {
            let space = search::Space { metric, compared, sparsity, group, floor, cap, search };
            search::search(dense.as_mut(), tower, space, seed, samples, progress)?
        }
    };
    match found.iter().find(|(_, value)| !value.is_finite()) {
        Some((layer, _)) => Err(AllocationError::NotFinite { layer: layer.clone() }.into()),
        None => Ok(found),
    }
}
