//! Beam search, with the bookkeeping of transformers: twice as many candidates as beams, so that enough are left when some end; ended ones
//! are ranked by `sum of log-probabilities / length^penalty`, the end token counted; a row stops when none of its running beams can still
//! improve, judged at the current length.

use tch::{Kind, Tensor};

use super::{Decoder, Start, ids};
use crate::Search;

/// An answer that is complete.
#[derive(Clone)]
struct Finished {
    score: f64,
    tokens: Vec<i64>,
}

/// One row's search.
struct Row {
    /// Beams in order of their sums, best first.
    running: Vec<(f64, Vec<i64>)>,
    /// At most as many as beams, best first.
    finished: Vec<Finished>,
    done: bool,
}

/// Sum of a beam that does not exist yet: all beams of a row begin equal, so only the first may be continued at first.
const ABSENT: f64 = -1e9;

/// New tokens of each row, without the end token.
pub(super) fn search(decoder: &dyn Decoder, start: Start, search: Search) -> Vec<Vec<i64>> {
    let Start { mut cache, logits, eos } = start;
    let (beams, vocabulary) = (search.beams, logits.size()[1]);
    let mut rows: Vec<Row> = (0..logits.size()[0])
        .map(|_| {
            let running = (0..beams).map(|beam| (if beam == 0 { 0.0 } else { ABSENT }, Vec::new())).collect();
            Row { running, finished: Vec::new(), done: false }
        })
        .collect();
    let widen: Vec<i64> = (0..rows.len() as i64).flat_map(|row| vec![row; beams]).collect();
    let mut logits = logits.index_select(0, &Tensor::from_slice(&widen).to_device(logits.device()));
    cache.reorder(&widen);
    let candidates = ((1 + eos.len()).max(2) * beams).min(beams * vocabulary as usize) as i64;

    for length in 1..=search.max_new_tokens {
        let sums: Vec<f32> = rows.iter().flat_map(|row| row.running.iter().map(|(sum, _)| *sum as f32)).collect();
        let sums = Tensor::from_slice(&sums).unsqueeze(1).to_device(logits.device());
        let all = (logits.log_softmax(-1, Kind::Float) + sums).view([rows.len() as i64, -1]);
        let (values, index) = all.topk(candidates, -1, true, true);
        let mut top = vec![0f32; values.numel()];
        let values = values.to_device(tch::Device::Cpu).contiguous();
        values.copy_data(&mut top, values.numel());
        let index = ids(&index);

        let last = length == search.max_new_tokens;
        let mut from = Vec::with_capacity(rows.len() * beams);
        for (at, row) in rows.iter_mut().enumerate() {
            let span = at * candidates as usize..(at + 1) * candidates as usize;
            let first = (at * beams) as i64;
            let picked = top[span.clone()]
                .iter()
                .zip(&index[span])
                .map(|(&sum, &i)| (f64::from(sum), i / vocabulary, i % vocabulary));
            let next = advance(row, picked, &eos, last, length, search);
            from.extend(next.into_iter().map(|beam| first + beam));
        }
        if last || rows.iter().all(|row| row.done) {
            break;
        }
        cache.reorder(&from);
        let tokens: Vec<i64> = rows
            .iter()
            .flat_map(|row| row.running.iter().map(|(_, tokens)| tokens.last().copied().unwrap_or(0)))
            .collect();
        logits = decoder.step(&Tensor::from_slice(&tokens).to_device(logits.device()), &mut cache);
    }
    rows.into_iter().map(|row| row.finished.into_iter().next().map_or_else(Vec::new, |best| best.tokens)).collect()
}

/// Takes a row's candidates `(sum, beam, token)`, best first. Returns the beam that each new running beam continues.
fn advance(
    row: &mut Row,
    candidates: impl Iterator<Item = (f64, i64, i64)>,
    eos: &[i64],
    last: bool,
    length: usize,
    search: Search,
) -> Vec<i64> {
    let weight = (length as f64).powf(search.length_penalty);
    let mut running = Vec::with_capacity(search.beams);
    let mut from = Vec::with_capacity(search.beams);
    for (rank, (sum, beam, token)) in candidates.enumerate() {
        let ends = eos.contains(&token);
        let before = &row.running[beam as usize].1;
        // Candidates beyond the beams' number are there to continue, never to end.
        if (ends || last) && rank < search.beams && !row.done {
            let mut tokens = before.clone();
            if !ends {
                tokens.push(token);
            }
            row.finished.push(Finished { score: sum / weight, tokens });
        }
        if !ends && running.len() < search.beams {
            let mut tokens = before.clone();
            tokens.push(token);
            running.push((sum, tokens));
            from.push(beam);
        }
    }
    // Only a vocabulary of a few tokens leaves too few to continue.
    while running.len() < search.beams {
        running.push((ABSENT, Vec::new()));
        from.push(0);
    }
    row.running = running;
    row.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
    row.finished.truncate(search.beams);
    let best_running = row.running.first().map_or(f64::NEG_INFINITY, |(sum, _)| sum / weight);
    let full = row.finished.len() == search.beams;
    row.done |= full && row.finished.last().is_some_and(|worst| best_running <= worst.score);
    from
}
