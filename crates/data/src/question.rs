//! Questions with one right answer.

/// A question about an image (or a fact asked without one), its answer, and the template it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question, lower-case words separated by single blanks.
    pub text: String,
    /// The answer.
    pub answer: String,
    /// Kind of question, such as `color` or `where-row`; accuracies are also reported per kind.
    pub template: &'static str,
}

impl Question {
    /// A question from its three parts.
    pub fn new(text: impl Into<String>, answer: impl Into<String>, template: &'static str) -> Self {
        Self { text: text.into(), answer: answer.into(), template }
    }
}
