//! Whether this process was asked to save what it trains and to give it back.
//!
//! A flag of the process, because a signal is: a handler may do nothing else than set it. Trainings look at it after every step.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Asks for it. Safe in a signal handler.
pub fn ask_to_stop() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Whether it was asked for.
pub fn is_asked_to_stop() -> bool {
    ASKED.load(Ordering::SeqCst)
}
