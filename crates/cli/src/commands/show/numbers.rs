//! What a run's evaluations and certificates say.

use ressa_experiment::{
    Stage, StageNode, Tower,
    record::{Certificate, ExternalScores, Score, TaskScore},
    rounded_percent,
};
use ressa_store::Store;
use serde::Serialize;

use crate::{
    exit::Failure,
    text::{columns, say, thousands},
};

/// Scores and certificate figures.
#[derive(Default, Serialize)]
pub struct Numbers {
    /// The column of each task, followed by its parts.
    pub scores: Vec<Scored>,
    /// Figures of each tower that a certificate counts: the last merge's, and of the towers pruned, refined or made smaller after it.
    pub certificate: Vec<Counted>,
    /// What certificates found wrong.
    pub violations: Vec<String>,
}

/// A score.
#[derive(Serialize)]
pub struct Scored {
    /// The task, or `task/part`.
    pub name: String,
    pub metric: String,
    pub value: f64,
    /// Over the items of the test set.
    pub standard_error: f64,
    pub items: u64,
    pub unit: &'static str,
    /// Whether it is a part of a task's score.
    pub part: bool,
}

/// Counts of a tower.
#[derive(Serialize)]
pub struct Counted {
    pub tower: Tower,
    pub zeros: u64,
    pub weights: u64,
    pub revived: u64,
    pub group_violations: u64,
}

impl Scored {
    fn new(name: String, score: Score, part: bool) -> Self {
        let unit = score.unit();
        let Score { metric, value, standard_error, items } = score;
        Self { name, metric, value, standard_error, items, unit, part }
    }
}

impl Numbers {
    /// Adds what a stage found; nothing where it is not there.
    pub fn add(&mut self, node: &StageNode, store: &Store) -> Result<(), Failure> {
        let is_certified = node.stage.is_certified();
        let is_scored = matches!(*node.stage, Stage::Evaluate { .. });
        let entry = match store.entry(&node.key.hex()) {
            Ok(Some(entry)) if is_certified || is_scored => entry,
            Err(error) if !error.is_damage() => return Err(error.into()),
            _ => return Ok(()),
        };
        if is_certified {
            let certificate: Certificate = entry.result()?;
            // What a merge counts are the weights that are evaluated.
            if matches!(*node.stage, Stage::Merge { .. }) {
                self.certificate.clear();
                self.violations.clear();
            }
            for tower in Tower::ALL {
                // So are those of what a later step has pruned.
                self.certificate.retain(|known| known.tower != tower || certificate.tower(tower).1 == 0);
                let tensors = || certificate.tensors.values().filter(|tensor| tensor.tower == tower);
                let (zeros, weights) = certificate.tower(tower);
                let revived = tensors().map(|tensor| tensor.revived).sum();
                let group_violations = tensors().map(|tensor| tensor.group_violations).sum();
                if weights > 0 {
                    self.certificate.push(Counted { tower, zeros, weights, revived, group_violations });
                }
            }
            self.certificate.sort_by_key(|counted| counted.tower);
            self.violations.extend(certificate.violations);
            return Ok(());
        }
        let scored: TaskScore = entry.result()?;
        let digest = entry.manifest.files.get("predictions.jsonl").map(|file| file.blake3.as_str());
        let external = digest.and_then(|digest| ExternalScores::read(store.root(), &node.key.hex(), digest));
        let task = scored.task.name();
        self.scores.extend(scored.score.map(|score| Scored::new(task.to_owned(), score, false)));
        let parts = scored.parts.into_iter().chain(external.map(|external| external.parts).unwrap_or_default());
        self.scores.extend(parts.map(|(part, score)| Scored::new(format!("{task}/{part}"), score, true)));
        Ok(())
    }
}

/// Prints tables; parts of scores with `parts`.
pub fn print(numbers: &Numbers, parts: bool) {
    if !numbers.scores.is_empty() {
        let mut rows = vec![["task", "metric", "score", "± (1 se)", "unit", "items"].map(str::to_owned).to_vec()];
        for score in numbers.scores.iter().filter(|score| parts || !score.part) {
            rows.push(vec![
                score.name.clone(),
                score.metric.clone(),
                format!("{:.2}", score.value),
                format!("{:.2}", score.standard_error),
                score.unit.to_owned(),
                score.items.to_string(),
            ]);
        }
        say(format_args!("\nscores\n{}", columns(&rows).trim_end()));
    }
    if !numbers.certificate.is_empty() {
        let head = ["tower", "weights", "zeros", "sparsity", "revived", "N:M violations"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for tower in &numbers.certificate {
            rows.push(vec![
                tower.tower.to_string(),
                thousands(tower.weights),
                thousands(tower.zeros),
                rounded_percent(tower.zeros as f64 / tower.weights as f64),
                tower.revived.to_string(),
                tower.group_violations.to_string(),
            ]);
        }
        say(format_args!("\ncertificate\n{}", columns(&rows).trim_end()));
    }
    numbers.violations.iter().for_each(|violation| say(format_args!("WRONG  {violation}")));
}
