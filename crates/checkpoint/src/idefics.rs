//! What the configuration of Idefics3 or SmolVLM says about its image encoder and its language model.

use serde_json::{Map, Value};

use crate::EncoderKind;

/// Whether a configuration is of one of the two.
pub fn is_idefics(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "idefics3" || kind == "smolvlm")
}

/// The image encoder's fields with the defaults of its class.
///
/// # Errors
/// In words: an entry that is no object.
pub fn idefics_vision(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    match config.get("vision_config") {
        None | Some(Value::Null) => Ok(EncoderKind::Idefics3.fields(&Map::new())),
        Some(Value::Object(fields)) => Ok(EncoderKind::Idefics3.fields(fields)),
        Some(_) => Err("`vision_config` is not an object".to_owned()),
    }
}

/// The language model's fields: LLaMA's, unless the entry names another; without an entry, those of the class.
///
/// # Errors
/// In words: an entry that is no object.
pub fn idefics_text(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut fields = match config.get("text_config") {
        None | Some(Value::Null) => Map::from_iter([("rms_norm_eps".to_owned(), 1e-5.into())]),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => return Err("`text_config` is not an object".to_owned()),
    };
    fields.entry("model_type").or_insert_with(|| "llama".into());
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_model_without_an_entry_is_llama() {
        assert_eq!(idefics_text(&Map::new()).unwrap()["model_type"], "llama");
        assert!(idefics_vision(&Map::from_iter([("vision_config".to_owned(), 3.into())])).is_err());
    }
}
