//! Exit codes, and failures that carry one.

use std::io::Write;

use ressa_checkpoint::CheckpointError;
use ressa_data::DataError;
use ressa_experiment::ExperimentError;
use ressa_store::StoreError;
use ressa_sweep::{Interruption, Summary, SweepError};

/// What the process ends with. Scripts may rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All that was asked is done.
    Done = 0,
    /// Anything that no other code names: no worker program, a worker that does not start.
    Other = 1,
    /// Bad command line.
    Usage = 2,
    /// Nothing selected: no run or stage matches.
    NothingSelected = 4,
    /// A model folder, image or input file that cannot be used.
    Unusable = 65,
    /// A checkpoint or benchmark that the sweep needs is not on disk.
    MissingInput = 66,
    /// Try again later: another sweep works on the same results folder, or `ressa work` gave its work back before it was done.
    Busy = 75,
    /// Bad experiment file or override.
    BadExperiment = 78,
    /// Some stages failed; the rest is done.
    SomeFailed = 100,
    /// A dense model does not reach its gate; nothing was spent on pruning it.
    GateFailed = 102,
    /// `verify` found damage or a certificate that does not hold.
    NotVerified = 104,
    /// `report --strict` on an incomplete sweep.
    Incomplete = 106,
    /// `diff` found differences.
    Differ = 108,
    /// Something cannot be written: disk full, or no permission.
    CannotWrite = 110,
    /// Interrupted with Ctrl-C; run again to go on.
    Interrupted = 130,
    /// Terminated; run again to go on.
    Terminated = 143,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The code of what a signal ended.
    pub fn interrupted(by: Interruption) -> Self {
        match by {
            Interruption::Interrupt => Exit::Interrupted,
            Interruption::Terminate => Exit::Terminated,
        }
    }

    /// The code of a finished sweep: the most pressing of what happened.
    pub fn of(summary: &Summary) -> Self {
        if let Some(by) = summary.interrupted {
            return Exit::interrupted(by);
        }
        if summary.storage.is_some() {
            Exit::CannotWrite
        } else if summary.gate_failed {
            Exit::GateFailed
        } else if !summary.failed.is_empty() {
            Exit::SomeFailed
        } else {
            Exit::Done
        }
    }
}

/// How a command ends.
pub type Outcome = Result<Exit, Failure>;

/// Why a command cannot do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// A mistake in an experiment, shown with its place.
    Experiment(Box<ExperimentError>),
    /// Anything else: a message and its code.
    Message(Exit, String),
}

impl Failure {
    /// A failure with a code and a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure::Message(exit, message.into())
    }

    /// Its code.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Experiment(_) => Exit::BadExperiment,
            Failure::Message(exit, _) => *exit,
        }
    }

    /// Shows it on standard error; where a machine reads, as one JSON object. Standard output stays empty: who reads a field of an answer there
    /// meets no object without it.
    pub fn print(&self, json: bool) {
        let mut stderr = std::io::stderr().lock();
        let _ = match self {
            _ if json => {
                crate::text::answer_elsewhere();
                writeln!(stderr, "{}", self.json())
            }
            Failure::Experiment(error) => {
                let diagnostic: &dyn miette::Diagnostic = error.as_ref();
                let mut text = String::new();
                match handler().render_report(&mut text, diagnostic) {
                    Ok(()) => write!(stderr, "{text}"),
                    Err(_) => writeln!(stderr, "error: {error}"),
                }
            }
            Failure::Message(_, message) => writeln!(stderr, "error: {message}"),
        };
    }

    /// For a machine.
    pub fn json(&self) -> serde_json::Value {
        let position = match self {
            Failure::Experiment(error) => error.position().map(|position| position.to_string()),
            Failure::Message(..) => None,
        };
        serde_json::json!({ "error": self.message(), "at": position, "exit": self.exit() as u8 })
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        match self {
            Failure::Experiment(error) => error.to_string(),
            Failure::Message(_, message) => message.clone(),
        }
    }
}

/// Excerpts with colours on a terminal, plain elsewhere and where `NO_COLOR` is set.
fn handler() -> miette::GraphicalReportHandler {
    let theme = if crate::text::colours(&std::io::stderr()) {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    miette::GraphicalReportHandler::new_themed(theme).with_width(110)
}

impl From<ExperimentError> for Failure {
    fn from(error: ExperimentError) -> Self {
        Failure::Experiment(Box::new(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::new(if error.is_storage() { Exit::CannotWrite } else { Exit::Other }, error.to_string())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Failure::new(if error.is_storage() { Exit::CannotWrite } else { Exit::Unusable }, error.to_string())
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Failure::new(if error.is_storage() { Exit::CannotWrite } else { Exit::Unusable }, error.to_string())
    }
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        let exit = match &error {
            error if error.is_storage() => Exit::CannotWrite,
            SweepError::Busy { .. } => Exit::Busy,
            SweepError::Name { .. } => Exit::Usage,
            _ => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    }
}
