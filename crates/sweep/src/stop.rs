//! Asking a sweep to stop: once gracefully, twice at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::Interruption;

/// A request to stop, shared between a sweep and whoever may end it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    requests: Arc<AtomicU32>,
    terminated: Arc<AtomicU32>,
}

impl Stop {
    /// A stop that nobody has asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stop that Ctrl-C and SIGTERM ask for, from now to the end of the process.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::new();
        let shared = stop.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::spawn(move || {
            for signal in signals.forever() {
                shared.request(if signal == SIGTERM { Interruption::Terminate } else { Interruption::Interrupt });
            }
        });
        Ok(stop)
    }

    /// Asks for a stop, once more.
    pub fn request(&self, by: Interruption) {
        if by == Interruption::Terminate {
            self.terminated.store(1, Ordering::SeqCst);
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// How often it was asked for.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// By what, if at all.
    pub fn interruption(&self) -> Option<Interruption> {
        match (self.requests(), self.terminated.load(Ordering::SeqCst)) {
            (0, _) => None,
            (_, 0) => Some(Interruption::Interrupt),
            _ => Some(Interruption::Terminate),
        }
    }
}
