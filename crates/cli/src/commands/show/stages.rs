//! The stages of a run: whether they are there, how long they took and what made them.

use ressa_runlog::Index;
use ressa_store::{Environment, Store};
use ressa_sweep::{GraphStage, describe};
use serde::Serialize;
use serde_json::Value;

use crate::{
    exit::Failure,
    text::{columns, duration, say},
};

/// A stage.
#[derive(Serialize)]
pub struct StageShown {
    pub key: String,
    pub kind: &'static str,
    pub what: String,
    /// `cached`, `shipped`, `failed`, `missing` or `damaged`.
    pub state: &'static str,
    /// Why it failed, or what is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall seconds.
    pub seconds: Option<f64>,
    /// Size of its files.
    pub bytes: Option<u64>,
    /// What made it.
    pub made_on: Option<Environment>,
    /// Its own configuration, where it is shown alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
}

impl StageShown {
    /// A stage as the store has it.
    pub fn of(stage: &GraphStage, (store, index): (&Store, &Index), alone: bool) -> Result<Self, Failure> {
        let node = &stage.node;
        let mut shown = Self {
            key: node.key.to_string(),
            kind: node.stage.kind(),
            what: describe(&node.stage),
            state: "missing",
            reason: None,
            seconds: None,
            bytes: None,
            made_on: None,
            configuration: alone.then(|| serde_json::to_value(&*node.stage).unwrap_or_default()),
        };
        match store.entry(&node.key.hex()) {
            Ok(Some(entry)) => {
                shown.state = if entry.is_writable() { "cached" } else { "shipped" };
                shown.seconds = Some(entry.manifest.seconds);
                shown.bytes = Some(entry.manifest.files.values().map(|file| file.bytes).sum());
                shown.made_on = Some(entry.manifest.environment);
            }
            Ok(None) => {
                if let Some(record) = index.failure(&node.key) {
                    (shown.state, shown.reason) = ("failed", Some(record.failure.message.clone()));
                }
            }
            Err(error) if error.is_damage() => (shown.state, shown.reason) = ("damaged", Some(error.to_string())),
            Err(error) => return Err(error.into()),
        }
        Ok(shown)
    }

    /// What made it, in words.
    pub fn maker(&self) -> String {
        let Some(made) = &self.made_on else { return self.reason.clone().unwrap_or_default() };
        let device = if made.accelerator.is_empty() { &made.device } else { &made.accelerator };
        let threads = if made.threads == 1 { "thread" } else { "threads" };
        let parts = [
            format!("{device}, {} {threads}", made.threads),
            format!("libtorch {}", made.arithmetic()),
            format!("ressa {} ({})", made.ressa, made.revision),
        ];
        parts.join(", ")
    }
}

/// Prints a line each, and the configuration of a single one.
pub fn print(stages: &[StageShown]) {
    let mut rows = vec![["key", "stage", "state", "took", "made by"].map(str::to_owned).to_vec()];
    for stage in stages {
        let took = stage.seconds.map(duration).unwrap_or_default();
        rows.push(vec![stage.key[..12].to_owned(), stage.what.clone(), stage.state.to_owned(), took, stage.maker()]);
    }
    say(format_args!("\nstages\n{}", columns(&rows).trim_end()));
    for configuration in stages.iter().filter_map(|stage| stage.configuration.as_ref()) {
        say(format_args!("\nconfiguration\n{configuration:#}"));
    }
}
