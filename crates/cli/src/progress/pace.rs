//! How long a stage still takes, from how it progresses.

use std::time::Instant;

/// Progress below which no time is predicted.
const SHORTEST: f64 = 0.02;

/// The pace of one stage. What precedes its first progress (loading, encoding images) says nothing about the rest and does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    first: Option<(Instant, f64)>,
}

impl Pace {
    /// Expected seconds to the end at a share done of `fraction`, 0 to 1; `None` until that can be told.
    pub fn left(&mut self, fraction: f64, now: Instant) -> Option<f64> {
        if fraction <= 0.0 {
            return None;
        }
        let (since, before) = *self.first.get_or_insert((now, fraction));
        let gained = fraction - before;
        (gained >= SHORTEST).then(|| now.duration_since(since).as_secs_f64() * (1.0 - fraction) / gained)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn preparation_does_not_count_and_nothing_is_told_too_early() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.left(0.0, at(0)), None, "encoding images");
        assert_eq!(pace.left(0.0, at(3000)), None);
        assert_eq!(pace.left(0.01, at(3600)), None, "the first step");
        assert_eq!(pace.left(0.02, at(3610)), None);
        let left = pace.left(0.26, at(3850)).expect("a quarter was seen");
        assert!((left - 740.0).abs() < 1e-6, "{left}");
        assert_eq!(pace.left(1.0, at(4600)), Some(0.0));
    }

    #[test]
    fn a_resumed_stage_is_paced_by_what_it_does_now() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.left(0.5, start), None);
        let left = pace.left(0.75, start + Duration::from_secs(10)).expect("a quarter was seen");
        assert!((left - 10.0).abs() < 1e-6, "{left}");
    }
}
