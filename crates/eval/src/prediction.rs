//! Predictions: what a model said about each item, stored as JSON lines.

use ressa_experiment::Task;
use serde::{Deserialize, Serialize};

use crate::{
    EvalError,
    score::{ScoreOptions, item_points},
};

/// What an evaluation did for an item beyond asking it once; every part is empty where nothing was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Aided {
    /// Captions that were read before the prompt, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retrieved: Vec<String>,
    /// Copies of the question, each with its answer. The prediction is what most of them say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyAnswer>,
}

/// A copy of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyAnswer {
    /// The prompt, its words masked or filled in.
    pub prompt: String,
    /// What the model said.
    pub prediction: String,
    /// Whether the model filled every masked word; absent where it was not asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<bool>,
}

/// What a model said about one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Prediction {
    /// An answer to a question.
    Answer {
        /// The item.
        id: String,
        /// The question.
        prompt: String,
        /// What the model said.
        prediction: String,
        /// Answers of all annotators.
        answers: Vec<String>,
        /// Kind of question.
        template: Option<String>,
        /// What was done beyond asking once.
        #[serde(flatten)]
        aided: Aided,
    },
    /// A caption.
    Caption {
        /// The item.
        id: String,
        /// The instruction.
        prompt: String,
        /// What the model said.
        prediction: String,
        /// Captions written by people.
        references: Vec<String>,
        /// Part of the benchmark, such as `in-domain`.
        set: Option<String>,
        /// What was done beyond asking once.
        #[serde(flatten)]
        aided: Aided,
    },
    /// A choice among options: what the model wrote, and how likely it finds each option.
    Choice {
        /// The item. Of a question under all rotations of its options, what stands before the last `-` is the question.
        id: String,
        /// The prompt that asks for a letter.
        prompt: String,
        /// What the model said.
        prediction: String,
        /// The options, `A` first.
        options: Vec<String>,
        /// Index of the right one.
        answer: usize,
        /// Natural logarithm of the probability of each option's text behind the question, summed over its tokens; empty where it was not
        /// asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log_likelihoods: Vec<f64>,
        /// Tokens of each option's text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tokens: Vec<u32>,
        /// Kinds of question that it belongs to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// What was done beyond asking once.
        #[serde(flatten)]
        aided: Aided,
    },
    /// A window of a text.
    Window {
        /// Its number, counted from 0.
        id: String,
        /// Tokens that are predicted, each from all before it in the window.
        tokens: u32,
        /// Mean negative logarithm of their probabilities, in nats.
        nll: f64,
    },
    /// One search of retrieval.
    Rank {
        /// The item searched with: a caption's id, or `image-` and the image's index.
        id: String,
        /// What was searched with what.
        direction: Direction,
        /// Index of the image that is searched with or for.
        image: usize,
        /// Place of the (best) right match, counted from 1.
        rank: usize,
    },
}

/// What is searched with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Texts are ranked for an image (text recall).
    ImageToText,
    /// Images are ranked for a text (image recall).
    TextToImage,
}

impl Prediction {
    /// The item it is about.
    pub fn id(&self) -> &str {
        match self {
            Prediction::Answer { id, .. }
            | Prediction::Caption { id, .. }
            | Prediction::Choice { id, .. }
            | Prediction::Window { id, .. }
            | Prediction::Rank { id, .. } => id,
        }
    }

    /// What was done beyond asking once; `None` for kinds of prediction that nothing is done for.
    pub fn aided(&self) -> Option<&Aided> {
        match self {
            Prediction::Answer { aided, .. } | Prediction::Caption { aided, .. } | Prediction::Choice { aided, .. } => {
                Some(aided)
            }
            Prediction::Window { .. } | Prediction::Rank { .. } => None,
        }
    }

    /// The same, to be written to.
    pub(crate) fn aided_mut(&mut self) -> Option<&mut Aided> {
        match self {
            Prediction::Answer { aided, .. } | Prediction::Caption { aided, .. } | Prediction::Choice { aided, .. } => {
                Some(aided)
            }
            Prediction::Window { .. } | Prediction::Rank { .. } => None,
        }
    }
}

/// One line of the stored file: the prediction and what it contributes, so that people can read the file alone.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    prediction: &'a Prediction,
    points: f64,
}

/// One JSON object per line, each with the points that the item contributes to its task's score, in the score's unit.
///
/// # Errors
/// [`EvalError::WrongKind`] for predictions of another task.
pub fn to_json_lines(task: Task, predictions: &[Prediction], options: &ScoreOptions) -> Result<String, EvalError> {
    let points = item_points(task, predictions, options)?;
    let mut text = String::new();
    for (index, (prediction, points)) in predictions.iter().zip(points).enumerate() {
        let line = serde_json::to_string(&Line { prediction, points })
            .map_err(|e| EvalError::Line { line: index + 1, reason: e.to_string() })?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Reads what [`to_json_lines`] wrote; the points are left out, as scoring computes them again.
///
/// # Errors
/// [`EvalError::Line`] with the number of the first line that is not a prediction.
pub fn from_json_lines(text: &str) -> Result<Vec<Prediction>, EvalError> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|e| EvalError::Line { line: index + 1, reason: e.to_string() })
        })
        .collect()
}
