//! Random streams by name.
//!
//! tch has no generator objects, only a process-wide seed. Whatever must not depend on the order in which things are drawn takes a stream of
//! its own here and makes tensors from slices; the numbers are then the same on every device and at every thread count.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

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
