//! How to search for an answer, and where each setting comes from.
//!
//! Names, defaults and meanings are those of `GenerationConfig` and `_prepare_generated_length` in transformers 4.57.

use ressa_experiment::job::SearchOptions;
use serde_json::{Map, Value};

use crate::{
    ModelError,
    config::{GenerationConfig, TextConfig},
};

/// When a beam search leaves a row whose beams have all found an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When its best running beam, judged at its present length, is no better than the worst finished one (`false`).
    #[default]
    Heuristic,
    /// At once (`true`).
    FirstFinished,
    /// When its best running beam cannot become better at any length up to the longest (`"never"`).
    Never,
}

/// How to search for an answer. Lengths are counted per row in real tokens, so padding changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Beams; 1 is greedy.
    pub beams: usize,
    /// Exponent on the length in a finished beam's score: `sum of log-probabilities / length^penalty`.
    pub length_penalty: f64,
    /// When a row with enough finished beams is left.
    pub early_stopping: EarlyStopping,
    /// Score of a token that is already there: multiplied by this where negative, divided where positive. 1 changes nothing.
    pub repetition_penalty: f64,
    /// Whether tokens of the prompt count as there for it.
    pub penalize_prompt: bool,
    /// No end token before so many new tokens.
    pub min_new_tokens: usize,
    /// No end token before so many tokens, with those before the answer (see [`Search::max_length`]).
    pub min_length: usize,
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Most tokens with those before the answer: a T5 decoder's start token, or a decoder-only model's image positions and instruction.
    pub max_length: Option<usize>,
}

impl Default for Search {
    /// Greedy, up to 20 new tokens.
    fn default() -> Self {
        Self {
            beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            repetition_penalty: 1.0,
            penalize_prompt: true,
            min_new_tokens: 0,
            min_length: 0,
            max_new_tokens: DEFAULT_LENGTH,
            max_length: None,
        }
    }
}

/// `max_length` where nobody sets one. As such it counts new tokens only.
const DEFAULT_LENGTH: usize = 20;

/// Settings that would change a search and that are not supported, with the values that leave it alone.
const UNSUPPORTED: [(&str, Option<f64>); 17] = [
    ("bad_words_ids", None),
    ("begin_suppress_tokens", None),
    ("constraints", None),
    ("encoder_no_repeat_ngram_size", Some(0.0)),
    ("encoder_repetition_penalty", Some(1.0)),
    ("exponential_decay_length_penalty", None),
    ("force_words_ids", None),
    ("forced_bos_token_id", None),
    ("forced_eos_token_id", None),
    ("guidance_scale", Some(1.0)),
    ("no_repeat_ngram_size", Some(0.0)),
    ("num_beam_groups", Some(1.0)),
    ("penalty_alpha", Some(0.0)),
    ("prompt_lookup_num_tokens", Some(0.0)),
    ("renormalize_logits", None),
    ("sequence_bias", None),
    ("suppress_tokens", None),
];

impl Search {
    /// What is in force: the options, then `generation_config.json`, then generation settings that old folders keep in `text_config`,
    /// then the library's defaults. Sampling settings are not read. (The reference's BLIP classes search with the settings of `text_config`
    /// alone and leave `generation_config.json` unread; published folders say the same in both.)
    ///
    /// # Errors
    /// A value that no search can have, or a setting of the folder that is not supported.
    pub fn resolve(
        options: &SearchOptions,
        generation: &GenerationConfig,
        text: &TextConfig,
    ) -> Result<Self, ModelError> {
        let folder = Layers([("generation_config.json", &generation.rest), ("text_config", rest(text))]);
        folder.refuse_unsupported()?;
        let default = Self::default();
        let longest = options.max_new_tokens.map_or_else(|| folder.count("max_new_tokens"), |n| Ok(Some(n)))?;
        let (max_new_tokens, max_length) = match (longest, options.max_length) {
            (Some(new), _) => (new, None),
            (None, Some(whole)) => (usize::MAX, Some(whole)),
            // The library's own default means new tokens, as far as the model has positions; any other length is a whole one.
            (None, None) => match folder.count("max_length")?.unwrap_or(DEFAULT_LENGTH) {
                DEFAULT_LENGTH => (DEFAULT_LENGTH, text.positions()),
                whole => (usize::MAX, Some(whole)),
            },
        };
        let shortest = options.min_new_tokens.map_or_else(|| folder.count("min_new_tokens"), |n| Ok(Some(n)))?;
        let min_length = match shortest {
            Some(_) => 0,
            None => options.min_length.map_or_else(|| folder.count("min_length"), |n| Ok(Some(n)))?.unwrap_or(0),
        };
        let number = |option: Option<f64>, name| match option {
            Some(value) => Ok(Some(value)),
            None => folder.number(name),
        };
        let search = Self {
            beams: options.num_beams.map_or_else(|| folder.count("num_beams"), |n| Ok(Some(n)))?.unwrap_or(1),
            length_penalty: number(options.length_penalty, "length_penalty")?.unwrap_or(default.length_penalty),
            early_stopping: match options.early_stopping {
                Some(true) => EarlyStopping::FirstFinished,
                Some(false) => EarlyStopping::Heuristic,
                None => folder.early_stopping()?,
            },
            repetition_penalty: number(options.repetition_penalty, "repetition_penalty")?
                .unwrap_or(default.repetition_penalty),
            penalize_prompt: default.penalize_prompt,
            min_new_tokens: shortest.unwrap_or(0),
            min_length,
            max_new_tokens,
            max_length,
        };
        search.check()?;
        Ok(search)
    }

    fn check(&self) -> Result<(), ModelError> {
        /// Far beyond use; products with a batch's rows stay far from overflow.
        const MOST_BEAMS: usize = 1 << 12;
        let refuse = |text: String| Err(ModelError::Search(text));
        if !(1..=MOST_BEAMS).contains(&self.beams) {
            return refuse(format!("`num_beams` is {}; it must be between 1 and {MOST_BEAMS}", self.beams));
        }
        if self.max_new_tokens == 0 {
            return refuse("`max_new_tokens` is 0; it must be at least 1".to_owned());
        }
        if !self.length_penalty.is_finite() {
            return refuse(format!("`length_penalty` is {}; it must be a finite number", self.length_penalty));
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return refuse(format!("`repetition_penalty` is {}; it must be positive", self.repetition_penalty));
        }
        Ok(())
    }

    /// How long a row's answer may and must be, behind `before` tokens.
    pub(crate) fn limits(&self, before: usize) -> Result<Limits, ModelError> {
        let most = self.max_length.map_or(usize::MAX, |whole| whole.saturating_sub(before));
        if most == 0 {
            return Err(ModelError::Search(format!(
                "`max_length` is {} and {before} tokens stand before the answer; raise it or set `max_new_tokens`",
                self.max_length.unwrap_or_default()
            )));
        }
        let shortest = self.min_new_tokens.max(self.min_length.saturating_sub(before));
        Ok(Limits { longest: most.min(self.max_new_tokens), shortest })
    }
}

/// How many new tokens a row's answer may have at most, and how many before an end token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub longest: usize,
    pub shortest: usize,
}

/// Settings of a folder, the first that has a field decides.
struct Layers<'a>([(&'static str, &'a Map<String, Value>); 2]);

impl Layers<'_> {
    fn get(&self, name: &str) -> Option<(&'static str, &Value)> {
        self.0.iter().find_map(|(file, fields)| Some((*file, fields.get(name).filter(|value| !value.is_null())?)))
    }

    fn wrong(file: &str, name: &str, value: &Value, wanted: &str) -> ModelError {
        ModelError::Search(format!("`{name}` in `{file}` is `{value}`; it must be {wanted}"))
    }

    fn count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let Some((file, value)) = self.get(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.map(Some).ok_or_else(|| Self::wrong(file, name, value, "a whole number"))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let Some((file, value)) = self.get(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| Self::wrong(file, name, value, "a number"))
    }

    fn early_stopping(&self) -> Result<EarlyStopping, ModelError> {
        let name = "early_stopping";
        match self.get(name) {
            None | Some((_, Value::Bool(false))) => Ok(EarlyStopping::Heuristic),
            Some((_, Value::Bool(true))) => Ok(EarlyStopping::FirstFinished),
            Some((_, Value::String(text))) if text == "never" => Ok(EarlyStopping::Never),
            Some((file, value)) => Err(Self::wrong(file, name, value, "true, false or \"never\"")),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ModelError> {
        for (name, neutral) in UNSUPPORTED {
            let Some((file, value)) = self.get(name) else { continue };
            let empty = match value {
                Value::Bool(set) => !set,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                other => neutral.is_some() && other.as_f64() == neutral,
            };
            if !empty {
                let text = format!("`{name}` in `{file}` is `{value}`; searches with it are not supported");
                return Err(ModelError::Search(text));
            }
        }
        Ok(())
    }
}

/// Fields of the language model's configuration that the network does not read.
fn rest(text: &TextConfig) -> &Map<String, Value> {
    match text {
        TextConfig::T5(c) => &c.rest,
        TextConfig::Llama(c) | TextConfig::Qwen2(c) | TextConfig::Mistral(c) => &c.rest,
        TextConfig::Opt(c) => &c.rest,
    }
}
