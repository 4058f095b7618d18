//! The perplexity of a text from that of its windows.

use std::collections::BTreeMap;

use ressa_experiment::{
    Task,
    record::{Score, TaskScore},
};

use super::average;
use crate::{EvalError, Prediction, metrics::statistics};

/// Mean negative log-likelihood of each window's tokens.
///
/// # Errors
/// Predictions of another task, windows of different lengths, numbers that no likelihood gives.
pub(super) fn points(predictions: &[Prediction]) -> Result<Vec<f64>, EvalError> {
    let mut length = None;
    let mut of = |item: &Prediction| {
        let Prediction::Window { id, tokens, nll } = item else {
            return Err(EvalError::WrongKind { task: Task::Perplexity, id: item.id().to_owned() });
        };
        let wrong = |reason: String| Err(EvalError::Unfit { id: id.clone(), reason });
        let first = *length.get_or_insert(*tokens);
        if first != *tokens || *tokens == 0 {
            return wrong(format!("its window predicts {tokens} tokens, and the first window {first}"));
        }
        if !nll.is_finite() || *nll < 0.0 {
            return wrong(format!("{nll} is no mean negative log-likelihood"));
        }
        Ok(*nll)
    };
    predictions.iter().map(&mut of).collect()
}

/// The exponential of the mean; its standard error is that of the mean times itself.
pub(super) fn score(predictions: &[Prediction]) -> Result<TaskScore, EvalError> {
    let points = points(predictions)?;
    let (mean, error) = statistics::mean_and_error(&points);
    let value = mean.exp();
    let items = points.len() as u64;
    let score = Score { metric: "perplexity".to_owned(), value, standard_error: error * value, items };
    let parts = BTreeMap::from([("nll".to_owned(), average("nll", &points))]);
    Ok(TaskScore { task: Task::Perplexity, score: Some(score), parts })
}
