//! What a repository holds, and which of it is a checkpoint.

use ressa_checkpoint::known;
use serde::Deserialize;

use crate::HubError;

pub use ressa_checkpoint::{INDEX, SINGLE};

/// Revision where none is named.
pub const MAIN: &str = "main";
/// Architecture.
pub const CONFIG: &str = "config.json";

/// A repository at one commit.
#[derive(Debug, Deserialize)]
pub struct Repository {
    /// The commit.
    #[serde(rename = "sha")]
    pub commit: String,
    /// Its files.
    #[serde(default, rename = "siblings")]
    pub files: Vec<RemoteFile>,
}

/// A file on the hub.
#[derive(Clone, Debug, Deserialize)]
pub struct RemoteFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes, where the hub says.
    #[serde(default)]
    pub size: Option<u64>,
    /// What is known of large files.
    #[serde(default)]
    pub lfs: Option<Large>,
}

/// A large file's entry.
#[derive(Clone, Debug, Deserialize)]
pub struct Large {
    /// Digest of its content, in hex.
    #[serde(default)]
    pub sha256: Option<String>,
}

impl Repository {
    /// A file by its path.
    pub fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The files that are wanted besides shards: first what is small, last the weights or the list of their pieces.
    ///
    /// # Errors
    /// [`HubError::Incomplete`] without a configuration, [`HubError::NoSafetensors`] without weights that are read.
    pub fn wanted(&self, repo: &str, revision: &str) -> Result<Vec<RemoteFile>, HubError> {
        let (repo, revision) = (repo.to_owned(), revision.to_owned());
        if self.file(CONFIG).is_none() {
            return Err(HubError::Incomplete { repo, revision, file: CONFIG.to_owned(), because: String::new() });
        }
        let Some(weights) = self.file(SINGLE).or_else(|| self.file(INDEX)) else {
            return Err(HubError::NoSafetensors { repo, revision, found: self.other_weights() });
        };
        let mut wanted: Vec<RemoteFile> =
            self.files.iter().filter(|file| known::is_settings(&file.name)).cloned().collect();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.push(weights.clone());
        Ok(wanted)
    }

    /// Weights in forms that are not read, for people.
    fn other_weights(&self) -> String {
        const FORMS: [&str; 10] =
            [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors"];
        let others: Vec<String> = self
            .files
            .iter()
            .filter(|file| FORMS.iter().any(|form| file.name.ends_with(form)))
            .map(|file| format!("`{}`", file.name))
            .collect();
        match others.len() {
            0 => "no weights at all".to_owned(),
            1..=3 => others.join(", "),
            many => format!("{} and {} files more", others[..2].join(", "), many - 2),
        }
    }
}
