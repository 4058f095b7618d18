//! What the configuration of InternVL says about its image encoder, its language model, and how many patches become a feature.

use serde_json::{Map, Value};

use crate::EncoderKind;

/// Whether a configuration is of one.
pub fn is_internvl(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "internvl")
}

/// The image encoder's fields with the defaults of its class.
///
/// # Errors
/// In words: an entry that is no object; what the encoder of 300 million parameters does not have.
pub fn internvl_vision(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let fields = match config.get("vision_config") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => return Err("`vision_config` is not an object".to_owned()),
    };
    let is_set = |name: &str, class: bool| fields.get(name).and_then(Value::as_bool).unwrap_or(class);
    let refused = [
        (is_set("use_qk_norm", false), "use_qk_norm", "norms of queries and keys are not supported"),
        (
            fields.get("norm_type").is_some_and(|kind| kind != "layer_norm"),
            "norm_type",
            "norms other than `layer_norm` are not supported",
        ),
        (
            !is_set("use_absolute_position_embeddings", true),
            "use_absolute_position_embeddings",
            "patches without positions are not supported",
        ),
        (!is_set("use_mean_pooling", true), "use_mean_pooling", "a norm behind the last block is not supported"),
    ];
    if let Some((_, name, what)) = refused.into_iter().find(|(found, ..)| *found) {
        return Err(format!("`vision_config.{name}`: {what}"));
    }
    Ok(EncoderKind::InternVl.fields(&fields))
}

/// The language model's fields: Qwen2's, unless the entry names another.
///
/// # Errors
/// In words: an entry that is no object.
pub fn internvl_text(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut fields = match config.get("text_config") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => return Err("`text_config` is not an object".to_owned()),
    };
    fields.entry("model_type").or_insert_with(|| "qwen2".into());
    Ok(fields)
}

/// Patches along a side that become one feature: `downsample_ratio` says the share of a side that is left.
///
/// # Errors
/// In words: a share that is not one over a power of two, which are those that the reference computes.
pub fn internvl_scale(config: &Map<String, Value>) -> Result<usize, String> {
    let written = config.get("downsample_ratio").filter(|value| !value.is_null());
    let ratio = written.map_or(Some(0.5), Value::as_f64);
    (0..=6).map(|power| 1usize << power).find(|scale| ratio == Some(1.0 / *scale as f64)).ok_or_else(|| {
        let written = written.unwrap_or(&Value::Null);
        format!("`downsample_ratio` is {written}; it must be one over a power of two up to 64, such as 0.5")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sides_are_numbers_and_what_is_not_supported_is_named() {
        let vision = |fields: Value| internvl_vision(&Map::from_iter([("vision_config".to_owned(), fields)]));
        let found = vision(json!({"image_size": [28, 28], "patch_size": [7, 7]})).expect("sizes");
        assert_eq!((&found["image_size"], &found["patch_size"]), (&json!(28), &json!(7)));
        assert_eq!(vision(json!({"image_size": [28, 14]})).expect("a list")["image_size"], json!([28, 14]));
        for (name, value) in [
            ("use_qk_norm", json!(true)),
            ("norm_type", json!("rms_norm")),
            ("use_absolute_position_embeddings", json!(false)),
            ("use_mean_pooling", json!(false)),
        ] {
            let error = vision(Value::Object(Map::from_iter([(name.to_owned(), value)]))).unwrap_err();
            assert!(error.contains(&format!("`vision_config.{name}`")), "{error}");
        }
        assert_eq!(internvl_text(&Map::new()).unwrap()["model_type"], "qwen2");
        assert!(internvl_text(&Map::from_iter([("text_config".to_owned(), json!([]))])).is_err());
    }
}
