//! The nearest valid spelling of a word that is not valid.

/// The candidate nearest to `word`, if one is near enough to be what was meant.
///
/// `_` and `-` and letter case do not count. Where nothing is near as a whole, a last segment finds its path (`metric` finds `prune.metric`).
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    let last = |path: &str| path.rsplit(['.', '/']).next().unwrap_or_default().to_owned();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate);
            let whole = distance(&word, &other);
            let segment = if last(&other) == other { usize::MAX } else { distance(&last(&word), &last(&other)) };
            let near = |length: usize| 1.max(length / 3);
            let length = word.chars().count();
            if whole <= near(length) {
                Some(((false, whole), candidate))
            } else if segment <= near(length) / 2 && length > 2 {
                Some(((true, segment), candidate))
            } else {
                None
            }
        })
        .min_by_key(|(cost, _)| *cost)
        .map(|(_, candidate)| candidate)
}

/// `did you mean ...?` when something is near, else the list of what is possible.
pub(crate) fn hint<'a>(word: &str, what: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{what}: {}", list(candidates)),
    }
}

/// Candidates in backticks, cut after twenty.
pub(crate) fn list<'a>(candidates: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = candidates.into_iter().map(|word| format!("`{word}`")).collect();
    if words.len() > 20 {
        let more = words.len() - 20;
        words.truncate(20);
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('_', "-")
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(80).collect(), b.chars().take(80).collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let paths = ["prune.metric", "prune.pattern", "restore.method", "restore.learning-rate"];
        assert_eq!(nearest("prune.metrc", paths), Some("prune.metric"));
        assert_eq!(nearest("metric", paths), Some("prune.metric"));
        assert_eq!(nearest("restore.learning_rate", paths), Some("restore.learning-rate"));
        assert_eq!(nearest("bananas", paths), None);
        assert_eq!(nearest("pruen.pattern", paths), Some("prune.pattern"));
        // An equal end is no reason to take another path than the one with a typo.
        let towers = ["prune.connector.sparsity", "prune.language.sparsity", "prune.vision.sparsity"];
        assert_eq!(nearest("prune.vison.sparsity", towers), Some("prune.vision.sparsity"));
        assert_eq!(nearest("prune.langauge.sparsity", towers), Some("prune.language.sparsity"));
    }
}
