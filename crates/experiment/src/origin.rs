//! Where an experiment came from: its file, what the command line changed of it, and which of its runs were chosen.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A file, overrides and a selection. Two selections with one origin are the same experiment at different times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file below the experiments folder; of one elsewhere its name, with what tells its place from others.
    pub file: String,
    /// Overrides, sorted.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Options that chose some of its runs, such as `-E 'seed = 0'`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<String>,
}

impl Origin {
    /// The origin of what is loaded from `path`, with the experiments folder `root`.
    pub(crate) fn of(path: &Path, root: &Path, overrides: &[String]) -> Self {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (file, root) = (real(path), real(root));
        let file = match file.strip_prefix(&root) {
            Ok(below) => below.display().to_string(),
            // No path of this machine: results are shared.
            Err(_) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let place = blake3::hash(file.as_os_str().as_encoded_bytes()).to_hex();
                format!("{name} ({})", &place[..8])
            }
        };
        let mut overrides: Vec<String> = overrides.iter().map(|text| text.trim().to_owned()).collect();
        overrides.sort();
        Self { file, overrides, selection: Vec::new() }
    }

    /// Whether it is the experiment as its file says it.
    pub fn is_whole(&self) -> bool {
        self.overrides.is_empty() && self.selection.is_empty()
    }

    /// Eight hexadecimal digits that tell origins apart.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&self.file).chain(&self.overrides).chain(&self.selection) {
            hasher.update(part.as_bytes()).update(b"\0");
        }
        hasher.finalize().to_hex()[..8].to_owned()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        self.overrides.iter().chain(&self.selection).try_for_each(|text| write!(f, " {text}"))
    }
}
