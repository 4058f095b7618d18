//! Calls of an engine's commands: with a time limit, and without what a surrounding job says of itself.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Bytes of an answer that are read; a million jobs in a queue are more than a sweep has.
const LONGEST: u64 = 64 << 20;

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Program.
    pub program: &'static str,
    /// Arguments.
    pub arguments: Vec<String>,
    /// How long an answer may take.
    pub limit: Duration,
}

impl Call {
    /// A call that may take a minute: a busy controller answers late, not never.
    pub fn new(program: &'static str, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { program, arguments: arguments.into_iter().map(Into::into).collect(), limit: Duration::from_secs(60) }
    }
}

/// What a command answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Answer {
    /// Whether the command says that all is well.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The command's own message: its last lines on standard error, without its name in front.
    pub fn message(&self) -> String {
        let lines: Vec<&str> = self.errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let told = lines[lines.len().saturating_sub(3)..].join("; ");
        let bare = told.split_once(": error: ").map_or(told.as_str(), |(_, rest)| rest);
        match (bare, self.code) {
            ("", None) => "ended by a signal".to_owned(),
            ("", Some(code)) => format!("exit code {code} without a message"),
            (message, _) => message.to_owned(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No such program.
    #[error("`{program}` is not on the PATH")]
    Missing {
        /// Program.
        program: &'static str,
    },
    /// It did not answer in time and was ended; whether it did what it was asked is not known.
    #[error("`{program}` did not answer within {} s", .limit.as_secs_f64())]
    TimedOut {
        /// Program.
        program: &'static str,
        /// Limit.
        limit: Duration,
    },
    /// It could not be started or read.
    #[error("`{program}` cannot be run: {source}")]
    Io {
        /// Program.
        program: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// Whoever answers calls.
pub trait Commands: fmt::Debug + Send {
    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// No answer; a command that answers with an error has answered.
    fn call(&self, call: &Call) -> Result<Answer, CallError>;
}

/// The programs on the PATH.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Another PATH than this process has.
    pub path: Option<OsString>,
}

/// Variables that stay although they begin like those of a job: where the cluster is.
const KEPT: [&str; 4] = ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"];

/// Whether a variable says something of a job around this process, or sets an option behind the profile's back.
pub(crate) fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let of_slurm = ["SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_", "SCONTROL_"];
    let of_devices = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];
    of_slurm.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.contains(&name.as_ref())
        || of_devices.contains(&name.as_ref())
}

impl Commands for Programs {
    fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let program = call.program;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CallError::Missing { program },
            _ => CallError::Io { program, source },
        };
        let mut command = Command::new(program);
        command.args(&call.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the sweep, which may need an answer to end well; and what does not answer is ended with its children.
        command.process_group(0);
        env::vars_os().map(|(name, _)| name).filter(|name| is_foreign(name)).for_each(|name| {
            command.env_remove(name);
        });
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let mut child = command.spawn().map_err(failed)?;
        let (output, errors) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let code = wait(&mut child, call.limit).map_err(failed)?;
        let Some(code) = code else { return Err(CallError::TimedOut { program, limit: call.limit }) };
        let text =
            |reader: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
        Ok(Answer { code, output: text(output), errors: text(errors) })
    }
}

/// Waits for the end of a process; after the limit it is ended with its children, and there is no exit code.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<Option<i32>>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code()));
        }
        if start.elapsed() >= limit {
            // SAFETY: a plain system call; the child is not waited for yet, so its number is its own.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(-libc::pid_t::try_from(child.id()).unwrap_or(libc::pid_t::MAX), libc::SIGKILL);
            }
            let _ = child.wait();
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn reader(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            let _ = from.take(LONGEST).read_to_end(&mut bytes);
        }
        bytes
    })
}
