//! The matrices of Qwen2-VL and Qwen2.5-VL: an image encoder for images of any size, a merger of patches, a decoder.

use serde_json::{Map, Value};

use super::{Outline, Sizes};
use crate::{check_windows, mrope_sections, qwen_text};

impl Outline {
    /// Everything of a configuration, `newer` for Qwen2.5-VL.
    pub(super) fn qwen(&mut self, config: &Map<String, Value>, newer: bool, problems: &mut Vec<String>) {
        let mut vision = Sizes::of(config, "vision_config", problems);
        let [width, merged, handed] = self.qwen_vision(&mut vision, newer);
        problems.append(&mut vision.problems);
        let fields = qwen_text(config);
        let mut text = Sizes { part: "text_config", fields: Some(&fields), problems: Vec::new() };
        let heads = text.size("num_attention_heads", 1);
        let words = self.llama(&mut text);
        text.require(words.is_multiple_of(heads), || {
            format!("`text_config.hidden_size` is {words}, which `num_attention_heads` = {heads} does not divide")
        });
        if let Err(problem) =
            mrope_sections(&fields, words / heads.max(1) / 2).map(|_| ()).and(check_windows("qwen2", &fields))
        {
            text.require(false, || problem);
        }
        text.require(handed == words, || {
            let field = if newer { "out_hidden_size" } else { "hidden_size" };
            format!("`vision_config.{field}` is {handed}, and the language model's words have a width of {words}")
        });
        problems.append(&mut text.problems);
        let inner = width.saturating_mul(merged);
        self.linear("visual.merger.mlp.0".to_owned(), inner, inner);
        self.linear("visual.merger.mlp.2".to_owned(), handed, inner);
    }

    /// The image encoder: its width, the patches that are merged, the width of what the merger hands on.
    fn qwen_vision(&mut self, c: &mut Sizes<'_>, newer: bool) -> [usize; 3] {
        let width = if newer { c.size("hidden_size", 3584) } else { c.size("embed_dim", 1280) };
        let ratio = c.written("mlp_ratio").and_then(Value::as_f64).unwrap_or(4.0);
        let inner = if newer { c.size("intermediate_size", 3420) } else { (width as f64 * ratio) as usize };
        c.require((1..=super::LARGEST).contains(&inner), || {
            format!("`vision_config.mlp_ratio` is {ratio}; there would be feed-forward layers of {inner}")
        });
        c.divides(if newer { "hidden_size" } else { "embed_dim" }, width, "num_heads", 16);
        let (channels, patch) = (c.size("in_channels", 3), c.size("patch_size", 14));
        let (frames, side) = (c.size("temporal_patch_size", 2), c.size("spatial_merge_size", 2));
        for layer in 0..c.layers("depth", 32) {
            let at = format!("visual.blocks.{layer}");
            self.linear(format!("{at}.attn.qkv"), 3 * width, width);
            self.linear(format!("{at}.attn.proj"), width, width);
            let feed_forward: &[_] = if newer { &["gate_proj", "up_proj"] } else { &["fc1"] };
            for name in feed_forward {
                self.linear(format!("{at}.mlp.{name}"), inner, width);
            }
            self.linear(format!("{at}.mlp.{}", if newer { "down_proj" } else { "fc2" }), width, inner);
        }
        let patches = vec![width, channels, frames, patch, patch];
        self.others.insert("visual.patch_embed.proj.weight".to_owned(), patches);
        let handed = c.size(if newer { "out_hidden_size" } else { "hidden_size" }, 3584);
        [width, side.saturating_mul(side), handed]
    }
}
