//! VQA accuracy with the answer normalisation of the benchmark's evaluation (the copy in LAVIS, `lavis/common/vqa_tools/vqa_eval.py`).

use super::contractions::expand;

/// Annotators besides the one compared with that must agree for full credit.
const AGREEING: usize = 3;
const PUNCTUATION: [char; 21] =
    [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];
const ARTICLES: [&str; 3] = ["a", "an", "the"];
const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
/// The reference passes a flag where a count is expected, so at most this many periods are deleted.
const MOST_PERIODS: usize = 32;

/// Accuracy of an answer, 0 to 1: the mean over annotators of `min(1, others that gave this answer / 3)`.
///
/// With fewer than four annotators all others must agree; with one it is exact match.
pub fn accuracy(prediction: &str, answers: &[String]) -> f64 {
    let said = normalize(prediction);
    let unanimous = answers.windows(2).all(|pair| pair[0] == pair[1]);
    let same: Vec<bool> = answers
        .iter()
        .map(|answer| if unanimous { *answer == said } else { strip_punctuation(answer) == said })
        .collect();
    let agreeing = same.iter().filter(|same| **same).count();
    match answers.len() {
        0 => 0.0,
        1 => agreeing as f64,
        count => {
            let needed = AGREEING.min(count - 1) as f64;
            let credit = |same: &bool| ((agreeing - usize::from(*same)) as f64 / needed).min(1.0);
            same.iter().map(credit).sum::<f64>() / count as f64
        }
    }
}

/// Accuracy of VizWiz: the same mean over annotators, whose answers stay as they were written.
///
/// Reference: `VQAEval.evaluate` of the VizWiz evaluation tools, which normalises the prediction alone.
pub fn accuracy_as_written(prediction: &str, answers: &[String]) -> f64 {
    let said = normalize(prediction);
    mean_credit(&answers.iter().map(|answer| *answer == said).collect::<Vec<_>>())
}

/// Accuracy of TextVQA: the same mean over annotators, whose answers are normalised as the prediction is.
///
/// Reference: `EvalAIAnswerProcessor` and `TextVQAAccuracyEvaluator` of Pythia (MMF), whose copies other evaluations use.
pub fn accuracy_of_text(prediction: &str, answers: &[String]) -> f64 {
    let said = normalize_text(prediction);
    mean_credit(&answers.iter().map(|answer| normalize_text(answer) == said).collect::<Vec<_>>())
}

/// The mean over annotators of `min(1, others that gave the answer / 3)`, given who gave it.
fn mean_credit(same: &[bool]) -> f64 {
    let agreeing = same.iter().filter(|same| **same).count();
    let credit = |same: &bool| ((agreeing - usize::from(*same)) as f64 / AGREEING as f64).min(1.0);
    same.iter().map(credit).sum::<f64>() / same.len().max(1) as f64
}

/// TextVQA's normalisation: lower case, commas and question marks deleted, `'s` set apart, then as any answer.
pub fn normalize_text(answer: &str) -> String {
    let lower = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let flat = lower.trim().replace(['\n', '\t'], " ");
    normalize_words(flat.trim())
}

/// The normalisation of a predicted answer: whitespace, punctuation, then words.
pub fn normalize(answer: &str) -> String {
    normalize_words(answer.replace(['\n', '\t'], " ").trim())
}

/// Punctuation and words only, as GQA's evaluation does.
pub fn normalize_words(answer: &str) -> String {
    strip_punctuation(answer)
        .to_lowercase()
        .split_whitespace()
        .map(number)
        .filter(|word| !ARTICLES.contains(&word.as_str()))
        .map(|word| expand(&word).map_or(word, str::to_owned))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Deletes each mark that touches a blank somewhere (or every mark, where the text has a number such as `1,000`) and replaces it
/// by a blank otherwise; then deletes periods that no digit follows.
fn strip_punctuation(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let grouped_number = chars.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == ',' && w[2].is_ascii_digit());
    let touches_blank = |mark: char| chars.windows(2).any(|w| w == [mark, ' '] || w == [' ', mark]);
    let mut stripped = String::new();
    for c in &chars {
        if !PUNCTUATION.contains(c) {
            stripped.push(*c);
        } else if !grouped_number && !touches_blank(*c) {
            stripped.push(' ');
        }
    }
    let mut deleted = 0;
    let mut result = String::new();
    let mut rest = stripped.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '.' && deleted < MOST_PERIODS && !rest.peek().is_some_and(char::is_ascii_digit) {
            deleted += 1;
        } else {
            result.push(c);
        }
    }
    result
}

fn number(word: &str) -> String {
    if word == "none" {
        return "0".to_owned();
    }
    NUMBERS.iter().position(|number| *number == word).map_or_else(|| word.to_owned(), |value| value.to_string())
}
