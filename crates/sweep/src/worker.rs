//! A worker process: started in a process group of its own, spoken to in JSON lines.
//!
//! The terminal's Ctrl-C goes to the coordinator's group only; what happens to a running stage is the coordinator's decision. When the
//! coordinator dies, the worker's input ends and (on Linux) the kernel kills it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use ressa_experiment::protocol::{Event, Request};
use ressa_runlog::LogPart;
use ressa_store::Store;

use crate::{SweepError, lines::read_messages};

/// How long a worker may take to end after its input ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a log that go into a message or beside a failure.
const TAIL: u64 = 64 * 1024;

/// The worker program and its settings.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program, `ressa-worker`.
    pub program: PathBuf,
    /// Folder it runs in: where relative paths in experiments start.
    pub folder: PathBuf,
    /// Threads of one tensor operation.
    pub threads: u32,
    /// Variables that are set for it beside those it inherits.
    pub environment: Vec<(String, String)>,
    /// Whether trainings use deterministic algorithms.
    pub deterministic: bool,
    /// Further arguments of its `serve` command.
    pub arguments: Vec<String>,
}

/// What arrives from a worker.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line of the protocol.
    Event(Event),
    /// Its output ended: it is ending or dead.
    Closed,
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
    /// Size of the log when this process began: what stands before is of earlier ones in its place.
    log_start: u64,
}

impl Worker {
    /// Starts a worker. What it says goes to `hand`, which ends the listening with `false`; all else that it writes is appended to `log`.
    pub fn start(
        command: &WorkerCommand,
        store: &Store,
        device: &str,
        log: &Path,
        hand: impl Fn(Line) -> bool + Send + 'static,
    ) -> Result<Self, SweepError> {
        let write = |source| SweepError::Write { path: log.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(write)?;
        let mut foreign = file.try_clone().map_err(write)?;
        let log_start = file.metadata().map_or(0, |metadata| metadata.len());
        let mut process = Command::new(&command.program);
        process.envs(command.environment.iter().map(|(name, value)| (name, value)));
        process.current_dir(&command.folder);
        process.arg("serve").arg("--store").arg(store.root());
        for shipped in store.shipped() {
            process.arg("--shipped").arg(shipped);
        }
        process.arg("--device").arg(device).arg("--threads").arg(command.threads.to_string());
        if command.deterministic {
            process.arg("--deterministic");
        }
        process.args(&command.arguments);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut child =
            process.spawn().map_err(|source| SweepError::Spawn { program: command.program.clone(), source })?;
        let output = child.stdout.take().expect("standard output is piped");
        let input = child.stdin.take();
        std::thread::spawn(move || {
            read_messages(output, "{\"event\":", &mut |event| hand(Line::Event(event)), &mut |bytes| {
                let _ = foreign.write_all(bytes);
            });
            hand(Line::Closed);
        });
        Ok(Self { child, input, log: log.to_owned(), log_start })
    }

    /// Sends a request. A worker that has died does not take it; its end is reported on the channel.
    pub fn send(&mut self, request: &Request) {
        let mut line = serde_json::to_string(request).expect("requests are plain data");
        line.push('\n');
        if let Some(input) = &mut self.input {
            let _ = input.write_all(line.as_bytes()).and_then(|()| input.flush());
        }
    }

    /// Asks it to save what its stage needs to go on, and to give the stage back.
    pub fn interrupt(&self) {
        // SAFETY: a plain system call; the process is our child and not yet waited for, so its number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGUSR1) };
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for its end; one that has closed its output but lingers is killed.
    pub fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.input = None;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// Size of its log.
    pub fn log_size(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// What this process logged, at most the last 64 KiB.
    pub fn own_log(&self) -> String {
        self.log_since(self.log_start)
    }

    /// What was logged after `offset`, at most the last 64 KiB.
    pub fn log_since(&self, offset: u64) -> String {
        let end = self.log_size();
        let start = offset.max(end.saturating_sub(TAIL));
        let mut bytes = Vec::new();
        let _ = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(start))?;
            file.take(TAIL).read_to_end(&mut bytes)
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(&Request::Shutdown);
        let _ = self.wait();
    }
}

/// The text of a part of a log below a results folder, at most its last 64 KiB.
pub(crate) fn read_part(results: &Path, part: &LogPart) -> String {
    let path = results.join(&*part.file);
    let end = part.to.unwrap_or_else(|| fs::metadata(&path).map_or(0, |data| data.len()));
    let start = part.from.max(end.saturating_sub(TAIL));
    let mut bytes = Vec::new();
    let _ = File::open(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(end.saturating_sub(start)).read_to_end(&mut bytes)
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a process ended, in words.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "killed by SIGKILL".to_owned(),
        (Some(6), _) => "aborted (SIGABRT)".to_owned(),
        (Some(11), _) => "segmentation fault (SIGSEGV)".to_owned(),
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// How often the kernel has killed a process for memory since it started; 0 where it does not say.
pub(crate) fn kernel_oom_kills() -> u64 {
    let counter = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    // The first is this container's, the second the whole machine's; either growing during a SIGKILL is the answer.
    counter("/sys/fs/cgroup/memory.events", "oom_kill ").unwrap_or(0)
        + counter("/proc/vmstat", "oom_kill ").unwrap_or(0)
}

/// Whether a log or message speaks of memory exhaustion.
pub(crate) fn speaks_of_memory(text: &str) -> bool {
    ["out of memory", "can't allocate memory", "bad_alloc", "Cannot allocate memory"]
        .iter()
        .any(|hint| text.contains(hint))
}

/// The end of a log, in one line.
pub(crate) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "nothing in its log".to_owned();
    }
    lines[lines.len().saturating_sub(3)..].join("; ")
}
