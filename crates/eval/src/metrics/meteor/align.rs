//! Which words of a caption stand for which of a reference: a beam search over all matches, for most matched words, then fewest chunks, then short ways.
//!
//! - Paper: Denkowski and Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language", WMT 2014, section 2
//! - Reference: the aligner of METEOR 1.5. Its counts of weighted matches are whole numbers, and the ways of a match are added to the alignment that it was
//!   tried on and not to the one that has it; both decide which of several alignments is found, so both are kept

use std::ops::Range;

/// Alignments that are continued at once.
const BEAM: usize = 40;

/// A phrase of the caption that stands for a phrase of the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Match {
    /// The kind of match: its place among the weights.
    pub(super) kind: usize,
    /// Its first word in the reference, and how many words it has there.
    pub(super) reference: (usize, usize),
    /// The same in the caption.
    pub(super) caption: (usize, usize),
}

/// Matches that do not overlap, by their first word in the reference.
pub(super) type Alignment = Vec<Option<Match>>;

/// An alignment of the words before some word of the reference.
#[derive(Clone)]
struct Partial {
    matches: Alignment,
    /// Weighted words that are matched, in the caption and in the reference.
    matched: (u32, u32),
    chunks: u32,
    /// The next word of the reference.
    next: usize,
    /// The end of the last match in the caption, where it ends right before `next`.
    last: Option<usize>,
    distance: usize,
    caption: Vec<bool>,
    reference: Vec<bool>,
}

impl Partial {
    fn is_free(&self, found: &Match) -> bool {
        !self.caption[words(found.caption)].contains(&true) && !self.reference[words(found.reference)].contains(&true)
    }

    fn occupy(&mut self, found: &Match) {
        self.caption[words(found.caption)].fill(true);
        self.reference[words(found.reference)].fill(true);
        self.matches[found.reference.0] = Some(*found);
    }

    /// Takes a match that begins at the next word. How far its ends lie apart is not counted here.
    fn take(&mut self, found: &Match, weights: &[f64]) {
        let add = |sum: u32, length: usize| (f64::from(sum) + length as f64 * weights[found.kind]) as u32;
        self.matched = (add(self.matched.0, found.caption.1), add(self.matched.1, found.reference.1));
        if self.last.is_some_and(|end| end != found.caption.0) {
            self.chunks += 1;
        }
        self.next = found.reference.0 + found.reference.1;
        self.last = Some(found.caption.0 + found.caption.1);
    }

    /// Ends the chunk that reaches to the next word.
    fn close(&mut self) {
        self.chunks += u32::from(self.last.take().is_some());
    }
}

fn words((start, length): (usize, usize)) -> Range<usize> {
    start..start + length
}

fn way(found: &Match) -> usize {
    found.reference.0.abs_diff(found.caption.0)
}

/// The best alignment of a caption of so many words, with the matches that begin at each word of the reference and the weight of each kind.
pub(super) fn resolve(length: usize, found: &[Vec<Match>], weights: &[f64]) -> Alignment {
    let mut paths = vec![start(length, found)];
    for (at, candidates) in found.iter().enumerate() {
        sort(&mut paths);
        let mut next = Vec::new();
        for mut path in paths.iter().take(BEAM).cloned() {
            if path.reference[at] {
                if at >= path.next {
                    // A word whose only match was taken from the start.
                    let Some(sure) = path.matches[path.next] else { continue };
                    path.take(&sure, weights);
                    path.distance += way(&sure);
                }
                next.push(path);
                continue;
            }
            for candidate in candidates {
                if path.is_free(candidate) {
                    let mut child = path.clone();
                    child.occupy(candidate);
                    child.take(candidate, weights);
                    path.distance += way(candidate);
                    next.push(child);
                }
            }
            path.close();
            path.next += 1;
            next.push(path);
        }
        if !next.is_empty() {
            paths = next;
        } else {
            paths.truncate(1);
        }
    }
    sort(&mut paths);
    paths.truncate(BEAM);
    paths.iter_mut().for_each(Partial::close);
    sort(&mut paths);
    paths.swap_remove(0).matches
}

/// Matches that nothing competes with are taken before anything else.
fn start(length: usize, found: &[Vec<Match>]) -> Partial {
    let mut covered = (vec![0u32; length], vec![0u32; found.len()]);
    for one in found.iter().flatten() {
        covered.0[words(one.caption)].iter_mut().for_each(|count| *count += 1);
        covered.1[words(one.reference)].iter_mut().for_each(|count| *count += 1);
    }
    let mut start = Partial {
        matches: vec![None; found.len()],
        matched: (0, 0),
        chunks: 0,
        next: 0,
        last: None,
        distance: 0,
        caption: vec![false; length],
        reference: vec![false; found.len()],
    };
    for list in found {
        if let [only] = list.as_slice() {
            let is_alone = |counts: &[u32]| counts.iter().all(|&count| count == 1);
            if is_alone(&covered.0[words(only.caption)]) && is_alone(&covered.1[words(only.reference)]) {
                start.occupy(only);
            }
        }
    }
    start
}

fn sort(paths: &mut [Partial]) {
    let matched = |path: &Partial| path.matched.0 + path.matched.1;
    paths.sort_by(|a, b| matched(b).cmp(&matched(a)).then(a.chunks.cmp(&b.chunks)).then(a.distance.cmp(&b.distance)));
}

/// Chunks of an alignment: runs of matches that follow each other in both texts.
pub(super) fn chunks(alignment: &Alignment) -> u32 {
    let (mut chunks, mut at, mut last) = (0, 0, None);
    while let Some(found) = alignment.get(at) {
        match found {
            None => {
                chunks += u32::from(last.take().is_some());
                at += 1;
            }
            Some(found) => {
                chunks += u32::from(last.is_some_and(|end| end != found.caption.0));
                at = found.reference.0 + found.reference.1;
                last = Some(found.caption.0 + found.caption.1);
            }
        }
    }
    chunks + u32::from(last.is_some())
}
