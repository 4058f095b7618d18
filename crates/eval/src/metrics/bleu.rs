//! BLEU-1 to BLEU-4 over a corpus (Papineni et al., 2002), with the closest reference length, as captioning benchmarks report it.

use super::ngrams::{counts, words};

/// Longest n-gram.
pub const LONGEST: usize = 4;

/// What a precision without a match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// 0, and so is the score.
    Is,
    /// What the reference program (pycocoevalcap, `bleu_scorer.py`) makes of it: it adds 1e-15 to every count of matches and 1e-9 to every
    /// count it divides by.
    AsTheReference,
}

impl Zero {
    /// Added to matches, and to what they are divided by.
    fn added(self) -> (f64, f64) {
        match self {
            Zero::Is => (0.0, 0.0),
            Zero::AsTheReference => (1e-15, 1e-9),
        }
    }
}

/// What one caption adds to the corpus counts.
#[derive(Clone, Copy, Default)]
struct Counts {
    matches: [f64; LONGEST],
    guesses: [f64; LONGEST],
    candidate: f64,
    reference: f64,
}

/// BLEU-1 to BLEU-4, 0 to 1, each with its jackknife standard error over captions.
pub fn corpus(captions: &[(String, Vec<String>)], zero: Zero) -> [(f64, f64); LONGEST] {
    let items: Vec<Counts> = captions.iter().map(|(caption, references)| count(caption, references)).collect();
    let total = items.iter().fold(Counts::default(), |total, item| combine(&total, item, 1.0));
    let n = items.len() as f64;
    std::array::from_fn(|longest| {
        let left_out: Vec<f64> =
            items.iter().map(|item| value(&combine(&total, item, -1.0), longest + 1, zero)).collect();
        let mean = left_out.iter().sum::<f64>() / n.max(1.0);
        let spread: f64 = left_out.iter().map(|value| (value - mean).powi(2)).sum();
        let error = if items.len() < 2 { 0.0 } else { (spread * (n - 1.0) / n).sqrt() };
        (value(&total, longest + 1, zero), error)
    })
}

fn combine(total: &Counts, item: &Counts, sign: f64) -> Counts {
    Counts {
        matches: std::array::from_fn(|n| total.matches[n] + sign * item.matches[n]),
        guesses: std::array::from_fn(|n| total.guesses[n] + sign * item.guesses[n]),
        candidate: total.candidate + sign * item.candidate,
        reference: total.reference + sign * item.reference,
    }
}

fn count(caption: &str, references: &[String]) -> Counts {
    let candidate = words(caption);
    let references: Vec<Vec<&str>> = references.iter().map(|reference| words(reference)).collect();
    let reference_counts: Vec<_> = references.iter().map(|reference| counts(reference, LONGEST)).collect();
    let mut result = Counts { candidate: candidate.len() as f64, ..Counts::default() };
    let distance = |length: usize| (length.abs_diff(candidate.len()), length);
    result.reference = references.iter().map(Vec::len).min_by_key(|length| distance(*length)).unwrap_or(0) as f64;
    for (gram, found) in counts(&candidate, LONGEST) {
        let allowed = reference_counts.iter().filter_map(|counts| counts.get(gram.as_slice())).max().copied();
        result.matches[gram.len() - 1] += found.min(allowed.unwrap_or(0)) as f64;
        result.guesses[gram.len() - 1] += found as f64;
    }
    result
}

/// Geometric mean of the first `longest` precisions times the brevity penalty.
fn value(counts: &Counts, longest: usize, zero: Zero) -> f64 {
    let (tiny, small) = zero.added();
    if zero == Zero::Is && (counts.matches[..longest].contains(&0.0) || counts.candidate <= 0.0) {
        return 0.0;
    }
    let precision = |n: usize| (counts.matches[n] + tiny) / (counts.guesses[n] + small);
    let log: f64 = (0..longest).map(|n| precision(n).ln()).sum::<f64>() / longest as f64;
    let brevity = (1.0 - (counts.reference + small) / (counts.candidate + tiny)).min(0.0);
    (log + brevity).exp()
}
