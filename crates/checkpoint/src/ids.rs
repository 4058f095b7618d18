//! Token ids that a folder's configurations name, against the vocabulary of its model.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    CheckpointError, decoder_fields, export::CONFIG, is_idefics, is_internvl, is_llava, is_qwen_vl, json, qwen_text,
    read_config,
};

/// File name of the generation settings.
pub const GENERATION: &str = "generation_config.json";
/// Sizes of vocabularies where a configuration says none, by `model_type`; an entry without one is OPT's, in LLaVA LLaMA's.
const DEFAULT_ROWS: [(&str, usize); 3] = [("t5", 32_128), ("llama", 32_000), ("opt", 50_272)];
/// The Q-Former's.
const QFORMER_ROWS: usize = 30_522;

/// Tokens that a part of the model has embeddings for: `text_config` or `qformer_config`. `None` where the configuration says nothing usable.
pub fn rows(config: &Map<String, Value>, part: &str) -> Option<usize> {
    if part == "text_config" && is_qwen_vl(config) {
        return qwen_text(config).get("vocab_size")?.as_u64().and_then(|size| usize::try_from(size).ok());
    }
    let fields = config.get(part).and_then(Value::as_object);
    let written = fields.and_then(|fields| fields.get("vocab_size"));
    match written {
        Some(size) => size.as_u64().and_then(|size| usize::try_from(size).ok()),
        None if part == "qformer_config" => Some(QFORMER_ROWS),
        None => {
            let of_class = match () {
                () if is_llava(config) || is_idefics(config) => "llama",
                () if is_internvl(config) => "qwen2",
                () => "opt",
            };
            let kind = fields.and_then(|fields| fields.get("model_type")).map_or(Some(of_class), Value::as_str)?;
            let of_kind = || decoder_fields(kind, &Map::new()).get("vocab_size")?.as_u64().map(|size| size as usize);
            DEFAULT_ROWS.iter().find_map(|(name, rows)| (*name == kind).then_some(*rows)).or_else(of_kind)
        }
    }
}

/// Refuses token ids that the model's vocabulary does not have: what ends an answer, what a T5 decoder starts from, what stands for an
/// image. A padding token beyond the vocabulary is none, as in published LLaMA folders; filled-up positions are never seen.
///
/// # Errors
/// Names the first such id with its file and field; a configuration that cannot be read.
pub fn check_ids(folder: &Path) -> Result<(), CheckpointError> {
    let config = read_config(folder)?;
    let generation = json::optional(&folder.join(GENERATION))?.unwrap_or_default();
    match wrong_ids(&config, &generation).into_iter().next() {
        None => Ok(()),
        Some((file, reason)) => Err(CheckpointError::file(folder.join(file), reason)),
    }
}

/// Token ids beyond the vocabulary: the file, and what is wrong, in words.
pub(crate) fn wrong_ids(config: &Map<String, Value>, generation: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let classes = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let writes = classes != Some("Blip2ForImageTextRetrieval");
    let Some(rows) = rows(config, "text_config").filter(|_| writes) else { return Vec::new() };
    let none = Map::new();
    // Older folders of Qwen-VL have its fields at the top.
    let text = match config.get("text_config").and_then(Value::as_object) {
        Some(text) => text,
        None if is_qwen_vl(config) => config,
        None => &none,
    };
    let mut found = Vec::new();
    let mut look = |file: &'static str, part: &str, field: &str, value: &Value| {
        let ids = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        if let Some(bad) = ids.iter().find(|id| id.as_u64().is_none_or(|id| id >= rows as u64)) {
            let last = rows.saturating_sub(1);
            found.push((file, format!("`{part}{field}` is {bad}; token ids of this model are 0 to {last}")));
        }
    };
    let is_t5 = text.get("model_type").is_some_and(|kind| kind == "t5");
    for field in ["eos_token_id", "decoder_start_token_id"] {
        if field == "decoder_start_token_id" && !is_t5 {
            continue;
        }
        let given = |fields: &Map<String, Value>| fields.get(field).filter(|value| !value.is_null()).cloned();
        // The first that is written counts.
        match (given(generation), given(text)) {
            (Some(value), _) => look(GENERATION, "", field, &value),
            (None, Some(value)) => look(CONFIG, "text_config.", field, &value),
            (None, None) => {}
        }
    }
    for field in ["image_token_index", "image_token_id"] {
        if let Some(value) = config.get(field).filter(|value| !value.is_null()) {
            look(CONFIG, "", field, value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(config: &Value, generation: &Value) -> Vec<String> {
        let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
        wrong_ids(&object(config), &object(generation))
            .into_iter()
            .map(|(file, what)| format!("{file}: {what}"))
            .collect()
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_named() {
        let t5 =
            json!({"text_config": {"model_type": "t5", "vocab_size": 40, "eos_token_id": 90}, "image_token_index": 39});
        assert_eq!(wrong(&t5, &json!({"eos_token_id": [1, 39]})), Vec::<String>::new());
        assert_eq!(
            wrong(&t5, &json!({"decoder_start_token_id": -1})),
            [
                "config.json: `text_config.eos_token_id` is 90; token ids of this model are 0 to 39",
                "generation_config.json: `decoder_start_token_id` is -1; token ids of this model are 0 to 39",
            ]
        );
        // A decoder-only model starts from the prompt; a matching model writes nothing; a pad of -1 is none.
        let llama = json!({"text_config": {"model_type": "llama", "pad_token_id": -1}, "image_token_id": 32_000});
        let beyond = "config.json: `image_token_id` is 32000; token ids of this model are 0 to 31999";
        assert_eq!(wrong(&llama, &json!({"decoder_start_token_id": -1})), [beyond]);
        let matching = json!({"architectures": ["Blip2ForImageTextRetrieval"], "image_token_id": 999_999});
        assert_eq!(wrong(&matching, &json!({})), Vec::<String>::new());
    }
}
