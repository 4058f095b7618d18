//! Perplexity of a text, as the code of Wanda and SparseGPT takes it.
//!
//! The text is tokenized once, with the special tokens that the tokenizer puts around a text, and cut into windows of one length that do not
//! overlap; what is left at the end is not looked at. Of each window every token but the first is predicted from those before it, and the
//! perplexity is the exponential of the mean over windows of the mean over their tokens.
//!
//! Reference: `eval_ppl_wikitext` in Wanda's `lib/eval.py`, `opt_eval` and `llama_eval` of SparseGPT. Differs: windows are not multiplied by
//! their length and divided by it again, and logarithms are added in f64.

use ressa_models::{TextBatch, VisionLanguage};
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
    model: &dyn VisionLanguage,
    ids: &[u32],
    windows: Windows,
    device: Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    let Windows { tokens, most } = windows;
    check(model, tokens)?;
    if ids.len() < tokens {
        return Err(EvalError::ShortText { tokens: ids.len(), window: tokens });
    }
    let parts: Vec<&[u32]> = ids.chunks_exact(tokens).take(most.unwrap_or(usize::MAX)).collect();
    let mut found = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let nll = tch::no_grad(|| nll(model, part, device))?;
        found.push(Prediction::Window { id: number.to_string(), tokens: tokens as u32 - 1, nll });
        progress((number + 1) as f64 / parts.len() as f64);
    }
    Ok(found)
}

/// Whether a model can be asked for windows of so many tokens.
///
/// # Errors
/// Why not.
pub fn check(model: &dyn VisionLanguage, tokens: usize) -> Result<(), EvalError> {
    let no = |reason: String| Err(EvalError::NoText(reason));
    match model.text_positions() {
        _ if tokens < 2 => no(format!("a window of {tokens} tokens has none to predict; it needs at least 2")),
        _ if !model.writes() => no("the model has no language model".to_owned()),
        None => no("the language model reads its prompt with an encoder; it takes a decoder-only one such as OPT or LLaMA".to_owned()),
        Some(positions) if positions < tokens => {
            no(format!("a window has {tokens} tokens, and the language model {positions} positions; set a smaller window"))
        }
        Some(_) => Ok(()),
    }
}

/// Mean negative log-likelihood of all tokens of a window but the first.
fn nll(model: &dyn VisionLanguage, window: &[u32], device: Device) -> Result<f64, EvalError> {
    let (first, rest) = window.split_at(1);
    let prompt = TextBatch::pad(&[first.to_vec()], first[0], device);
    let forced = model.force(None, &prompt, &[rest.to_vec()]);
    let mut sum = 0.0;
    let count = rest.len() as i64;
    for from in (0..count).step_by(POSITIONS as usize) {
        let many = POSITIONS.min(count - from);
        let logits = forced.logits.narrow(1, from, many).log_softmax(-1, Kind::Float);
        let targets = forced.targets.narrow(1, from, many).unsqueeze(-1);
        let picked: Tensor = logits.gather(-1, &targets, false).to_kind(Kind::Double);
        sum -= picked.sum(Kind::Double).double_value(&[]);
    }
    Ok(sum / count as f64)
}
