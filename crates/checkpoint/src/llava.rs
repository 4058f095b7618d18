//! What the configuration of a LLaVA or LLaVA-NeXT says about its image encoder and the positions of an image.

use serde_json::{Map, Value};

use crate::{EncoderKind, is_llava_next};

/// Sizes of the published image encoder.
const PUBLISHED: [(&str, u64); 6] = [
    ("hidden_size", 1024),
    ("image_size", 336),
    ("intermediate_size", 4096),
    ("num_attention_heads", 16),
    ("num_hidden_layers", 24),
    ("patch_size", 14),
];

/// Whether a configuration is of LLaVA-1.5's class or LLaVA-NeXT's.
pub fn is_llava(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "llava") || is_llava_next(config)
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

/// Which of the image encoder's hidden states are image features, one beside the other where they are several; negative numbers count from the
/// end.
///
/// # Errors
/// In words: an entry that names none.
pub fn feature_layers(config: &Map<String, Value>) -> Result<Vec<i64>, String> {
    const MOST: usize = 1 << 6;
    let Some(written) = config.get("vision_feature_layer").filter(|value| !value.is_null()) else {
        return Ok(vec![-2]);
    };
    let listed = written.as_array().map_or_else(|| std::slice::from_ref(written), Vec::as_slice);
    let layers = listed.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
    layers.filter(|layers| (1..=MOST).contains(&layers.len())).ok_or_else(|| {
        format!(
            "`vision_feature_layer` is {written}; it must be a whole number, or a list of between 1 and {MOST} of them"
        )
    })
}

/// Tokens of an image, in LLaVA-NeXT of a tile, in the image encoder, and those of them that are features; `None` for a configuration that [`llava_vision`] refuses
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
        let layers = |written: Value| feature_layers(&Map::from_iter([("vision_feature_layer".to_owned(), written)]));
        assert_eq!(
            [layers(Value::Null), layers(json!(3)), layers(json!([-2, 1]))],
            [Ok(vec![-2]), Ok(vec![3]), Ok(vec![-2, 1])]
        );
        assert!([json!([]), json!("last"), json!([1.5])].into_iter().all(|written| layers(written).is_err()));
    }
}
