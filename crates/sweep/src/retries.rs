//! When a failed stage is tried again within a sweep, and when not.
//!
//! | kind | again | after |
//! | --- | --- | --- |
//! | `killed` | as often as allowed | 1 s, doubled up to 1 min: a node that goes down, a preemption, an impatient kernel |
//! | `storage` | as often as allowed | 30 s, doubled up to 10 min: somebody has to free a disk, or a file server comes back |
//! | `data` | once | 10 s: a read that failed for a moment; a file that is broken stays so |
//! | `oom` | once | 30 s: other workers may have let go of their memory |
//! | `timeout` | once | at once: a machine that was busy; a stage that is too long stays so |
//! | `nan`, `bug` | never | the same numbers would come out again |
//!
//! Without `--retries` nothing is tried twice in one sweep. Failures that are left are recorded; the next sweep decides about them by what has
//! changed since, see [`crate::is_retried`].

use std::time::Duration;

use ressa_experiment::protocol::FailureKind;

/// How often failed stages are tried again within one sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of further attempts at one stage.
    limit: u32,
}

/// How failures of a kind are met.
struct Backoff {
    /// Maximum number of further attempts, whatever is allowed.
    attempts: u32,
    first: Duration,
    longest: Duration,
}

impl RetryPolicy {
    /// At most `limit` further attempts at each stage.
    pub fn new(limit: u32) -> Self {
        Self { limit }
    }

    /// How long to wait before a stage is tried again that has just failed; `failures` counts its failures in this sweep, this one among them.
    /// `None` where it is not tried again.
    pub fn delay(self, kind: FailureKind, failures: u32) -> Option<Duration> {
        let backoff = backoff(kind);
        if failures == 0 || failures > self.limit.min(backoff.attempts) {
            return None;
        }
        // Ten doublings are beyond every bound above.
        let factor = 1 << (failures - 1).min(10);
        Some((backoff.first * factor).min(backoff.longest))
    }
}

fn backoff(kind: FailureKind) -> Backoff {
    let (attempts, first, longest) = match kind {
        FailureKind::Killed => (u32::MAX, 1, 60),
        FailureKind::Storage => (u32::MAX, 30, 600),
        FailureKind::Data => (1, 10, 10),
        FailureKind::Oom => (1, 30, 30),
        FailureKind::Timeout => (1, 0, 0),
        FailureKind::Nan | FailureKind::Bug => (0, 0, 0),
    };
    Backoff { attempts, first: Duration::from_secs(first), longest: Duration::from_secs(longest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [FailureKind; 7] = [
        FailureKind::Oom,
        FailureKind::Nan,
        FailureKind::Timeout,
        FailureKind::Killed,
        FailureKind::Data,
        FailureKind::Storage,
        FailureKind::Bug,
    ];

    /// Delays in seconds until a stage is given up that fails in one way again and again.
    fn delays(limit: u32, kind: FailureKind) -> Vec<u64> {
        let policy = RetryPolicy::new(limit);
        (1..).map_while(|failures| policy.delay(kind, failures)).take(100).map(|delay| delay.as_secs()).collect()
    }

    #[test]
    fn kinds_differ_in_how_often_and_how_soon() {
        assert_eq!(delays(8, FailureKind::Killed), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delays(7, FailureKind::Storage), [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(delays(5, FailureKind::Data), [10]);
        assert_eq!(delays(5, FailureKind::Oom), [30]);
        assert_eq!(delays(5, FailureKind::Timeout), [0]);
        for kind in [FailureKind::Nan, FailureKind::Bug] {
            assert!(delays(100, kind).is_empty(), "{kind:?} comes out the same again");
        }
    }

    #[test]
    fn nothing_is_tried_again_unless_asked_for() {
        for kind in KINDS {
            assert!(delays(0, kind).is_empty());
            assert_eq!(RetryPolicy::default().delay(kind, 1), None);
        }
    }

    #[test]
    fn no_limit_is_exceeded_and_waiting_never_gets_shorter() {
        for kind in KINDS {
            for limit in 0..70 {
                let delays = delays(limit, kind);
                assert!(delays.len() <= limit as usize && delays.is_sorted(), "{kind:?}: {delays:?}");
            }
            assert_eq!(RetryPolicy::new(u32::MAX).delay(kind, 0), None, "nothing has failed yet");
            let _ = RetryPolicy::new(u32::MAX).delay(kind, u32::MAX);
        }
    }
}
