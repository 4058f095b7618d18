//! Where Qwen2-VL and Qwen2.5-VL keep the settings of their language model, and what those say about positions.

use serde_json::{Map, Value, json};

/// Whether a configuration is of one of the two.
pub fn is_qwen_vl(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "qwen2_vl" || kind == "qwen2_5_vl")
}

/// The language model's fields with its class's defaults: those of `text_config`, or, in folders of 2024, those beside it.
///
/// The positions of images, which older folders call a scaling, are not one: their type is written as the plain one.
pub fn qwen_text(config: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = match config.get("text_config") {
        Some(Value::Object(fields)) => fields.clone(),
        _ => {
            let own = |name: &str| !["vision_config", "text_config", "model_type"].contains(&name);
            config.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
    };
    let defaults = json!({
        "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-5, "max_window_layers": 80,
    });
    for (name, value) in defaults.as_object().into_iter().flatten() {
        fields.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let written = |place: Option<&Value>| place.and_then(|place| place.get("rope_theta")).is_some();
    if !written(fields.get("rope_parameters")) && !written(fields.get("rope_scaling")) {
        fields.entry("rope_theta").or_insert_with(|| json!(1e6));
    }
    for place in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(settings)) = fields.get_mut(place) else { continue };
        for name in ["type", "rope_type"] {
            if settings.get(name).is_some_and(|kind| kind == "mrope") {
                settings.insert(name.to_owned(), json!("default"));
            }
        }
    }
    fields
}

/// How many of the `frequencies` of a head turn with frames, rows and columns: `mrope_section`.
///
/// # Errors
/// In words: the setting is missing, or is not three numbers whose sum is that of the frequencies.
pub fn mrope_sections(fields: &Map<String, Value>, frequencies: usize) -> Result<[i64; 3], String> {
    let found = ["rope_scaling", "rope_parameters"].iter().find_map(|place| {
        let sections = fields.get(*place)?.get("mrope_section").filter(|sections| !sections.is_null())?;
        Some((place, sections))
    });
    let Some((place, written)) = found else {
        return Err(
            "`text_config.rope_scaling.mrope_section` is missing: nothing says how positions of images turn".to_owned()
        );
    };
    let numbers: Option<Vec<i64>> = written.as_array().map(|all| all.iter().filter_map(Value::as_i64).collect());
    let three: Option<[i64; 3]> = numbers.and_then(|numbers| numbers.try_into().ok());
    let fits = |sections: &[i64; 3]| {
        let sum = sections.iter().try_fold(0i64, |sum, &section| sum.checked_add(section));
        sections.iter().all(|&section| section >= 0) && sum.is_some_and(|sum| usize::try_from(sum) == Ok(frequencies))
    };
    three.filter(fits).ok_or_else(|| {
        format!(
            "`text_config.{place}.mrope_section` is {written}; it must be three numbers whose sum is {frequencies}, the frequencies of a \
             head"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_give_the_same_fields_and_sections_must_fit() {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let rope = json!({"type": "mrope", "mrope_section": [2, 3, 3]});
        let older =
            object(json!({"model_type": "qwen2_vl", "hidden_size": 64, "rope_scaling": rope, "vision_config": {}}));
        let newer = object(json!({"model_type": "qwen2_vl", "text_config": {"hidden_size": 64, "rope_scaling": rope}}));
        let (older, newer) = (qwen_text(&older), qwen_text(&newer));
        assert_eq!(older, newer);
        assert_eq!((older["num_hidden_layers"].as_i64(), older["rope_theta"].as_f64()), (Some(80), Some(1e6)));
        assert_eq!(crate::rope_theta(&older), Ok(1e6));
        assert_eq!(mrope_sections(&older, 8), Ok([2, 3, 3]));
        assert!(mrope_sections(&older, 9).unwrap_err().contains("[2,3,3]"));
        for refused in [json!(null), json!({"mrope_section": [8]}), json!({"mrope_section": [-1, 4, 5]}), json!({})] {
            assert!(mrope_sections(&object(json!({"rope_scaling": refused})), 8).is_err());
        }
        let newest = object(json!({"rope_parameters": {"mrope_section": [8, 0, 0], "rope_theta": 5e3}}));
        assert_eq!((crate::rope_theta(&qwen_text(&newest)), mrope_sections(&newest, 8)), (Ok(5e3), Ok([8, 0, 0])));
    }
}
