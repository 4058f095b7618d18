//! The matrices of an image encoder of equal blocks over patches.

use serde_json::{Map, Value};

use super::{Outline, Sizes};
use crate::EncoderKind;

impl Outline {
    /// An encoder below `at`, from its fields with the defaults of its class. Its width.
    pub(super) fn encoder(
        &mut self,
        kind: EncoderKind,
        at: &str,
        fields: &Map<String, Value>,
        problems: &mut Vec<String>,
    ) -> usize {
        let mut c = Sizes { part: "vision_config", fields: Some(fields), problems: Vec::new() };
        let (width, inner) = (c.size("hidden_size", 1), c.size("intermediate_size", 1));
        let (image, patch) = (c.size("image_size", 1), c.size("patch_size", 1));
        c.divides("hidden_size", width, "num_attention_heads", 1);
        c.require(patch <= image, || {
            format!("`vision_config.patch_size` is {patch}, larger than the image of {image}")
        });
        let gated = kind == EncoderKind::Dinov2 && c.flag("use_swiglu_ffn", false);
        for layer in 0..c.layers("num_hidden_layers", 1) {
            let (stack, attention) = match kind {
                EncoderKind::Dinov2 => (
                    "layer",
                    [
                        "attention.attention.query",
                        "attention.attention.key",
                        "attention.attention.value",
                        "attention.output.dense",
                    ],
                ),
                EncoderKind::InternVl => (
                    "layer",
                    ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.projection_layer"],
                ),
                EncoderKind::Clip | EncoderKind::Siglip | EncoderKind::Idefics3 => {
                    ("layers", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"])
                }
            };
            let layer = format!("{at}.encoder.{stack}.{layer}");
            for name in attention {
                self.linear(format!("{layer}.{name}"), width, width);
            }
            let [first, second] = if gated { ["weights_in", "weights_out"] } else { ["fc1", "fc2"] };
            let outputs = if gated { inner.saturating_mul(2) } else { inner };
            self.linear(format!("{layer}.mlp.{first}"), outputs, width);
            self.linear(format!("{layer}.mlp.{second}"), width, inner);
        }
        let side = image / patch.max(1);
        let patches = vec![width, 3, patch, patch];
        let positions = side * side + usize::from(kind.has_class());
        let embeddings: Vec<(&str, Vec<usize>)> = match kind {
            EncoderKind::Dinov2 | EncoderKind::InternVl => vec![
                ("cls_token", vec![1, 1, width]),
                ("position_embeddings", vec![1, positions, width]),
                ("patch_embeddings.projection.weight", patches),
            ],
            EncoderKind::Clip | EncoderKind::Siglip | EncoderKind::Idefics3 => {
                vec![("position_embedding.weight", vec![positions, width]), ("patch_embedding.weight", patches)]
            }
        };
        for (name, shape) in embeddings {
            self.others.insert(format!("{at}.embeddings.{name}"), shape);
        }
        if kind == EncoderKind::Clip {
            self.others.insert(format!("{at}.embeddings.class_embedding"), vec![width]);
        }
        problems.append(&mut c.problems);
        width
    }
}
