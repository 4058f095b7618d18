//! Quantiles of Student's t and the normal distribution, means and deviations.

use std::{cell::RefCell, collections::HashMap};

/// Significance level of every interval and test.
pub const LEVEL: f64 = 0.05;

/// With so many degrees of freedom Student's distribution is the normal one: its quantiles differ by less than 1e-6.
const NORMAL: f64 = 1e7;

/// Logarithm of the gamma function for positive `x` (Lanczos, g = 7, relative error below 1e-14).
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = C.iter().enumerate().fold(0.999_999_999_999_809_9, |s, (i, c)| s + c / (x + i as f64 + 1.0));
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Regularised incomplete beta function, by its continued fraction (modified Lentz).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let tiny = 1e-300;
    let guard = |v: f64| if v.abs() < tiny { tiny } else { v };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Probability that |T| of Student's distribution with `df` degrees of freedom exceeds |t|.
pub fn two_sided_p(t: f64, df: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    incomplete_beta(0.5 * df, 0.5, df / (df + t * t))
}

/// The `t` with `two_sided_p(t, df) == level`: 12.706 for one degree of freedom at 5 %.
pub fn t_quantile(level: f64, df: f64) -> f64 {
    // A report asks for the same few quantiles thousands of times.
    thread_local! {
        static KNOWN: RefCell<HashMap<(u64, u64), f64>> = RefCell::default();
    }
    let key = (level.to_bits(), df.to_bits());
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).copied()) {
        return known;
    }
    let found = find_quantile(level, df);
    KNOWN.with_borrow_mut(|known| known.insert(key, found));
    found
}

fn find_quantile(level: f64, df: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided_p(high, df) > level {
        high *= 2.0;
    }
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if two_sided_p(middle, df) > level {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// Probability that a standard normal deviate is farther from zero than `z`.
pub fn normal_two_sided_p(z: f64) -> f64 {
    two_sided_p(z, NORMAL)
}

/// The `z` with `normal_two_sided_p(z) == level`: 1.96 at 5 %.
pub fn normal_quantile(level: f64) -> f64 {
    t_quantile(level, NORMAL)
}

/// Half-width of the 95 % t-interval of a mean; `None` below two values.
pub fn half_width(std: f64, n: usize) -> Option<f64> {
    (n >= 2).then(|| t_quantile(LEVEL, n as f64 - 1.0) * std / (n as f64).sqrt())
}

/// Mean and sample standard deviation (n - 1); the deviation of fewer than two values is 0.
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

/// Mean and sample standard deviation of values that come one after the other: a compensated sum, and Welford's recurrence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    count: usize,
    sum: f64,
    /// What rounding has added to the sum.
    excess: f64,
    /// Mean so far, as the recurrence has it.
    mean: f64,
    /// Sum of squared deviations from it.
    squares: f64,
}

impl Moments {
    /// Takes a value in.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let corrected = value - self.excess;
        let sum = self.sum + corrected;
        self.excess = (sum - self.sum) - corrected;
        self.sum = sum;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their mean; not a number without any.
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Their sample standard deviation (n - 1); 0 for fewer than two.
    pub fn std(&self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.squares / (self.count as f64 - 1.0)).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    #[test]
    fn moments_are_those_of_the_list() {
        let values: Vec<f64> = (0..100).map(|n| 1e6 + f64::from(n * 37 % 101) / 7.0).collect();
        let mut moments = Moments::default();
        assert!(moments.mean().is_nan() && moments.std() == 0.0);
        for (position, value) in values.iter().enumerate() {
            moments.add(*value);
            let (mean, std) = mean_std(&values[..=position]);
            close(moments.mean(), mean, 1e-8);
            close(moments.std(), std, 1e-8);
        }
        let mut equal = Moments::default();
        (0..10).for_each(|_| equal.add(0.1));
        assert_eq!((equal.count(), equal.mean(), equal.std()), (10, 0.1, 0.0), "no rounding where nothing differs");
    }

    #[test]
    fn quantiles_have_their_closed_forms() {
        // One degree of freedom: Cauchy. Two: t = q sqrt(2 / (1 - q^2)) with q = 1 - level.
        let q: f64 = 0.95;
        close(t_quantile(0.05, 1.0), (std::f64::consts::FRAC_PI_2 * q).tan(), 1e-9);
        close(t_quantile(0.05, 2.0), q * (2.0 / (1.0 - q * q)).sqrt(), 1e-10);
        close(t_quantile(0.05, 4.0), 2.776_445_105, 1e-8);
        close(normal_quantile(0.05), 1.959_963_984_540_054, 1e-6);
        close(two_sided_p(t_quantile(0.01, 7.0), 7.0), 0.01, 1e-12);
    }
}
