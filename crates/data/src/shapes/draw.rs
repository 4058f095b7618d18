//! Random streams and the few draws the world needs.
//!
//! The draws are written out here so that an update of a library cannot move a pixel or a question.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a random stream is for. Streams of different purposes never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    Facts = 1,
    TrainImages = 2,
    QuestionImages = 3,
    RelationImages = 4,
    CaptionImages = 5,
    HeldOutImages = 6,
    RetrievalImages = 7,
    Vqav2 = 8,
    Gqa = 9,
    Okvqa = 10,
    Captions = 11,
    HeldOutCaptions = 12,
    WrittenTexts = 13,
    PoolCaptions = 14,
}

/// The stream of one purpose and one index under a world seed.
pub(crate) fn stream(seed: u64, purpose: Purpose, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((purpose as u64) << 40) | index as u64);
    rng
}

/// Uniform in `0..n`, by multiplication (the bias of 2^-32 is of no consequence here). `n` must not be 0.
pub(crate) fn below(rng: &mut (impl Rng + ?Sized), n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// Uniform in `[0, 1)`.
pub(crate) fn unit(rng: &mut (impl Rng + ?Sized)) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// True with probability `p`.
pub(crate) fn chance(rng: &mut (impl Rng + ?Sized), p: f64) -> bool {
    unit(rng) < p
}

/// One of the values, each as likely; `None` from an empty slice.
pub(crate) fn pick<T: Copy>(rng: &mut (impl Rng + ?Sized), values: &[T]) -> Option<T> {
    if values.is_empty() { None } else { Some(values[below(rng, values.len())]) }
}

/// An index with the given probabilities, which sum to 1.
pub(crate) fn weighted(rng: &mut (impl Rng + ?Sized), probabilities: &[f64]) -> usize {
    let mut u = unit(rng);
    for (i, p) in probabilities.iter().enumerate() {
        if u < *p {
            return i;
        }
        u -= p;
    }
    probabilities.len() - 1
}

/// Shuffles in place (Fisher-Yates).
pub(crate) fn shuffle<T>(rng: &mut (impl Rng + ?Sized), values: &mut [T]) {
    for i in (1..values.len()).rev() {
        values.swap(i, below(rng, i + 1));
    }
}
