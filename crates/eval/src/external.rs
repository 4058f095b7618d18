//! Scores on stored predictions that need files of other programs: METEOR, of the tables in its jar or by the jar, and SPICE, by its jar. Nothing here is needed
//! for anything else.

pub mod meteor;
pub mod spice;

use std::path::Path;

use ressa_experiment::record::Score;

use crate::{EvalError, Prediction, metrics::statistics, score::tokenized};

/// A caption and its references, each as the words that captioning benchmarks count.
pub(crate) type Captions = Vec<(String, Vec<String>)>;

/// The captions among predictions.
///
/// # Errors
/// Predictions that are no captions.
pub(crate) fn captions(predictions: &[Prediction], program: &'static str) -> Result<Captions, EvalError> {
    let wrong = |item: &Prediction| EvalError::External {
        program,
        reason: format!("prediction `{}` is no caption", item.id()),
    };
    predictions.iter().map(|item| tokenized(item).ok_or_else(|| wrong(item))).collect()
}

/// The folder of a jar and its name there: both programs look for their data beside themselves.
fn place(jar: &Path) -> Option<(&Path, &Path)> {
    Some((jar.parent()?, Path::new(jar.file_name()?)))
}

/// A score in points, with the standard error of its items.
fn points(metric: &str, value: f64, items: &[f64]) -> Score {
    let scaled: Vec<f64> = items.iter().map(|item| 100.0 * item).collect();
    let (_, standard_error) = statistics::mean_and_error(&scaled);
    Score { metric: metric.to_owned(), value: 100.0 * value, standard_error, items: items.len() as u64 }
}

/// The last words of a program, for an error.
fn last_words(text: &[u8]) -> String {
    const LINES: usize = 3;
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => "it said nothing".to_owned(),
        lines => format!("it said: {}", lines[lines.len().saturating_sub(LINES)..].join(" / ")),
    }
}
