//! Random streams by name.
//!
//! tch has no generator objects, only a process-wide seed. Whatever must not depend on the order in which things are drawn takes a stream of
//! its own here and makes tensors from slices; the numbers are then the same on every device and at every thread count.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// The stream of `label` under `seed`: the same pair always gives the same numbers, different pairs independent ones.
pub fn stream(seed: u64, label: &str) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    // FNV-1a of the label, from two different starts.
    for (part, start) in [(8..16, 0xcbf2_9ce4_8422_2325u64), (16..24, 0x9e37_79b9_7f4a_7c15)] {
        let hash = label.bytes().fold(start, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        key[part].copy_from_slice(&hash.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Standard normal numbers of the stream of `label` under `seed`, by Box and Muller.
pub fn normals(seed: u64, label: &str) -> impl Iterator<Item = f64> {
    let mut stream = stream(seed, label);
    let pair = move || {
        // 32 bits each, the first never zero.
        let radius = (-2.0 * ((f64::from(stream.next_u32()) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * f64::from(stream.next_u32()) / 4_294_967_296.0).sin_cos();
        [radius * cosine, radius * sine]
    };
    std::iter::repeat_with(pair).flatten()
}
