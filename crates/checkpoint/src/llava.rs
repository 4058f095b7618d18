//! What the configuration of a LLaVA says about its image encoder and the positions of an image.

use serde_json::{Map, Value};

use crate::EncoderKind;

/// Sizes of the published image encoder.
const PUBLISHED: [(&str, u64); 6] = [
    ("hidden_size", 1024),
    ("image_size", 336),
    ("intermediate_size", 4096),
    ("num_attention_heads", 16),
    ("num_hidden_layers", 24),
    ("patch_size", 14),
];

/// Whether a configuration is of LLaVA-1.5's class.
pub fn is_llava(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "llava")
}

/// The image encoder: its kind, and its fields with the class's defaults. A configuration without the entry has the published encoder.
///
/// # Errors
/// In words: an entry that is no object, an encoder that is not supported.
pub fn llava_vision(config: &Map<String, Value>) -> Result<(EncoderKind, Map<String, Value>), String> {
    let fields = match config.get("vision_config") {
        None | Some(Value::Null) => PUBLISHED.map(|(name, size)| (name.to_owned(), size.into())).into_iter().collect(),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => return Err("`vision_config` is not an object".to_owned()),
    };
    let kind = EncoderKind::of(&fields)?;
    let fields = kind.fields(&fields);
    Ok((kind, fields))
}

/// Whether the class token is an image feature, or, where there is none, the first patch.
pub fn keeps_first(config: &Map<String, Value>) -> bool {
    config.get("vision_feature_select_strategy").is_some_and(|strategy| strategy == "full")
}

/// Tokens of an image in the image encoder, and those of them that are features; `None` for a configuration that [`llava_vision`] refuses
/// or that has no usable sizes.
pub fn llava_tokens(config: &Map<String, Value>) -> Option<[usize; 2]> {
    let (kind, fields) = llava_vision(config).ok()?;
    let size =
        |name: &str| fields.get(name)?.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let side = size("image_size")? / size("patch_size")?;
    let tokens = side.checked_mul(side)?.checked_add(usize::from(kind.has_class()))?;
    Some([tokens, tokens - usize::from(!keeps_first(config)).min(tokens)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_follow_from_encoder_and_strategy() {
        let tokens = |config: Value| llava_tokens(config.as_object().expect("an object"));
        assert_eq!(tokens(json!({})), Some([577, 576]));
        assert_eq!(tokens(json!({"vision_config": {}})), Some([50, 49]));
        let siglip = json!({"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14});
        let full = json!({"vision_config": siglip, "vision_feature_select_strategy": "full"});
        assert_eq!(tokens(full), Some([729, 729]));
        // As in the reference, whose processor and model agree on it, although it is a patch that goes.
        assert_eq!(tokens(json!({"vision_config": siglip})), Some([729, 728]));
        assert_eq!(tokens(json!({"vision_config": {"patch_size": 0}})), None);
    }
}
