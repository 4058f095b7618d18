//! Cells: the points of an experiment's grid, one per combination of axis values and replicate seed.

use serde::{Deserialize, Serialize};

use crate::{RunConfig, StageNode};

/// One point of the grid with one seed. Several cells can share a run: a magnitude mask does not know the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Axis name and value label in file order, replicate axis excluded: `("pattern", "2:4")`, `("restoration", "ressa")`.
    /// Axes over a setting are named by its path, such as `prune.metric`.
    pub coordinates: Vec<(String, String)>,
    /// Replicate seed.
    pub seed: u64,
    /// Identity of the run: hash of its canonical configuration. Equal for cells that are the same work.
    pub run_id: String,
    /// Canonical configuration: settings the run cannot see are neutral.
    pub run: RunConfig,
    /// The run's stages, upstream first.
    pub stages: Vec<StageNode>,
}

impl Cell {
    /// The label of an axis: a coordinate, or, for a settings path such as `prune.vision.sparsity`, the run's own value.
    pub fn label(&self, axis: &str) -> Option<String> {
        if let Some((_, value)) = self.coordinates.iter().find(|(name, _)| name == axis) {
            return Some(value.clone());
        }
        let config = serde_json::to_value(&self.run).ok()?;
        let mut value = &config;
        for part in axis.split('.') {
            value = value.get(part)?;
        }
        match value {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null | serde_json::Value::Object(_) => None,
            other => Some(other.to_string()),
        }
    }
}
