//! ROUGE-L of one caption (Lin, 2004), as captioning benchmarks report it.

use super::ngrams::words;

/// Weight of recall against precision in the reference program.
const BETA: f64 = 1.2;

/// ROUGE-L, 0 to 1: F-measure of the best precision and the best recall over the references.
pub fn rouge_l(caption: &str, references: &[String]) -> f64 {
    let candidate = words(caption);
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let reference = words(reference);
        let common = longest_common_subsequence(&candidate, &reference) as f64;
        if !candidate.is_empty() && !reference.is_empty() {
            precision = precision.max(common / candidate.len() as f64);
            recall = recall.max(common / reference.len() as f64);
        }
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence(a: &[&str], b: &[&str]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
