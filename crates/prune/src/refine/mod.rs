//! Refinement of pruned layers: another mask of the same size and pattern, or other weights under the same mask.
//!
//! A refinement lowers the layer's reconstruction error `|X (W - V)|^2`, with `X` the calibration inputs, `W` the dense weight and `V` the pruned one. It needs the Gram
//! matrix `G = X^T X` alone: the error is the sum of `d G d` over the rows `d` of `W - V`. The error of no row ever rises, so refinements follow each other and any
//! pruning method in any order.

mod error;
mod least_squares;
mod swaps;
mod tower;

use ressa_experiment::Pattern;
use ressa_models::ModelError;
use ressa_runtime::is_finite;
use serde::Serialize;
use tch::{Kind, Tensor};

pub use least_squares::LeastSquares;
pub use swaps::SparseSwaps;
pub use tower::{RefineRequest, TowerRefinement, certify_refined, refine_tower};

use crate::{
    error::PruneError,
    solver::check_layer,
    statistics::{ColumnStatistics, Needs},
};

/// A layer that was pruned.
#[derive(Clone, Copy, Debug)]
pub struct PrunedLayer<'a> {
    /// Module path.
    pub name: &'a str,
    /// The dense weight `[out, in]`, whose outputs are to be kept.
    pub dense: &'a Tensor,
    /// The pruned weight `[out, in]`, of which what `keep` removes is not looked at; `None` where the kept weights are the dense ones.
    pub weight: Option<&'a Tensor>,
    /// Keep mask, bool `[out, in]`.
    pub keep: &'a Tensor,
    /// The pattern that the mask has and is to have.
    pub pattern: Pattern,
    /// What must not come back, bool `[out, in]`; `None` where anything may.
    pub gone: Option<&'a Tensor>,
}

impl PrunedLayer<'_> {
    /// Kept weights and members of an N:M group; `None` where there is no pattern.
    fn group(&self) -> Option<(i64, i64)> {
        match self.pattern {
            Pattern::NOfM { keep, of } => Some((i64::from(keep), i64::from(of))),
            Pattern::Unstructured => None,
        }
    }
}

/// A refined layer.
#[derive(Debug)]
pub struct Refined {
    /// Keep mask, bool `[out, in]`, with as many weights in every row, and in every N:M group, as before.
    pub keep: Tensor,
    /// The new weight, zero where it is pruned, in the type of the dense one; `None` where the kept weights are the dense ones.
    pub weight: Option<Tensor>,
    /// Reconstruction error before and after.
    pub error: Change,
}

/// A reconstruction error before and after a refinement, relative to `|X W|^2`; 0 for a layer without output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// As pruning left the layer.
    pub before: f64,
    /// As the refinement left it.
    pub after: f64,
}

impl Change {
    /// Whether the error is larger than before, or no number.
    pub(crate) fn has_risen(self) -> bool {
        self.after.is_nan() || self.after > self.before
    }
}

/// A method that refines pruned layers.
pub trait Refinement {
    /// What the statistics must hold.
    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    /// Refines layers that all read the input that `statistics` describes, in their order.
    ///
    /// # Errors
    /// A layer holds or sees values that are not finite, has another width than the statistics, or one that its N:M groups do not divide; a weight or mask has
    /// another shape than the dense weight.
    fn refine(
        &self,
        layers: &[PrunedLayer<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<Refined>, PruneError>;
}

/// A layer's weights in f32 on the device of the statistics.
struct Prepared {
    dense: Tensor,
    /// Zero where it is pruned.
    weight: Tensor,
    keep: Tensor,
    gone: Option<Tensor>,
}

impl Prepared {
    /// # Errors
    /// As [`Refinement::refine`].
    fn new(layer: &PrunedLayer<'_>, statistics: &ColumnStatistics, gram: &Tensor) -> Result<Self, PruneError> {
        check_layer(layer.name, &layer.dense.size(), layer.group(), Needs::GRAM, Some(statistics))?;
        for (what, other) in [("weight", layer.weight), ("mask", Some(layer.keep)), ("gone", layer.gone)] {
            if let Some(found) = other.map(Tensor::size).filter(|found| *found != layer.dense.size()) {
                let name = format!("{} ({what})", layer.name);
                return Err(ModelError::Shape { name, found, wanted: layer.dense.size() }.into());
            }
        }
        let as_floats = |tensor: &Tensor| tensor.detach().to_device(gram.device()).to_kind(Kind::Float);
        let dense = as_floats(layer.dense);
        let as_mask = |tensor: &Tensor| tensor.to_device(gram.device()).to_kind(Kind::Bool);
        let keep = as_mask(layer.keep);
        let pruned = keep.logical_not();
        let weight = layer.weight.map_or_else(|| dense.shallow_clone(), as_floats).masked_fill(&pruned, 0.0);
        if !is_finite(&dense) || !is_finite(&weight) {
            return Err(PruneError::NotFiniteWeight { layer: layer.name.to_owned() });
        }
        Ok(Self { dense, weight, keep, gone: layer.gone.map(as_mask) })
    }

    /// Some rows, given their first and their number.
    fn rows(&self, (from, count): (i64, i64)) -> Self {
        let part = |tensor: &Tensor| tensor.narrow(0, from, count);
        let [dense, weight, keep] = [&self.dense, &self.weight, &self.keep].map(part);
        Self { dense, weight, keep, gone: self.gone.as_ref().map(part) }
    }

    /// `W - V`.
    fn missing(&self) -> Tensor {
        &self.dense - &self.weight
    }
}

/// First row and number of rows of parts of at most `most` rows, at least one.
fn parts(rows: i64, most: i64) -> impl Iterator<Item = (i64, i64)> {
    let most = most.max(1);
    (0..rows).step_by(most as usize).map(move |from| (from, most.min(rows - from)))
}

/// The Gram matrix `[in, in]`, f32 and symmetric, up to a factor that no refinement sees.
fn gram(layers: &[PrunedLayer<'_>], statistics: Option<&ColumnStatistics>) -> Result<Option<Tensor>, PruneError> {
    let Some(first) = layers.first() else { return Ok(None) };
    let gram = statistics.and_then(ColumnStatistics::hessian);
    gram.map(Some).ok_or_else(|| PruneError::NoStatistics { layer: first.name.to_owned() })
}
