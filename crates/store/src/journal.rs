//! The journal: one line per publication, so that `ressa plan` can estimate and anyone can see that nothing was made twice.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Manifest, Store, StoreError};

/// One publication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The stage's key.
    pub key: String,
    /// Kind of stage.
    pub kind: String,
    /// What estimates are grouped by, such as `evaluate gqa` or `adapt distilled`.
    #[serde(default)]
    pub detail: String,
    /// The dense model behind the stage: name of its preset, or its checkpoint folder; empty in lines of earlier versions.
    #[serde(default)]
    pub model: String,
    /// What it ran on, see [`crate::Environment::machine`]; empty in lines of earlier versions.
    #[serde(default)]
    pub device: String,
    /// Version of libtorch, followed by `tf32` where f32 products used it; empty in lines of earlier versions.
    #[serde(default)]
    pub arithmetic: String,
    /// Wall seconds.
    pub seconds: f64,
    /// CPU seconds.
    pub cpu_seconds: f64,
    /// Process.
    pub pid: u32,
}

pub(crate) fn append(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    let path = store.root().join("journal.jsonl");
    let detail = ["task", "tower", "preset", "method"]
        .iter()
        .find_map(|field| manifest.configuration.get(*field).and_then(|v| v.as_str()))
        .unwrap_or_default()
        .to_owned();
    let line = JournalLine {
        key: manifest.key.clone(),
        kind: manifest.kind.clone(),
        detail,
        model: model(store, manifest),
        device: manifest.environment.machine().to_owned(),
        arithmetic: manifest.environment.arithmetic(),
        seconds: manifest.seconds,
        cpu_seconds: manifest.cpu_seconds,
        pid: std::process::id(),
    };
    let mut text = serde_json::to_string(&line).expect("a line is plain data");
    text.push('\n');
    let mut write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        if ends_torn(&mut file)? {
            text.insert(0, '\n');
        }
        file.write_all(text.as_bytes())
    };
    write().map_err(|e| StoreError::write(&path, e))
}

/// The dense model behind a stage, in words; empty where it cannot be told.
fn model(store: &Store, manifest: &Manifest) -> String {
    let text = |field: &str| manifest.configuration.get(field).and_then(Value::as_str);
    match manifest.inputs.get("dense").and_then(Value::as_str) {
        None => {
            let place = manifest.readings.get(0).and_then(|reading| reading.get("place")?.as_str());
            text("preset").or(place).or(text("checkpoint")).unwrap_or_default().to_owned()
        }
        // A rescaled model reads the one that it was made of.
        Some(key) => match store.entry(key) {
            Ok(Some(entry)) => model(store, &entry.manifest),
            _ => String::new(),
        },
    }
}

/// Whether a process was killed in the middle of its line, which must not swallow the next one.
fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Every whole line of the journal, oldest first; a torn last line is skipped.
pub fn read_journal(store: &Store) -> Vec<JournalLine> {
    let text = std::fs::read_to_string(store.root().join("journal.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
