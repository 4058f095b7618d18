//! Why a tower cannot be pruned.

use ressa_experiment::{Tower, config::Metric};
use ressa_models::ModelError;
use ressa_runtime::RuntimeError;

/// A pruning that cannot be done as asked.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// There are no calibration samples where activations are needed.
    #[error(
        "{what} needs calibration samples and there are none: raise `prune.calibration.images`, and `questions` or `captions` beside it"
    )]
    NoSamples {
        /// What needs them.
        what: String,
    },
    /// Nothing to rank weights with.
    #[error("metric `none` prunes nothing: choose one, such as `magnitude` or `wanda`")]
    NoMetric,
    /// A method that solves layers one by one is to compare all of them.
    #[error("`{}` solves every layer for itself, it cannot compare the weights of a whole tower: choose `row` or `matrix`", metric.name())]
    TowerGroup {
        /// The method.
        metric: Metric,
    },
    /// The model has no such tower.
    #[error("the model has no prunable layers in tower `{tower}`: set its sparsity to 0")]
    NoLayers {
        /// The tower.
        tower: Tower,
    },
    /// The connector has no projection beside its prunable layers.
    #[error(
        "this model has no projection beside the prunable layers of its connector: leave `prune.connector.projection` at false"
    )]
    NoProjection,
    /// A tower was entered before the one below it was run.
    #[error("tower `{tower}` cannot be entered without the one below it; please report this")]
    NotEntered {
        /// The tower.
        tower: Tower,
    },
    /// The budget is missing or cannot be met.
    #[error("sparsity `{}` of tower `{tower}` is not usable: give a fraction from 0 to below 1", .sparsity.map_or("null".to_owned(), |s| s.to_string()))]
    Sparsity {
        /// The tower.
        tower: Tower,
        /// What was asked.
        sparsity: Option<f64>,
    },
    /// N:M needs a width that the group size divides.
    #[error("`{layer}` reads {width} inputs, which groups of {of} do not divide: use another pattern for this tower")]
    Width {
        /// Module path.
        layer: String,
        /// Inputs of the layer.
        width: i64,
        /// Group size of the pattern.
        of: i64,
    },
    /// The activations of a layer are not finite, so its weights cannot be ranked.
    #[error("`{layer}` sees inputs that are not finite: check the checkpoint and the calibration images")]
    NotFiniteInput {
        /// Module path.
        layer: String,
    },
    /// A weight itself is not finite.
    #[error("`{layer}` holds weights that are not finite: check the checkpoint")]
    NotFiniteWeight {
        /// Module path.
        layer: String,
    },
    /// The budget cannot be divided, or not measured for.
    #[error(transparent)]
    Allocation(#[from] crate::allocation::AllocationError),
    /// A method got no statistics, or not those that it needs.
    #[error("`{layer}` has no calibration statistics that the method needs: run calibration samples through it first")]
    NoStatistics {
        /// Module path.
        layer: String,
    },
    /// Statistics of another layer.
    #[error("`{layer}` reads {width} inputs, its statistics are of {found}: collect them on this layer")]
    StatisticsWidth {
        /// Module path.
        layer: String,
        /// Inputs of the layer.
        width: i64,
        /// Inputs in the statistics.
        found: i64,
    },
    /// Stored statistics do not fit together.
    #[error("stored calibration statistics: {reason}; delete them and calibrate again")]
    Statistics {
        /// What is wrong.
        reason: String,
    },
    /// A weight that is no matrix.
    #[error("`{layer}` has a weight of shape {shape:?}, only matrices `[out, in]` can be pruned")]
    NotAMatrix {
        /// Module path.
        layer: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// A Gram matrix that damping does not make positive definite.
    #[error(
        "`{layer}` has inputs whose Gram matrix cannot be factorised: raise the damping or use more calibration samples"
    )]
    Singular {
        /// Module path.
        layer: String,
    },
    /// The tower declares nothing that can be removed as a whole.
    #[error(
        "tower `{tower}` of this model has no heads, channels or blocks that can be removed: set its `structure` to 0"
    )]
    NoGroups {
        /// The tower.
        tower: Tower,
    },
    /// Queries of a tower that has none.
    #[error("tower `{tower}` of this model has no learned queries: set `structure.{tower}.queries` to 0")]
    NoQueries {
        /// The tower.
        tower: Tower,
    },
    /// More is to remain than there is.
    #[error(
        "{target} {what} of tower `{tower}` are to remain, and there are {count}: lower `structure.{tower}.{what}`"
    )]
    Target {
        /// The tower.
        tower: Tower,
        /// What is counted.
        what: &'static str,
        /// What was asked.
        target: f64,
        /// How many there are.
        count: usize,
    },
    /// Blocks that cannot be left out.
    #[error(
        "{removed} blocks of `{stack}` are to go, and {candidates} can: the others do not pass on what they read, or nothing reads them"
    )]
    Blocks {
        /// Path of the stack.
        stack: String,
        /// How many are asked for.
        removed: usize,
        /// How many can go.
        candidates: usize,
    },
    /// Groups that cannot be removed.
    #[error("tower `{tower}` cannot be made smaller: {reason}")]
    Structure {
        /// The tower.
        tower: Tower,
        /// Why.
        reason: String,
    },
    /// There is nothing to train on.
    #[error("tower `{tower}` has no samples to reconstruct from: raise `reconstruct.samples`")]
    NothingToReconstruct {
        /// The tower.
        tower: Tower,
    },
    /// The process was asked to stop; finished windows are kept.
    #[error("stopped, finished windows are kept to go on behind them")]
    GivenBack,
    /// A finished window cannot be kept.
    #[error("finished window: {0}")]
    Unsaved(#[from] RuntimeError),
    /// A mask does not fit its layer.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl PruneError {
    /// Scores of a removal that look at samples, without any.
    pub(crate) fn needs_samples(tower: Tower) -> Self {
        PruneError::Structure { tower, reason: "its scores need calibration samples, and there are none".to_owned() }
    }

    /// Whether the work was saved and given back, as asked.
    pub fn is_given_back(&self) -> bool {
        matches!(self, PruneError::GivenBack)
    }

    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        match self {
            PruneError::Unsaved(_) => true,
            PruneError::Model(error) => error.is_storage(),
            _ => false,
        }
    }
}
