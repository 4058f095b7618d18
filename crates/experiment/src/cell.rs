//! Cells: the points of an experiment's grid, one per combination of axis values and replicate seed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{RunConfig, StageNode, address::Address, output::Label};

/// One point of the grid with one seed. Several cells can share a run: a magnitude mask does not know the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Axis name and value label in file order, replicate axis excluded: `("pattern", "2:4")`, `("restoration", "ressa")`.
    /// Axes over a setting are named by its path, such as `prune.metric`. An `include` point has its own name as the label of every
    /// axis that it does not mention; without an axis in the file, it is that of an axis `point`.
    /// Shared by the seeds of a point.
    pub coordinates: Arc<[(String, String)]>,
    /// Name of the `include` point that this cell is; `None` for points of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// Replicate seed.
    pub seed: u64,
    /// Identity of the run: hash of its canonical configuration. Equal for cells that are the same work.
    pub run_id: Arc<str>,
    /// Canonical configuration: settings the run cannot see are neutral.
    #[serde(with = "crate::shared::one")]
    pub run: Arc<RunConfig>,
    /// The run's stages, upstream first.
    #[serde(with = "crate::shared::list")]
    pub stages: Vec<Arc<StageNode>>,
}

impl Cell {
    /// The label of an axis: a coordinate, or, for a settings path such as `prune.vision.sparsity`, the run's own value.
    pub fn label(&self, axis: &str) -> Option<String> {
        if let Some((_, value)) = self.coordinates.iter().find(|(name, _)| name == axis) {
            return Some(value.clone());
        }
        let address = Address::of_run(axis, &self.run)?;
        Label::of(&address.get(&self.run)).map(|label| label.0)
    }
}
