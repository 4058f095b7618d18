//! What the configuration of a language model leaves out: the defaults of its class, and attention to a part of the text.

use serde_json::{Map, Value, json};

/// Names of the decoders that are LLaMA's network, by `model_type`.
pub const LLAMA_LIKE: [&str; 3] = ["llama", "qwen2", "mistral"];

/// Fields of a language model of LLaMA's network with the defaults of its class, where those are not LLaMA's own.
pub fn decoder_fields(kind: &str, fields: &Map<String, Value>) -> Map<String, Value> {
    let defaults = match kind {
        "qwen2" => json!({
            "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
            "sliding_window": 4096, "max_window_layers": 28,
        }),
        "mistral" => json!({
            "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6,
            "sliding_window": 4096,
        }),
        _ => Value::Null,
    };
    let mut fields = fields.clone();
    for (name, value) in defaults.as_object().into_iter().flatten() {
        fields.entry(name.clone()).or_insert_with(|| value.clone());
    }
    fields
}

/// Refuses a decoder whose tokens see only those just before them, unless that is the whole text at its longest.
///
/// # Errors
/// In words: the setting that says so.
pub fn check_windows(kind: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let listed = fields.get("layer_types").and_then(Value::as_array);
    let slides = match kind {
        "qwen2" => {
            let asked = fields.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(false);
            asked && listed.is_none() && number("max_window_layers") < number("num_hidden_layers")
        }
        "mistral" => number("sliding_window").is_some(),
        _ => false,
    };
    let slides = slides || listed.is_some_and(|types| types.iter().any(|kind| kind == "sliding_attention"));
    let covers =
        number("sliding_window").zip(number("max_position_embeddings")).is_some_and(|(window, all)| window >= all);
    if !slides || covers {
        return Ok(());
    }
    let setting = if kind == "qwen2" { "use_sliding_window" } else { "sliding_window" };
    Err(format!(
        "`text_config.{setting}`: attention in sliding windows is not supported, unless `sliding_window` is at least \
         `max_position_embeddings`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_refused_unless_they_hold_the_whole_text() {
        let check = |kind: &str, fields: Value| {
            check_windows(kind, &decoder_fields(kind, fields.as_object().expect("an object")))
        };
        assert!(check("llama", json!({"sliding_window": 16})).is_ok(), "LLaMA has none");
        assert!(check("qwen2", json!({"sliding_window": 16})).is_ok(), "nobody asked for it");
        assert!(check("qwen2", json!({"use_sliding_window": true, "max_window_layers": 32})).is_ok());
        assert!(
            check("qwen2", json!({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 2})).is_err()
        );
        assert!(check("qwen2", json!({"layer_types": ["full_attention", "sliding_attention"]})).is_err());
        let absent = check("mistral", json!({})).expect_err("4096 of 131072");
        assert!(absent.contains("`text_config.sliding_window`"), "{absent}");
        assert!(check("mistral", json!({"sliding_window": null})).is_ok());
        assert!(check("mistral", json!({"sliding_window": 64, "max_position_embeddings": 64})).is_ok());
    }
}
