//! What the configuration of an image encoder leaves out: the defaults of the class that its `model_type` names.

use serde_json::{Map, Value, json};

/// An image encoder of equal blocks over patches, by its class in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderKind {
    /// `CLIPVisionModel`.
    Clip,
    /// `SiglipVisionModel`.
    Siglip,
    /// `Dinov2Model`.
    Dinov2,
    /// `Idefics3VisionTransformer` and `SmolVLMVisionTransformer`, which stand in no other model.
    Idefics3,
    /// `InternVLVisionModel`, which stands in no other model either.
    InternVl,
}

/// `model_type` of each kind that a `vision_config` may name.
const KINDS: [(&str, EncoderKind); 3] = [
    ("clip_vision_model", EncoderKind::Clip),
    ("siglip_vision_model", EncoderKind::Siglip),
    ("dinov2", EncoderKind::Dinov2),
];

impl EncoderKind {
    /// The kind of a `vision_config` that any encoder may stand in; CLIP where it names none, as in the reference.
    ///
    /// # Errors
    /// In words: a `model_type` of no supported encoder.
    pub fn of(fields: &Map<String, Value>) -> Result<Self, String> {
        let Some(named) = fields.get("model_type").filter(|named| !named.is_null()) else { return Ok(Self::Clip) };
        let known = KINDS.iter().find(|(name, _)| named == name).map(|(_, kind)| *kind);
        known.ok_or_else(|| {
            let names = KINDS.map(|(name, _)| format!("`{name}`")).join(", ");
            format!("`vision_config.model_type` is {named}; supported are {names}")
        })
    }

    /// Whether a token that stands for the whole image comes before the patches.
    pub fn has_class(self) -> bool {
        matches!(self, Self::Clip | Self::Dinov2 | Self::InternVl)
    }

    /// Where its tensors are in the model that it stands in.
    pub fn path(self) -> &'static str {
        match self {
            Self::Clip | Self::Siglip => "vision_tower.vision_model",
            Self::Dinov2 | Self::InternVl => "vision_tower",
            Self::Idefics3 => "vision_model",
        }
    }

    /// Fields with the class's defaults where they are absent. DINOv2's are given under the names of the others, sides of InternVL's that are equal as one.
    pub fn fields(self, fields: &Map<String, Value>) -> Map<String, Value> {
        let mut fields = fields.clone();
        let defaults = match self {
            Self::Clip => json!({
                "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
            }),
            Self::Siglip => json!({
                "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            }),
            Self::Idefics3 => json!({
                "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
                "image_size": 224, "patch_size": 32, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            }),
            Self::InternVl => json!({
                "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                "image_size": 448, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "attention_bias": false,
            }),
            Self::Dinov2 => json!({
                "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224,
                "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "mlp_ratio": 4, "qkv_bias": true,
                "use_swiglu_ffn": false,
            }),
        };
        for (name, value) in defaults.as_object().into_iter().flatten() {
            fields.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if self == Self::InternVl {
            for name in ["image_size", "patch_size"] {
                if let Some([height, width]) = fields.get(name).and_then(Value::as_array).map(Vec::as_slice)
                    && height == width
                {
                    let side = height.clone();
                    fields.insert(name.to_owned(), side);
                }
            }
        }
        if self == Self::Dinov2 {
            fields.insert("intermediate_size".to_owned(), feed_forward(&fields).into());
        }
        fields
    }
}

/// Width of DINOv2's feed-forward layers; gated ones have two thirds of it, rounded up to a multiple of 8. 0 where a size is none.
fn feed_forward(fields: &Map<String, Value>) -> u64 {
    let number = |name: &str| fields.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let inner = (number("hidden_size") * number("mlp_ratio")) as u64;
    match fields.get("use_swiglu_ffn").and_then(Value::as_bool) {
        Some(true) => ((inner as f64 * 2.0 / 3.0) as u64).saturating_add(7) / 8 * 8,
        _ => inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_names_and_feed_forward_layers_of_dinov2_by_their_ratio() {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        assert_eq!(EncoderKind::of(&Map::new()), Ok(EncoderKind::Clip));
        assert_eq!(EncoderKind::of(&object(json!({"model_type": "siglip_vision_model"}))), Ok(EncoderKind::Siglip));
        let unknown = EncoderKind::of(&object(json!({"model_type": "sam"}))).unwrap_err();
        assert!(unknown.contains("\"sam\"") && unknown.contains("`dinov2`"), "{unknown}");
        let inner = |fields: Value| EncoderKind::Dinov2.fields(&object(fields))["intermediate_size"].as_u64();
        assert_eq!(inner(json!({})), Some(3072));
        // DINOv2-giant.
        assert_eq!(inner(json!({"hidden_size": 1536, "use_swiglu_ffn": true})), Some(4096));
        assert_eq!(inner(json!({"hidden_size": "wide"})), Some(0));
    }
}
