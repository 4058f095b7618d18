//! Growing pauses after what did not go well.

use std::time::Duration;

use crate::pilot::salt;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_secs(10);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(600);

/// A pause that doubles with every failure, a fifth more or less by chance: many sweeps must not come back at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// One more failure at `now`. Returns the pause.
    pub fn fail(&mut self, now: Duration) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        let pause = pause.mul_f64(0.8 + 0.4 * (salt() & 0xffff) as f64 / 65535.0);
        self.failures += 1;
        self.until = now + pause;
        pause
    }

    /// It went well.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the pause is over.
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(Duration::ZERO));
        for expected in [10, 20, 40, 80, 160, 320, 600, 600] {
            let pause = backoff.fail(Duration::ZERO).as_secs_f64();
            assert!((0.8..=1.2).contains(&(pause / f64::from(expected))), "{pause} for {expected}");
        }
        assert!(!backoff.is_over(Duration::from_secs(400)));
        backoff.reset();
        assert!(backoff.is_over(Duration::ZERO));
    }
}
