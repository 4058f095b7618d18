//! Comparison of tensors up to rounding.

use tch::{Kind, Tensor};

/// Where two tensors differ most.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference; NaN if any element of either side is not a number where the other's is.
    pub largest: f64,
    /// Largest absolute value of the expected side.
    pub scale: f64,
    /// Index of the largest difference.
    pub at: Vec<i64>,
    /// Both values there: actual, expected.
    pub values: (f64, f64),
}

impl Difference {
    /// Whether the largest difference is at most `tolerance` times the scale. Never for NaN.
    pub fn within(&self, tolerance: f64) -> bool {
        // The first comparison is for a scale that is infinite.
        self.largest == 0.0 || self.largest <= tolerance * self.scale
    }
}

/// Compares two tensors of equal shape, in double precision.
pub fn difference(actual: &Tensor, expected: &Tensor) -> Difference {
    let (actual, expected) = (actual.detach().to_kind(Kind::Double), expected.detach().to_kind(Kind::Double));
    if actual.numel() == 0 {
        return Difference { largest: 0.0, scale: 0.0, at: Vec::new(), values: (0.0, 0.0) };
    }
    let distance = (&actual - &expected).abs();
    // Equal infinities differ by NaN; they are equal.
    let distance = distance.where_self(&actual.ne_tensor(&expected), &Tensor::zeros_like(&distance));
    let mut flat = distance.argmax(None, false).int64_value(&[]);
    let mut at = Vec::new();
    for length in actual.size().into_iter().rev() {
        at.insert(0, flat % length);
        flat /= length;
    }
    Difference {
        largest: distance.double_value(&at),
        scale: expected.abs().max().double_value(&[]),
        values: (actual.double_value(&at), expected.double_value(&at)),
        at,
    }
}

/// Fails unless shapes are equal and `max |actual - expected| <= tolerance * max |expected|`; says where they differ most.
#[track_caller]
pub fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{what}: shapes differ");
    let found = difference(actual, expected);
    assert!(
        found.within(tolerance),
        "{what}: largest difference {:e} at {:?} ({} instead of {}), allowed {:e} = {tolerance:e} x {}",
        found.largest,
        found.at,
        found.values.0,
        found.values.1,
        tolerance * found.scale,
        found.scale,
    );
}
