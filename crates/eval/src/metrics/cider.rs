//! CIDEr-D (Vedantam et al., arXiv 1411.5726, section 5; reference program: pycocoevalcap).
//!
//! Cosine similarity of tf-idf vectors of 1- to 4-grams, with the candidate's counts clipped to the reference's and a Gaussian
//! penalty on the difference in length; mean over n, then over references, times 10.

use std::collections::{HashMap, HashSet};

use super::ngrams::{counts, words};

/// Longest n-gram.
const LONGEST: usize = 4;
/// Width of the length penalty, in words.
const SIGMA: f64 = 6.0;

/// References of a whole test set, ready to compare captions with.
pub struct CiderD<'a> {
    document_frequency: HashMap<Vec<&'a str>, f64>,
    log_images: f64,
    references: Vec<Vec<Vector<'a>>>,
}

/// Tf-idf weights of one caption, per n.
struct Vector<'a> {
    weights: [Vec<(Vec<&'a str>, f64)>; LONGEST],
    norms: [f64; LONGEST],
    /// Number of 2-grams: what the reference program calls a caption's length.
    length: f64,
}

impl<'a> CiderD<'a> {
    /// Prepares the references of every image. Document frequencies come from these references, one document per image.
    pub fn new(references: &[&'a [String]]) -> Self {
        let counted: Vec<Vec<HashMap<Vec<&'a str>, usize>>> = references
            .iter()
            .map(|captions| captions.iter().map(|caption| counts(&words(caption), LONGEST)).collect())
            .collect();
        let mut document_frequency = HashMap::new();
        for captions in &counted {
            let seen: HashSet<&Vec<&'a str>> = captions.iter().flat_map(HashMap::keys).collect();
            for gram in seen {
                *document_frequency.entry(gram.clone()).or_insert(0.0) += 1.0;
            }
        }
        let mut cider = Self { document_frequency, log_images: (references.len() as f64).ln(), references: Vec::new() };
        cider.references =
            counted.into_iter().map(|captions| captions.into_iter().map(|c| cider.vector(c)).collect()).collect();
        cider
    }

    /// CIDEr-D of a caption of image `image`, 0 to 10.
    pub fn score(&self, image: usize, caption: &str) -> f64 {
        let candidate = self.vector(counts(&words(caption), LONGEST));
        let references = &self.references[image];
        if references.is_empty() {
            return 0.0;
        }
        10.0 * references.iter().map(|reference| similarity(&candidate, reference)).sum::<f64>()
            / references.len() as f64
    }

    fn vector<'b>(&self, counts: HashMap<Vec<&'b str>, usize>) -> Vector<'b>
    where
        'a: 'b,
    {
        let mut vector = Vector { weights: Default::default(), norms: [0.0; LONGEST], length: 0.0 };
        for (gram, count) in counts {
            let n = gram.len() - 1;
            if n == 1 {
                vector.length += count as f64;
            }
            let documents = self.document_frequency.get(gram.as_slice()).copied().unwrap_or(0.0);
            let weight = count as f64 * (self.log_images - documents.max(1.0).ln());
            vector.weights[n].push((gram, weight));
        }
        for (weights, norm) in vector.weights.iter_mut().zip(&mut vector.norms) {
            // Sorted, so that sums do not depend on a hash map's order.
            weights.sort_by(|a, b| a.0.cmp(&b.0));
            *norm = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
        }
        vector
    }
}

fn similarity(candidate: &Vector<'_>, reference: &Vector<'_>) -> f64 {
    let difference = candidate.length - reference.length;
    let penalty = (-difference * difference / (2.0 * SIGMA * SIGMA)).exp();
    let mut total = 0.0;
    for n in 0..LONGEST {
        let norms = candidate.norms[n] * reference.norms[n];
        if norms > 0.0 {
            let dot: f64 = candidate.weights[n]
                .iter()
                .filter_map(|(gram, weight)| {
                    let index = reference.weights[n].binary_search_by(|(other, _)| other.cmp(gram)).ok()?;
                    let other = reference.weights[n][index].1;
                    Some(weight.min(other) * other)
                })
                .sum();
            total += dot / norms * penalty;
        }
    }
    total / LONGEST as f64
}
