//! The meeting folder.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Direction, beat, seal::Token};
use crate::SweepError;

/// What a pilot needs to know to start workers as the coordinator would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Segment of the coordinator.
    pub segment: u32,
    /// Version and revision of its program.
    pub program: String,
    /// Read-only roots of the store.
    pub shipped: Vec<PathBuf>,
    /// Folder that workers run in: where relative paths in experiments start.
    pub folder: PathBuf,
    /// Variables that workers get.
    pub environment: Vec<(String, String)>,
    /// Further arguments of their `serve` command.
    pub arguments: Vec<String>,
    /// Whether trainings use deterministic algorithms.
    pub deterministic: bool,
    /// Time without a sign of life after which a side counts as gone.
    pub lease: Duration,
}

/// What a coordinator writes again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoordinatorBeat {
    /// Its segment.
    pub segment: u32,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
}

/// Names of sealed files, which their codes cover.
const INVITATION: &str = "sweep.json";
const COORDINATOR: &str = "coordinator";

/// The meeting folder of a results folder, with the token of the sweep.
#[derive(Clone, Debug)]
pub struct Meet {
    folder: PathBuf,
    token: Token,
}

/// The meeting folder of a results folder.
pub(crate) fn folder_of(results: &Path) -> PathBuf {
    results.join("meet")
}

impl Meet {
    /// Opens the folder for a coordinator: made where it is missing. The token of a sweep whose coordinator died is kept, for its pilots.
    pub(crate) fn host(results: &Path) -> Result<Self, SweepError> {
        let folder = folder_of(results);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SweepError::Write { path, source }
        };
        for part in ["", "up", "down", "beat"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(failed(&path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed(&path))?;
        }
        let path = folder.join("token");
        let token = match fs::read_to_string(&path).ok().as_deref().and_then(Token::parse) {
            Some(token) => token,
            None => {
                let token = Token::random();
                // What was said in an earlier sweep would be refused, line by line.
                for part in ["up", "down", "beat"].map(|part| folder.join(part)) {
                    for (_, path) in ressa_store::named(&part)? {
                        fs::remove_file(&path).map_err(failed(&path))?;
                    }
                }
                let draft = folder.join("token.draft");
                fs::write(&draft, "")
                    .and_then(|()| fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)))
                    .and_then(|()| fs::write(&draft, token.text()))
                    .and_then(|()| fs::rename(&draft, &path))
                    .map_err(failed(&path))?;
                token
            }
        };
        Ok(Self { folder, token })
    }

    /// Opens the folder for a pilot; `None` where no sweep is running, or not yet.
    ///
    /// # Errors
    /// A token that this user may not read.
    pub(crate) fn join(results: &Path) -> io::Result<Option<Self>> {
        let folder = folder_of(results);
        match fs::read_to_string(folder.join("token")) {
            Ok(text) => Ok(Token::parse(&text).map(|token| Self { folder, token })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The token.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// Writes what pilots need to know.
    pub(crate) fn invite(&self, invitation: &Invitation) -> Result<(), SweepError> {
        let path = self.folder.join(INVITATION);
        beat::write(&path, &self.token, INVITATION, u64::from(invitation.segment), invitation)
            .map_err(|source| SweepError::Write { path, source })
    }

    /// What pilots need to know, if a coordinator says it.
    pub(crate) fn invitation(&self) -> Option<Invitation> {
        Some(beat::read(&self.folder.join(INVITATION), &self.token, INVITATION)?.1)
    }

    /// Shows that the coordinator lives.
    pub(crate) fn beat(&self, count: u64, beat: &CoordinatorBeat) -> io::Result<()> {
        beat::write(&self.folder.join(COORDINATOR), &self.token, COORDINATOR, count, beat)
    }

    /// The coordinator's counter, and who it is.
    pub(crate) fn coordinator(&self) -> Option<(u64, CoordinatorBeat)> {
        beat::read(&self.folder.join(COORDINATOR), &self.token, COORDINATOR)
    }

    /// The file of a pilot's signs of life, and what its code covers.
    pub(crate) fn pulse_of(&self, name: &str) -> (PathBuf, String) {
        (self.folder.join("beat").join(name), format!("beat/{name}"))
    }

    /// Shows that a pilot lives.
    pub(crate) fn pulse(&self, name: &str, count: u64, value: &super::Beat) -> io::Result<()> {
        let (path, channel) = self.pulse_of(name);
        beat::write(&path, &self.token, &channel, count, value)
    }

    /// Takes down what a sweep that has ended put up: pilots that come later find nothing.
    pub(crate) fn close(self) {
        let _ = fs::remove_file(self.folder.join("token"));
        for name in [INVITATION, COORDINATOR] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// Removes the files of a pilot that is gone for good.
    pub(crate) fn forget(&self, name: &str) {
        for direction in [Direction::Up, Direction::Down] {
            let _ = fs::remove_file(self.folder.join(direction.folder()).join(name));
        }
        let _ = fs::remove_file(self.pulse_of(name).0);
    }
}
