//! Which runs and stages of experiments `-E` and `--partition` choose.

use std::collections::HashSet;

use ressa_experiment::{Experiment, Filter, Partition, StageKey, filter::Bound};

use crate::{
    arguments::Selection,
    exit::{Exit, Failure},
};

/// How the options are written, up to their values.
const FILTER: &str = "-E '";
const PARTITION: &str = "--partition ";
/// A quote within what is quoted.
const QUOTE: &str = r"'\''";

/// Single stages of experiments.
#[derive(Debug)]
pub struct Limited {
    /// The experiments with these stages, and what they read.
    pub experiments: Vec<Experiment>,
    /// The stages.
    pub stages: HashSet<StageKey>,
}

/// The options that choose runs, as a shell takes them.
fn words(filter: Option<&Filter>, partition: Option<Partition>) -> Vec<String> {
    let expression = filter.map(|filter| format!("{FILTER}{}'", filter.to_string().replace('\'', QUOTE)));
    expression.into_iter().chain(partition.map(|part| format!("{PARTITION}{part}"))).collect()
}

/// Files, and the overrides and options of a recorded sweep, as a selection.
pub fn recorded(files: impl IntoIterator<Item = String>, words: &[String]) -> Selection {
    let mut selection = Selection { what: files.into_iter().collect(), ..Selection::default() };
    for word in words {
        if let Some(filter) = word.strip_prefix(FILTER).and_then(|rest| rest.strip_suffix('\'')) {
            selection.filters.filter.push(filter.replace(QUOTE, "'"));
        } else if let Some(partition) = word.strip_prefix(PARTITION).and_then(|rest| rest.parse().ok()) {
            selection.partition = Some(partition);
        } else {
            selection.what.push(word.clone());
        }
    }
    selection
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
        let words = words(filter.as_ref(), partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_says_is_the_selection_that_was_asked_for() {
        let filter = vec!["method ~ \"it's\" and seed = 0".to_owned(), "task = gqa".to_owned()];
        let parsed = Filter::parse(&filter).unwrap();
        let partition: Partition = "2/8".parse().unwrap();
        let mut said = vec!["prune.metric=wanda".to_owned()];
        said.extend(words(parsed.as_ref(), Some(partition)));
        let selection = recorded(["a.yaml".to_owned()], &said);
        assert_eq!(selection.what, ["a.yaml", "prune.metric=wanda"]);
        assert_eq!(selection.partition.map(|part| part.to_string()), Some("2/8".to_owned()));
        let again = Filter::parse(&selection.filters.filter).unwrap();
        assert_eq!(words(again.as_ref(), selection.partition), said[1..]);
    }
}
