//! Rules on the scores of next tokens, applied before one is chosen: repetition is penalised, then the end is forbidden where it is too early.
//!
//! Reference: `RepetitionPenaltyLogitsProcessor`, `MinLengthLogitsProcessor`, `MinNewTokensLengthLogitsProcessor` in transformers,
//! `logits_process.py`. Greedy search applies them to logits, beam search to log-probabilities.

use tch::Tensor;

/// What the rules need to know of one line of scores.
pub(super) struct Line<'a> {
    /// Tokens before the answer.
    pub prompt: &'a [i64],
    /// The answer so far.
    pub written: &'a [i64],
    /// Whether it may not end yet.
    pub too_short: bool,
}

/// Scores `[lines, vocabulary]` by the rules. A search without rules gets its scores back.
pub(super) fn apply(scores: Tensor, penalty: f64, eos: &[i64], lines: &[Line<'_>]) -> Tensor {
    let vocabulary = scores.size()[1];
    let flat = |line: usize, id: i64| (0..vocabulary).contains(&id).then_some(line as i64 * vocabulary + id);
    let mut scores = scores;
    if penalty != 1.0 {
        let mut seen: Vec<i64> = lines
            .iter()
            .enumerate()
            .flat_map(|(at, line)| line.prompt.iter().chain(line.written).filter_map(move |&id| flat(at, id)))
            .collect();
        // A token that occurs twice is penalised once.
        seen.sort_unstable();
        seen.dedup();
        if !seen.is_empty() {
            let index = Tensor::from_slice(&seen).to_device(scores.device());
            let old = scores.reshape([-1]).index_select(0, &index);
            let new = (&old * penalty).where_self(&old.less(0.0), &(&old / penalty));
            scores = scores.reshape([-1]).index_copy(0, &index, &new).view([-1, vocabulary]);
        }
    }
    let early = lines.iter().enumerate().filter(|(_, line)| line.too_short);
    let early: Vec<i64> = early.flat_map(|(at, _)| eos.iter().filter_map(move |&id| flat(at, id))).collect();
    if !early.is_empty() {
        let index = Tensor::from_slice(&early).to_device(scores.device());
        scores = scores.reshape([-1]).index_fill(0, &index, f64::NEG_INFINITY).view([-1, vocabulary]);
    }
    scores
}
