//! Which runs and stages of experiments `-E` and `--partition` choose.

use std::collections::HashSet;

use ressa_experiment::{Experiment, Filter, StageKey, filter::Bound};

use crate::{
    arguments::Selection,
    exit::{Exit, Failure},
};

/// Single stages of experiments.
#[derive(Debug)]
pub struct Limited {
    /// The experiments with these stages, and what they read.
    pub experiments: Vec<Experiment>,
    /// The stages.
    pub stages: HashSet<StageKey>,
}

/// What options choose among the runs of experiments.
pub struct Chosen {
    /// The options.
    pub words: Vec<String>,
    /// The filter, and which of its experiments are left.
    filter: Option<(Bound, Vec<usize>)>,
}

impl Chosen {
    /// Leaves of experiments what is chosen; those without any go.
    pub fn of(selection: &Selection, experiments: &mut Vec<Experiment>) -> Result<Self, Failure> {
        let (filter, partition) = (Filter::parse(&selection.filters.filter)?, selection.partition);
        let expression = filter.iter().map(|filter| format!("-E '{}'", filter.to_string().replace('\'', r"'\''")));
        let words: Vec<String> = expression.chain(partition.map(|part| format!("--partition {part}"))).collect();
        if words.is_empty() {
            return Ok(Self { words, filter: None });
        }
        let bound = filter.as_ref().map(|filter| filter.bind(experiments)).transpose()?;
        for (at, experiment) in experiments.iter_mut().enumerate() {
            experiment.select(words.clone(), &mut |cell| {
                partition.is_none_or(|part| part.contains(&cell.run_id))
                    && bound.as_ref().is_none_or(|bound| bound.selects(at, cell))
            });
        }
        let left: Vec<usize> = (0..experiments.len()).filter(|&at| !experiments[at].cells.is_empty()).collect();
        experiments.retain(|experiment| !experiment.cells.is_empty());
        if left.is_empty() {
            let message = format!("no run is selected by {}; `ressa plan -v` lists all of them", words.join(" "));
            return Err(Failure::new(Exit::NothingSelected, message));
        }
        Ok(Self { words, filter: bound.map(|bound| (bound, left)) })
    }

    /// The experiments without the stages that were not chosen; `None` where whole runs are.
    pub fn limited(&self, experiments: &[Experiment]) -> Option<Limited> {
        let (bound, positions) = self.filter.as_ref().filter(|(bound, _)| bound.is_of_stages())?;
        let mut limited = Limited { experiments: experiments.to_vec(), stages: HashSet::new() };
        for (experiment, &at) in limited.experiments.iter_mut().zip(positions) {
            for cell in &experiment.cells {
                let selected = cell.stages.iter().filter(|node| bound.selects_stage(at, cell, node));
                limited.stages.extend(selected.map(|node| node.key));
            }
            experiment.limit(&|_, node| limited.stages.contains(&node.key));
        }
        Some(limited)
    }
}
