//! BLEU-4 over a corpus (Papineni et al., 2002), with the closest reference length, as captioning benchmarks report it.

use super::ngrams::{counts, words};

const LONGEST: usize = 4;

/// What one caption adds to the corpus counts.
#[derive(Clone, Copy, Default)]
struct Counts {
    matches: [f64; LONGEST],
    guesses: [f64; LONGEST],
    candidate: f64,
    reference: f64,
}

/// BLEU-4, 0 to 1, and its jackknife standard error over captions.
pub fn corpus(captions: &[(String, Vec<String>)]) -> (f64, f64) {
    let items: Vec<Counts> = captions.iter().map(|(caption, references)| count(caption, references)).collect();
    let total = items.iter().fold(Counts::default(), |total, item| combine(&total, item, 1.0));
    let n = items.len() as f64;
    let left_out: Vec<f64> = items.iter().map(|item| value(&combine(&total, item, -1.0))).collect();
    let mean = left_out.iter().sum::<f64>() / n.max(1.0);
    let spread: f64 = left_out.iter().map(|value| (value - mean).powi(2)).sum();
    (value(&total), if items.len() < 2 { 0.0 } else { (spread * (n - 1.0) / n).sqrt() })
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

/// Geometric mean of the four precisions times the brevity penalty; 0 when any precision is 0.
fn value(counts: &Counts) -> f64 {
    if counts.matches.contains(&0.0) || counts.candidate <= 0.0 {
        return 0.0;
    }
    let log: f64 = (0..LONGEST).map(|n| (counts.matches[n] / counts.guesses[n]).ln()).sum::<f64>() / LONGEST as f64;
    let brevity = (1.0 - counts.reference / counts.candidate).min(0.0);
    (log + brevity).exp()
}
