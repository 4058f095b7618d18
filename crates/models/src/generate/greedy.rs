//! Greedy search: the likeliest token, until every row has ended.
//!
//! Reference: `_sample` in transformers, `generation/utils.py`, without sampling.

use tch::{Kind, Tensor};

use super::{Decoder, Prompt, Start, ids, rules};
use crate::{Answer, Search};

/// One row that has not ended.
struct Row<'a> {
    number: usize,
    prompt: &'a Prompt,
    written: Vec<i64>,
}

/// The answer to each row.
pub(super) fn search(decoder: &dyn Decoder, start: Start, search: &Search, prompts: &[Prompt]) -> Vec<Answer> {
    let Start { mut cache, mut logits, eos, .. } = start;
    let mut answers = vec![Answer::default(); prompts.len()];
    let mut rows: Vec<Row<'_>> =
        prompts.iter().enumerate().map(|(number, prompt)| Row { number, prompt, written: Vec::new() }).collect();
    loop {
        let lines: Vec<_> = rows.iter().map(|row| row.prompt.line(&row.written)).collect();
        let scores = rules::apply(logits.to_kind(Kind::Float), search.repetition_penalty, &eos, &lines);
        let next = ids(&scores.argmax(-1, false));
        let mut kept = Vec::with_capacity(rows.len());
        for (at, (row, &token)) in rows.iter_mut().zip(&next).enumerate() {
            row.written.push(token);
            let ended = eos.contains(&token);
            if ended || row.written.len() >= row.prompt.limits.longest {
                answers[row.number] = Answer::new(&row.written, ended);
            } else {
                kept.push(at);
            }
        }
        if kept.is_empty() {
            return answers;
        }
        if kept.len() < rows.len() {
            cache.keep_rows(&kept.iter().map(|&at| at as i64).collect::<Vec<_>>());
            let mut at = 0..;
            rows.retain(|_| at.next().is_some_and(|at| kept.binary_search(&at).is_ok()));
        }
        let tokens: Vec<i64> = kept.iter().map(|&at| next[at]).collect();
        logits = decoder.step(&Tensor::from_slice(&tokens).to_device(logits.device()), &mut cache);
    }
}
