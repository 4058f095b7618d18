//! Stored numbers times powers of two, exactly or not at all. Done on the bits, so that nothing is rounded or flushed on the way.

use safetensors::Dtype;

/// Bits of mantissa and exponent.
#[derive(Clone, Copy)]
struct Layout {
    mantissa: u32,
    exponent: u32,
}

impl Layout {
    fn of(dtype: Dtype) -> Option<Self> {
        let (mantissa, exponent) = match dtype {
            Dtype::F64 => (52, 11),
            Dtype::F32 => (23, 8),
            Dtype::F16 => (10, 5),
            Dtype::BF16 => (7, 8),
            _ => return None,
        };
        Some(Self { mantissa, exponent })
    }

    /// The number times `2^power`. Zeros, infinities and NaNs stay as they are. None where a number would leave the range of the normal
    /// ones, or one below that range would lose digits.
    fn scaled(self, bits: u64, power: i32) -> Option<u64> {
        let one = 1u64 << self.mantissa;
        let highest = (1i64 << self.exponent) - 1;
        let sign = bits & (one << self.exponent);
        let magnitude = bits ^ sign;
        let exponent = (magnitude >> self.mantissa) as i64;
        if magnitude == 0 || power == 0 || exponent == highest {
            return Some(bits);
        }
        let fraction = magnitude & (one - 1);
        // As if it were normal: a significand that begins with a one, and the exponent to it.
        let missing = if exponent == 0 { self.mantissa - fraction.ilog2() } else { 0 };
        let significand = if exponent == 0 { fraction << missing } else { fraction | one };
        let moved = exponent.max(1) - i64::from(missing) + i64::from(power);
        if moved >= highest {
            return None;
        }
        if moved >= 1 {
            return Some(sign | ((moved as u64) << self.mantissa) | (significand & (one - 1)));
        }
        let lost = 1 - moved;
        let exact = exponent == 0 && lost <= i64::from(significand.trailing_zeros());
        exact.then(|| sign | (significand >> lost))
    }
}

/// The elements of `bytes` (little-endian, of type `dtype`), each times two to the power that its index is given. None where that cannot
/// be written exactly in the same type, or the type is not f64, f32, f16 or bf16.
pub fn scale(dtype: Dtype, bytes: &[u8], powers: impl Fn(usize) -> i32) -> Option<Vec<u8>> {
    let layout = Layout::of(dtype)?;
    let size = dtype.bitsize() / 8;
    let mut scaled = Vec::with_capacity(bytes.len());
    for (index, element) in bytes.chunks_exact(size).enumerate() {
        let mut word = [0; 8];
        word[..size].copy_from_slice(element);
        let bits = layout.scaled(u64::from_le_bytes(word), powers(index))?;
        scaled.extend_from_slice(&bits.to_le_bytes()[..size]);
    }
    Some(scaled)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn of_f32(value: f32, power: i32) -> Option<f32> {
        let scaled = scale(Dtype::F32, &value.to_le_bytes(), |_| power)?;
        Some(f32::from_le_bytes(scaled.try_into().unwrap()))
    }

    #[test]
    fn what_cannot_be_written_exactly_is_not_written() {
        assert_eq!(of_f32(-0.75, 3), Some(-6.0));
        assert_eq!(of_f32(-0.0, 3).map(f32::to_bits), Some((-0.0f32).to_bits()));
        assert_eq!(of_f32(f32::MAX, 1), None);
        assert_eq!(of_f32(f32::MIN_POSITIVE, -1), None);
        assert_eq!(of_f32(f32::INFINITY, 1), Some(f32::INFINITY));
        // Below the normal numbers: up to them, and down while no digit is lost.
        let (six, ulp) = (f32::from_bits(6), f32::from_bits(1));
        assert_eq!(of_f32(six, -1), Some(f32::from_bits(3)));
        assert_eq!(of_f32(six, -2), None);
        assert_eq!(of_f32(ulp, 22), Some(f32::from_bits(1 << 22)));
        assert_eq!(of_f32(ulp, 23), Some(f32::MIN_POSITIVE));
        assert_eq!(of_f32(six, 150).map(f64::from), Some(f64::from(six) * 150f64.exp2()));
        assert_eq!(scale(Dtype::I32, &[1, 0, 0, 0], |_| 0), None);
    }

    proptest! {
        /// Against arithmetic in a wider type.
        #[test]
        fn every_type_is_scaled_as_arithmetic_does(bits: u32, power in -40i32..40) {
            let factor = f64::from(power).exp2();
            let wide = [
                (Dtype::F32, f64::from(f32::from_bits(bits)), f64::from(f32::MIN_POSITIVE)),
                (Dtype::BF16, bf16::from_bits(bits as u16).to_f64(), bf16::MIN_POSITIVE.to_f64()),
                (Dtype::F16, f16::from_bits(bits as u16).to_f64(), f16::MIN_POSITIVE.to_f64()),
            ];
            for (dtype, value, smallest) in wide.into_iter().filter(|(_, value, _)| value.is_finite()) {
                let bytes = &bits.to_le_bytes()[..dtype.bitsize() / 8];
                let wanted = value * factor;
                let (rounded, largest) = match dtype {
                    Dtype::F32 => (f64::from(wanted as f32), f64::from(f32::MAX)),
                    Dtype::BF16 => (bf16::from_f64(wanted).to_f64(), bf16::MAX.to_f64()),
                    _ => (f16::from_f64(wanted).to_f64(), f16::MAX.to_f64()),
                };
                let leaves = wanted.abs() > largest || (value.abs() >= smallest && wanted.abs() < smallest);
                let found = scale(dtype, bytes, |_| power).map(|bytes| {
                    let mut word = [0; 4];
                    word[..bytes.len()].copy_from_slice(&bytes);
                    let word = u32::from_le_bytes(word);
                    match dtype {
                        Dtype::F32 => f64::from(f32::from_bits(word)),
                        Dtype::BF16 => bf16::from_bits(word as u16).to_f64(),
                        _ => f16::from_bits(word as u16).to_f64(),
                    }
                });
                prop_assert_eq!(found, (!leaves && rounded == wanted).then_some(wanted), "{:?} {}", dtype, value);
            }
        }
    }
}
