//! Generation: greedy and beam search over a decoder that remembers keys and values.
//!
//! Both follow the semantics of `generate` in transformers 4.57 without sampling.

mod beam;
pub(crate) mod cache;
mod greedy;
mod rules;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use tch::Tensor;

use self::{cache::Cache, settings::Limits};
use crate::{Answer, ModelError, Search};

/// A decoder that has read its prompts and writes one token at a time.
pub(crate) trait Decoder {
    /// Logits `[rows * beams, vocabulary]` after each beam's newest token, i64 `[rows * beams]`.
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor;
}

/// What a search begins with.
pub(crate) struct Start {
    /// Memory after the prompts, one beam per row.
    pub cache: Cache,
    /// Logits of the first new token, `[rows, vocabulary]`.
    pub logits: Tensor,
    /// Tokens that end an answer.
    pub eos: Vec<i64>,
    /// What stands before each row's answer.
    pub prompts: Vec<PromptPrefix>,
}

/// What stands before an answer, as lengths and repetitions are counted.
pub(crate) struct PromptPrefix {
    /// Real tokens.
    pub length: usize,
    /// Which tokens they are, where they have an id.
    pub ids: Vec<i64>,
}

/// [`PromptPrefix`] with what it means for the answer.
struct Prompt {
    ids: Vec<i64>,
    limits: Limits,
}

impl Prompt {
    fn line<'a>(&'a self, written: &'a [i64]) -> rules::Line<'a> {
        rules::Line { prompt: &self.ids, written, too_short: written.len() < self.limits.shortest }
    }
}

/// The answer to each row.
///
/// # Errors
/// A row whose prompt leaves no room under `max_length`.
pub(crate) fn search(decoder: &dyn Decoder, mut start: Start, search: &Search) -> Result<Vec<Answer>, ModelError> {
    let prompts = std::mem::take(&mut start.prompts).into_iter();
    let prompts: Vec<Prompt> = prompts
        .map(|before| {
            let ids = if search.penalize_prompt { before.ids } else { Vec::new() };
            Ok(Prompt { limits: search.limits(before.length)?, ids })
        })
        .collect::<Result<_, ModelError>>()?;
    if search.max_new_tokens == 0 || prompts.is_empty() {
        return Ok(vec![Answer::default(); prompts.len()]);
    }
    Ok(match search.beams {
        0 | 1 => greedy::search(decoder, start, search, &prompts),
        _ => beam::search(decoder, start, search, &prompts),
    })
}

/// A host copy of an i64 tensor's elements.
pub(crate) fn ids(tensor: &Tensor) -> Vec<i64> {
    let flat = tensor.to_device(tch::Device::Cpu).contiguous().view([-1]);
    let mut out = vec![0; flat.numel()];
    flat.copy_data(&mut out, flat.numel());
    out
}
