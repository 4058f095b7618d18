//! Signs of life: small files that are written anew again and again, with a counter that moves.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use ressa_experiment::StageKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::seal::{Token, open_line, seal_line};

/// A stage that a worker has, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// The stage.
    pub key: StageKey,
    /// Its attempt.
    pub attempt: u32,
    /// Share done.
    pub fraction: f64,
    /// What is going on.
    pub message: String,
    /// Loss of the last step, where it trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// What a pilot writes again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// Seconds until its job ends; none without a limit.
    pub seconds_left: Option<f64>,
    /// What its workers have, by place.
    pub holding: Vec<Option<Holding>>,
}

/// Writes a sealed value in the place of what a file held. A reader that looks meanwhile finds a text that is not whole, and looks again.
pub(crate) fn write(path: &Path, token: &Token, channel: &str, count: u64, value: &impl Serialize) -> io::Result<()> {
    fs::write(path, seal_line(token, channel, count, &serde_json::to_vec(value)?))
}

/// The sealed value of a file and its counter; `None` where there is none, or none that is whole.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, token: &Token, channel: &str) -> Option<(u64, T)> {
    let data = fs::symlink_metadata(path).ok()?;
    if !data.is_file() || data.len() > 1 << 20 {
        return None;
    }
    let text = fs::read(path).ok()?;
    let (count, body) = open_line(token, channel, text.strip_suffix(b"\n")?)?;
    Some((count, serde_json::from_slice(body).ok()?))
}

/// Watches a counter of somebody else by the own clock.
#[derive(Debug)]
pub(crate) struct Pulse {
    count: Option<u64>,
    since: Instant,
}

impl Pulse {
    /// One that begins now.
    pub fn new() -> Self {
        Self { count: None, since: Instant::now() }
    }

    /// Takes a look at the counter. Whether it moved.
    pub fn look(&mut self, count: Option<u64>) -> bool {
        let moved = count.is_some() && count != self.count;
        if moved {
            self.count = count;
            self.since = Instant::now();
        }
        moved
    }

    /// How long it has stood still.
    pub fn still(&self) -> Duration {
        self.since.elapsed()
    }
}
