//! Why a budget cannot be allocated.

use ressa_experiment::{Pattern, Tower};
use ressa_models::ModelError;

/// A budget that cannot be allocated as asked.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// Floors and caps leave no solution.
    #[error(
        "{removed} of {total} weights cannot go: floors and caps allow at least {least} and at most {most}; \
         change the tower's sparsity, `prune.allocation.floor` or `prune.allocation.cap`"
    )]
    Infeasible {
        /// Weights that were to go.
        removed: u64,
        /// Weights there are.
        total: u64,
        /// Fewest that may go.
        least: u64,
        /// Most that may go.
        most: u64,
    },
    /// A group has a score or bounds that mean nothing.
    #[error(
        "group {position} has score `{score}`, floor `{floor}` and cap `{cap}`: scores must be finite and not negative, \
         and bounds fractions with the floor below the cap"
    )]
    Group {
        /// Place in the list.
        position: usize,
        /// Its score.
        score: f64,
        /// Smallest fraction removed.
        floor: f64,
        /// Largest fraction removed.
        cap: f64,
    },
    /// A layer was not measured.
    #[error("no sensitivity was measured for `{layer}`: measure its tower with the same model")]
    NotMeasured {
        /// Module path.
        layer: String,
    },
    /// A layer has no share.
    #[error("the budget was divided without `{layer}`: divide it over all layers of the tower")]
    NotDivided {
        /// Module path.
        layer: String,
    },
    /// The pattern says what every layer loses.
    #[error("pattern `{pattern}` says every layer's budget, so there is none to divide: use `unstructured`")]
    Pattern {
        /// The pattern.
        pattern: Pattern,
    },
    /// A measurement is not a number.
    #[error("the sensitivity of `{layer}` is not finite: check the checkpoint and the calibration samples")]
    NotFinite {
        /// Module path.
        layer: String,
    },
    /// A measurement by differences of losses in half precision.
    #[error(
        "zeroth-order sensitivities need a model that computes in float32: set `model.compute: float32`, or measure gradients (`prune.allocation.order: first`)"
    )]
    HalfPrecision,
    /// Nothing to measure on.
    #[error("sensitivities need calibration samples and there are none: raise `prune.calibration.images`")]
    NoSamples,
    /// The model has no such tower.
    #[error("the model has no prunable layers in tower `{tower}`: set its sparsity to 0")]
    NoLayers {
        /// The tower.
        tower: Tower,
    },
    /// A pattern of the table names nothing.
    #[error(
        "`prune.allocation.table` names `{pattern}`, which no prunable layer is called; layers are named like `{example}`"
    )]
    NoSuchLayer {
        /// The pattern.
        pattern: String,
        /// A name that exists.
        example: String,
    },
    /// Two patterns disagree about a layer.
    #[error(
        "`prune.allocation.table` gives `{layer}` two sparsities, by `{first}` and by `{second}`: make one pattern longer"
    )]
    Ambiguous {
        /// Module path.
        layer: String,
        /// One pattern.
        first: String,
        /// Another, as specific.
        second: String,
    },
    /// The table leaves nothing to meet the budget with.
    #[error(
        "`prune.allocation.table` fixes {fixed} of the {removed} weights that are to go, and the other layers can give {least} to {most}: \
         change the table or the tower's sparsity"
    )]
    Table {
        /// Weights that the table removes.
        fixed: u64,
        /// Weights that were to go.
        removed: u64,
        /// Fewest the rest may give.
        least: u64,
        /// Most the rest may give.
        most: u64,
    },
    /// A weight does not fit its layer.
    #[error(transparent)]
    Model(#[from] ModelError),
}
