//! Generation: greedy and beam search over a decoder that remembers keys and values.
//!
//! Both follow the semantics of `generate` in transformers 4.57 without sampling and without early stopping.

mod beam;
pub(crate) mod cache;
mod greedy;

use tch::Tensor;

use self::cache::Cache;
use crate::Search;

/// A decoder that has read its prompts and writes one token at a time.
pub(crate) trait Decoder {
    /// Logits `[rows * beams, vocabulary]` after each beam's newest token, i64 `[rows * beams]`.
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor;
}

/// What a search begins with.
pub(crate) struct Start {
    /// Memory after the prompts.
    pub cache: Cache,
    /// Logits of the first new token, `[rows, vocabulary]`.
    pub logits: Tensor,
    /// Tokens that end an answer.
    pub eos: Vec<i64>,
}

/// New tokens of each row, without the end token.
pub(crate) fn search(decoder: &dyn Decoder, start: Start, search: Search) -> Vec<Vec<u32>> {
    let rows = start.logits.size()[0] as usize;
    if search.max_new_tokens == 0 || rows == 0 {
        return vec![Vec::new(); rows];
    }
    let found = match search.beams {
        0 | 1 => greedy::search(decoder, start, search.max_new_tokens),
        _ => beam::search(decoder, start, search),
    };
    found.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect()
}

/// A host copy of an i64 tensor's elements.
pub(crate) fn ids(tensor: &Tensor) -> Vec<i64> {
    let flat = tensor.to_device(tch::Device::Cpu).contiguous().view([-1]);
    let mut out = vec![0; flat.numel()];
    flat.copy_data(&mut out, flat.numel());
    out
}
