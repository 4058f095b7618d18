//! METEOR 1.5 (Denkowski and Lavie, "Meteor Universal", WMT 2014) without Java, of the tables in its jar.
//!
//! - Formula, for each pair of a caption and a reference: words are matched if they are equal, have a stem or a set of synonyms in common, or are parts of
//!   paraphrases, with the weights of [`WEIGHTS`]; `P` and `R` are the weighted shares of the words that are matched, a word of content counting `delta` and a
//!   function word `1 - delta`; `F = 1 / ((1 - alpha) / P + alpha / R)`; the score is `F (1 - gamma (chunks / matches)^beta)`. A caption has the
//!   score of its best reference; the corpus has that of all counts together
//! - Reference: `meteor-1.5.jar` as pycocoevalcap 1.2 calls it (`-l en -norm`); `scripts/compare_metrics.py` runs both

mod align;
mod normal;
mod tables;

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use align::{Alignment, Match};
use normal::Normalizer;
use rust_stemmers::{Algorithm, Stemmer};
use tables::{Paraphrases, Tables};

/// What a matched word counts: equal, of one stem, of one set of synonyms, part of a paraphrase.
const WEIGHTS: [f64; 4] = [1.0, 0.6, 0.8, 0.6];
const EQUAL: usize = 0;
const STEM: usize = 1;
const SYNONYM: usize = 2;
const PARAPHRASE: usize = 3;
/// METEOR's settings for English: what recall counts against precision, how steep and how heavy the penalty for chunks is, what words of content count.
const ALPHA: f64 = 0.85;
const BETA: f64 = 0.2;
const GAMMA: f64 = 0.6;
const DELTA: f64 = 0.75;

/// METEOR of captions and their references: of all together, and of each, in 0 to 1.
///
/// `jar` is `meteor-1.5.jar`, with `data/paraphrase-en.gz` in the folder beside it; nothing of it is run.
///
/// # Errors
/// Tables that are missing or cannot be read, in words.
pub fn meteor(jar: &Path, captions: &[(String, Vec<String>)]) -> Result<(f64, Vec<f64>), String> {
    let tables = Tables::read(jar)?;
    let normalizer = Normalizer::new(&tables.abbreviations);
    let words = |text: &String| normalizer.words(text);
    let captions: Vec<(Vec<String>, Vec<Vec<String>>)> =
        captions.iter().map(|(caption, references)| (words(caption), references.iter().map(words).collect())).collect();
    let all = captions.iter().flat_map(|(caption, references)| references.iter().chain([caption]));
    let vocabulary: HashSet<&str> = all.flatten().map(String::as_str).collect();
    let folder = jar.parent().unwrap_or(Path::new(""));
    let paraphrases = Paraphrases::read(&folder.join("data/paraphrase-en.gz"), &vocabulary)?;
    let judge = Judge { tables, paraphrases, stemmer: Stemmer::create(Algorithm::English) };

    let mut sum = Counts::default();
    let mut scores = Vec::with_capacity(captions.len());
    for (caption, references) in &captions {
        let caption = judge.read(caption);
        let counted = references.iter().map(|reference| judge.count(&caption, &judge.read(reference)));
        // Of references with the same score, the first.
        let best = counted.reduce(|best, other| if other.score() > best.score() { other } else { best });
        let best = best.unwrap_or_default();
        scores.push(best.score());
        sum.add(&best);
    }
    Ok((sum.score(), scores))
}

/// What decides which words match.
struct Judge {
    tables: Tables,
    paraphrases: Paraphrases,
    stemmer: Stemmer,
}

/// A text as matches see it.
struct Text<'a> {
    words: &'a [String],
    stems: Vec<String>,
    synonyms: Vec<BTreeSet<u32>>,
    is_function_word: Vec<bool>,
}

impl Judge {
    fn read<'a>(&self, words: &'a [String]) -> Text<'a> {
        Text {
            words,
            stems: words.iter().map(|word| self.stemmer.stem(word).into_owned()).collect(),
            synonyms: words.iter().map(|word| self.tables.synonyms.of(word)).collect(),
            is_function_word: words.iter().map(|word| self.tables.function_words.contains(word)).collect(),
        }
    }

    /// Counts of the best alignment of a caption with a reference.
    fn count(&self, caption: &Text<'_>, reference: &Text<'_>) -> Counts {
        let found = self.matches(caption, reference);
        let alignment = align::resolve(caption.words.len(), &found, &WEIGHTS);
        Counts {
            caption: Side::of(caption, &alignment, |found| found.caption),
            reference: Side::of(reference, &alignment, |found| found.reference),
            chunks: f64::from(align::chunks(&alignment)),
        }
    }

    /// All matches, by their first word in the reference. Their order decides between alignments that are equally good.
    fn matches(&self, caption: &Text<'_>, reference: &Text<'_>) -> Vec<Vec<Match>> {
        let mut found: Vec<Vec<Match>> = vec![Vec::new(); reference.words.len()];
        let mut pairs = |kind: usize, is_match: &dyn Fn(usize, usize) -> bool| {
            for (at, list) in found.iter_mut().enumerate() {
                let matching = (0..caption.words.len()).filter(|&other| is_match(at, other));
                list.extend(matching.map(|other| Match { kind, reference: (at, 1), caption: (other, 1) }));
            }
        };
        let is_equal = |at: usize, other: usize| reference.words[at] == caption.words[other];
        pairs(EQUAL, &is_equal);
        if reference.words == caption.words {
            return found;
        }
        pairs(STEM, &|at, other| !is_equal(at, other) && reference.stems[at] == caption.stems[other]);
        pairs(SYNONYM, &|at, other| {
            !is_equal(at, other) && !reference.synonyms[at].is_disjoint(&caption.synonyms[other])
        });
        // The table is read both ways.
        for (in_reference, in_caption) in self.phrases(reference.words, caption.words) {
            found[in_reference.0].push(Match { kind: PARAPHRASE, reference: in_reference, caption: in_caption });
        }
        for (in_caption, in_reference) in self.phrases(caption.words, reference.words) {
            found[in_reference.0].push(Match { kind: PARAPHRASE, reference: in_reference, caption: in_caption });
        }
        found
    }

    /// Phrases of one text for which the table has a phrase of another, each as its first word and its length.
    fn phrases(&self, one: &[String], other: &[String]) -> Vec<((usize, usize), (usize, usize))> {
        let mut found = Vec::new();
        for at in 0..one.len() {
            for (length, phrase) in self.paraphrases.at(one, at) {
                let there = (0..other.len()).filter(|&start| other[start..].starts_with(phrase));
                found.extend(there.map(|start| ((at, length), (start, phrase.len()))));
            }
        }
        found
    }
}

/// Words of a text, and those that are matched.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    words: f64,
    function_words: f64,
    /// Matched words by kind of match.
    content: [f64; WEIGHTS.len()],
    function: [f64; WEIGHTS.len()],
}

impl Side {
    fn of(text: &Text<'_>, alignment: &Alignment, place: impl Fn(&Match) -> (usize, usize)) -> Self {
        let function_words = text.is_function_word.iter().filter(|&&is| is).count();
        let mut side =
            Self { words: text.words.len() as f64, function_words: function_words as f64, ..Self::default() };
        for found in alignment.iter().flatten() {
            let (start, length) = place(found);
            for &is_function_word in &text.is_function_word[start..start + length] {
                let counts = if is_function_word { &mut side.function } else { &mut side.content };
                counts[found.kind] += 1.0;
            }
        }
        side
    }

    fn matched(&self) -> f64 {
        self.content.iter().chain(&self.function).sum()
    }

    fn is_whole(&self) -> bool {
        self.matched() == self.words
    }

    /// The share that is matched, each word with its weight.
    fn share(&self) -> f64 {
        let of = |content: f64, function: f64| DELTA * content + (1.0 - DELTA) * function;
        let weighted = |matched: &[f64]| matched.iter().zip(WEIGHTS).map(|(count, weight)| count * weight).sum();
        of(weighted(&self.content), weighted(&self.function))
            / of(self.words - self.function_words, self.function_words)
    }

    fn add(&mut self, other: &Self) {
        self.words += other.words;
        self.function_words += other.function_words;
        for (mine, others) in [(&mut self.content, &other.content), (&mut self.function, &other.function)] {
            mine.iter_mut().zip(others).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// What a score is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    caption: Side,
    reference: Side,
    chunks: f64,
}

impl Counts {
    /// Whether every word is matched, in one chunk.
    fn is_perfect(&self) -> bool {
        self.caption.is_whole() && self.reference.is_whole() && self.chunks == 1.0
    }

    fn score(&self) -> f64 {
        let mean = 1.0 / ((1.0 - ALPHA) / self.caption.share() + ALPHA / self.reference.share());
        let fragments = match self.is_perfect() {
            true => 0.0,
            false => self.chunks / ((self.caption.matched() + self.reference.matched()) / 2.0),
        };
        // Without a match there are no chunks either: 0 / 0, which counts as 0.
        (mean * (1.0 - GAMMA * fragments.powf(BETA))).max(0.0)
    }

    /// As the reference adds counts up: a perfect caption adds no chunk.
    fn add(&mut self, other: &Self) {
        self.caption.add(&other.caption);
        self.reference.add(&other.reference);
        if !other.is_perfect() {
            self.chunks += other.chunks;
        }
    }
}
