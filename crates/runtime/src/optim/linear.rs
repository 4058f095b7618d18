//! A learning rate that rises and falls linearly.

/// Up to the peak over the first steps, down to zero over the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearSchedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps over which the rate rises; at most `steps`.
    pub warmup: u32,
    /// Steps in all.
    pub steps: u32,
}

impl LinearSchedule {
    /// The rate of a step, counted from 0: above 0 in every one of them.
    pub fn at(&self, step: u32) -> f64 {
        let warmup = self.warmup.min(self.steps);
        self.peak
            * if step < warmup {
                f64::from(step + 1) / f64::from(warmup)
            } else {
                f64::from(self.steps.saturating_sub(step)) / f64::from((self.steps - warmup).max(1))
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_zero() {
        let schedule = LinearSchedule { peak: 2.0, warmup: 4, steps: 12 };
        let rates: Vec<f64> = (0..=12).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(LinearSchedule { peak: 1.0, warmup: 9, steps: 2 }.at(1), 1.0);
        assert_eq!(LinearSchedule { peak: 1.0, warmup: 0, steps: 2 }.at(0), 1.0);
    }
}
