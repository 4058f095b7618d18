//! How often a side looks for messages: often for a moment after one was said or heard, since another may be on its way, else seldom.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause between two looks shortly after a message.
const SHORT: Duration = Duration::from_millis(5);
/// How long after a message pauses are short.
const MOMENT: Duration = Duration::from_secs(1);

/// The pace of one side.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
}

impl Pace {
    /// A message was said or heard.
    pub fn message(&mut self) {
        self.last = Some(Instant::now());
    }

    /// Pause after a look that took so long. At most a fifth of the time is spent looking, whatever the file system and however many pilots.
    pub fn pause(&self, look: Duration) -> Duration {
        let is_recent = self.last.is_some_and(|last| last.elapsed() < MOMENT);
        (if is_recent { SHORT } else { PAUSE }).max(4 * look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_look_is_followed_by_a_longer_pause() {
        let mut pace = Pace::default();
        assert_eq!((pace.pause(Duration::ZERO), pace.pause(Duration::from_secs(1))), (PAUSE, Duration::from_secs(4)));
        pace.message();
        assert!(pace.pause(Duration::from_millis(100)) == Duration::from_millis(400));
    }
}
