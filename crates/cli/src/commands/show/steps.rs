//! The steps of a run that lists them.

use ressa_experiment::{RunConfig, Tower, percent, steps::Step};
use serde::Serialize;

use crate::text::{columns, say};

/// A step.
#[derive(Serialize)]
pub struct StepShown {
    pub name: String,
    pub step: &'static str,
    /// The settings that say most, in words.
    pub what: String,
}

/// The steps of a run; none where it is one pruning and one restoration.
pub fn of(run: &RunConfig) -> Vec<StepShown> {
    if run.steps.is_empty() {
        return Vec::new();
    }
    let shown =
        |(name, step): (&str, Step)| StepShown { name: name.to_owned(), step: step.kind().name(), what: what(&step) };
    run.step_names().into_iter().zip(run.sequence()).map(shown).collect()
}

fn what(step: &Step) -> String {
    match step {
        Step::Prune(prune) => {
            let towers = Tower::ALL.into_iter().map(|tower| (tower, prune.tower(tower).sparsity));
            let towers = towers.filter(|(_, sparsity)| *sparsity > 0.0);
            let parts = towers.map(|(tower, sparsity)| match prune.pattern.sparsity() {
                Some(_) => format!("{tower} {}", prune.pattern),
                None => format!("{tower} {} %", percent(sparsity)),
            });
            [prune.metric.name().to_owned()].into_iter().chain(parts).collect::<Vec<_>>().join(", ")
        }
        Step::Structure(structure) => {
            let towers = structure.towers().map(|tower| format!("{tower} {}", structure.tower(tower)));
            let scores = [structure.score.name(), structure.block_score.name()].map(str::to_owned);
            scores.into_iter().chain(towers).collect::<Vec<_>>().join(", ")
        }
        Step::Refine(refine) => format!("{}, at most {} iterations", refine.method.name(), refine.iterations()),
        Step::Reconstruct(reconstruct) => {
            let (train, window, samples) = (reconstruct.train.name(), reconstruct.window, reconstruct.samples);
            format!("{train} by {window}, {samples} samples")
        }
        Step::Restore(restore) => {
            let distilled = if restore.distill.weight > 0.0 { ", distilled" } else { "" };
            format!("{}, {} steps of {} images{distilled}", restore.method.name(), restore.steps, restore.batch)
        }
    }
}

/// Prints the steps, where there are any.
pub fn print(steps: &[StepShown]) {
    if steps.is_empty() {
        return;
    }
    let mut rows = vec![["step", "kind", "what"].map(str::to_owned).to_vec()];
    rows.extend(steps.iter().map(|step| vec![step.name.clone(), step.step.to_owned(), step.what.clone()]));
    say(format_args!("\nsteps\n{}", columns(&rows).trim_end()));
}
