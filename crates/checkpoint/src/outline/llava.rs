//! The matrices of LLaVA-1.5 and LLaVA-NeXT: an image encoder, two linears, a decoder.

use serde_json::{Map, Value, json};

use super::{Outline, Sizes};
use crate::{Pinpoints, feature_layers, is_llava_next, llava_vision};

impl Outline {
    /// Everything of a LLaVA configuration.
    pub(super) fn llava(&mut self, config: &Map<String, Value>, problems: &mut Vec<String>) {
        let image_width = match llava_vision(config) {
            Ok((kind, fields)) => self.encoder(kind, kind.path(), &fields, problems),
            Err(problem) => {
                problems.push(problem);
                1
            }
        };
        let states = feature_layers(config).map_err(|problem| problems.push(problem)).map_or(1, |layers| layers.len());
        // An entry without `model_type` is LLaMA's here.
        let mut parts = config.clone();
        if let Some(text) = parts.entry("text_config").or_insert_with(|| json!({})).as_object_mut() {
            text.entry("model_type").or_insert_with(|| "llama".into());
        }
        let mut text = Sizes::of(&parts, "text_config", problems);
        let words = self.language(&mut text);
        problems.append(&mut text.problems);
        self.linear("multi_modal_projector.linear_1".to_owned(), words, image_width.saturating_mul(states));
        self.linear("multi_modal_projector.linear_2".to_owned(), words, words);
        if is_llava_next(config) {
            self.others.insert("image_newline".to_owned(), vec![words]);
            match Pinpoints::of(config) {
                // A size that is bad by itself has been named.
                Err(problem) if problems.is_empty() => problems.push(problem),
                _ => {}
            }
        }
    }
}
