//! The dense gate: declared scores that the dense model must reach before a sweep spends anything on pruning it.

use ressa_experiment::{StageKey, record::TaskScore};
use ressa_store::{Store, StoreError};
use serde::Serialize;

use crate::Graph;

/// One declared floor and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct GateCheck {
    /// The dense model, in words.
    pub model: String,
    /// The evaluation that was looked at.
    pub key: StageKey,
    /// `task` or `task/part`.
    pub name: String,
    /// Lowest acceptable score.
    pub floor: f64,
    /// What was measured; none when the evaluation failed or has no such part.
    pub found: Option<f64>,
}

impl GateCheck {
    /// Whether the floor is reached.
    pub fn passes(&self) -> bool {
        self.found.is_some_and(|found| found >= self.floor)
    }
}

/// Compares published dense evaluations with their floors.
pub(crate) fn check(graph: &Graph, store: &Store) -> Result<Vec<GateCheck>, StoreError> {
    let mut checks = Vec::new();
    for (position, name, floor) in &graph.floors {
        let stage = &graph.stages[*position];
        // The dense model, behind what it was made of.
        let mut model = Vec::new();
        let mut above = stage.inputs.first();
        while let Some(&position) = above {
            model.insert(0, crate::describe(&graph.stages[position].node.stage));
            above = graph.stages[position].inputs.first();
        }
        let found = match store.entry(&stage.node.key.hex())? {
            None => None,
            Some(entry) => {
                let scores: TaskScore = entry.result()?;
                match name.split_once('/') {
                    None => scores.score.map(|score| score.value),
                    Some((_, part)) => scores.parts.get(part).map(|score| score.value),
                }
            }
        };
        checks.push(GateCheck {
            model: model.join(", "),
            key: stage.node.key,
            name: name.clone(),
            floor: *floor,
            found,
        });
    }
    Ok(checks)
}
