//! Ranks in retrieval (LAVIS, `lavis/tasks/retrieval.py`).

/// Place of the candidate `right` when scores are sorted downwards, counted from 1.
///
/// As in the reference, of equal scores the later candidate comes first. A score that is not a number comes last.
pub fn rank(scores: &[f32], right: usize) -> usize {
    let own = scores[right];
    if own.is_nan() {
        return scores.len();
    }
    let before = |(index, score): &(usize, &f32)| **score > own || (**score == own && *index > right);
    1 + scores.iter().enumerate().filter(before).count()
}
