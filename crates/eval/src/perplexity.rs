//! Perplexity of a text, as the code of Wanda and SparseGPT takes it.
//!
//! The text is tokenized once, with the special tokens that the tokenizer puts around a text, and cut into windows of one length that do not
//! overlap; what is left at the end is not looked at. Of each window every token but the first is predicted from those before it, and the
//! perplexity is the exponential of the mean over windows of the mean over their tokens.
//!
//! Reference: `eval_ppl_wikitext` in Wanda's `lib/eval.py`, `opt_eval` and `llama_eval` of SparseGPT. Differs: windows are not multiplied by
//! their length and divided by it again, and logarithms are added in f64.

use ressa_models::{Forced, Infer, TextBatch, TextModel};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::{EvalError, Prediction};

/// Positions whose logits are turned into logarithms of probabilities at once.
const POSITIONS: i64 = 256;

/// How a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window, at least 2.
    pub tokens: usize,
    /// The first so many windows; `None`: all.
    pub most: Option<usize>,
}

/// Predicts the windows of a text from its tokens. `progress` is told the share done, 0 to 1.
///
/// # Errors
/// A model that does not predict from left to right or has not the positions, a text that is shorter than a window.
pub fn perplexity(
    model: &dyn Infer,
    ids: &[u32],
    windows: Windows,
    device: Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    check(model, windows.tokens)?;
    of_windows(&|prompt, answers| model.force(None, prompt, answers), ids, windows, device, progress)
}

/// The same of a language model without anything that sees.
///
/// # Errors
/// As [`perplexity`].
pub fn perplexity_of_text(
    model: &TextModel,
    ids: &[u32],
    windows: Windows,
    device: Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    fits(windows.tokens, model.positions())?;
    of_windows(&|prompt, answers| model.force(prompt, answers), ids, windows, device, progress)
}

/// What forces answers behind prompts.
type Force<'a> = &'a dyn Fn(&TextBatch, &[Vec<u32>]) -> Forced;

fn of_windows(
    force: Force<'_>,
    ids: &[u32],
    Windows { tokens, most }: Windows,
    device: Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    if ids.len() < tokens {
        return Err(EvalError::ShortText { tokens: ids.len(), window: tokens });
    }
    let parts: Vec<&[u32]> = ids.chunks_exact(tokens).take(most.unwrap_or(usize::MAX)).collect();
    let mut found = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let nll = tch::no_grad(|| nll(force, part, device));
        found.push(Prediction::Window { id: number.to_string(), tokens: tokens as u32 - 1, nll });
        progress((number + 1) as f64 / parts.len() as f64);
    }
    Ok(found)
}

/// Whether a model can be asked for windows of so many tokens.
///
/// # Errors
/// Why not.
pub fn check(model: &dyn Infer, tokens: usize) -> Result<(), EvalError> {
    let no = |reason: String| Err(EvalError::NoText(reason));
    match model.text_positions() {
        _ if !model.writes() => no("the model has no language model".to_owned()),
        None => {
            no("the language model reads its prompt with an encoder; it takes a decoder-only one such as OPT or LLaMA"
                .to_owned())
        }
        Some(positions) => fits(tokens, positions),
    }
}

/// Whether a window has something to predict and is not too long.
fn fits(tokens: usize, positions: usize) -> Result<(), EvalError> {
    let no = |reason: String| Err(EvalError::NoText(reason));
    if tokens < 2 {
        return no(format!("a window of {tokens} tokens has none to predict; it needs at least 2"));
    }
    if positions < tokens {
        return no(format!(
            "a window has {tokens} tokens, and the language model {positions} positions; set a smaller window"
        ));
    }
    Ok(())
}

/// Mean negative log-likelihood of all tokens of a window but the first.
fn nll(force: Force<'_>, window: &[u32], device: Device) -> f64 {
    let (first, rest) = window.split_at(1);
    let prompt = TextBatch::pad(&[first.to_vec()], first[0], device);
    let forced = force(&prompt, &[rest.to_vec()]);
    let mut sum = 0.0;
    let count = rest.len() as i64;
    for from in (0..count).step_by(POSITIONS as usize) {
        let many = POSITIONS.min(count - from);
        let logits = forced.logits.narrow(1, from, many).log_softmax(-1, Kind::Float);
        let targets = forced.targets.narrow(1, from, many).unsqueeze(-1);
        let picked: Tensor = logits.gather(-1, &targets, false).to_kind(Kind::Double);
        sum -= picked.sum(Kind::Double).double_value(&[]);
    }
    sum / count as f64
}
