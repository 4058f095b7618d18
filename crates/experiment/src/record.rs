//! What comes back from a stage: scores and certificates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Pattern, Task, Tower};

/// One evaluated task of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// The task.
    pub task: Task,
    /// The column of the table.
    pub score: Score,
    /// Finer scores: question templates, caption sets, both directions of retrieval.
    pub parts: BTreeMap<String, Score>,
}

/// A measured value, higher is better, in points (0 to 100 for accuracies and recalls, CIDEr-D times 10 for captions).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was computed, such as `accuracy`, `cider-d`, `recall@1`.
    pub metric: String,
    /// The value in points.
    pub value: f64,
    /// Standard error over the items of the test set (not over seeds).
    pub standard_error: f64,
    /// Number of items behind the value.
    pub items: u64,
}

/// The machine-checked record that weights have exactly the sparsity they claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// What each tensor was found to be, by name.
    pub tensors: BTreeMap<String, TensorCertificate>,
    /// Why the certificate does not hold; empty when it does.
    pub violations: Vec<String>,
}

impl Certificate {
    /// Whether every claim was found true.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    /// Zeros and weights of a tower: `(zeros, total)`.
    pub fn tower(&self, tower: Tower) -> (u64, u64) {
        self.tensors
            .values()
            .filter(|t| t.tower == tower)
            .fold((0, 0), |(zeros, total), t| (zeros + t.zeros, total + t.total))
    }

    /// Fraction of zero weights in a tower; `None` when the certificate has no tensor of it.
    pub fn sparsity(&self, tower: Tower) -> Option<f64> {
        let (zeros, total) = self.tower(tower);
        (total > 0).then(|| zeros as f64 / total as f64)
    }
}

/// Counts of one weight matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorCertificate {
    /// Tower of the matrix.
    pub tower: Tower,
    /// Weights that are exactly zero.
    pub zeros: u64,
    /// Weights in all.
    pub total: u64,
    /// Pruned positions that hold a value again.
    pub revived: u64,
    /// Pattern that was claimed, where one was.
    pub pattern: Option<Pattern>,
    /// Groups that keep more than the pattern allows.
    pub group_violations: u64,
}
