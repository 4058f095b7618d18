//! Why a checkpoint cannot be had from the hub.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiError;

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A name that no repository or revision can have.
    #[error("`{name}` is not a {what}; it wants {form}")]
    Name {
        /// `repository` or `revision`.
        what: &'static str,
        /// The name.
        name: String,
        /// How such names look.
        form: &'static str,
    },
    /// The hub wants to know who asks, or does not let them in.
    #[error("the hub refuses `{repo}` (status {status}): {advice}")]
    Refused {
        /// The repository.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        advice: String,
    },
    /// No such repository, revision or file.
    #[error("{what} is not on the hub at `{endpoint}` (status 404)")]
    NotFound {
        /// What was asked for, with its names in backticks.
        what: String,
        /// Where it was asked for.
        endpoint: String,
    },
    /// The repository has no weights that are read here.
    #[error(
        "`{repo}` at `{revision}` has no safetensors weights, only {found}; pickled weights are refused: \
         look for a revision that was converted (such as `--revision refs/pr/N`), or convert it with transformers' `save_pretrained`"
    )]
    NoSafetensors {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Weights of other forms, or `no weights at all`.
        found: String,
    },
    /// Something that every checkpoint has is not in the repository.
    #[error("`{repo}` at `{revision}` has no `{file}`{because}; it is no checkpoint that can be used")]
    Incomplete {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// Who names it.
        because: String,
    },
    /// A file of the repository cannot be understood.
    #[error("`{file}` of `{repo}` cannot be used: {reason}")]
    File {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Only the cache may be used, and it does not hold the checkpoint.
    #[error(
        "`{repo}` at `{revision}` is not complete in the cache `{}`, and the hub may not be asked; \
         unset HF_HUB_OFFLINE and fetch it, or set HF_HOME to the cache that has it", cache.display()
    )]
    NotCached {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub cannot be reached, or a transfer breaks again and again.
    #[error("cannot get {what} from `{endpoint}`: {reason}; {advice}")]
    Network {
        /// What was asked for.
        what: String,
        /// Where.
        endpoint: String,
        /// What happened last.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// The server answers, but not as a hub does.
    #[error("`{endpoint}` does not answer as a hub about {what}: {reason}; is HF_ENDPOINT right?")]
    Answer {
        /// What was asked for.
        what: String,
        /// Where.
        endpoint: String,
        /// What is odd.
        reason: String,
    },
    /// Another process writes the same file.
    #[error("another process is fetching `{}`; wait for it and try again", file.display())]
    Busy {
        /// Its lock.
        file: PathBuf,
    },
    /// The cache cannot be written.
    #[error("cannot write `{}`: {source}; what has arrived is kept, and fetching again goes on from there", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        matches!(self, HubError::Write { .. })
    }

    /// Whether what was asked for cannot be had, however often one asks.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            HubError::Refused { .. }
                | HubError::NotFound { .. }
                | HubError::NoSafetensors { .. }
                | HubError::Incomplete { .. }
                | HubError::File { .. }
                | HubError::NotCached { .. }
        )
    }

    /// For `map_err`: the system refused to write a file.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
        let path = path.to_owned();
        move |source| HubError::Write { path, source }
    }
}

/// How one attempt failed, before it is known whether there will be another.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server answered with this status.
    Status(u16),
    /// The connection failed or broke.
    Connection(String),
    /// The server does not answer as a hub.
    Answer(String),
    /// Final.
    Final(HubError),
}

impl Trouble {
    /// Whether another attempt may help.
    pub fn passes(&self) -> bool {
        match self {
            Trouble::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Trouble::Connection(_) => true,
            Trouble::Answer(_) | Trouble::Final(_) => false,
        }
    }

    /// What happened, in words.
    pub fn reason(&self) -> String {
        match self {
            Trouble::Status(429) => "it asks for fewer requests (status 429)".to_owned(),
            Trouble::Status(status) => format!("it answers with status {status}"),
            Trouble::Connection(reason) | Trouble::Answer(reason) => reason.clone(),
            Trouble::Final(error) => error.to_string(),
        }
    }

    /// What an error of the client means. `path` is where its file would go.
    pub fn of(error: ApiError, path: &Path) -> Self {
        match error {
            ApiError::RequestError(error) => Self::of_request(*error),
            ApiError::IoError(error) if is_about_files(error.kind()) => {
                Trouble::Final(HubError::Write { path: path.to_owned(), source: error })
            }
            ApiError::IoError(error) => Trouble::Connection(error.to_string()),
            ApiError::LockAcquisition(file) => Trouble::Final(HubError::Busy { file }),
            other => Trouble::Answer(other.to_string()),
        }
    }

    /// What an error of a request means.
    pub fn of_request(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Trouble::Status(status),
            ureq::Error::Json(error) => Trouble::Answer(error.to_string()),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                Trouble::Answer(error.to_string())
            }
            other => Trouble::Connection(other.to_string()),
        }
    }
}

/// Kinds of errors that files give and connections do not.
fn is_about_files(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind;
    matches!(
        kind,
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::AlreadyExists
    )
}
