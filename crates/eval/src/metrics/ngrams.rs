//! N-grams of captions.

use std::collections::HashMap;

/// Words of a caption; captions are compared word by word, split at blanks.
pub fn words(caption: &str) -> Vec<&str> {
    caption.split_whitespace().collect()
}

/// How often each run of 1 to `longest` words occurs.
pub fn counts<'a>(words: &[&'a str], longest: usize) -> HashMap<Vec<&'a str>, usize> {
    let mut counts = HashMap::new();
    for n in 1..=longest {
        for run in words.windows(n) {
            *counts.entry(run.to_vec()).or_insert(0) += 1;
        }
    }
    counts
}
