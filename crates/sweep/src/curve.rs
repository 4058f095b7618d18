//! The losses of a running training, thinned while they arrive.

/// Maximum number of points. A view shows a hundred trainings once a second, so it cannot hold many.
const POINTS: usize = 64;

/// Losses over the share done. Each point is the mean of equally many reports; where there are too many points, neighbours become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LossCurve {
    points: Vec<(f64, f64)>,
    /// Reports of one point.
    stride: u32,
    /// Reports of the point to come, and their sums.
    pending: (u32, f64, f64),
    /// Share done at the last report.
    last: f64,
}

impl Default for LossCurve {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, pending: (0, 0.0, 0.0), last: f64::NEG_INFINITY }
    }
}

impl LossCurve {
    /// Adds a report. One that was added already, or that is no number, adds nothing.
    pub fn add(&mut self, fraction: f64, loss: f64) {
        if !(fraction > self.last && loss.is_finite()) {
            return;
        }
        self.last = fraction;
        let (n, fractions, losses) = self.pending;
        self.pending = (n + 1, fractions + fraction, losses + loss);
        if self.pending.0 < self.stride {
            return;
        }
        self.points.extend(mean(self.pending));
        self.pending = (0, 0.0, 0.0);
        if self.points.len() == POINTS {
            let (pairs, _) = self.points.as_chunks::<2>();
            self.points = pairs.iter().map(|[a, b]| (0.5 * (a.0 + b.0), 0.5 * (a.1 + b.1))).collect();
            self.stride *= 2;
        }
    }

    /// The points so far, in four digits, which is what a small drawing can show.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let rounded = |(fraction, loss): (f64, f64)| (digits(fraction), digits(loss));
        self.points.iter().copied().chain(mean(self.pending)).map(rounded).collect()
    }
}

fn mean((n, fractions, losses): (u32, f64, f64)) -> Option<(f64, f64)> {
    (n > 0).then(|| (fractions / f64::from(n), losses / f64::from(n)))
}

/// A number in four significant digits.
fn digits(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_stays_short_and_true() {
        let mut curve = LossCurve::default();
        for step in 1..=5000u32 {
            let fraction = f64::from(step) / 5000.0;
            curve.add(fraction, 8.0 - 4.0 * fraction);
            assert!(curve.points().len() <= POINTS);
        }
        let points = curve.points();
        assert!(points.len() >= POINTS / 2);
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(points.iter().all(|(fraction, loss)| (8.0 - 4.0 * fraction - loss).abs() < 0.01), "{points:?}");
    }

    #[test]
    fn a_report_counts_once_and_numbers_only() {
        let mut curve = LossCurve::default();
        for (fraction, loss) in [(0.1, 2.0), (0.1, 2.0), (0.2, f64::NAN), (f64::NAN, 1.0), (0.3, 1.23456)] {
            curve.add(fraction, loss);
        }
        assert_eq!(curve.points(), [(0.1, 2.0), (0.3, 1.235)]);
    }
}
