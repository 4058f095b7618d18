//! Settings of the evaluation protocol: how a model is asked, how it searches for its answer, what retrieval compares with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How one kind of text is asked for and generated. Everything null: the embedded world's protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AskingConfig {
    /// Prompt; `{}` stands for the question. `null`: the question alone, or the benchmark's own instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What happens to a question before it is put into the prompt.
    #[serde(skip_serializing_if = "TextRule::is_verbatim")]
    pub text: TextRule,
    /// Maximum number of new tokens; `null`: 3 for answers and 32 for captions in the embedded world, 10 and 30 for published benchmarks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<u32>,
    /// New tokens before which no answer ends; `null`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<u32>,
    /// Exponent on the length in a beam's score; `null`: -1 for answers, 1 for captions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_penalty: Option<f64>,
    /// Factor against tokens that are already there; `null`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Which tokens are already there.
    #[serde(skip_serializing_if = "Repetition::is_default")]
    pub repetition_over: Repetition,
}

impl AskingConfig {
    /// Whether nothing is set, as in the embedded world.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Tokens that a repetition penalty counts as there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repetition {
    /// Those of the prompt too, as `transformers` counts for a decoder-only model that is given token ids.
    #[default]
    PromptAndAnswer,
    /// Generated ones only: LAVIS gives such a model embeddings, which have no ids to penalise.
    Answer,
}

impl Repetition {
    /// Whether prompts count.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What LAVIS does for OK-VQA alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct OkvqaConfig {
    /// What becomes of answers before they are compared.
    pub lemmatizer: Lemmatizer,
    /// How images are brought to the model's size.
    pub crop: Crop,
}

impl OkvqaConfig {
    /// Whether OK-VQA is measured as the other question-answering tasks are.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Brings nouns and verbs of an answer to their base form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lemmatizer {
    /// Answers stay as they are.
    #[default]
    None,
    /// By rules of English inflection and lists of exceptions. LAVIS uses spaCy's `en_core_web_sm`, whose tagger sees more; see `ressa score --lemmas`
    /// for its own lemmas.
    Rules,
}

/// How an image of another shape becomes square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// As the model's processor says; those of the published folders change the shape.
    #[default]
    Processor,
    /// The shorter side is resized, and the middle of the longer one kept (LAVIS' `clip_image_eval`).
    Center,
}

/// A text processor of LAVIS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextRule {
    /// The text as the benchmark has it.
    #[default]
    Verbatim,
    /// Lower case, marks deleted, at most 50 words.
    BlipQuestion,
    /// Lower case, marks replaced by blanks, at most 50 words.
    BlipCaption,
}

impl TextRule {
    /// Whether texts stay as they are.
    pub fn is_verbatim(&self) -> bool {
        *self == TextRule::Verbatim
    }
}

/// How a text is cut for its perplexity: windows of one length that do not overlap, a shorter one at its end left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PerplexityConfig {
    /// Tokens of a window.
    pub window: u32,
    /// The first so many windows; `null`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<u32>,
}

impl PerplexityConfig {
    /// Whether nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for PerplexityConfig {
    /// The published windows.
    fn default() -> Self {
        Self { window: 2048, windows: None }
    }
}

/// How retrieval compares. Without a checkpoint, the model's own contrastive head does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RetrievalConfig {
    /// Folder of a BLIP-2 image-text matching model; the run's vision tower replaces its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Best contrastive matches that the matching head looks at again.
    pub rerank: u32,
    /// Tokens that texts are cut and padded to.
    pub text_tokens: u32,
}

impl RetrievalConfig {
    /// Whether nothing is set, as in the embedded world.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for RetrievalConfig {
    /// The paper's numbers.
    fn default() -> Self {
        Self { checkpoint: None, rerank: 128, text_tokens: 35 }
    }
}
