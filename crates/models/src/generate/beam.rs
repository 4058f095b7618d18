//! Beam search.
//!
//! Reference: `_beam_search` in transformers, `generation/utils.py`. Candidates, finished beams and running beams are ranked by the same
//! f32 arithmetic and the same `topk`, so that even what ties goes the same way. Differs: a row leaves as soon as nothing can change its answer.

use tch::{Kind, Tensor};

use super::{Decoder, Prompt, Start, ids, rules};
use crate::{Answer, EarlyStopping, Search};

/// Added to scores that are out of the race. Also the sum of beams that do not exist yet: all beams of a row begin equal, so only the first
/// may be continued at first.
const OUT: f32 = -1e9;

/// A beam that goes on.
struct Running {
    sum: f32,
    tokens: Vec<i64>,
}

/// A beam that has ended, or a place for one.
#[derive(Clone)]
struct Finished {
    score: f32,
    ended: bool,
    tokens: Vec<i64>,
}

/// A beam's continuation by one token.
struct Candidate {
    sum: f32,
    beam: usize,
    token: i64,
    /// It cannot be continued: an end token, or the longest answer.
    ends: bool,
}

/// One row's search.
struct Row<'a> {
    number: usize,
    prompt: &'a Prompt,
    /// Best first.
    running: Vec<Running>,
    /// As many as beams, best first.
    finished: Vec<Finished>,
    /// Whether a running beam may still become better than a finished one.
    improvable: bool,
}

impl<'a> Row<'a> {
    fn new(number: usize, prompt: &'a Prompt, beams: usize) -> Self {
        let running = (0..beams).map(|b| Running { sum: if b == 0 { 0.0 } else { OUT }, tokens: Vec::new() }).collect();
        let finished = vec![Finished { score: OUT, ended: false, tokens: Vec::new() }; beams];
        Self { number, prompt, running, finished, improvable: true }
    }

    fn continued(&self, candidate: &Candidate) -> Vec<i64> {
        let mut tokens = self.running[candidate.beam].tokens.clone();
        tokens.push(candidate.token);
        tokens
    }

    /// Scores of the finished beams, then of the candidates as finished beams of `length` new tokens.
    fn merged(&self, candidates: &[Candidate], length: usize, search: &Search) -> Vec<f32> {
        let weight = (length as f64).powf(search.length_penalty) as f32;
        let full = search.early_stopping == EarlyStopping::FirstFinished && self.finished.iter().all(|f| f.ended);
        let score = |(rank, candidate): (usize, &Candidate)| {
            let out = [full, !self.improvable, !candidate.finishes(rank, search)];
            out.into_iter().filter(|&out| out).fold(candidate.sum / weight, |score, _| score + OUT)
        };
        self.finished.iter().map(|f| f.score).chain(candidates.iter().enumerate().map(score)).collect()
    }

    /// Takes the best of the finished beams and candidates, then the best candidates that go on; both are ranks. Returns the beam that
    /// each running beam continues.
    fn advance(
        &mut self,
        candidates: &[Candidate],
        (merged, finished): (&[f32], &[i64]),
        running: &[i64],
        search: &Search,
    ) -> Vec<usize> {
        let beams = search.beams;
        let finished = finished.iter().map(|&at| {
            let (score, at) = (merged[at as usize], at as usize);
            if at < beams {
                return Finished { score, ..self.finished[at].clone() };
            }
            let candidate = &candidates[at - beams];
            Finished { score, ended: candidate.finishes(at - beams, search), tokens: self.continued(candidate) }
        });
        let finished = finished.collect();
        let picked = running.iter().map(|&at| &candidates[at as usize]);
        let next = picked.clone().map(|c| Running { sum: c.going_on(), tokens: self.continued(c) }).collect();
        let from = picked.map(|c| c.beam).collect();
        (self.finished, self.running) = (finished, next);
        from
    }

    /// Judges after `length` new tokens whether the row goes on.
    fn goes_on(&mut self, length: usize, search: &Search) -> bool {
        let longest = self.prompt.limits.longest;
        let hopeful = search.early_stopping == EarlyStopping::Never && search.length_penalty > 0.0;
        let judged_at = if hopeful { longest } else { length };
        let best = self.running[0].sum / (judged_at as f64).powf(search.length_penalty) as f32;
        let worst = self.finished.iter().map(|f| f.score).fold(f32::INFINITY, f32::min);
        self.improvable &= self.finished.iter().any(|f| best > if f.ended { worst } else { OUT });
        let full = search.early_stopping == EarlyStopping::FirstFinished && self.finished.iter().all(|f| f.ended);
        self.improvable && !full && length < longest
    }

    fn answer(&self, eos: &[i64]) -> Answer {
        let best = self.finished.iter().find(|f| f.ended);
        best.map_or_else(Answer::default, |best| {
            Answer::new(&best.tokens, best.tokens.last().is_some_and(|t| eos.contains(t)))
        })
    }
}

impl Candidate {
    /// Candidates beyond the beams' number are there to continue, never to end.
    fn finishes(&self, rank: usize, search: &Search) -> bool {
        self.ends && rank < search.beams
    }

    fn going_on(&self) -> f32 {
        self.sum + if self.ends { OUT } else { 0.0 }
    }
}

/// The answer to each row.
pub(super) fn search(decoder: &dyn Decoder, start: Start, search: &Search, prompts: &[Prompt]) -> Vec<Answer> {
    let Start { mut cache, logits, eos, .. } = start;
    let (beams, vocabulary) = (search.beams, logits.size()[1]);
    let mut answers = vec![Answer::default(); prompts.len()];
    let mut rows: Vec<Row<'_>> =
        prompts.iter().enumerate().map(|(number, prompt)| Row::new(number, prompt, beams)).collect();
    // So many that enough are left to go on when all beams end.
    let candidates = ((1 + eos.len()).max(2) * beams).min(beams * vocabulary as usize);
    cache.widen(beams as i64);
    let mut logits = logits.repeat_interleave_self_int(beams as i64, 0, None);

    for length in 1.. {
        let lines: Vec<_> =
            rows.iter().flat_map(|row| row.running.iter().map(|beam| row.prompt.line(&beam.tokens))).collect();
        let scores = rules::apply(logits.log_softmax(-1, Kind::Float), search.repetition_penalty, &eos, &lines);
        let sums: Vec<f32> = rows.iter().flat_map(|row| row.running.iter().map(|beam| beam.sum)).collect();
        let best = best_candidates(scores, &sums, beams as i64, candidates as i64);
        let found: Vec<Vec<Candidate>> = rows
            .iter()
            .zip(best.chunks(candidates))
            .map(|(row, best)| {
                let candidate = |&(sum, at): &(f32, i64)| {
                    let (beam, token) = ((at / vocabulary) as usize, at % vocabulary);
                    let ends = eos.contains(&token) || length >= row.prompt.limits.longest;
                    Candidate { sum, beam, token, ends }
                };
                best.iter().map(candidate).collect()
            })
            .collect();
        let going_on: Vec<f32> = found.iter().flatten().map(Candidate::going_on).collect();
        let running = largest(&going_on, candidates, beams);
        let merged: Vec<f32> =
            rows.iter().zip(&found).flat_map(|(row, found)| row.merged(found, length, search)).collect();
        let finished = largest(&merged, beams + candidates, beams);

        let (mut kept, mut from) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len() * beams));
        for (at, (row, found)) in rows.iter_mut().zip(&found).enumerate() {
            let of_row = at * beams..(at + 1) * beams;
            let merged = &merged[at * (beams + candidates)..(at + 1) * (beams + candidates)];
            let parents = row.advance(found, (merged, &finished[of_row.clone()]), &running[of_row], search);
            if row.goes_on(length, search) {
                from.extend(parents.into_iter().map(|beam| (kept.len() * beams + beam) as i64));
                kept.push(at as i64);
            } else {
                answers[row.number] = row.answer(&eos);
            }
        }
        if kept.is_empty() {
            break;
        }
        if kept.len() < rows.len() {
            cache.keep_rows(&kept);
            let mut at = 0..;
            rows.retain(|_| at.next().is_some_and(|at| kept.binary_search(&at).is_ok()));
        }
        cache.reorder(&from);
        let newest = |beam: &Running| beam.tokens.last().copied().unwrap_or_default();
        let tokens: Vec<i64> = rows.iter().flat_map(|row| row.running.iter().map(newest)).collect();
        logits = decoder.step(&Tensor::from_slice(&tokens).to_device(logits.device()), &mut cache);
    }
    answers
}

/// The best continuations of each row, best first: their sum, and their index among the row's beams times vocabulary. `scores`
/// `[rows * beams, vocabulary]` of next tokens, `sums` of the beams before them.
fn best_candidates(mut scores: Tensor, sums: &[f32], beams: i64, count: i64) -> Vec<(f32, i64)> {
    scores += Tensor::from_slice(sums).to_device(scores.device()).unsqueeze(1);
    let width = beams * scores.size()[1];
    let (values, index) = scores.view([-1, width]).topk(count, -1, true, true);
    // One transfer for both; a double holds each of them exactly.
    let both = Tensor::stack(&[values.to_kind(Kind::Double), index.to_kind(Kind::Double)], -1);
    let both = both.to_device(tch::Device::Cpu).contiguous().view([-1]);
    let mut flat = vec![0f64; both.numel()];
    both.copy_data(&mut flat, both.numel());
    flat.chunks_exact(2).map(|pair| (pair[0] as f32, pair[1] as i64)).collect()
}

/// Positions of the `count` largest of every `of` values, largest first.
fn largest(values: &[f32], of: usize, count: usize) -> Vec<i64> {
    ids(&Tensor::from_slice(values).view([-1, of as i64]).topk(count as i64, -1, true, true).1)
}
