//! Which files an experiment was made of, so that what followed from them can be remembered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A file that was read, or looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Absolute path under which it was asked for.
    path: PathBuf,
    /// The file that this led to: links may come to lead elsewhere.
    real: PathBuf,
    /// Digest of its content; `None` where there was none.
    digest: Option<[u8; 32]>,
}

impl SourceFile {
    /// A file of this content.
    pub(crate) fn new(path: &Path, content: Option<&[u8]>) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let real = real(&path);
        Self { path, real, digest: content.map(|bytes| blake3::hash(bytes).into()) }
    }

    /// Whether reading it now would give the same.
    pub fn is_unchanged(&self) -> bool {
        let now = fs::read(&self.path).ok().map(|bytes| blake3::hash(&bytes).into());
        now == self.digest && real(&self.path) == self.real
    }
}

fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_another_link_and_a_new_file_show() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, link] = ["a", "b", "link"].map(|name| folder.path().join(name));
        fs::write(&a, "one").unwrap();
        std::os::unix::fs::symlink(&a, &link).unwrap();
        let (plain, linked, absent) =
            (SourceFile::new(&a, Some(b"one")), SourceFile::new(&link, Some(b"one")), SourceFile::new(&b, None));
        assert!(plain.is_unchanged() && linked.is_unchanged() && absent.is_unchanged());
        fs::write(&b, "one").unwrap();
        assert!(!absent.is_unchanged());
        // The same content in another place: what it extends would be looked for there.
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&b, &link).unwrap();
        assert!(!linked.is_unchanged());
        fs::write(&a, "two").unwrap();
        assert!(!plain.is_unchanged());
        fs::remove_file(&a).unwrap();
        assert!(!plain.is_unchanged());
    }
}
