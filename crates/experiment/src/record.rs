//! What comes back from a stage: scores and certificates.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Pattern, Task, Tower};

/// One evaluated task of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// The task.
    pub task: Task,
    /// The column of the table; none where the metric is undefined, as CIDEr of one image is.
    pub score: Option<Score>,
    /// Finer scores: question templates, caption sets, both directions of retrieval.
    pub parts: BTreeMap<String, Score>,
}

impl TaskScore {
    /// Why there is no score, where there is none.
    pub fn undefined(&self) -> Option<&'static str> {
        const REASON: &str = "CIDEr weighs words by the images they occur in, so it needs at least 2 images";
        self.score.is_none().then_some(REASON)
    }
}

/// What other programs found about the predictions of a stage: kept beside the store by `ressa score --keep`, read by the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExternalScores {
    /// Digest of the predictions that were scored.
    pub predictions: String,
    /// The scores, which join the parts of the stage's own.
    pub parts: BTreeMap<String, Score>,
}

impl ExternalScores {
    /// The file of a stage, below the store's writable root.
    pub fn path(root: &Path, key: &str) -> PathBuf {
        root.join("scores").join(format!("{key}.json"))
    }

    /// What is kept for a stage; nothing where its predictions have another digest now.
    pub fn read(root: &Path, key: &str, predictions: &str) -> Option<Self> {
        let text = std::fs::read(Self::path(root, key)).ok()?;
        let found: Self = serde_json::from_slice(&text).ok()?;
        (found.predictions == predictions).then_some(found)
    }
}

/// A measured value, higher is better (but for perplexity), in points: 0 to 100 for accuracies and recalls; MME's are sums of accuracies. Captions of published benchmarks are in the unit
/// that the literature prints, `cider`, 100 times what `pycocoevalcap` returns (BLIP-2 on NoCaps: 121.7); those of the embedded world
/// are 10 times it, `cider-d`, so that 100 is the best there too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was computed, such as `accuracy`, `cider`, `cider-d`, `recall@1`.
    pub metric: String,
    /// The value in points.
    pub value: f64,
    /// Standard error over the items of the test set (not over seeds).
    pub standard_error: f64,
    /// Number of items behind the value.
    pub items: u64,
}

impl Score {
    /// The unit of its value, for people: `%` of accuracies and recalls; of metrics of captions, how many times their definition it is.
    pub fn unit(&self) -> &'static str {
        match self.metric.as_str() {
            "cider-d" => "x 10",
            "cider" | "meteor" | "spice" => "x 100",
            metric if metric.starts_with("bleu") || metric.starts_with("rouge") => "x 100",
            "perplexity" => "",
            "nll" => "nats per token",
            "mme" => "of 2800",
            "mme-perception" => "of 2000",
            "mme-cognition" => "of 800",
            "mme-subtask" => "of 200",
            _ => "%",
        }
    }
}

/// Samples that a stage read, where its data had fewer than its configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shortfall {
    /// Distinct images that were read.
    pub used: u64,
    /// Images that were asked for.
    pub asked: u64,
}

impl Shortfall {
    /// What is short when `used` of `asked` images were read; `None` when nothing is.
    pub fn of(used: usize, asked: u32) -> Option<Self> {
        (used < asked as usize).then_some(Self { used: used as u64, asked: u64::from(asked) })
    }
}

/// For people: `12 images (128 asked for)`.
impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} images ({} asked for)", self.used, self.asked)
    }
}

/// The machine-checked record that weights have exactly the sparsity they claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Calibration images, where there were fewer than asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Shortfall>,
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
