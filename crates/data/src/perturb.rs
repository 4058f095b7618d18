//! Words of questions masked or changed at random: perturbed questions, and the copies of a question that are voted on.
//!
//! What is drawn follows from a seed and the place of a question in its benchmark, so every model is asked the same.

use std::fmt::Write;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ressa_experiment::config::{PerturbConfig, Perturbation, SmoothingConfig};

use crate::stream::{Purpose, stream};

/// What stands in the place of a masked word: a blank to be filled, which is one token of a vocabulary of whole words. The papers write `<mask>`, of which
/// many vocabularies (T5's, LLaMA's) have no token either, and T5's has no angle brackets.
pub const MASK: &str = "___";

/// Draws after which a word that is replaced stays as it is: other questions have no other words.
const ATTEMPTS: usize = 16;

/// The word of T5's tokenizers that stands for the `n`-th gap of a text.
pub fn sentinel(n: usize) -> String {
    format!("<extra_id_{n}>")
}

/// Which of some words are chosen, and what each is changed with.
struct Chosen {
    /// Whether each word is.
    words: Vec<bool>,
    /// The places of those that are, the first chosen first: those of a lower rate come before others.
    order: Vec<usize>,
    /// A seed for each word, chosen or not.
    seeds: Vec<u64>,
}

impl Chosen {
    /// `rate` of `count` words: the number is rounded up or down at random, so that its mean is exact however short questions are. Of the same
    /// random numbers, what is chosen at a rate is chosen at every higher one.
    fn new(count: usize, rate: f64, rng: &mut (impl Rng + ?Sized)) -> Self {
        let up: f64 = rng.random();
        let places: Vec<f64> = (0..count).map(|_| rng.random()).collect();
        let seeds = (0..count).map(|_| rng.random()).collect();
        let many = ((rate * count as f64 + up) as usize).min(count);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
        let mut words = vec![false; count];
        order.truncate(many);
        order.iter().for_each(|&at| words[at] = true);
        Self { words, order, seeds }
    }
}

/// The question at a place among those of its benchmark, perturbed.
pub fn perturbed(questions: &[String], at: usize, config: &PerturbConfig) -> String {
    let mut words: Vec<String> = questions[at].split_whitespace().map(str::to_owned).collect();
    let chosen = Chosen::new(words.len(), config.rate, &mut stream(config.seed, Purpose::Perturbation, at as u64));
    if config.kind == Perturbation::Swap {
        swap(&mut words, &chosen.order);
        return words.join(" ");
    }
    for (place, word) in words.iter_mut().enumerate().filter(|(place, _)| chosen.words[*place]) {
        let mut rng = ChaCha8Rng::seed_from_u64(chosen.seeds[place]);
        match config.kind {
            Perturbation::Mask => MASK.clone_into(word),
            Perturbation::Drop => word.clear(),
            Perturbation::Replace => {
                if let Some(other) = other_word(questions, at, word, &mut rng) {
                    *word = other;
                }
            }
            Perturbation::Typo => *word = misspelt(word, &mut rng),
            // Done above, of pairs.
            Perturbation::Swap => {}
        }
    }
    let left: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    left.join(" ")
}

/// Lets chosen words change places with the word behind, or with the word before where that one has changed places or is not there. A word changes
/// places once, so what a lower rate swaps is not undone by a higher one.
fn swap(words: &mut [String], chosen: &[usize]) {
    let mut is_free = vec![true; words.len()];
    for &place in chosen {
        let pairs = [(place, place + 1), (place.wrapping_sub(1), place)];
        let is_open = |at: usize| is_free.get(at).copied().unwrap_or_default();
        if let Some((left, right)) = pairs.into_iter().find(|&(left, right)| is_open(left) && is_open(right)) {
            words.swap(left, right);
            (is_free[left], is_free[right]) = (false, false);
        }
    }
}

/// A word of another question that is not this word; `None` where there is none, or none was found.
fn other_word(questions: &[String], at: usize, word: &str, rng: &mut ChaCha8Rng) -> Option<String> {
    let others = questions.len().checked_sub(1).filter(|others| *others > 0)?;
    (0..ATTEMPTS).find_map(|_| {
        let other = rng.random_range(0..others);
        let words: Vec<&str> = questions[other + usize::from(other >= at)].split_whitespace().collect();
        let found = (!words.is_empty()).then(|| words[rng.random_range(0..words.len())])?;
        (found != word).then(|| found.to_owned())
    })
}

/// Two neighbouring letters exchanged, where two differ; otherwise the last one doubled.
fn misspelt(word: &str, rng: &mut ChaCha8Rng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let places: Vec<usize> = (1..letters.len()).filter(|&at| letters[at - 1] != letters[at]).collect();
    match places.is_empty() {
        true => letters.extend(letters.last().copied()),
        false => {
            let at = places[rng.random_range(0..places.len())];
            letters.swap(at - 1, at);
        }
    }
    letters.into_iter().collect()
}

/// A question with masked words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    words: Vec<String>,
    gone: Vec<bool>,
}

impl Masked {
    /// A copy of the question at a place in its benchmark.
    pub fn new(question: &str, at: usize, copy: u32, config: &SmoothingConfig) -> Self {
        let words: Vec<String> = question.split_whitespace().map(str::to_owned).collect();
        // A question has at most 255 copies.
        let position = ((at as u64) << 8) | u64::from(copy);
        let chosen = Chosen::new(words.len(), config.mask, &mut stream(config.seed, Purpose::Smoothing, position));
        Self { words, gone: chosen.words }
    }

    /// Words of the question.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Words that are masked.
    pub fn gone(&self) -> usize {
        self.gone.iter().filter(|gone| **gone).count()
    }

    /// The words that are left.
    pub fn left(&self) -> String {
        let left = self.words.iter().zip(&self.gone).filter(|(_, gone)| !**gone);
        left.map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// With [`MASK`] in the place of each masked word.
    pub fn text(&self) -> String {
        let word = |(word, gone): (&String, &bool)| if *gone { MASK.to_owned() } else { word.clone() };
        self.words.iter().zip(&self.gone).map(word).collect::<Vec<_>>().join(" ")
    }

    /// With a [`sentinel`] in the place of each gap, which is a run of masked words: what a T5 fills.
    pub fn with_sentinels(&self) -> String {
        let mut text = String::new();
        let mut gaps = 0;
        for (at, word) in self.words.iter().enumerate() {
            let is_inside = at > 0 && self.gone[at] && self.gone[at - 1];
            if is_inside {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            match self.gone[at] {
                true => {
                    let _ = write!(text, "{}", sentinel(gaps));
                    gaps += 1;
                }
                false => text.push_str(word),
            }
        }
        text
    }

    /// The question with what a T5 wrote behind each sentinel, special tokens among its text; a gap for which it wrote nothing stays masked. Also
    /// whether every gap was filled.
    pub fn filled_behind_sentinels(&self, written: &str) -> (String, bool) {
        let mut words: Vec<&str> = Vec::new();
        let (mut gaps, mut is_whole) = (0, true);
        let mut at = 0;
        while at < self.words.len() {
            if !self.gone[at] {
                words.push(&self.words[at]);
                at += 1;
                continue;
            }
            let width = self.gone[at..].iter().take_while(|gone| **gone).count();
            match part(written, gaps) {
                Some(part) => words.push(part),
                None => {
                    words.extend(std::iter::repeat_n(MASK, width));
                    is_whole = false;
                }
            }
            gaps += 1;
            at += width;
        }
        (words.join(" "), is_whole)
    }

    /// The question as a model rewrote it that was asked to fill the masks: the first line of its reply, if that has the words that were left in their
    /// order and no mask. `None` where it has not.
    pub fn filled_as_asked(&self, reply: &str) -> Option<String> {
        let line = reply.lines().map(str::trim).find(|line| !line.is_empty())?;
        let line = line.trim_matches(['"', '\'', '`']).trim();
        if line.contains(MASK) {
            return None;
        }
        let bare = |word: &str| -> String {
            word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        let mut found = line.split_whitespace().map(bare);
        let kept = self.words.iter().zip(&self.gone).filter(|(_, gone)| !**gone).map(|(word, _)| bare(word));
        let is_whole = kept.filter(|word| !word.is_empty()).all(|word| found.any(|other| other == word));
        // A rewritten question is about as long as it was; a reply that talks is not.
        let length = line.split_whitespace().count();
        (is_whole && (1..=2 * self.words.len() + 2).contains(&length)).then(|| line.to_owned())
    }
}

/// What stands behind the `gap`-th sentinel, up to the next special token; `None` where that is nothing.
fn part(written: &str, gap: usize) -> Option<&str> {
    let (_, behind) = written.split_once(&sentinel(gap))?;
    let end = ["<extra_id_", "</s>", "<pad>"].iter().filter_map(|mark| behind.find(mark)).min().unwrap_or(behind.len());
    let part = behind[..end].trim();
    (!part.is_empty()).then_some(part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn questions() -> Vec<String> {
        ["what color is the big square", "who makes it", "is a ring there", "where"].map(str::to_owned).to_vec()
    }

    fn with(kind: Perturbation, rate: f64) -> PerturbConfig {
        PerturbConfig { rate, kind, seed: 3 }
    }

    #[test]
    fn a_rate_of_one_changes_every_word_and_of_zero_none() {
        let all = questions();
        let of = |kind, rate| perturbed(&all, 0, &with(kind, rate));
        assert_eq!(of(Perturbation::Mask, 1.0), ["___"; 6].join(" "));
        assert_eq!(of(Perturbation::Drop, 1.0), "");
        for kind in [Perturbation::Mask, Perturbation::Replace, Perturbation::Swap, Perturbation::Typo] {
            assert_eq!(of(kind, 0.0), all[0]);
        }
        let replaced = of(Perturbation::Replace, 1.0);
        let others: Vec<&str> = all[1..].iter().flat_map(|question| question.split(' ')).collect();
        let pairs = replaced.split(' ').zip(all[0].split(' '));
        assert!(pairs.clone().count() == 6 && pairs.clone().all(|(new, old)| new != old), "{replaced}");
        assert!(replaced.split(' ').all(|word| others.contains(&word)), "{replaced}");
        assert_eq!(perturbed(&all, 3, &with(Perturbation::Swap, 1.0)), "where");
        for seed in 0..8 {
            let two = perturbed(&["a b".to_owned()], 0, &PerturbConfig { seed, ..with(Perturbation::Swap, 1.0) });
            assert_eq!(two, "b a", "the two words change places once");
        }
        let sorted = |word: &str| -> Vec<char> { BTreeSet::from_iter(word.chars()).into_iter().collect() };
        for (new, old) in of(Perturbation::Typo, 1.0).split(' ').zip(all[0].split(' ')) {
            assert_eq!(sorted(new), sorted(old));
            assert_ne!(new, old);
        }
        assert_eq!(perturbed(&["a".to_owned()], 0, &with(Perturbation::Typo, 1.0)), "aa");
        assert_eq!(
            perturbed(&["a".to_owned()], 0, &with(Perturbation::Replace, 1.0)),
            "a",
            "there is no other question"
        );
    }

    #[test]
    fn a_pair_that_changed_places_at_a_rate_does_so_at_every_higher_one() {
        let question = vec!["0 1 2 3 4 5 6 7 8".to_owned(); 50];
        let pairs = |at: usize, rate: f64| -> BTreeSet<(usize, usize)> {
            let text = perturbed(&question, at, &with(Perturbation::Swap, rate));
            let moved = text.split(' ').enumerate().map(|(place, word)| (place, word.parse().expect("a number")));
            moved.filter(|(place, word)| place != word).collect()
        };
        for at in 0..question.len() {
            let [few, more, all] = [0.2, 0.5, 1.0].map(|rate| pairs(at, rate));
            assert!(few.is_subset(&more) && more.is_subset(&all), "{few:?} {more:?} {all:?}");
            assert!(all.len() >= 6 && all.iter().all(|(place, word)| place.abs_diff(*word) == 1), "{all:?}");
        }
    }

    #[test]
    fn what_is_chosen_at_a_rate_is_so_at_higher_ones_and_the_mean_is_exact() {
        let masks = |text: &str| -> BTreeSet<usize> {
            text.split(' ').enumerate().filter(|(_, word)| *word == MASK).map(|(at, _)| at).collect()
        };
        let question = vec!["a b c d e f g".to_owned(); 4000];
        let at_rate = |rate: f64| -> Vec<BTreeSet<usize>> {
            (0..question.len()).map(|at| masks(&perturbed(&question, at, &with(Perturbation::Mask, rate)))).collect()
        };
        let (few, more) = (at_rate(0.1), at_rate(0.3));
        assert!(few.iter().zip(&more).all(|(few, more)| few.is_subset(more)));
        for (rate, chosen) in [(0.1, &few), (0.3, &more)] {
            let mean = chosen.iter().map(BTreeSet::len).sum::<usize>() as f64 / (7 * question.len()) as f64;
            // Five standard deviations of a rounding that is fair or nearly so.
            assert!((mean - rate).abs() < 5.0 * 0.5 / 7.0 / (question.len() as f64).sqrt(), "{mean} at {rate}");
            let sizes: BTreeSet<usize> = chosen.iter().map(BTreeSet::len).collect();
            let least = (7.0 * rate) as usize;
            assert_eq!(sizes, BTreeSet::from([least, least + 1]));
        }
        assert_eq!(few, at_rate(0.1));
        let other = perturbed(&question, 1, &PerturbConfig { seed: 4, ..with(Perturbation::Mask, 0.3) });
        assert!((0..50).any(|at| perturbed(&question, at, &with(Perturbation::Mask, 0.3)) != other));
    }

    fn masked(gone: [bool; 6]) -> Masked {
        let words = questions()[0].split(' ').map(str::to_owned).collect();
        Masked { words, gone: gone.to_vec() }
    }

    #[test]
    fn copies_are_masked_apart_and_again_the_same() {
        let config = SmoothingConfig { mask: 0.5, ..SmoothingConfig::default() };
        let copies: Vec<Masked> = (0..5).map(|copy| Masked::new(&questions()[0], 0, copy, &config)).collect();
        assert_eq!(copies[2], Masked::new(&questions()[0], 0, 2, &config));
        assert!(copies.iter().all(|copy| copy.text().matches(MASK).count() == 3));
        assert!(copies.iter().any(|copy| copy.gone != copies[0].gone));
        assert_eq!(Masked::new("a b", 0, 0, &SmoothingConfig { mask: 0.0, ..config }).gone(), 0);
    }

    #[test]
    fn a_t5_fills_gaps_and_what_it_leaves_stays_masked() {
        let gaps = masked([false, true, false, false, true, true]);
        assert_eq!(gaps.text(), "what ___ is the ___ ___");
        assert_eq!(gaps.with_sentinels(), "what <extra_id_0> is the <extra_id_1>");
        assert_eq!((gaps.left().as_str(), gaps.words(), gaps.gone()), ("what is the", 6, 3));
        let filled = |written: &str| gaps.filled_behind_sentinels(written);
        assert_eq!(
            filled("<extra_id_0> shape <extra_id_1> small thing here <extra_id_2>"),
            ("what shape is the small thing here".to_owned(), true)
        );
        assert_eq!(filled("<extra_id_0> shape"), ("what shape is the ___ ___".to_owned(), false));
        assert_eq!(filled("<extra_id_0> <extra_id_1> cube</s>"), ("what ___ is the cube".to_owned(), false));
        assert_eq!(filled("a red cube"), (gaps.text(), false));
    }

    #[test]
    fn a_reply_counts_where_it_is_the_question_again() {
        let gaps = masked([false, true, false, false, true, false]);
        let filled = |reply: &str| gaps.filled_as_asked(reply);
        assert_eq!(
            filled("\n \"What shape is the red square?\"\nI hope").as_deref(),
            Some("What shape is the red square?")
        );
        assert_eq!(filled("what ___ is the big square"), None);
        assert_eq!(filled("Sure, I can help with that."), None);
        assert_eq!(filled("square the is what"), None, "words out of order");
        assert_eq!(filled("what a nice day it is and how the birds sing so loudly above that square"), None, "talk");
        assert_eq!(filled(""), None);
    }
}
