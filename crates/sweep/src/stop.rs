//! Asking a sweep to stop: once gracefully, twice at once.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2},
    iterator::Signals,
};

use crate::Interruption;

/// A request to stop, shared between a sweep and whoever may end it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    requests: Arc<AtomicU32>,
    terminated: Arc<AtomicU32>,
    watchers: Arc<AtomicU32>,
}

/// While it lives, somebody looks at a [`Stop`] and will answer a request.
#[derive(Debug)]
pub struct Watch(Arc<AtomicU32>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stop {
    /// A stop that nobody has asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stop that Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 (with which Slurm announces the end of a job) ask for, from now to the end of the process. `unwatched` is called, on a thread of its own,
    /// for a request while nobody watches: before workers run and after, when nothing is lost by ending the process at once. A SIGHUP that
    /// was ignored when the process began (`nohup`) stays ignored.
    pub fn on_signals(unwatched: fn(Interruption)) -> io::Result<Self> {
        let stop = Self::new();
        let shared = stop.clone();
        let hangup = if ignores_hangup() { None } else { Some(SIGHUP) };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR2].into_iter().chain(hangup))?;
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let by = if signal == SIGINT { Interruption::Interrupt } else { Interruption::Terminate };
                shared.request(by);
                if shared.watchers.load(Ordering::SeqCst) == 0 {
                    unwatched(by);
                }
            }
        });
        Ok(stop)
    }

    /// Says that requests are looked at, as long as the result lives.
    pub fn watch(&self) -> Watch {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        Watch(Arc::clone(&self.watchers))
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

/// Whether this process was started with SIGHUP ignored; `false` where the system does not say.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}
