//! Language models in folders of their own, with nothing beside them that sees: what perplexities are taken of.

use std::path::Path;

use ressa_checkpoint::{LLAMA_LIKE, json};
use serde_json::Value;

use crate::{
    AnswerBatch, Forced, LoadOptions, ModelError, Scope, TextBatch, Weights,
    config::{SpecialTokens, TextConfig},
    folder::CONFIG,
    language::{self, LanguageModel},
};

/// A decoder-only language model.
pub struct TextModel {
    language: Box<dyn LanguageModel>,
    positions: usize,
}

impl TextModel {
    /// Whether a folder holds a language model alone, by `model_type`.
    ///
    /// # Errors
    /// A configuration that cannot be read.
    pub fn is_in(folder: &Path) -> Result<bool, ModelError> {
        let config: Value = json::read(&folder.join(CONFIG), json::CONFIG_LIMIT)?;
        let kind = config.get("model_type").and_then(Value::as_str);
        Ok(kind.is_some_and(|kind| kind == "opt" || LLAMA_LIKE.contains(&kind)))
    }

    /// Loads a folder of LLaMA, one of its relatives, or OPT. Every tensor must be there, finite, of the configured shape, and every tensor must have a place.
    ///
    /// # Errors
    /// What is wrong with the configuration or the weights.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let path = folder.join(CONFIG);
        let config: TextConfig = json::read(&path, json::CONFIG_LIMIT)?;
        match config.check() {
            // All of the file is the language model's.
            Err(ModelError::Config(reason)) => {
                return Err(ModelError::file(path, reason.replace("`text_config.", "`")));
            }
            other => other?,
        }
        let positions = config.positions().ok_or_else(|| {
            ModelError::file(path, "what T5 is given, an encoder reads; a text needs a decoder-only model")
        })?;
        let mut weights = Weights::open(folder, options)?;
        let scope = Scope::root(&mut weights, options.kind(), options.rounding);
        let language = language::load(&scope, &config)?;
        drop(scope);
        weights.finish()?;
        Ok(Self { language, positions })
    }

    /// Positions that it has for a text.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Teacher-forced logits, as [`crate::Infer::force`] without an image. What ends an answer is of no account.
    pub fn force(&self, prompt: &TextBatch, answers: &[Vec<u32>]) -> Forced {
        let special = SpecialTokens { eos: vec![0], pad: 0, decoder_start: 0 };
        self.language.force(None, prompt, &AnswerBatch::whole(answers), &special, None)
    }
}
