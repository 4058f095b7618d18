//! What experiments ask for, remembered: planning them again for every look would cost as much as planning them to run.
//!
//! An outline is kept below the store under the files, overrides and options that ask for it and the build of this program. It holds while every
//! file that it was made of says the same, and all that its stages read from outside the store has the same content. Losing it, or a folder that
//! cannot be written, costs time only.

use std::path::PathBuf;

use ressa_contents::Contents;
use ressa_experiment::{Reading, SourceFile, Stage};
use ressa_store::{Cache, CacheKey};
use ressa_sweep::{Graph, Outline, RunNames};
use rmp_serde::Deserializer;
use serde::{Deserialize, Serialize};

use crate::{
    arguments::Selection,
    build_id::build,
    exit::Failure,
    study::{Requested, Study},
    workspace::Workspace,
};

/// Folder within the store's root.
const FOLDER: &str = "outlines";
/// Bytes that outlines may take: some hundred of them, or a few of 100,000 runs.
const LIMIT: u64 = 256 << 20;

/// What an outline was made of.
#[derive(Serialize, Deserialize)]
struct Sources {
    files: Vec<SourceFile>,
    /// JSON, which has every type of a stage: what was read from outside the store, each with a stage that reads it.
    readings: String,
}

/// The outline of what is selected.
pub fn outline(workspace: &Workspace, selection: &Selection) -> Result<Outline, Failure> {
    Ok(look_up(workspace, selection, false)?.0)
}

/// The same with the names of its runs.
pub fn named_outline(workspace: &Workspace, selection: &Selection) -> Result<(Outline, RunNames), Failure> {
    look_up(workspace, selection, true)
}

/// The outline that is remembered, or made now and remembered. Names are left out where nobody wants them.
fn look_up(workspace: &Workspace, selection: &Selection, named: bool) -> Result<(Outline, RunNames), Failure> {
    let known = key(workspace, selection).and_then(|key| unpack(workspace, &cache(workspace).get(&key)?, named));
    if let Some(known) = known {
        return Ok(known);
    }
    let study = Study::load(workspace, selection)?;
    Ok(remember(workspace, selection, &study, &study.graph(true)))
}

/// Makes the outline of what was loaded, whose graph with its gates is `graph`, and remembers it.
pub fn remember(workspace: &Workspace, selection: &Selection, study: &Study, graph: &Graph) -> (Outline, RunNames) {
    let (outline, names) = Outline::of(study.parts(), graph);
    // A look makes no store.
    if let Some(key) = key(workspace, selection).filter(|_| workspace.reading().root().is_dir()) {
        cache(workspace).put(&key, &pack(study, &outline, &names));
    }
    (outline, names)
}

fn cache(workspace: &Workspace) -> Cache {
    Cache::new(workspace.reading().root().join(FOLDER), LIMIT)
}

/// What asks for an outline; none for a program without a name, which could be any.
fn key(workspace: &Workspace, selection: &Selection) -> Option<CacheKey> {
    let Requested { files, overrides } = Requested::of(workspace, selection);
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let files: Vec<_> = files.iter().map(absolute).collect();
    let partition = selection.partition.map(|partition| partition.to_string());
    let asked = (&workspace.root, &workspace.experiments, files, overrides, &selection.filters.filter, partition);
    let asked = rmp_serde::to_vec(&asked).expect("paths are UTF-8, the rest is text");
    Some(CacheKey::new("outline").with(build()?).with(asked))
}

fn pack(study: &Study, outline: &Outline, names: &RunNames) -> Vec<u8> {
    let readings = serde_json::to_string(&study.findings.asked).expect("stages are plain data");
    let files = study.sources.clone();
    let mut bytes = Vec::new();
    let add = |written: Result<(), rmp_serde::encode::Error>| written.expect("an outline is plain data");
    add(rmp_serde::encode::write(&mut bytes, &Sources { files, readings }));
    add(rmp_serde::encode::write(&mut bytes, outline));
    add(rmp_serde::encode::write(&mut bytes, names));
    bytes
}

/// What was packed, if it holds still.
fn unpack(workspace: &Workspace, bytes: &[u8], named: bool) -> Option<(Outline, RunNames)> {
    let mut source = Deserializer::from_read_ref(bytes);
    let sources = Sources::deserialize(&mut source).ok()?;
    if !sources.hold(workspace) {
        return None;
    }
    let outline = Outline::deserialize(&mut source).ok()?;
    let names = if named { RunNames::deserialize(&mut source).ok()? } else { RunNames::new() };
    Some((outline, names))
}

impl Sources {
    fn hold(&self, workspace: &Workspace) -> bool {
        if !self.files.iter().all(SourceFile::is_unchanged) {
            return false;
        }
        let Ok(readings) = serde_json::from_str::<Vec<(Stage, Reading)>>(&self.readings) else { return false };
        let store = workspace.reading();
        let contents = Contents::new(&store, &workspace.root);
        let is_same = |(stage, reading): &(Stage, Reading)| contents.readings(stage).of(reading.what) == Some(reading);
        let are_same = readings.iter().all(is_same);
        // A disk that does not answer says nothing: planning again says which one it is.
        are_same && contents.into_findings().unreadable.is_none()
    }
}
