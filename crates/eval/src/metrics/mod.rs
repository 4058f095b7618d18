//! The benchmarks' own metrics, checked against their authors' programs.

pub mod bleu;
pub mod cider;
mod contractions;
pub mod lemma;
pub mod meteor;
pub mod ngrams;
pub mod ptb;
pub mod retrieval;
pub mod rouge;
pub mod statistics;
pub mod vqa;
