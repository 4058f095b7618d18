//! One file from the hub into the cache: going on where a transfer broke, trying again, proving what arrived.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    thread,
};

use hf_hub::{
    Cache, CacheRepo,
    api::{
        Progress,
        sync::{Api, ApiBuilder, ApiRepo},
    },
};
use sha2::{Digest, Sha256};

use crate::{Event, HubError, Settings, cache::repository, error::Trouble, listing::RemoteFile, name};

/// A repository at one commit, on the hub and in the cache.
pub struct Source<'a> {
    settings: &'a Settings,
    repo: &'a str,
    commit: String,
    api: Api,
    remote: ApiRepo,
    local: CacheRepo,
}

/// A client that is quiet and leaves trying again to us: its own retries forget what a resumed file already had.
pub fn client(settings: &Settings) -> Result<Api, HubError> {
    ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_progress(false)
        .with_retries(0)
        .with_user_agent("ressa", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(|error| HubError::Answer {
            what: "the client".to_owned(),
            endpoint: settings.endpoint.clone(),
            reason: error.to_string(),
        })
}

/// Calls `attempt` until it succeeds, fails for good, or `attempts` calls in a row brought nothing. `brought` measures what there is.
pub fn persist<T>(
    settings: &Settings,
    attempts: u32,
    name: &str,
    brought: impl Fn() -> u64,
    on: &mut dyn FnMut(Event),
    mut attempt: impl FnMut(&mut dyn FnMut(Event)) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut failures = 0;
    loop {
        let before = brought();
        let trouble = match attempt(on) {
            Ok(value) => return Ok(value),
            Err(trouble) => trouble,
        };
        failures = if brought() > before { 1 } else { failures + 1 };
        if !trouble.passes() || failures >= attempts.max(1) {
            return Err(trouble);
        }
        let pause = settings.pause_after(failures);
        on(Event::Retrying { name: name.to_owned(), reason: trouble.reason(), pause });
        thread::sleep(pause);
    }
}

impl<'a> Source<'a> {
    /// For the files of a commit.
    pub fn new(settings: &'a Settings, repo: &'a str, commit: String, api: Api) -> Self {
        let pinned = repository(repo, &commit);
        let remote = api.repo(pinned.clone());
        let local = Cache::new(settings.cache.clone()).repo(pinned);
        Self { settings, repo, commit, api, remote, local }
    }

    /// Folder of the commit's files.
    pub fn folder(&self) -> PathBuf {
        self.local.pointer_path(&self.commit)
    }

    /// Whether a file is in the cache, of the size that the hub says.
    pub fn has(&self, file: &RemoteFile) -> bool {
        let found = fs::metadata(self.folder().join(&file.name));
        found.is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
    }

    /// Brings a file into the cache. Whether there was something to transfer.
    pub fn obtain(&self, file: &RemoteFile, on: &mut dyn FnMut(Event)) -> Result<bool, HubError> {
        if self.has(file) {
            return Ok(false);
        }
        let part = std::cell::RefCell::new(None::<PathBuf>);
        let brought = || part.borrow().as_ref().and_then(|part| fs::metadata(part).ok()).map_or(0, |found| found.len());
        persist(self.settings, self.settings.attempts, &file.name, brought, on, |on| {
            self.attempt(file, on, &mut |path| *part.borrow_mut() = Some(path))
        })
        .map_err(|trouble| self.give_up(&file.name, trouble))
    }

    fn attempt(
        &self,
        file: &RemoteFile,
        on: &mut dyn FnMut(Event),
        note_part: &mut dyn FnMut(PathBuf),
    ) -> Result<bool, Trouble> {
        let pointer = self.folder().join(&file.name);
        let about = self.api.metadata(&self.remote.url(&file.name)).map_err(|e| Trouble::of(e, &pointer))?;
        if !name::is_plain(about.etag()) || about.commit_hash() != self.commit {
            let (etag, commit) = (about.etag(), about.commit_hash());
            return Err(Trouble::Answer(format!("its `ETag` is `{etag}` and its `X-Repo-Commit` `{commit}`")));
        }
        let size = about.size() as u64;
        let blob = self.local.blob_path(about.etag());
        let part = blob.with_extension("part");
        note_part(part.clone());
        let written = |path: &Path| fs::metadata(path).map(|found| found.len()).ok();
        if let Some(there) = written(&blob).filter(|there| *there != size) {
            // An older client may have put a broken transfer in the place of the whole file.
            let _ = if there < size && written(&part).is_none() {
                fs::rename(&blob, &part)
            } else {
                fs::remove_file(&blob)
            };
        }
        if written(&part).is_some_and(|there| there > size) {
            fs::remove_file(&part).map_err(|e| Trouble::Final(HubError::write(&part)(e)))?;
        }
        let mut transferred = false;
        if written(&blob).is_none() {
            transferred = true;
            // A pointer to a blob that is gone would be in the client's way.
            if !pointer.exists() && pointer.symlink_metadata().is_ok() {
                fs::remove_file(&pointer).map_err(|e| Trouble::Final(HubError::write(&pointer)(e)))?;
            }
            if written(&part) == Some(size) {
                fs::rename(&part, &blob).map_err(|e| Trouble::Final(HubError::write(&blob)(e)))?;
            } else {
                let meter = Meter { name: &file.name, size, at: 0, on };
                self.remote.download_with_progress(&file.name, meter).map_err(|e| Trouble::of(e, &part))?;
                self.forget_pin();
            }
            self.prove(file, about.etag(), size, &blob, on).inspect_err(|_| {
                // What is too short may go on; anything else starts over.
                let short = written(&blob).is_some_and(|there| there < size);
                let _ = if short { fs::rename(&blob, &part) } else { fs::remove_file(&blob) };
                let _ = fs::remove_file(&pointer);
            })?;
        }
        self.point(&pointer, about.etag()).map_err(|e| Trouble::Final(HubError::write(&pointer)(e)))?;
        Ok(transferred)
    }

    /// Refuses a file that is not what the hub has: its size, and its digest where the hub names one.
    fn prove(
        &self,
        file: &RemoteFile,
        etag: &str,
        size: u64,
        blob: &Path,
        on: &mut dyn FnMut(Event),
    ) -> Result<(), Trouble> {
        let there = fs::metadata(blob).map_err(|e| Trouble::Final(HubError::write(blob)(e)))?.len();
        if there != size {
            return Err(Trouble::Connection(format!("the transfer ended after {there} of {size} bytes")));
        }
        let listed = file.lfs.as_ref().and_then(|large| large.sha256.as_deref());
        // The tag of a large file is its digest.
        let is_digest = |text: &&str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(expected) = listed.or(Some(etag)).filter(is_digest) else { return Ok(()) };
        on(Event::Checking { name: file.name.clone() });
        let found = digest(blob).map_err(|e| Trouble::Final(HubError::write(blob)(e)))?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(Trouble::Connection(format!("what arrived has the SHA-256 `{found}`, not `{expected}`")));
        }
        Ok(())
    }

    /// Links the commit's file to its content, as the client does.
    fn point(&self, pointer: &Path, etag: &str) -> io::Result<()> {
        if pointer.exists() {
            return Ok(());
        }
        if pointer.symlink_metadata().is_ok() {
            fs::remove_file(pointer)?;
        }
        let folder = self.folder();
        let parent = pointer.parent().unwrap_or(&folder);
        fs::create_dir_all(parent)?;
        let depth = 2 + parent.strip_prefix(&folder).map_or(0, |inner| inner.components().count());
        let target = Path::new(&"../".repeat(depth)).join("blobs").join(etag);
        #[cfg(unix)]
        return std::os::unix::fs::symlink(target, pointer);
        #[cfg(not(unix))]
        return fs::copy(parent.join(target), pointer).map(|_| ());
    }

    /// The client notes a commit under its own name among the branches; other clients do not.
    fn forget_pin(&self) {
        let root = self.settings.cache.join(repository(self.repo, &self.commit).folder_name());
        let _ = fs::remove_file(root.join("refs").join(&self.commit));
    }

    /// What to tell people once no attempt is left.
    fn give_up(&self, file: &str, trouble: Trouble) -> HubError {
        let advice = "what has arrived is kept; fetch again to go on from there";
        final_error(self.settings, self.repo, format!("`{file}` of `{}`", self.repo), advice, trouble)
    }
}

/// The error for the last trouble.
pub fn final_error(settings: &Settings, repo: &str, what: String, advice: &str, trouble: Trouble) -> HubError {
    let endpoint = settings.endpoint.clone();
    match trouble {
        Trouble::Final(error) => error,
        Trouble::Status(status @ (401 | 403)) => refused(settings, repo, status),
        Trouble::Status(404) => HubError::NotFound { what, endpoint },
        Trouble::Answer(reason) => HubError::Answer { what, endpoint, reason },
        trouble => HubError::Network { what, endpoint, reason: trouble.reason(), advice: advice.to_owned() },
    }
}

/// The error for a hub that does not let us in.
fn refused(settings: &Settings, repo: &str, status: u16) -> HubError {
    let Settings { endpoint, token, .. } = settings;
    let advice = match (token, status) {
        (None, _) => {
            "it is private, gated or does not exist; set HF_TOKEN to an access token that may read it".to_owned()
        }
        (Some(_), 401) => "the token in HF_TOKEN (or the token file) is not valid for it; make a new one".to_owned(),
        (Some(_), _) => format!("the token in HF_TOKEN may not read it; ask for access at {endpoint}/{repo}"),
    };
    HubError::Refused { repo: repo.to_owned(), status, advice }
}

/// SHA-256 of a file, in hex.
fn digest(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Tells how far a transfer is.
struct Meter<'a> {
    name: &'a str,
    size: u64,
    at: u64,
    on: &'a mut dyn FnMut(Event),
}

impl Progress for Meter<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.at = 0;
    }

    fn update(&mut self, size: usize) {
        self.at += size as u64;
        (self.on)(Event::Reached { name: self.name.to_owned(), at: self.at, size: self.size });
    }

    fn finish(&mut self) {}
}
