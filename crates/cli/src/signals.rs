//! Ctrl-C, SIGTERM and SIGHUP, from the beginning of a command to its end.

use std::sync::OnceLock;

use ressa_sweep::{Interruption, Stop};
use serde_json::json;

use crate::{
    exit::{Exit, Failure},
    text,
};

static STOP: OnceLock<Stop> = OnceLock::new();

/// Begins to listen. While no command watches, a signal ends the process at once, with the exit code that says so.
pub fn listen() -> Result<(), Failure> {
    let stop =
        Stop::on_signals(end).map_err(|e| Failure::new(Exit::Other, format!("cannot listen to signals: {e}")))?;
    let _ = STOP.set(stop);
    Ok(())
}

/// The requests to stop.
pub fn stop() -> Stop {
    STOP.get().cloned().unwrap_or_default()
}

fn end(by: Interruption) {
    let exit = Exit::interrupted(by);
    text::answer_at_the_end(&json!({ "exit": exit as u8, "interrupted": by }));
    std::process::exit(i32::from(exit as u8));
}
