//! A folder that is there whole or not at all: filled beside its place, flushed, then renamed.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::CheckpointError;

/// A folder being filled. Dropped without [`Draft::publish`], it is removed.
#[derive(Debug)]
pub struct Draft {
    target: PathBuf,
    folder: PathBuf,
    /// Held while the draft is filled: a draft that nobody holds was left behind by a process that died.
    _claim: File,
}

impl Draft {
    /// Starts a folder that will be `target`, which must be absent or empty. A draft that a killed process left behind is removed.
    pub fn begin(target: &Path) -> Result<Self, CheckpointError> {
        let target = std::path::absolute(target).map_err(CheckpointError::io("write", target))?;
        let occupied = match fs::read_dir(&target) {
            Ok(mut items) => items.next().is_some(),
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) if e.kind() == ErrorKind::NotADirectory => true,
            Err(e) => return Err(CheckpointError::io("read", target)(e)),
        };
        if occupied {
            return Err(CheckpointError::file(target, "there is something already; choose another folder"));
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(CheckpointError::file(target, "it cannot be made"));
        };
        fs::create_dir_all(parent).map_err(CheckpointError::io("write", parent))?;
        let folder = parent.join(format!(".{}.draft", name.to_string_lossy()));
        if let Ok(left) = File::open(&folder) {
            if left.try_lock().is_err() {
                return Err(CheckpointError::file(target, "another process is writing it"));
            }
            fs::remove_dir_all(&folder).map_err(CheckpointError::io("write", &folder))?;
        }
        fs::create_dir(&folder).map_err(CheckpointError::io("write", &folder))?;
        let claim = File::open(&folder).map_err(CheckpointError::io("write", &folder))?;
        claim.try_lock().map_err(|e| CheckpointError::io("write", &folder)(e.into()))?;
        Ok(Self { target, folder, _claim: claim })
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file and flushes it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).and_then(|()| sync(&path)).map_err(CheckpointError::io("write", path))
    }

    /// Copies a file, with the folders above it, and flushes it.
    pub fn copy(&self, from: &Path, name: &Path) -> Result<(), CheckpointError> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(CheckpointError::io("write", parent))?;
        }
        let mut source = File::open(from).map_err(CheckpointError::io("read", from))?;
        let mut copy = File::create(&path).map_err(CheckpointError::io("write", &path))?;
        std::io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all()).map_err(CheckpointError::io("write", path))
    }

    /// Puts the folder in its place.
    pub fn publish(self) -> Result<(), CheckpointError> {
        sync(&self.folder).map_err(CheckpointError::io("write", &self.folder))?;
        // An empty folder is replaced; one that was filled meanwhile is an error.
        fs::rename(&self.folder, &self.target).map_err(CheckpointError::io("write", &self.target))?;
        if let Some(parent) = self.target.parent() {
            sync(parent).map_err(CheckpointError::io("write", parent))?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.folder.exists() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
