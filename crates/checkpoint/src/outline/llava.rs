//! The matrices of LLaVA-1.5: CLIP's image encoder, two linears, a decoder.

use serde_json::{Map, Value, json};

use super::{Outline, Sizes};

impl Outline {
    /// Everything of a LLaVA configuration.
    pub(super) fn llava(&mut self, config: &Map<String, Value>, problems: &mut Vec<String>) {
        let mut vision = Sizes::of(config, "vision_config", problems);
        let image_width = self.clip(&mut vision);
        problems.append(&mut vision.problems);
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

    /// CLIP's image encoder. An entry that is absent has the sizes of the published model, absent fields those of the class.
    fn clip(&mut self, c: &mut Sizes<'_>) -> usize {
        let published = c.fields.is_none();
        let mut size =
            |field: &str, of_class: usize, of_model: usize| c.size(field, if published { of_model } else { of_class });
        let (width, inner) = (size("hidden_size", 768, 1024), size("intermediate_size", 3072, 4096));
        let (image, patch) = (size("image_size", 224, 336), size("patch_size", 32, 14));
        c.divides("hidden_size", width, "num_attention_heads", if published { 16 } else { 12 });
        c.require(patch <= image, || {
            format!("`vision_config.patch_size` is {patch}, larger than the image of {image}")
        });
        let at = "vision_tower.vision_model";
        for layer in 0..c.layers("num_hidden_layers", if published { 24 } else { 12 }) {
            let layer = format!("{at}.encoder.layers.{layer}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.linear(format!("{layer}.self_attn.{name}"), width, width);
            }
            self.linear(format!("{layer}.mlp.fc1"), inner, width);
            self.linear(format!("{layer}.mlp.fc2"), width, inner);
        }
        let side = image / patch.max(1);
        for (name, shape) in [
            ("class_embedding", vec![width]),
            ("position_embedding.weight", vec![1 + side * side, width]),
            ("patch_embedding.weight", vec![width, 3, patch, patch]),
        ] {
            self.others.insert(format!("{at}.embeddings.{name}"), shape);
        }
        width
    }
}
