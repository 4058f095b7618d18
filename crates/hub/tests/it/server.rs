//! A hub in miniature: one repository with revisions, ranges, entity tags, redirects of large files, and faults on demand.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use ressa_hub::Settings;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The repository that is served.
pub const REPO: &str = "some-lab/tiny-blip";

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

/// What the server does.
#[derive(Default)]
pub struct Behaviour {
    /// Commit of each revision.
    pub revisions: BTreeMap<String, String>,
    /// Content of each commit's files.
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Body transfers of a file that break after so many bytes, one after another.
    pub breaks: BTreeMap<String, Vec<usize>>,
    /// Whether a broken transfer keeps its connection open until the client goes away.
    pub stalls: bool,
    /// Body transfers of a file that have one bit turned, one after another.
    pub turns: BTreeMap<String, usize>,
    /// Answers with this status come first, however the request reads.
    pub statuses: Vec<u16>,
    /// Token without which nothing is told.
    pub token: Option<String>,
    pub asked: Vec<Received>,
}

/// A running server with an empty cache beside it.
pub struct Hub {
    pub behaviour: Arc<Mutex<Behaviour>>,
    pub folder: TempDir,
    address: String,
}

/// Files from this size on are large: tagged by digest, and on another server.
const LARGE: usize = 1000;

/// Content that differs at every offset.
pub fn content(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A sharded checkpoint with what must not be fetched beside it.
pub fn checkpoint() -> BTreeMap<String, Vec<u8>> {
    let shard = |number: usize| format!("model-{number:05}-of-00002.safetensors");
    let index = serde_json::json!({ "metadata": {}, "weight_map": { "a": shard(1), "b": shard(2), "c": shard(1) } });
    [
        ("config.json".to_owned(), b"{\"model_type\": \"instructblip\"}".to_vec()),
        ("preprocessor_config.json".to_owned(), b"{}".to_vec()),
        ("tokenizer.json".to_owned(), content(5000, 3)),
        ("qformer_tokenizer/tokenizer.json".to_owned(), content(300, 4)),
        ("qformer_tokenizer/notes.txt".to_owned(), b"notes".to_vec()),
        (shard(1), content(300_000, 1)),
        (shard(2), content(200_000, 2)),
        ("model-00001-of-00003.safetensors".to_owned(), content(2000, 9)),
        ("model.safetensors.index.json".to_owned(), index.to_string().into_bytes()),
        ("pytorch_model.bin".to_owned(), content(4000, 5)),
        ("README.md".to_owned(), b"# A model".to_vec()),
    ]
    .into()
}

/// A commit hash from a digit.
pub fn commit(digit: u32) -> String {
    digit.to_string().repeat(40)
}

pub fn tag(content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    // Small files carry the hash of a Git blob, which is shorter.
    if content.len() < LARGE { digest[..40].to_owned() } else { digest }
}

impl Hub {
    /// Serves these files as commit 1 of branch `main`.
    pub fn serve(files: BTreeMap<String, Vec<u8>>) -> Self {
        let behaviour = Behaviour {
            revisions: [("main".to_owned(), commit(1))].into(),
            commits: [(commit(1), files)].into(),
            ..Behaviour::default()
        };
        let behaviour = Arc::new(Mutex::new(behaviour));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (shared, host) = (behaviour.clone(), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, host) = (shared.clone(), host.clone());
                // A client that goes away in the middle is no fault of the server.
                std::thread::spawn(move || answer(stream, &shared, &host).ok());
            }
        });
        Self { behaviour, folder: tempfile::tempdir().unwrap(), address }
    }

    /// Settings that reach it, with short pauses.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.folder.path().join("hub"));
        settings.endpoint = self.address.clone();
        settings.pause = Duration::from_millis(1);
        settings
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Received> {
        std::mem::take(&mut self.behaviour.lock().unwrap().asked)
    }

    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }
}

fn answer(mut stream: TcpStream, behaviour: &Mutex<Behaviour>, host: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut behaviour = behaviour.lock().unwrap();
    let token = headers.get("authorization").cloned();
    let range = headers.get("range").cloned();
    behaviour.asked.push(Received { path: path.clone(), range: range.clone(), token: token.clone() });
    let about_cdn = path.starts_with("/cdn/");
    if !behaviour.statuses.is_empty() {
        let status = behaviour.statuses.remove(0);
        return plain(&mut stream, status, "", b"");
    }
    let wanted = behaviour.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && wanted != token && !about_cdn {
        return plain(&mut stream, if token.is_some() { 403 } else { 401 }, "", b"");
    }
    if let Some(rest) = path.strip_prefix(&format!("/api/models/{REPO}/revision/")) {
        let revision = rest.split('?').next().unwrap_or_default().replace("%2F", "/");
        let Some(commit) = resolve(&behaviour, &revision) else {
            return plain(&mut stream, 404, "X-Error-Code: RevisionNotFound\r\n", b"{}");
        };
        let siblings: Vec<_> = behaviour.commits[&commit]
            .iter()
            .map(|(name, content)| {
                let lfs = (content.len() >= LARGE).then(|| serde_json::json!({ "sha256": tag(content) }));
                serde_json::json!({ "rfilename": name, "size": content.len(), "lfs": lfs })
            })
            .collect();
        let body = serde_json::json!({ "id": REPO, "sha": commit, "siblings": siblings }).to_string();
        return plain(&mut stream, 200, "Content-Type: application/json\r\n", body.as_bytes());
    }
    let (name, content, head) = if let Some(rest) = path.strip_prefix(&format!("/{REPO}/resolve/")) {
        let (revision, name) = rest.split_once('/').unwrap_or_default();
        let found = resolve(&behaviour, &revision.replace("%2F", "/"))
            .and_then(|commit| behaviour.commits[&commit].get(name).cloned().map(|content| (commit, content)));
        let Some((commit, content)) = found else { return plain(&mut stream, 404, "", b"") };
        let tag = tag(&content);
        if content.len() >= LARGE {
            let head = format!(
                "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{tag}\"\r\nETag: \"other\"\r\nLocation: {host}/cdn/{commit}/{name}\r\n"
            );
            return plain(&mut stream, 302, &head, b"");
        }
        (name.to_owned(), content, format!("X-Repo-Commit: {commit}\r\nETag: \"{tag}\"\r\n"))
    } else if let Some((commit, name)) = path.strip_prefix("/cdn/").and_then(|rest| rest.split_once('/')) {
        (name.to_owned(), behaviour.commits[commit][name].clone(), "ETag: \"elsewhere\"\r\n".to_owned())
    } else {
        return plain(&mut stream, 404, "", b"");
    };
    let total = content.len();
    let range = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (start, end) = match range {
        Some((start, end)) => (start.parse().unwrap_or(0), end.parse().map_or(total, |end: usize| end + 1)),
        None => (0, total),
    };
    if start >= total {
        return plain(&mut stream, 416, "", b"");
    }
    let mut body = content[start..end].to_vec();
    let mut sent = body.len();
    let stalls = behaviour.stalls;
    // The first byte alone asks for the size.
    if end - start > 1 {
        if let Some(turns) = behaviour.turns.get_mut(&name).filter(|turns| **turns > 0) {
            *turns -= 1;
            body[0] ^= 1;
        }
        if let Some(breaks) = behaviour.breaks.get_mut(&name).filter(|breaks| !breaks.is_empty()) {
            sent = breaks.remove(0).min(sent);
        }
    }
    drop(behaviour);
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\n{head}Content-Range: bytes {start}-{}/{total}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        end - 1,
        body.len()
    )?;
    stream.write_all(&body[..sent])?;
    if stalls && sent < body.len() {
        reader.read_line(&mut line)?;
    }
    Ok(())
}

fn resolve(behaviour: &Behaviour, revision: &str) -> Option<String> {
    let commit = behaviour.revisions.get(revision).cloned().unwrap_or_else(|| revision.to_owned());
    behaviour.commits.contains_key(&commit).then_some(commit)
}

fn plain(stream: &mut TcpStream, status: u16, head: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} Answer\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}
