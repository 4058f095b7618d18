//! Workers on other machines: where they and the coordinator meet, and what they say there.
//!
//! A pilot (`ressa work`) starts workers on its machine as the coordinator does on its own, and relays the same typed protocol. The two meet
//! in a folder, `results/meet`: the store has to be shared anyway, so nothing else is needed, no port is open, and a coordinator may die and
//! come back while its pilots work on. Everything in the folder is written by one process and only grows or is rewritten whole:
//!
//! | file | writer | what |
//! | --- | --- | --- |
//! | `token` | coordinator | secret of this sweep, for its user only |
//! | `sweep.json` | coordinator | what a pilot needs to know to start workers |
//! | `coordinator` | coordinator | a counter that moves while it lives |
//! | `up/NAME` | pilot | its messages, a line each |
//! | `down/NAME` | coordinator | messages to it |
//! | `beat/NAME` | pilot | a counter that moves while it lives, with how far its stages are |
//!
//! Every line carries its number and a code that only who knows the token can make ([`seal`]); others are refused and said. Nobody compares
//! clocks: a side counts as gone when its counter has stood still for a while by the other's own clock. Files are opened anew for each look,
//! which is what makes a network file system show what another machine wrote.

mod beat;
mod folder;
mod host;
mod pace;
mod seal;
mod spool;

pub(crate) use beat::{Beat, Holding, Pulse};
pub use folder::Meet;
pub(crate) use folder::{CoordinatorBeat, Invitation};
pub(crate) use host::{Arrival, Host};
pub(crate) use pace::Pace;
pub(crate) use spool::{Direction, SpoolReader, SpoolWriter, Taken, is_name};

use std::time::Duration;

use ressa_experiment::{
    StageKey, StageNode,
    protocol::{Event, Failure},
};
use ressa_runlog::LogPart;
use serde::{Deserialize, Serialize};

/// Time without a sign of life after which a worker counts as gone, where nobody says otherwise.
pub const LEASE: Duration = Duration::from_secs(60);

/// A place for a worker at a pilot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Device argument of workers there.
    pub device: String,
    /// Their log, relative to the results folder.
    pub log: String,
}

/// What a pilot says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "up", rename_all = "kebab-case")]
pub(crate) enum Up {
    /// It is there; said again to every coordinator it meets.
    Hello(Hello),
    /// A worker said something.
    Said {
        /// Its place.
        place: usize,
        /// What.
        event: Event,
        /// What the stage logged, where one ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<LogPart>,
    },
    /// A worker ended without being asked to.
    Died {
        /// Its place.
        place: usize,
        /// How it ended.
        how: String,
        /// Whether it was ready.
        ready: bool,
        /// What that means for the stage it had.
        lost: Option<Lost>,
    },
    /// It takes no more work: it was told to end, or its time runs out.
    Leaving {
        /// Why.
        why: String,
    },
    /// It has ended.
    Bye {
        /// Why.
        why: String,
    },
}

/// Who a pilot is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Hello {
    /// Segment of the coordinator it says it to.
    pub segment: u32,
    /// Its machine, or node.
    pub host: String,
    /// Job of the cluster's engine.
    pub job: String,
    /// Class of workers that it was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its program.
    pub program: String,
    /// Kind of device: what times are comparable on.
    pub machine: String,
    /// Its places for workers.
    pub places: Vec<Place>,
    /// What they work on.
    pub holding: Vec<Option<Holding>>,
}

/// A stage that died with its worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// The stage.
    pub key: StageKey,
    /// Its attempt.
    pub attempt: u32,
    /// What its death means.
    pub failure: Failure,
    /// What it logged.
    pub log: Option<LogPart>,
}

/// What a coordinator says to a pilot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "down", rename_all = "kebab-case")]
pub(crate) enum Down {
    /// Have a worker execute a stage.
    Execute {
        /// Place of the worker.
        place: usize,
        /// The stage.
        node: Box<StageNode>,
        /// Its attempt.
        attempt: u32,
    },
    /// End the worker of a place: its stage took too long, or is no longer its own.
    End {
        /// The place.
        place: usize,
        /// The attempt that it is about.
        attempt: u32,
    },
    /// There is nothing more to do here: end.
    Leave {
        /// Why.
        why: String,
    },
}
