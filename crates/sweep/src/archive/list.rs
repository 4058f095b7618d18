//! The list that an archive begins with, and which paths may stand in it.

use std::collections::BTreeMap;

use ressa_experiment::StageKey;
use ressa_store::{FileDigest, MANIFEST, is_key};
use serde::{Deserialize, Serialize};

use super::upstream::Upstream;

/// Name of the list.
pub(super) const LIST: &str = "ressa-results.json";

/// Version of the format; archives of another are refused.
pub(super) const FORMAT: u32 = 1;

/// Maximum size of the list: half a million files.
pub(super) const LONGEST_LIST: u64 = 128 << 20;

/// Folder of what other programs found about predictions.
const SCORES: &str = "scores";

/// Deepest path below a stage's folder.
const MAX_DEPTH: usize = 8;

/// Maximum length of a path: a tar header without extensions holds no more.
pub(super) const LONGEST_PATH: usize = 255;

/// What is in an archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub format: u32,
    /// Version of the program that wrote it.
    pub made_by: String,
    /// Experiment files that ask for the stages, and what was changed and chosen of them.
    pub files: Vec<String>,
    pub words: Vec<String>,
    /// Every entry but this one, by its path.
    pub entries: BTreeMap<String, FileDigest>,
    /// What its stages were made of that is not in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstream: BTreeMap<StageKey, Upstream>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A file of a stage, by its name in the stage's folder.
    Stage { key: &'a str, name: &'a str },
    /// Scores of other programs.
    Scores { key: &'a str },
}

impl<'a> Place<'a> {
    /// What a path is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(path: &'a str) -> Result<Self, &'static str> {
        if path.len() > LONGEST_PATH {
            return Err("a path that is too long");
        }
        if path.starts_with('/') || path.contains('\\') || path.get(1..2) == Some(":") {
            return Err("an absolute path");
        }
        if path.chars().any(char::is_control) {
            return Err("a path with control characters");
        }
        let parts: Vec<&str> = path.split('/').collect();
        if parts.contains(&"..") {
            return Err("a path that leads out of the folder");
        }
        if parts.iter().any(|part| part.is_empty() || *part == ".") {
            return Err("a path with empty parts");
        }
        match parts.as_slice() {
            [SCORES, file] => match file.strip_suffix(".json").filter(|key| is_key(key)) {
                Some(key) => Ok(Self::Scores { key }),
                None => Err("not a file of scores"),
            },
            [shard, key, _, ..]
                if is_key(key) && key.starts_with(shard) && shard.len() == 2 && parts.len() <= MAX_DEPTH =>
            {
                Ok(Self::Stage { key, name: &path[shard.len() + key.len() + 2..] })
            }
            _ => Err("not a file of a stage"),
        }
    }
}

impl List {
    /// What is wrong with it, with the path; `None` where it can be meant.
    pub fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("it has format {}, this program reads {FORMAT}", self.format));
        }
        for (path, digest) in &self.entries {
            let place = match Place::of(path) {
                Err(what) => return Some(format!("`{}` is {what}", shown(path))),
                Ok(place) => place,
            };
            let is_digest = |text: &str| is_key(text);
            if !is_digest(&digest.blake3) {
                return Some(format!("`{path}` is listed without a digest"));
            }
            let key = match place {
                Place::Stage { key, .. } | Place::Scores { key } => key,
            };
            if !self.entries.contains_key(&format!("{}/{key}/{MANIFEST}", &key[..2])) {
                return Some(format!("`{path}` is listed without the manifest of its stage"));
            }
        }
        None
    }

    /// Bytes of all entries; the largest number where they are more.
    pub fn bytes(&self) -> u64 {
        self.entries.values().fold(0, |sum: u64, file| sum.saturating_add(file.bytes))
    }
}

/// A name of somebody else's, as it can be shown: without control characters, and not too long.
pub(super) fn shown(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(120).collect();
    if clean.len() < text.len() { format!("{clean}...") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_stages_have_a_place() {
        let key = "ab".repeat(32);
        let path = format!("ab/{key}/model/config.json");
        assert_eq!(Place::of(&path), Ok(Place::Stage { key: &key, name: "model/config.json" }));
        assert_eq!(Place::of(&format!("scores/{key}.json")), Ok(Place::Scores { key: &key }));
        for wrong in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "ab/../x",
            "C:/x",
            "a\\b",
            "x",
            "ab",
            "scores/x.json",
            "journal.jsonl",
            "drafts/x/y",
        ] {
            assert!(Place::of(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            format!("cd/{key}/x"),
            format!("ab/{key}"),
            format!("ab/{key}/"),
            format!("ab/{key}//x"),
            format!("ab/{key}/./x"),
            format!("ab/{key}/../../x"),
            format!("/ab/{key}/x"),
            format!("ab/{}/x", key.to_uppercase()),
            format!("ab/{key}/x\n"),
            format!("ab/{key}/{}", "d/".repeat(8) + "x"),
            format!("ab/{key}/{}", "x".repeat(200)),
        ] {
            assert!(Place::of(&wrong).is_err(), "{wrong}");
        }
    }
}
