//! The matrices of models that read images as tiles: an image encoder, one linear (Idefics3 and SmolVLM) or two (InternVL) on squares of patches, a decoder.

use serde_json::{Map, Value};

use super::{Outline, Sizes};
use crate::{TileSizes, is_internvl, tiled_text, tiled_vision};

impl Outline {
    /// Everything of a configuration.
    pub(super) fn tiled(&mut self, config: &Map<String, Value>, problems: &mut Vec<String>) {
        let width = tiled_vision(config).map(|(kind, fields)| self.encoder(kind, kind.path(), &fields, problems));
        let text = tiled_text(config);
        problems.extend(width.as_ref().err().into_iter().chain(text.as_ref().err()).cloned());
        let (Ok(width), Ok(fields)) = (width, text) else { return };
        let mut text = Sizes { part: "text_config", fields: Some(&fields), problems: Vec::new() };
        let words = self.language(&mut text);
        problems.append(&mut text.problems);
        match TileSizes::of(config) {
            Ok(tile) => {
                let inputs = width.saturating_mul(tile.scale).saturating_mul(tile.scale);
                if is_internvl(config) {
                    self.linear("multi_modal_projector.linear_1".to_owned(), words, inputs);
                    self.linear("multi_modal_projector.linear_2".to_owned(), words, words);
                } else {
                    self.linear("connector.modality_projection.proj".to_owned(), words, inputs);
                }
            }
            // A size that is bad by itself has been named.
            Err(problem) if problems.is_empty() => problems.push(problem),
            Err(_) => {}
        }
    }
}
