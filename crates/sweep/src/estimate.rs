//! How long stages take: from the journal of what was published before, else rough defaults.

use std::collections::HashMap;

use ressa_experiment::{Stage, allocation::Measurement};
use ressa_store::{Store, read_journal};

/// Publications of one sort that an estimate looks at; older ones ran on older code.
const RECENT: usize = 30;

/// Seconds per sort of stage.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    by_kind: HashMap<String, History>,
    by_detail: HashMap<String, HashMap<String, History>>,
}

/// Recent executions of one sort, and their median.
#[derive(Clone, Debug, Default)]
struct History {
    recent: Vec<f64>,
    median: f64,
}

impl Estimates {
    /// Estimates from the journal of a store.
    pub fn from_journal(store: &Store) -> Self {
        let mut estimates = Self::default();
        for line in read_journal(store) {
            estimates.learn(&line.kind, &line.detail, line.seconds);
        }
        estimates
    }

    /// Takes one more execution into account.
    pub fn learn(&mut self, kind: &str, detail: &str, seconds: f64) {
        if seconds.is_finite() && seconds >= 0.0 {
            self.by_kind.entry(kind.to_owned()).or_default().push(seconds);
            self.by_detail.entry(kind.to_owned()).or_default().entry(detail.to_owned()).or_default().push(seconds);
        }
    }

    /// Expected wall seconds of a stage: the median of recent executions of its sort.
    pub fn seconds(&self, stage: &Stage) -> f64 {
        let kind = stage.kind();
        let exact = self.by_detail.get(kind).and_then(|details| details.get(detail(stage)));
        exact.or_else(|| self.by_kind.get(kind)).map_or_else(|| default_seconds(stage), |history| history.median)
    }

    /// Whether any execution is known; without one, estimates are guesses.
    pub fn has_history(&self) -> bool {
        !self.by_kind.is_empty()
    }
}

/// What executions of one kind are told apart by in the journal.
pub fn detail(stage: &Stage) -> &'static str {
    match stage {
        Stage::Dense { preset, .. } => preset.map_or("", |preset| preset.name()),
        Stage::Sensitivity { tower, .. } | Stage::Statistics { tower, .. } | Stage::Prune { tower, .. } => tower.name(),
        Stage::Rescale { .. } | Stage::Adapt { .. } => "",
        Stage::Merge { method, .. } => method.name(),
        Stage::Evaluate { task, .. } => task.name(),
    }
}

/// Seconds at shapes scale on one core, before anything was measured here.
fn default_seconds(stage: &Stage) -> f64 {
    match stage {
        // A published checkpoint is only looked up; a training has about 2000 steps.
        Stage::Dense { checkpoint: Some(_), .. } => 0.1,
        Stage::Dense { steps, .. } => 330.0 * f64::from(steps.unwrap_or(2000)) / 2000.0,
        Stage::Rescale { .. } => 0.3,
        Stage::Sensitivity { measurement: Measurement::Perturbation { .. }, .. } => 60.0,
        Stage::Sensitivity { .. } => 3.0,
        Stage::Statistics { .. } | Stage::Prune { .. } => 2.0,
        Stage::Adapt { .. } => 20.0,
        Stage::Merge { .. } => 0.3,
        Stage::Evaluate { .. } => 3.0,
    }
}

impl History {
    fn push(&mut self, seconds: f64) {
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push(seconds);
        let mut sorted = self.recent.clone();
        sorted.sort_by(f64::total_cmp);
        self.median = sorted[sorted.len() / 2];
    }
}
