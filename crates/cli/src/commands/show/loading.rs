//! Weights of the domains that trainings drew their batches from, where these changed on the way.

use ressa_experiment::{Stage, StageNode, loading::LoadingRecord};
use ressa_store::Store;
use serde::Serialize;
use serde_json::Value;

use crate::{
    exit::Failure,
    study::short,
    text::{columns, say},
};

/// The weights of a training.
#[derive(Serialize)]
pub struct Loading {
    /// Key of the training.
    pub stage: String,
    #[serde(flatten)]
    pub record: LoadingRecord,
}

impl Loading {
    /// What a stage recorded; nothing where it is no training whose weights changed, or not there.
    pub fn of(node: &StageNode, store: &Store) -> Result<Option<Self>, Failure> {
        if !matches!(&*node.stage, Stage::Adapt { training, .. } if training.loading.is_on()) {
            return Ok(None);
        }
        let entry = match store.entry(&node.key.hex()) {
            Ok(Some(entry)) => entry,
            Err(error) if !error.is_damage() => return Err(error.into()),
            _ => return Ok(None),
        };
        let record = serde_json::from_value(entry.result::<Value>()?["loading"].take()).ok();
        Ok(record.map(|record| Self { stage: node.key.to_string(), record }))
    }
}

/// Prints a table for each training: the weight of each domain, and its loss above the reference.
pub fn print(loadings: &[Loading]) {
    for Loading { stage, record } in loadings {
        say(format_args!(
            "\nweights of domains in {}, and losses (reference)\n{}",
            short(stage),
            table(record).trim_end()
        ));
    }
}

fn table(record: &LoadingRecord) -> String {
    let head = |first: &str| std::iter::once(first.to_owned());
    let mut rows: Vec<Vec<String>> = vec![head("step").chain(record.domains.iter().cloned()).collect()];
    rows.push(head("0").chain(record.weights.iter().map(|weight| percent(*weight))).collect());
    for update in &record.updates {
        let domain = |((weight, loss), reference): ((&f64, &f64), &f64)| {
            format!("{} {loss:.3} ({reference:.3})", percent(*weight))
        };
        let domains = update.weights.iter().zip(&update.losses).zip(&record.reference).map(domain);
        rows.push(head(&update.step.to_string()).chain(domains).collect());
    }
    columns(&rows)
}

fn percent(weight: f64) -> String {
    format!("{:.1} %", 100.0 * weight)
}

#[cfg(test)]
mod tests {
    use ressa_experiment::loading::LoadingUpdate;

    use super::*;

    #[test]
    fn weights_stand_beside_the_losses_that_they_follow() {
        let record = LoadingRecord {
            domains: vec!["vqav2".to_owned(), "gqa".to_owned()],
            weights: vec![0.5, 0.5],
            reference: vec![0.1, 0.2],
            updates: vec![LoadingUpdate { step: 10, losses: vec![0.3, 1.25], weights: vec![0.3, 0.7] }],
        };
        let table = table(&record);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let joined: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        assert_eq!(joined, ["step vqav2 gqa", "0 50.0 % 50.0 %", "10 30.0 % 0.300 (0.100) 70.0 % 1.250 (0.200)"]);
    }
}
