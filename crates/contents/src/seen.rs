//! The content that a place had when a sweep last used it, so that results outlive a checkpoint or data that was deleted to free a disk,
//! and so that a plan can say what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use ressa_experiment::{Reading, Stage};
use ressa_store::{Store, is_key, replace};

use crate::{Content, Subject};

/// Ending of the lists of files beside the contents.
const FILES: &str = "json";

/// What [`crate::Contents`] found.
#[derive(Debug, Default)]
pub struct Findings {
    /// File of each place, and its content now.
    found: BTreeMap<PathBuf, Content>,
    /// The first place that a disk gave no answer about: nothing planned on it could be trusted.
    pub unreadable: Option<String>,
    /// Places that are not what the last sweep read there.
    pub changed: BTreeSet<String>,
    /// What was looked at, each with a stage that reads it: while [`crate::Contents::readings`] says the same of these, it does of all.
    pub asked: Vec<(Stage, Reading)>,
}

impl Findings {
    pub(crate) fn add(&mut self, store: &Store, subject: &Subject, content: Content) {
        if last(store, subject).is_some_and(|before| before != content.digest) {
            self.changed.insert(subject.place.display().to_string());
        }
        self.found.insert(file(store, subject), content);
    }

    /// Keeps what was found for later plans. Not being able to is no error: then results do not outlive their source.
    pub fn remember(&self) {
        for (path, content) in &self.found {
            let listed = path.with_extension(FILES);
            if listed.is_file() && fs::read_to_string(path).is_ok_and(|known| known == content.digest) {
                continue;
            }
            let _ = fs::create_dir_all(path.parent().unwrap_or(path));
            let list = serde_json::to_vec(&(&content.digest, &content.files)).expect("texts are plain data");
            // The list says whose it is, so a kill between the two leaves one that nobody takes for the other's.
            let _ = replace(&listed, &list).and_then(|()| replace(path, content.digest.as_bytes()));
        }
    }
}

/// One small file per place and what is read there.
fn file(store: &Store, subject: &Subject) -> PathBuf {
    let name = blake3::hash(format!("{}\n{}", subject.place.display(), subject.by).as_bytes()).to_hex();
    store.root().join("seen").join(&name[..32])
}

/// The content when it was last used.
pub(crate) fn last(store: &Store, subject: &Subject) -> Option<String> {
    let text = fs::read_to_string(file(store, subject)).ok()?;
    is_key(&text).then_some(text)
}

/// The files behind a content that [`last`] gave, with their digests; none where they were not written down.
pub(crate) fn files(store: &Store, subject: &Subject, content: &str) -> Vec<(String, String)> {
    let listed = fs::read(file(store, subject).with_extension(FILES)).ok();
    let listed: Option<(String, Vec<(String, String)>)> = listed.and_then(|text| serde_json::from_slice(&text).ok());
    listed.filter(|(of, _)| of == content).map(|(_, files)| files).unwrap_or_default()
}
