//! What stages open behind those that they read.
//!
//! A merge and masks say what steps made of the weights only together with what they were made from: whoever reads them reads their trainings and
//! earlier masks too. Where a published stage stands in front of one that is absent, the list of inputs does not show that.

use std::collections::{BTreeSet, HashMap};

use crate::Graph;

/// Absent stages behind published ones that a stage to be made opens.
#[derive(Debug, Default)]
pub(super) struct Behind {
    opened: HashMap<usize, Vec<usize>>,
    opened_by: HashMap<usize, Vec<usize>>,
}

impl Behind {
    /// What `present` says is absent. An absent stage is opened when what it opens itself has been made, so nothing is looked for behind it.
    pub fn new(graph: &Graph, present: &[bool]) -> Self {
        let mut found = Self::default();
        let mut missing: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        for (position, stage) in graph.stages.iter().enumerate() {
            let mut behind = BTreeSet::new();
            for &input in stage.inputs.iter().filter(|&&input| graph.stages[input].node.stage.changes_weights()) {
                if !present[input] {
                    behind.insert(input);
                } else if let Some(missing) = missing.get(&input) {
                    behind.extend(missing);
                }
            }
            if present[position] {
                if !behind.is_empty() {
                    missing.insert(position, behind);
                }
                continue;
            }
            for opened in behind.into_iter().filter(|opened| !stage.inputs.contains(opened)) {
                found.opened.entry(position).or_default().push(opened);
                found.opened_by.entry(opened).or_default().push(position);
            }
        }
        found
    }

    /// What a stage waits for beside its inputs.
    pub fn opened(&self, position: usize) -> &[usize] {
        self.opened.get(&position).map_or(&[], Vec::as_slice)
    }

    /// What waits for a stage beside its dependents.
    pub fn opened_by(&self, position: usize) -> &[usize] {
        self.opened_by.get(&position).map_or(&[], Vec::as_slice)
    }
}
