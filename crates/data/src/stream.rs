//! Random numbers as functions of a seed, a purpose and a position, so that a resumed stage draws what an undisturbed one would have, and
//! what a stage is going to read can be said before it runs.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What random numbers are for. Two purposes never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Which images of the embedded world calibrate.
    Calibration = 1,
    /// Which images of the embedded world train.
    RestorationImages = 2,
    /// What a batch of the embedded world asks.
    RestorationBatch = 3,
    /// The batch that a merge is compared on.
    Probe = 4,
    /// Which entries of a corpus are drawn.
    CorpusEntries = 5,
    /// How an entry becomes a calibration sample.
    CalibrationEntry = 6,
    /// The order of entries in a training.
    RestorationOrder = 7,
    /// How an entry becomes a training sample.
    RestorationEntry = 8,
    /// Which words of a question are perturbed.
    Perturbation = 9,
    /// Which words of a copy of a question are masked.
    Smoothing = 10,
    /// Which captions of a corpus are a pool to retrieve from.
    RetrievalPool = 11,
    /// Which rows of a batch are drawn from which domain, where weights of domains change.
    RestorationDomains = 12,
    /// How a held-out item becomes a sample that losses are measured on.
    HeldOut = 13,
}

/// The random numbers of a purpose at a position.
pub fn stream(seed: u64, purpose: Purpose, position: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((purpose as u64) << 40) | position);
    rng
}

/// `count` distinct indices below `total`, in the order drawn.
pub fn distinct(rng: &mut ChaCha8Rng, count: usize, total: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..total).collect();
    let count = count.min(total);
    for i in 0..count {
        let j = rng.random_range(i..total);
        all.swap(i, j);
    }
    all.truncate(count);
    all
}
