//! The matrices of InternVL: an image encoder, two linears on squares of patches, a decoder.

use serde_json::{Map, Value};

use super::{Outline, Sizes};
use crate::{EncoderKind, TileSizes, internvl_text, internvl_vision};

impl Outline {
    /// Everything of a configuration.
    pub(super) fn internvl(&mut self, config: &Map<String, Value>, problems: &mut Vec<String>) {
        let kind = EncoderKind::InternVl;
        let width = internvl_vision(config).map(|fields| self.encoder(kind, kind.path(), &fields, problems));
        let text = internvl_text(config);
        problems.extend(width.as_ref().err().into_iter().chain(text.as_ref().err()).cloned());
        let (Ok(width), Ok(fields)) = (width, text) else { return };
        let mut text = Sizes { part: "text_config", fields: Some(&fields), problems: Vec::new() };
        let words = self.language(&mut text);
        problems.append(&mut text.problems);
        match TileSizes::of(config) {
            Ok(tile) => {
                let inputs = width.saturating_mul(tile.scale).saturating_mul(tile.scale);
                self.linear("multi_modal_projector.linear_1".to_owned(), words, inputs);
                self.linear("multi_modal_projector.linear_2".to_owned(), words, words);
            }
            // A size that is bad by itself has been named.
            Err(problem) if problems.is_empty() => problems.push(problem),
            Err(_) => {}
        }
    }
}
