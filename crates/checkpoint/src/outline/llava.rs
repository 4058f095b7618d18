//! The matrices of LLaVA-1.5: an image encoder, two linears, a decoder.

use serde_json::{Map, Value, json};

use super::{Outline, Sizes};
use crate::llava_vision;

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
        // An entry without `model_type` is LLaMA's here.
        let mut config = config.clone();
        if let Some(text) = config.entry("text_config").or_insert_with(|| json!({})).as_object_mut() {
            text.entry("model_type").or_insert_with(|| "llama".into());
        }
        let mut text = Sizes::of(&config, "text_config", problems);
        let words = self.language(&mut text);
        problems.append(&mut text.problems);
        self.linear("multi_modal_projector.linear_1".to_owned(), words, image_width);
        self.linear("multi_modal_projector.linear_2".to_owned(), words, words);
    }
}
