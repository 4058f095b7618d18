//! What a stage reads from outside the store, known by content: a folder that is renamed, linked or moved is the same, one that was
//! edited in place is another.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{Stage, config::DataConfig};

/// A model folder or data from outside the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reading {
    /// What it is.
    pub what: ReadingKind,
    /// Where it is, as the experiment says it.
    pub place: String,
    /// Digest of everything in it that the stage reads: 64 hexadecimal digits. `None` where it is not there and was never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Kinds of what is read from outside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadingKind {
    /// The published checkpoint behind the dense model.
    Model,
    /// The checkpoint that images and texts are compared with: by retrieval, or for captions before a prompt.
    Matcher,
    /// The checkpoint that a restoration learns from.
    Teacher,
    /// Annotations and images below `data.root`.
    Data,
    /// The text file `data.text`.
    Text,
}

/// The readings of a stage; most have none, and the evaluations of a run share theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Readings(#[serde(with = "list")] Option<Arc<[Reading]>>);

impl Readings {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Reading> {
        self.0.iter().flat_map(|list| list.iter())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The one of a kind.
    pub fn of(&self, what: ReadingKind) -> Option<&Reading> {
        self.iter().find(|reading| reading.what == what)
    }

    /// The same with another one, unless there is one of its kind.
    #[must_use]
    pub fn with(&self, reading: Option<&Reading>) -> Self {
        match reading {
            Some(reading) if self.of(reading.what).is_none() => self.iter().chain([reading]).cloned().collect(),
            _ => self.clone(),
        }
    }
}

impl FromIterator<Reading> for Readings {
    fn from_iter<I: IntoIterator<Item = Reading>>(readings: I) -> Self {
        let list: Arc<[Reading]> = readings.into_iter().collect();
        Self((!list.is_empty()).then_some(list))
    }
}

mod list {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Reading;

    pub fn serialize<S: Serializer>(list: &Option<Arc<[Reading]>>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().flat_map(|list| list.iter()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Arc<[Reading]>>, D::Error> {
        let list = Vec::<Reading>::deserialize(d)?;
        Ok((!list.is_empty()).then(|| list.into()))
    }
}

/// How a configuration names what it reads: by its content, or, where that is not known, by its place without a slash at the end.
fn named(reading: &Reading) -> String {
    match &reading.content {
        Some(content) => format!("content:{content}"),
        None => Path::new(&reading.place).components().collect::<PathBuf>().display().to_string(),
    }
}

impl Stage {
    /// What a stage reads from outside the store by its own configuration, by kind and place: a published checkpoint for `dense`, data on
    /// disk for stages with samples, the matching model of retrieval or of captions before a prompt, the teacher of a distillation. The embedded world
    /// has no data on disk.
    pub fn reads(&self) -> Vec<(ReadingKind, String)> {
        let text = |path: &Path| path.display().to_string();
        let data = |data: &DataConfig| Some((ReadingKind::Data, text(data.published_root()?)));
        match self {
            Stage::Dense { checkpoint, .. } => {
                checkpoint.iter().map(|folder| (ReadingKind::Model, folder.clone())).collect()
            }
            Stage::Rescale { .. } | Stage::Merge { .. } => Vec::new(),
            Stage::Prune { data: own, .. } | Stage::Structure { data: own, .. } => {
                own.as_ref().and_then(data).into_iter().collect()
            }
            Stage::Sensitivity { data: own, .. }
            | Stage::Statistics { data: own, .. }
            | Stage::Refine { data: own, .. }
            | Stage::Reconstruct { data: own, .. } => data(own).into_iter().collect(),
            Stage::Adapt { data: own, training, .. } => {
                let teacher = training.distill.as_ref().and_then(|distill| distill.teacher.as_deref());
                data(own).into_iter().chain(teacher.map(|folder| (ReadingKind::Teacher, text(folder)))).collect()
            }
            Stage::Evaluate { data: own, retrieval, aids, .. } => {
                let matcher = retrieval.as_ref().and_then(|retrieval| retrieval.checkpoint.as_deref());
                // A task that writes has no retrieval of its own.
                let matcher = matcher.or_else(|| aids.as_ref()?.checkpoint().map(PathBuf::as_path));
                let matcher = matcher.map(|folder| (ReadingKind::Matcher, text(folder)));
                let file = own.text.as_deref().map(|file| (ReadingKind::Text, text(file)));
                data(own).into_iter().chain(matcher).chain(file).collect()
            }
        }
    }

    /// The configuration that a key is made of: places give way to the contents found there.
    #[must_use]
    pub fn by_content(&self, readings: &Readings) -> Stage {
        let mut stage = self.clone();
        let of = |what| readings.of(what).map(named);
        let data = match &mut stage {
            Stage::Dense { checkpoint: Some(folder), .. } => {
                if let Some(name) = of(ReadingKind::Model) {
                    *folder = name;
                }
                None
            }
            Stage::Dense { .. } | Stage::Rescale { .. } | Stage::Merge { .. } => None,
            Stage::Prune { data, .. } | Stage::Structure { data, .. } => data.as_mut(),
            Stage::Sensitivity { data, .. }
            | Stage::Statistics { data, .. }
            | Stage::Refine { data, .. }
            | Stage::Reconstruct { data, .. } => Some(data),
            Stage::Adapt { data, training, .. } => {
                let folder = training.distill.as_mut().and_then(|distill| distill.teacher.as_mut());
                if let (Some(folder), Some(name)) = (folder, of(ReadingKind::Teacher)) {
                    *folder = name.into();
                }
                Some(data)
            }
            Stage::Evaluate { data, retrieval, aids, .. } => {
                let folder = retrieval.as_mut().and_then(|retrieval| retrieval.checkpoint.as_mut());
                let folder = folder.or_else(|| aids.as_mut()?.retrieved.as_mut()?.checkpoint.as_mut());
                if let (Some(folder), Some(name)) = (folder, of(ReadingKind::Matcher)) {
                    *folder = name.into();
                }
                if let (Some(file), Some(name)) = (&mut data.text, of(ReadingKind::Text)) {
                    *file = name.into();
                }
                Some(data)
            }
        };
        if let (Some(data), Some(name)) = (data, of(ReadingKind::Data)) {
            data.root = Some(name.into());
        }
        stage
    }
}

impl DataConfig {
    /// Root of published data; `None` in the embedded world, and where the experiment names none.
    pub fn published_root(&self) -> Option<&Path> {
        self.root.as_deref().filter(|_| self.source == crate::config::DataSource::Folder)
    }
}
