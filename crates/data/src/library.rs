//! The tokenizer library, which panics on files that it should refuse: those are recognised before it sees them, and what it gives up on all
//! the same is an error of the file.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::Tokenizer;

/// Reads a `tokenizer.json`. In words what is wrong with it.
///
/// The library's reader of decoders panics on text that is no JSON, its templates on special tokens that are not listed.
pub(crate) fn read(bytes: &[u8]) -> Result<Tokenizer, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    check_templates(value.get("post_processor").unwrap_or(&Value::Null))?;
    guarded(|| Tokenizer::from_bytes(bytes))
}

/// What the library answers, a panic of its own among its errors.
pub(crate) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer library cannot use it".to_owned()),
    }
}

/// Sees that templates name sequences that are there and special tokens that they list.
fn check_templates(processor: &Value) -> Result<(), String> {
    for inner in processor.get("processors").and_then(Value::as_array).into_iter().flatten() {
        check_templates(inner)?;
    }
    if processor.get("type").and_then(Value::as_str) != Some("TemplateProcessing") {
        return Ok(());
    }
    let listed = processor.get("special_tokens").and_then(Value::as_object);
    for form in ["single", "pair"] {
        for piece in processor.get(form).and_then(Value::as_array).into_iter().flatten() {
            let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
            if let Some(token) = id("SpecialToken").filter(|token| !listed.is_some_and(|l| l.contains_key(*token))) {
                return Err(format!(
                    "`post_processor.{form}` names the special token {token:?}, which it does not list"
                ));
            }
            if id("Sequence").is_some_and(|sequence| form == "single" && sequence != "A") {
                return Err("`post_processor.single` names a second sequence".to_owned());
            }
        }
    }
    Ok(())
}
