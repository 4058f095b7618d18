//! How long stages take: from what was published before with this model on this device, else rough defaults.

use std::collections::HashMap;

use ressa_experiment::{Stage, StageKey, Tower, allocation::Measurement};
use ressa_runlog::{Index, State};

use crate::GraphStage;

/// Publications of one sort that an estimate looks at; older ones ran on older code.
const RECENT: usize = 30;

/// Seconds per sort of stage, by model, on one kind of device.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    /// By model (empty: lines of versions that did not write it), kind and detail; an empty detail is all of a kind. Maps in maps, because a plan
    /// asks for every stage, with texts that it borrows.
    histories: HashMap<String, HashMap<String, HashMap<String, History>>>,
}

/// Recent executions of one sort, and their median.
#[derive(Clone, Debug, Default)]
struct History {
    recent: Vec<f64>,
    median: f64,
}

impl Estimates {
    /// Estimates from what a log knows to be published, of devices that `counts`. Outputs that do not say their device count on a CPU.
    pub fn of(index: &Index, counts: impl Fn(&str) -> bool) -> Self {
        let mut sorts: HashMap<_, Vec<(&StageKey, f64)>> = HashMap::new();
        for (key, record) in index.iter() {
            let State::Published(published) = &record.state else { continue };
            let device = published.environment.machine();
            if !counts(if device.is_empty() { "cpu" } else { device }) || !is_time(published.seconds) {
                continue;
            }
            let mut push = |detail| {
                let sort = sorts.entry((&*published.model, &*published.kind, detail)).or_default();
                sort.push((key, published.seconds));
                // The last ones by key, so that estimates do not depend on the order of the log; now and then, the others are dropped.
                if sort.len() == 2 * RECENT {
                    sort.sort_unstable_by_key(|(key, _)| **key);
                    sort.drain(..RECENT);
                }
            };
            push("");
            if !published.detail.is_empty() {
                // Manifests name a tower as keys do.
                push(Tower::named(&published.detail).map_or(&*published.detail, |tower| tower.name()));
            }
        }
        let mut estimates = Self::default();
        for ((model, kind, detail), mut sort) in sorts {
            sort.sort_unstable_by_key(|(key, _)| **key);
            let recent = sort[sort.len().saturating_sub(RECENT)..].iter().map(|(_, seconds)| *seconds).collect();
            let kinds = estimates.histories.entry(model.to_owned()).or_default();
            kinds.entry(kind.to_owned()).or_default().insert(detail.to_owned(), History::new(recent));
        }
        estimates
    }

    /// Takes one more execution into account.
    pub fn learn(&mut self, model: &str, kind: &str, detail: &str, seconds: f64) {
        if !is_time(seconds) {
            return;
        }
        let kinds = self.histories.entry(model.to_owned()).or_default();
        let details = kinds.entry(kind.to_owned()).or_default();
        let mut push = |detail: &str| details.entry(detail.to_owned()).or_default().push(seconds);
        push("");
        if !detail.is_empty() {
            push(detail);
        }
    }

    /// Median wall seconds of recent executions of a stage's sort, with its model; `None` where there were none.
    ///
    /// Lines without a model are of versions that wrote none; models of the embedded world, which cost much the same, take them.
    pub fn timed(&self, stage: &GraphStage) -> Option<f64> {
        let (kind, detail) = (stage.node.stage.kind(), detail(&stage.node.stage));
        let of = |model: &str| {
            let details = self.histories.get(model)?.get(kind)?;
            details.get(detail).or_else(|| details.get("")).map(|history| history.median)
        };
        of(&stage.model).or_else(|| if stage.is_embedded { of("") } else { None })
    }

    /// Expected wall seconds of a stage: as timed, else a rough default at the scale of the embedded world.
    pub fn seconds(&self, stage: &GraphStage) -> f64 {
        self.timed(stage).unwrap_or_else(|| default_seconds(&stage.node.stage))
    }
}

/// What executions of one kind are told apart by in the log.
pub fn detail(stage: &Stage) -> &'static str {
    match stage {
        Stage::Dense { preset, .. } => preset.map_or("", |preset| preset.name()),
        Stage::Sensitivity { tower, .. }
        | Stage::Statistics { tower, .. }
        | Stage::Prune { tower, .. }
        | Stage::Refine { tower, .. }
        | Stage::Structure { tower, .. }
        | Stage::Reconstruct { tower, .. } => tower.name(),
        Stage::Rescale { .. } | Stage::Adapt { .. } => "",
        Stage::Merge { method, .. } => method.name(),
        // Longer prompts and votes take their own time.
        Stage::Evaluate { aids: Some(_), .. } => "aided",
        Stage::Evaluate { task, .. } => task.name(),
    }
}

/// Seconds at shapes scale on one core, before anything was measured here.
pub(crate) fn default_seconds(stage: &Stage) -> f64 {
    match stage {
        // A published checkpoint is only looked up; a training has about 2000 steps.
        Stage::Dense { checkpoint: Some(_), .. } => 0.1,
        Stage::Dense { steps, .. } => 330.0 * f64::from(steps.unwrap_or(2000)) / 2000.0,
        Stage::Rescale { .. } => 0.3,
        Stage::Sensitivity { measurement: Measurement::Perturbation { .. } | Measurement::Search { .. }, .. } => 60.0,
        Stage::Sensitivity { .. } => 3.0,
        Stage::Statistics { .. } | Stage::Prune { .. } | Stage::Refine { .. } | Stage::Structure { .. } => 2.0,
        Stage::Reconstruct { .. } => 5.0,
        Stage::Adapt { .. } => 20.0,
        Stage::Merge { .. } => 0.3,
        Stage::Evaluate { aids, .. } => 3.0 * f64::from(aids.as_ref().map_or(1, |aids| aids.answers())),
    }
}

fn is_time(seconds: f64) -> bool {
    seconds.is_finite() && seconds >= 0.0
}

impl History {
    /// A history of at least one execution.
    fn new(recent: Vec<f64>) -> Self {
        let mut sorted = recent.clone();
        sorted.sort_by(f64::total_cmp);
        Self { median: sorted[sorted.len() / 2], recent }
    }

    fn push(&mut self, seconds: f64) {
        let mut recent = std::mem::take(&mut self.recent);
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(seconds);
        *self = Self::new(recent);
    }
}
