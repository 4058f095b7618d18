//! The base of LLaMA's rotary frequencies, which two generations of configurations keep in two places.

use serde_json::{Map, Value};

/// Where neither place says it.
const DEFAULT: f64 = 10_000.0;

/// The base of the rotary frequencies of a LLaMA configuration: `rope_theta`, or `rope_parameters.rope_theta` of newer folders, also written
/// as `rope_scaling.rope_theta`. Where several are written they must agree: transformers 4 reads the first, transformers 5 the others.
///
/// # Errors
/// In words: values that differ, a value that is no positive number, frequencies that are scaled or differ between layers.
pub fn rope_theta(fields: &Map<String, Value>) -> Result<f64, String> {
    let mut known: Option<(String, f64)> = None;
    let mut take = |place: String, value: &Value| {
        let theta = value.as_f64().filter(|theta| theta.is_finite() && *theta > 0.0);
        let theta = theta.ok_or_else(|| format!("`{place}` is {value}; it must be a positive number"))?;
        match &known {
            Some((first, other)) if *other != theta => Err(format!(
                "`{first}` is {other} and `{place}` is {theta}: transformers 4 reads one and transformers 5 the other; remove the one \
                 that is wrong"
            )),
            Some(_) => Ok(()),
            None => {
                known = Some((place, theta));
                Ok(())
            }
        }
    };
    let written =
        |fields: &'_ Map<String, Value>, name: &str| fields.get(name).filter(|value| !value.is_null()).cloned();
    if let Some(value) = written(fields, "rope_theta") {
        take("text_config.rope_theta".to_owned(), &value)?;
    }
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(settings) = written(fields, name) else { continue };
        let Some(settings) = settings.as_object() else {
            return Err(format!("`text_config.{name}` is {settings}; it must be an object"));
        };
        let kind = written(settings, "rope_type").or_else(|| written(settings, "type"));
        // Dynamic scaling begins behind `max_position_embeddings`; up to there frequencies are the default ones.
        if kind.is_some_and(|kind| kind != "default" && kind != "dynamic") || settings.values().any(Value::is_object) {
            return Err(format!("scaled rotary positions (`{name}`) are not supported"));
        }
        if written(settings, "partial_rotary_factor").is_some_and(|share| share.as_f64() != Some(1.0)) {
            return Err(format!(
                "rotary positions of part of a head (`{name}.partial_rotary_factor`) are not supported"
            ));
        }
        if let Some(value) = written(settings, "rope_theta") {
            take(format!("text_config.{name}.rope_theta"), &value)?;
        }
    }
    Ok(known.map_or(DEFAULT, |(_, theta)| theta))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn theta(fields: &Value) -> Result<f64, String> {
        rope_theta(fields.as_object().unwrap())
    }

    #[test]
    fn one_theta_counts_and_two_must_agree() {
        assert_eq!(theta(&json!({})), Ok(10_000.0));
        assert_eq!(theta(&json!({"rope_theta": 5e5, "rope_scaling": null})), Ok(5e5));
        assert_eq!(theta(&json!({"rope_parameters": {"rope_type": "default", "rope_theta": 500000}})), Ok(5e5));
        assert_eq!(theta(&json!({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 500000}})), Ok(5e5));
        let differ = theta(&json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}})).unwrap_err();
        assert!(
            differ.contains("`text_config.rope_theta` is 10000 and `text_config.rope_parameters.rope_theta` is 500000"),
            "{differ}"
        );
        for refused in [
            json!({"rope_theta": -1}),
            json!({"rope_theta": "many"}),
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
            json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
            json!({"rope_parameters": 3}),
        ] {
            assert!(theta(&refused).is_err(), "{refused}");
        }
    }
}
