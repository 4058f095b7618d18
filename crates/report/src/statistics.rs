//! Student's t: intervals over replicate seeds and paired tests.
//!
//! Two kinds of uncertainty are kept apart everywhere. Over *replicate seeds* (calibration sample, adapter initialisation, batches) there
//! are few values, so intervals are Student's, with n - 1 degrees of freedom. Over *items of the test set* each score carries its own
//! standard error; it is used for a decision only where there are too few seeds to form an interval.

/// Significance level of every interval and test.
pub const LEVEL: f64 = 0.05;

/// The 97.5 % quantile of the normal distribution.
const NORMAL: f64 = 1.959_963_984_540_054;

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
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided_p(high, df) > level {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if two_sided_p(middle, df) > level {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
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

/// What an interval of differences was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Paired differences over at least three seeds: Student's t.
    Seeds,
    /// Fewer than three pairs, too few for Student's t to say anything: a normal interval from both test-set standard errors combined as if
    /// independent (wider than need be, as the items are the same), plus the spread over the two seeds where there are two.
    TestSet,
}

/// A difference with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean of `a - b`.
    pub mean: f64,
    /// Half-width of the interval.
    pub half_width: f64,
    /// Distinct pairs.
    pub n: usize,
    /// Where the interval comes from.
    pub basis: Basis,
}

/// One pair of values with their test-set standard errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// `a - b`.
    pub difference: f64,
    /// Standard error of `a` over test items.
    pub error_a: f64,
    /// Standard error of `b` over test items.
    pub error_b: f64,
}

impl Difference {
    /// The interval of the mean difference of `pairs`; `None` without any.
    pub fn of(pairs: &[Pair]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let n = pairs.len();
        let differences: Vec<f64> = pairs.iter().map(|p| p.difference).collect();
        let (mean, std) = mean_std(&differences);
        if n >= 3 {
            return Some(Self { mean, half_width: half_width(std, n)?, n, basis: Basis::Seeds });
        }
        // The test items are the same for every seed, so their error does not shrink with n.
        let items = pairs.iter().map(|p| p.error_a * p.error_a + p.error_b * p.error_b).sum::<f64>() / n as f64;
        let variance = items + std * std / n as f64;
        Some(Self { mean, half_width: NORMAL * variance.sqrt(), n, basis: Basis::TestSet })
    }

    /// Whether the interval lies above zero.
    pub fn is_positive(&self) -> bool {
        self.mean - self.half_width > 0.0
    }

    /// Whether the interval lies below zero.
    pub fn is_negative(&self) -> bool {
        self.mean + self.half_width < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    #[test]
    fn quantiles_have_their_closed_forms() {
        // One degree of freedom: Cauchy. Two: t = q sqrt(2 / (1 - q^2)) with q = 1 - level.
        let q: f64 = 0.95;
        close(t_quantile(0.05, 1.0), (std::f64::consts::FRAC_PI_2 * q).tan(), 1e-9);
        close(t_quantile(0.05, 2.0), q * (2.0 / (1.0 - q * q)).sqrt(), 1e-10);
        close(t_quantile(0.05, 4.0), 2.776_445_105, 1e-8);
        close(t_quantile(0.05, 1e7), NORMAL, 1e-5);
        close(two_sided_p(t_quantile(0.01, 7.0), 7.0), 0.01, 1e-12);
    }

    #[test]
    fn a_paired_interval_sees_through_shared_variation() {
        // Differences 1, 2, 3: mean 2, std 1, half-width t(2) / sqrt(3).
        let pairs: Vec<Pair> =
            [1.0, 2.0, 3.0].map(|difference| Pair { difference, error_a: 9.0, error_b: 9.0 }).to_vec();
        let d = Difference::of(&pairs).unwrap();
        close(d.half_width, 4.302_652_73 / 3f64.sqrt(), 1e-7);
        assert_eq!((d.mean, d.n, d.basis), (2.0, 3, Basis::Seeds));
        assert!(!d.is_positive() && !d.is_negative());
    }

    #[test]
    fn too_few_seeds_fall_back_on_the_test_set() {
        let pair = Pair { difference: -5.0, error_a: 1.5, error_b: 2.0 };
        let d = Difference::of(&[pair]).unwrap();
        close(d.half_width, NORMAL * 2.5, 1e-12);
        assert_eq!(d.basis, Basis::TestSet);
        assert!(d.is_negative());
        assert_eq!(Difference::of(&[]), None);
        // A second seed adds its spread: the variance of the mean of -5 and -1 is 8 / 2.
        let d = Difference::of(&[pair, Pair { difference: -1.0, ..pair }]).unwrap();
        close(d.half_width, NORMAL * (6.25f64 + 4.0).sqrt(), 1e-12);
    }
}
