//! A folder that is there whole or not at all: filled beside its place, flushed, then renamed.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::CheckpointError;

/// A folder being filled. Dropped without [`Draft::publish`], it is removed, unless it is one that is gone on with ([`Draft::resume`]).
#[derive(Debug)]
pub struct Draft {
    target: PathBuf,
    folder: PathBuf,
    /// What the folder lies in together with the notes of an unfinished run.
    home: Option<PathBuf>,
    /// Held while the draft is filled: a draft that nobody holds was left behind by a process that died.
    _claim: File,
}

impl Draft {
    /// Starts a folder that will be `target`, which must be absent or empty. A draft that a killed process left behind is removed.
    pub fn begin(target: &Path) -> Result<Self, CheckpointError> {
        let (target, parent, name) = vacant(target)?;
        let folder = parent.join(format!(".{name}.draft"));
        if let Ok(left) = File::open(&folder) {
            if left.try_lock().is_err() {
                return Err(CheckpointError::file(target, BUSY));
            }
            fs::remove_dir_all(&folder).map_err(CheckpointError::io("write", &folder))?;
        }
        fs::create_dir(&folder).map_err(CheckpointError::io("write", &folder))?;
        let claim = claim(&folder)?;
        Ok(Self { target, folder, home: None, _claim: claim })
    }

    /// Starts a folder that will be `target`, which must be absent or empty, or goes on with what was left of it: `target` with the ending
    /// `.partial` holds the folder and, beside it, the notes of whoever fills it ([`Draft::home`]). It stays until it is published.
    pub fn resume(target: &Path) -> Result<Self, CheckpointError> {
        let (target, parent, name) = vacant(target)?;
        let home = parent.join(format!("{name}.partial"));
        let folder = home.join("folder");
        fs::create_dir_all(&folder).map_err(CheckpointError::io("write", &folder))?;
        let claim = claim(&home)?;
        Ok(Self { target, folder, home: Some(home), _claim: claim })
    }

    /// Where notes about an unfinished folder go. They are removed when it is published.
    pub fn home(&self) -> &Path {
        self.home.as_deref().unwrap_or(&self.folder)
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, with the folders above it, and flushes it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(CheckpointError::io("write", parent))?;
        }
        fs::write(&path, bytes).and_then(|()| sync(&path)).map_err(CheckpointError::io("write", path))
    }

    /// Puts the folder in its place.
    pub fn publish(self) -> Result<(), CheckpointError> {
        sync(&self.folder).map_err(CheckpointError::io("write", &self.folder))?;
        // An empty folder is replaced; one that was filled meanwhile is an error.
        fs::rename(&self.folder, &self.target).map_err(CheckpointError::io("write", &self.target))?;
        if let Some(parent) = self.target.parent() {
            sync(parent).map_err(CheckpointError::io("write", parent))?;
        }
        if let Some(home) = &self.home {
            fs::remove_dir_all(home).map_err(CheckpointError::io("write", home))?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.home.is_none() && self.folder.exists() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// What is wrong with a folder that two processes write.
const BUSY: &str = "another process is writing it";

/// A target that may be made: its absolute path, the folder that it will lie in, which is there, and its name.
fn vacant(target: &Path) -> Result<(PathBuf, PathBuf, String), CheckpointError> {
    let target = std::path::absolute(target).map_err(CheckpointError::io("write", target))?;
    let occupied = match fs::read_dir(&target) {
        Ok(mut items) => items.next().is_some(),
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            match target.ancestors().skip(1).find(|above| above.is_file()) {
                Some(above) => {
                    let reason = format!("`{}` is a file, not a folder", above.display());
                    return Err(CheckpointError::io("write", &target)(std::io::Error::new(e.kind(), reason)));
                }
                None => true,
            }
        }
        Err(e) => return Err(CheckpointError::io("read", target)(e)),
    };
    if occupied {
        return Err(CheckpointError::file(target, "there is something already; choose another folder"));
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(CheckpointError::file(target, "it cannot be made"));
    };
    fs::create_dir_all(parent).map_err(CheckpointError::io("write", parent))?;
    let (parent, name) = (parent.to_owned(), name.to_string_lossy().into_owned());
    Ok((target, parent, name))
}

/// Holds a folder for this process.
fn claim(folder: &Path) -> Result<File, CheckpointError> {
    let claim = File::open(folder).map_err(CheckpointError::io("write", folder))?;
    match claim.try_lock() {
        Ok(()) => Ok(claim),
        Err(fs::TryLockError::WouldBlock) => Err(CheckpointError::file(folder, BUSY)),
        Err(fs::TryLockError::Error(e)) => Err(CheckpointError::io("write", folder)(e)),
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
