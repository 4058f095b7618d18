//! Standard normal noise by name, the same wherever it is made.
//!
//! A label and a seed name a stream of ChaCha8 ([`normals`]), a counter-based generator: word `16 b + i` of a stream is word `i` of its block
//! `b`. On the host the words are drawn one after the other. On another device all blocks of a piece are computed side by side in tensor operations,
//! and no number crosses the bus; the words are the same, and so are the normals but for the last bit of the device's logarithm and sine.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::{normals, stream};

/// Blocks of sixteen words that are computed side by side.
const PIECE: i64 = 1 << 18;
/// The generator's first four words: "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Standard normal numbers shaped like `like`, f32, on its device.
pub fn normal_like(like: &Tensor, seed: u64, label: &str) -> Tensor {
    match like.device() {
        Device::Cpu => {
            let values: Vec<f32> = normals(seed, label).take(like.numel()).map(|value| value as f32).collect();
            Tensor::from_slice(&values).view_as(like)
        }
        device => on_device(&stream(seed, label), like.numel() as i64, device).view_as(like),
    }
}

/// The first `count` normals of a stream that has not been drawn from.
fn on_device(stream: &ChaCha8Rng, count: i64, device: Device) -> Tensor {
    let seed = stream.get_seed();
    let key: Vec<u32> = seed.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let blocks = (count + 15) / 16;
    let pieces = (0..blocks).step_by(PIECE as usize).map(|from| {
        let words = words(&key, from, PIECE.min(blocks - from), device);
        box_muller(&words)
    });
    Tensor::cat(&pieces.collect::<Vec<_>>(), 0).narrow(0, 0, count)
}

/// Pairs of words as pairs of normals, as [`normals`] makes them, f32 `[blocks * 16]`.
fn box_muller(words: &Tensor) -> Tensor {
    let part = |at: i64| words.view([-1, 2]).select(1, at).to_kind(Kind::Double);
    // Words are signed here.
    let unsigned = |word: Tensor| {
        let wrapped = word.lt(0.0).to_kind(Kind::Double) * 4_294_967_296.0;
        word + wrapped
    };
    let radius = (((unsigned(part(0)) + 1.0) / 4_294_967_296.0).log() * -2.0).sqrt();
    let angle = unsigned(part(1)) * std::f64::consts::TAU / 4_294_967_296.0;
    Tensor::stack(&[&radius * angle.cos(), radius * angle.sin()], 1).to_kind(Kind::Float).view([-1])
}

/// Words of the blocks `from..from + count` in their order, i32 `[count * 16]`.
fn words(key: &[u32], from: i64, count: i64, device: Device) -> Tensor {
    let counter = Tensor::arange_start(from, from + count, (Kind::Int64, device));
    let low = counter.to_kind(Kind::Int);
    let high = counter.bitwise_right_shift_tensor_scalar(32).to_kind(Kind::Int);
    let constant = |word: u32| Tensor::full([count], i64::from(word.cast_signed()), (Kind::Int, device));
    let row = |words: [Tensor; 4]| Tensor::stack(&words, 0);
    let of = |words: &[u32]| row([0, 1, 2, 3].map(|at| constant(words[at])));
    let first = [of(&CONSTANTS), of(&key[..4]), of(&key[4..8]), row([low, high, constant(0), constant(0)])];
    let mut state = first.each_ref().map(Tensor::shallow_clone);
    for _ in 0..4 {
        // The four columns side by side, then the four diagonals, turned into columns.
        state = quarter_rounds(state);
        let [a, b, c, d] = state;
        let [a, b, c, d] = quarter_rounds([a, b.roll([-1], [0]), c.roll([-2], [0]), d.roll([-3], [0])]);
        state = [a, b.roll([1], [0]), c.roll([2], [0]), d.roll([3], [0])];
    }
    let words: Vec<Tensor> = state.iter().zip(&first).map(|(word, first)| word + first).collect();
    Tensor::cat(&words, 0).transpose(0, 1).contiguous().view([-1])
}

fn quarter_rounds([mut a, mut b, mut c, mut d]: [Tensor; 4]) -> [Tensor; 4] {
    for (first, second) in [(16, 12), (8, 7)] {
        a = b.g_add(&a);
        d = rotate(&d.bitwise_xor_tensor(&a), first);
        c = d.g_add(&c);
        b = rotate(&b.bitwise_xor_tensor(&c), second);
    }
    [a, b, c, d]
}

/// Bits rotated to the left. Shifts to the right keep the sign, so what they bring in is masked.
fn rotate(words: &Tensor, bits: i64) -> Tensor {
    let wrapped = words.bitwise_right_shift_tensor_scalar(32 - bits).bitwise_and((1i64 << bits) - 1);
    let mut shifted = words.shallow_clone() * (1i64 << bits);
    shifted.bitwise_or_tensor_(&wrapped)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::Rng;

    use super::*;

    #[test]
    fn noise_is_standard_normal_and_its_own() {
        let like = Tensor::zeros([101, 99], (Kind::Float, Device::Cpu));
        let draw = normal_like(&like, 3, "a");
        let moment = |power: f64| draw.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]);
        assert!(moment(1.0).abs() < 0.03 && (moment(2.0) - 1.0).abs() < 0.05 && (moment(4.0) - 3.0).abs() < 0.4);
        assert!(draw.equal(&normal_like(&like, 3, "a")) && !draw.equal(&normal_like(&like, 3, "b")));
        assert!(!draw.equal(&normal_like(&like, 4, "a")));
    }

    #[test]
    fn tensor_operations_make_the_words_of_the_stream() {
        let mut rng = stream(5, "layer/0/1");
        let key: Vec<u32> = rng.get_seed().as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let expected: Vec<i32> = (0..16 * 40).map(|_| rng.next_u32().cast_signed()).collect();
        let found = Tensor::cat(&[words(&key, 0, 7, Device::Cpu), words(&key, 7, 33, Device::Cpu)], 0);
        assert_eq!(Vec::<i32>::try_from(found).expect("i32"), expected);
    }

    #[test]
    fn the_device_draws_what_the_host_draws() {
        let like = Tensor::zeros([1003], (Kind::Float, Device::Cpu));
        let (host, device) = (normal_like(&like, 9, "x"), on_device(&stream(9, "x"), 1003, Device::Cpu));
        assert!((host - device).abs().max().double_value(&[]) < 1e-6);
    }
}
