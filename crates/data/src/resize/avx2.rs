//! The two passes with 256-bit vectors, where the processor has them. The arithmetic is that of the portable passes: integers, so the
//! values are the same.

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_packs_epi32, _mm_packus_epi16, _mm_set1_epi32, _mm_srai_epi32,
    _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_setzero_si256, _mm256_slli_epi32,
};

use super::{LANES, LOW_BITS, Lanes, PRECISION, Taps, separate, weighted_rows};

/// One row of the horizontal pass. `planes` is scratch for the row's channels.
#[target_feature(enable = "avx2")]
pub(super) fn horizontal(row: &[u8], lanes: &Lanes, planes: &mut [Vec<i16>; 3], narrow: &mut [u8]) {
    separate(row, planes);
    let [red, green, blue] = planes;
    let half = _mm_set1_epi32(1 << (PRECISION - 1));
    for (&(source, at, count), pixel) in lanes.spans.iter().zip(narrow.as_chunks_mut::<3>().0) {
        let mut sums = [_mm256_setzero_si256(); 3];
        for step in (0..count).step_by(LANES) {
            let (high, low) = (load(&lanes.high[at + step..]), load(&lanes.low[at + step..]));
            for (sum, plane) in sums.iter_mut().zip([&red, &green, &blue]) {
                let values = load(&plane[source + step..]);
                let upper = _mm256_slli_epi32::<{ LOW_BITS as i32 }>(_mm256_madd_epi16(values, high));
                *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(upper, _mm256_madd_epi16(values, low)));
            }
        }
        // Four sums of each half: red, green, blue, nothing.
        let pairs = [_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], _mm256_setzero_si256())];
        let halves = _mm256_hadd_epi32(pairs[0], pairs[1]);
        let total = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
        let levels = _mm_srai_epi32::<{ PRECISION as i32 }>(_mm_add_epi32(total, half));
        let words = _mm_packs_epi32(levels, levels);
        let [r, g, b, _] = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
        *pixel = [r, g, b];
    }
}

/// The first lanes of `values`, which must have as many.
#[target_feature(enable = "avx2")]
fn load(values: &[i16]) -> __m256i {
    let lanes = &values[..LANES];
    // SAFETY: 16 values of 16 bits are there, at any address.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

/// The vertical pass.
#[target_feature(enable = "avx2")]
pub(super) fn vertical(rows: &[&[u8]], first: usize, taps: &Taps) -> Vec<u8> {
    weighted_rows(rows, first, taps)
}
