//! ScienceQA and MMBench: one of a few options, by the letter that a model writes and by the option that it finds likeliest.

use std::collections::{BTreeMap, HashMap};

use ressa_data::wording::LETTERS;
use ressa_experiment::{Task, record::TaskScore};

use super::average;
use crate::{EvalError, Prediction};

/// Parts of a score that come from likelihoods: of an option as a whole, and per token.
const LIKELIHOOD: [&str; 2] = ["likelihood", "likelihood-per-token"];

/// The part of a score that is about a kind of question.
fn part_of(kind: &str) -> String {
    if LIKELIHOOD.contains(&kind) { format!("kind-{kind}") } else { kind.to_owned() }
}

/// A choice, checked.
struct Chosen<'a> {
    /// The question: of MMBench what all rotations share, else the item.
    question: &'a str,
    said: &'a str,
    options: &'a [String],
    answer: usize,
    log_likelihoods: &'a [f64],
    tokens: &'a [u32],
    kinds: &'a [String],
}

fn chosen<'a>(task: Task, predictions: &'a [Prediction]) -> Result<Vec<Chosen<'a>>, EvalError> {
    let of = |item: &'a Prediction| {
        let Prediction::Choice { id, prediction, options, answer, log_likelihoods, tokens, kinds, .. } = item else {
            return Err(EvalError::WrongKind { task, id: item.id().to_owned() });
        };
        let wrong = |reason: String| Err(EvalError::Unfit { id: id.clone(), reason });
        let count = options.len();
        if !(2..=LETTERS.len()).contains(&count) {
            return wrong(format!("it has {count} options; there must be 2 to {}", LETTERS.len()));
        }
        if *answer >= count {
            return wrong(format!("`answer` is {answer}, and there are {count} options, counted from 0"));
        }
        if !log_likelihoods.is_empty() && (log_likelihoods.len() != count || tokens.len() != count) {
            let (values, lengths) = (log_likelihoods.len(), tokens.len());
            return wrong(format!("it has {count} options, {values} likelihoods and {lengths} numbers of tokens"));
        }
        if log_likelihoods.iter().any(|value| !value.is_finite()) || tokens.contains(&0) {
            return wrong("a likelihood is not a number, or an option has no tokens".to_owned());
        }
        let question = match task {
            Task::Mmbench => id.rsplit_once('-').map_or(id.as_str(), |(question, _)| question),
            _ => id,
        };
        let (said, answer) = (prediction.as_str(), *answer);
        Ok(Chosen { question, said, options, answer, log_likelihoods, tokens, kinds })
    };
    predictions.iter().map(of).collect()
}

impl Chosen<'_> {
    fn is_right(&self, task: Task) -> bool {
        match task {
            Task::Mmbench => matched(self.said, self.options) == Some(self.answer),
            _ => is_letter(self.said, LETTERS[self.answer]),
        }
    }

    /// Whether the right option has the largest of some values, the first among equals.
    fn is_likeliest(&self, value: impl Fn(&Self, usize) -> f64) -> bool {
        let mut best = 0;
        for option in 1..self.options.len() {
            if value(self, option) > value(self, best) {
                best = option;
            }
        }
        best == self.answer
    }
}

/// The option that an answer means to the scorer of its task; `None` where that reads none.
pub(super) fn read(task: Task, text: &str, options: &[String]) -> Option<usize> {
    match task {
        Task::Mmbench => matched(text, options),
        _ => (0..options.len().min(LETTERS.len())).find(|&at| is_letter(text, LETTERS[at])),
    }
}

/// Whether an answer is a letter, as lmms-eval (and LLaVA before it) reads answers to ScienceQA: the letter alone, or a capital with a period
/// behind it at the beginning.
///
/// Reference: `sqa_process_results` in lmms-eval's `tasks/scienceqa/utils.py`.
fn is_letter(text: &str, letter: char) -> bool {
    let text = text.trim();
    if text.to_lowercase() == letter.to_lowercase().to_string() {
        return true;
    }
    let mut start = text.chars();
    match (start.next(), start.next()) {
        (Some(first), Some('.')) => first == letter,
        _ => false,
    }
}

/// The option that an answer means, as MMBench matches answers before it asks a language model: a single letter among the words, in one of
/// several spellings, or the text of a single option. An answer without a match is wrong here.
///
/// Reference: `can_infer_option` and `can_infer_text` of MMBench's evaluation (VLMEvalKit, lmms-eval).
fn matched(text: &str, options: &[String]) -> Option<usize> {
    /// What may stand around a letter, in the order in which spellings are tried.
    const AROUND: [(&str, &str); 12] = [
        ("", "."),
        ("", ","),
        ("", ":"),
        ("", ")"),
        ("", ")."),
        ("(", ")"),
        ("(", ")."),
        (":", ""),
        (":", ","),
        (":", "."),
        (":", ")"),
        (":", ")."),
    ];
    /// Letters that are looked for, whatever the number of options.
    const NAMED: usize = 5;
    /// Options whose texts are looked for.
    const TEXTS: usize = 4;
    /// Words beside which an `A` is an article.
    const FEW: usize = 3;
    let words: Vec<&str> = text.split_whitespace().collect();
    let single = |before: &str, after: &str| {
        let spelled = |at: &usize| words.contains(&format!("{before}{}{after}", LETTERS[*at]).as_str());
        let mut found = (0..NAMED).filter(spelled);
        found.next().filter(|_| found.next().is_none())
    };
    let is_article = words.contains(&"A") && words.len() > FEW;
    let alone = single("", "").filter(|_| !is_article);
    alone.or_else(|| AROUND.iter().find_map(|(before, after)| single(before, after))).or_else(|| {
        let text = text.to_lowercase();
        let mut found = (0..options.len().min(TEXTS)).filter(|at| text.contains(&options[*at].to_lowercase()));
        found.next().filter(|_| found.next().is_none())
    })
}

/// Points of each item: those of its question, weighted so that their mean is that of the questions.
pub(super) fn points(task: Task, predictions: &[Prediction]) -> Result<Vec<f64>, EvalError> {
    let items = chosen(task, predictions)?;
    let questions = questions(&items, |item| item.is_right(task));
    let sizes = items.iter().fold(HashMap::new(), |mut sizes: HashMap<&str, f64>, item| {
        *sizes.entry(item.question).or_default() += 1.0;
        sizes
    });
    let right: HashMap<&str, bool> = questions.iter().map(|(item, right)| (item.question, *right)).collect();
    let each = items.len() as f64 / questions.len().max(1) as f64;
    let of = |item: &Chosen<'_>| if right[item.question] { 100.0 * each / sizes[item.question] } else { 0.0 };
    Ok(items.iter().map(of).collect())
}

/// The questions by their first items, and whether all items of each are right.
fn questions<'i, 'a>(items: &'i [Chosen<'a>], is_right: impl Fn(&Chosen<'a>) -> bool) -> Vec<(&'i Chosen<'a>, bool)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<(&Chosen<'a>, bool)> = Vec::new();
    for item in items {
        let place = *places.entry(item.question).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, right)) => *right &= is_right(item),
            None => found.push((item, is_right(item))),
        }
    }
    found
}

/// Accuracy of the letter; of the likeliest option, as a whole and per token, where likelihoods are there; and of each kind of question.
pub(super) fn score(task: Task, predictions: &[Prediction]) -> Result<TaskScore, EvalError> {
    let items = chosen(task, predictions)?;
    let points = |right: &[(&Chosen<'_>, bool)]| -> Vec<f64> {
        right.iter().map(|(_, right)| if *right { 100.0 } else { 0.0 }).collect()
    };
    let by_letter = questions(&items, |item| item.is_right(task));
    let mut parts = BTreeMap::new();
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for ((item, _), points) in by_letter.iter().zip(points(&by_letter)) {
        item.kinds.iter().for_each(|kind| kinds.entry(kind).or_default().push(points));
    }
    parts.extend(kinds.into_iter().map(|(kind, points)| (part_of(kind), average("accuracy", &points))));
    if items.iter().all(|item| !item.log_likelihoods.is_empty()) {
        let whole = |item: &Chosen<'_>, option: usize| item.log_likelihoods[option];
        let per_token = |item: &Chosen<'_>, option: usize| whole(item, option) / f64::from(item.tokens[option]);
        let sum = points(&questions(&items, |item| item.is_likeliest(whole)));
        let mean = points(&questions(&items, |item| item.is_likeliest(per_token)));
        parts.insert(LIKELIHOOD[0].to_owned(), average("accuracy", &sum));
        parts.insert(LIKELIHOOD[1].to_owned(), average("accuracy", &mean));
    }
    Ok(TaskScore { task, score: Some(average("accuracy", &points(&by_letter))), parts })
}
