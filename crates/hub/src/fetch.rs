//! A checkpoint from the hub: all of its files, of one commit.

use std::{fs, path::PathBuf, time::Duration};

use hf_hub::{Cache, api::sync::Api};

use crate::{
    HubError, Settings,
    cache::{cached, repository, shards},
    error::Trouble,
    listing::{INDEX, MAIN, RemoteFile, Repository},
    name,
    transfer::{Source, client, final_error, persist},
};

/// What happens during a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is known what is needed.
    Listed {
        /// Files, those in the cache included.
        files: usize,
        /// Bytes of those that are not in the cache, where the hub says.
        bytes: u64,
    },
    /// Bytes of a file have arrived.
    Reached {
        /// The file.
        name: String,
        /// Bytes in the cache, those of earlier attempts included.
        at: u64,
        /// Bytes of the whole file.
        size: u64,
    },
    /// The digest of a file is being computed.
    Checking {
        /// The file.
        name: String,
    },
    /// A file is in the cache.
    Finished {
        /// The file.
        name: String,
        /// Whether it was there before.
        was_cached: bool,
    },
    /// An attempt failed; there will be another.
    Retrying {
        /// The file, or `the list of files`.
        name: String,
        /// What happened.
        reason: String,
        /// How long until then.
        pause: Duration,
    },
}

/// A checkpoint in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its folder.
    pub folder: PathBuf,
    /// Its files, in the order in which they were looked at; empty where the cache was not compared with the hub.
    pub files: Vec<FetchedFile>,
}

/// A file of a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// Path in the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether it was in the cache before.
    pub was_cached: bool,
}

/// A file that a fetch would look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Path in the repository.
    pub name: String,
    /// Bytes, where the hub says.
    pub size: Option<u64>,
    /// Whether it is in the cache.
    pub is_cached: bool,
}

/// Brings the checkpoint in a repository into the cache, or finds it there. The default revision is `main`; a branch is resolved to its
/// commit first, so that all files are of the same one. `on` is told what happens.
///
/// A whole commit hash that is complete in the cache, and every revision offline, is answered without asking the hub.
///
/// # Errors
/// [`HubError`]; what has arrived stays in the cache, and the next fetch goes on from there.
pub fn fetch(
    repo: &str,
    revision: Option<&str>,
    settings: &Settings,
    on: &mut dyn FnMut(Event),
) -> Result<Snapshot, HubError> {
    let revision = revision.unwrap_or(MAIN);
    name::check(repo, revision)?;
    if settings.offline || name::is_commit(revision) {
        if let Some(folder) = cached(repo, Some(revision), settings) {
            return Ok(Snapshot { folder, files: Vec::new() });
        }
        if settings.offline {
            return Err(not_cached(repo, revision, settings));
        }
    }
    let opened = Opened::new(repo, revision, settings, on)?;
    let mut files = Vec::new();
    let wanted = opened.wanted(&mut files, on)?;
    let bytes = wanted.iter().filter(|file| !opened.source.has(file)).filter_map(|file| file.size).sum();
    on(Event::Listed { files: files.len() + wanted.len(), bytes });
    for file in &wanted {
        files.push(opened.take(file, on)?);
    }
    if !name::is_commit(revision) {
        let pinned = Cache::new(settings.cache.clone()).repo(repository(repo, revision));
        pinned.create_ref(&opened.listing.commit).map_err(HubError::write(&settings.cache))?;
    }
    Ok(Snapshot { folder: opened.source.folder(), files })
}

/// What [`fetch`] would look at. The list of pieces, where there is one, is fetched for it.
///
/// # Errors
/// As [`fetch`].
pub fn wanted(
    repo: &str,
    revision: Option<&str>,
    settings: &Settings,
    on: &mut dyn FnMut(Event),
) -> Result<Vec<WantedFile>, HubError> {
    let revision = revision.unwrap_or(MAIN);
    name::check(repo, revision)?;
    if settings.offline {
        return Err(not_cached(repo, revision, settings));
    }
    let opened = Opened::new(repo, revision, settings, on)?;
    let mut first = Vec::new();
    let rest = opened.wanted(&mut first, on)?;
    let first = first.into_iter().map(|f| WantedFile { name: f.name, size: Some(f.size), is_cached: f.was_cached });
    let rest = rest.into_iter().map(|file| {
        let is_cached = opened.source.has(&file);
        WantedFile { name: file.name, size: file.size, is_cached }
    });
    Ok(first.chain(rest).collect())
}

fn not_cached(repo: &str, revision: &str, settings: &Settings) -> HubError {
    HubError::NotCached { repo: repo.to_owned(), revision: revision.to_owned(), cache: settings.cache.clone() }
}

/// A repository whose files are known.
struct Opened<'a> {
    source: Source<'a>,
    listing: Repository,
    repo: &'a str,
    revision: &'a str,
}

impl<'a> Opened<'a> {
    fn new(
        repo: &'a str,
        revision: &'a str,
        settings: &'a Settings,
        on: &mut dyn FnMut(Event),
    ) -> Result<Self, HubError> {
        let api = client(settings)?;
        let listing = list(&api, repo, revision, settings, on)?;
        let source = Source::new(settings, repo, listing.commit.clone(), api);
        Ok(Self { source, listing, repo, revision })
    }

    /// Files to look at. The list of pieces is fetched, and put into `first`, since it names the others.
    fn wanted(&self, first: &mut Vec<FetchedFile>, on: &mut dyn FnMut(Event)) -> Result<Vec<RemoteFile>, HubError> {
        let mut wanted = self.listing.wanted(self.repo, self.revision)?;
        if let Some(index) = wanted.pop_if(|last| last.name == INDEX) {
            first.push(self.take(&index, on)?);
            wanted.extend(self.pieces()?);
        }
        Ok(wanted)
    }

    /// The pieces that the list in the cache names.
    fn pieces(&self) -> Result<Vec<RemoteFile>, HubError> {
        let unusable = |reason| HubError::File { repo: self.repo.to_owned(), file: INDEX.to_owned(), reason };
        let index = fs::read(self.source.folder().join(INDEX)).map_err(|e| unusable(e.to_string()))?;
        let names = shards(&index).map_err(unusable)?;
        let piece = |name: String| match self.listing.file(&name) {
            Some(file) => Ok(file.clone()),
            None => Err(HubError::Incomplete {
                repo: self.repo.to_owned(),
                revision: self.revision.to_owned(),
                file: name,
                because: format!(", which `{INDEX}` names"),
            }),
        };
        names.into_iter().map(piece).collect()
    }

    fn take(&self, file: &RemoteFile, on: &mut dyn FnMut(Event)) -> Result<FetchedFile, HubError> {
        let transferred = self.source.obtain(file, on)?;
        let size = fs::metadata(self.source.folder().join(&file.name)).map_or(0, |found| found.len());
        on(Event::Finished { name: file.name.clone(), was_cached: !transferred });
        Ok(FetchedFile { name: file.name.clone(), size, was_cached: !transferred })
    }
}

/// Attempts to get the list of files: whether the network works shows at once.
const LIST_ATTEMPTS: u32 = 3;

/// Commit and files of a revision.
fn list(
    api: &Api,
    repo: &str,
    revision: &str,
    settings: &Settings,
    on: &mut dyn FnMut(Event),
) -> Result<Repository, HubError> {
    let what = || format!("`{repo}` at `{revision}`");
    let attempt = |_: &mut dyn FnMut(Event)| {
        // Statuses as answers: a header says whether it is the repository or the revision that is not there.
        let request = api.repo(repository(repo, revision)).info_request().query("blobs", "true");
        let mut answer = request.config().http_status_as_error(false).build().call().map_err(Trouble::of_request)?;
        let status = answer.status().as_u16();
        let code = answer.headers().get("x-error-code").map(|code| code.as_bytes().to_vec());
        match status {
            200 => answer.body_mut().read_json::<Repository>().map_err(Trouble::of_request),
            404 if code.as_deref() == Some(b"RevisionNotFound") => {
                let (what, endpoint) = (format!("revision `{revision}` of `{repo}`"), settings.endpoint.clone());
                Err(Trouble::Final(HubError::NotFound { what, endpoint }))
            }
            status => Err(Trouble::Status(status)),
        }
    };
    let attempts = settings.attempts.min(LIST_ATTEMPTS);
    let listing = persist(settings, attempts, "the list of files", || 0, on, attempt).map_err(|trouble| {
        let advice = match cached(repo, Some(revision), settings) {
            Some(_) => "the cache has a complete copy, which HF_HUB_OFFLINE=1 uses without asking",
            None => "is there a network, and is HF_ENDPOINT right?",
        };
        final_error(settings, repo, what(), advice, trouble)
    })?;
    if !name::is_plain(&listing.commit) {
        let (what, endpoint) = (what(), settings.endpoint.clone());
        return Err(HubError::Answer { what, endpoint, reason: format!("its commit is `{}`", listing.commit) });
    }
    Ok(listing)
}
