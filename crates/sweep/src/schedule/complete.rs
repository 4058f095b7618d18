//! How many runs are complete.

use std::collections::HashMap;

use crate::Graph;

/// Every run that is not complete waits at one of its missing stages; when that is made, at another one.
#[derive(Debug)]
pub(super) struct Complete {
    /// Runs by the stage they wait at.
    waiting: HashMap<usize, Vec<u32>>,
    /// Runs whose every stage is present.
    pub runs: usize,
}

impl Complete {
    /// Counts the runs whose every stage `is_present`.
    pub fn new(graph: &Graph, is_present: impl Fn(usize) -> bool) -> Self {
        let mut complete = Self { waiting: HashMap::new(), runs: 0 };
        (0..graph.runs.len() as u32).for_each(|run| complete.look(graph, run, &is_present));
        complete
    }

    /// Follows a stage that became present.
    pub fn made(&mut self, graph: &Graph, position: usize, is_present: impl Fn(usize) -> bool) {
        let runs = self.waiting.remove(&position).unwrap_or_default();
        runs.into_iter().for_each(|run| self.look(graph, run, &is_present));
    }

    fn look(&mut self, graph: &Graph, run: u32, is_present: impl Fn(usize) -> bool) {
        match graph.runs[run as usize].stages.iter().find(|&&stage| !is_present(stage)) {
            Some(&missing) => self.waiting.entry(missing).or_default().push(run),
            None => self.runs += 1,
        }
    }
}
