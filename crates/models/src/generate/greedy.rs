//! Greedy search: the likeliest token, until every row has ended.

use tch::Tensor;

use super::{Decoder, Start, ids};

/// New tokens of each row, without the end token.
pub(super) fn search(decoder: &dyn Decoder, start: Start, max_new_tokens: usize) -> Vec<Vec<i64>> {
    let Start { mut cache, mut logits, eos } = start;
    let mut answers = vec![Vec::new(); logits.size()[0] as usize];
    // Rows still in the batch, by their number in the answer, and which of them have not ended.
    let mut rows: Vec<usize> = (0..answers.len()).collect();
    let mut live = vec![true; rows.len()];
    for step in 1..=max_new_tokens {
        let next = logits.argmax(-1, false);
        let next = ids(&next);
        for (at, &token) in next.iter().enumerate() {
            live[at] &= !eos.contains(&token);
            if live[at] {
                answers[rows[at]].push(token);
            }
        }
        let alive = live.iter().filter(|&&l| l).count();
        if alive == 0 || step == max_new_tokens {
            break;
        }
        // Moving the memory costs about a step, so ended rows leave in halves.
        let mut next = next;
        if alive * 2 <= rows.len() {
            let kept: Vec<usize> = (0..rows.len()).filter(|&at| live[at]).collect();
            cache.keep_rows(&kept.iter().map(|&at| at as i64).collect::<Vec<_>>(), 1);
            next = kept.iter().map(|&at| next[at]).collect();
            rows = kept.iter().map(|&at| rows[at]).collect();
            live = vec![true; rows.len()];
        }
        logits = decoder.step(&Tensor::from_slice(&next).to_device(logits.device()), &mut cache);
    }
    answers
}
