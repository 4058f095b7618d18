//! What tells about one machine, taken out of what is written for others: paths of files there, and with them names of users and hosts.

use std::path::Path;

use ressa_experiment::{
    json::without_mark,
    places::{is_place, without_places},
};
use serde_json::{Map, Value};

use crate::{carry::snapshot, export::CONFIG, json};

/// Fields in which `transformers` notes where a model or tokenizer was loaded from: the hub's name of it, or a path.
const ORIGINS: [&str; 3] = ["_name_or_path", "name_or_path", "base_model_name_or_path"];
/// What a configuration says about zeros in the weights, in the form of `compressed-tensors`.
const SPARSITY: &str = "sparsity_config";
/// Where older and newer folders of `compressed-tensors` have it.
const COMPRESSION: [&str; 2] = ["quantization_config", "compression_config"];
/// A file of settings without paths of the machine and, where weights were `changed`, without claims about their zeros; `None` where it
/// stays as it is. `path` is the file's place in the folder.
pub(crate) fn settings(path: &Path, bytes: &[u8], changed: bool) -> Option<Vec<u8>> {
    let plain = without_mark(bytes);
    let unmarked = || (plain.len() != bytes.len()).then(|| plain.to_vec());
    // The vocabulary is not looked at: every text can be a token.
    if ["tokenizer.json", "vocab.json", "added_tokens.json"].iter().any(|name| path.ends_with(name)) {
        return unmarked();
    }
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(plain) else { return unmarked() };
    let mut found = forget_places(&mut fields);
    if changed && path == Path::new(CONFIG) {
        found |= forget_zeros(&mut fields);
    }
    if found { Some(json::text(&fields).into_bytes()) } else { unmarked() }
}

/// Takes out every field that names a place on this machine. Whether there was one.
fn forget_places(fields: &mut Map<String, Value>) -> bool {
    let before = fields.len();
    fields.retain(|name, value| match value.as_str() {
        _ if is_place(name) => false,
        Some(text) if ORIGINS.contains(&name.as_str()) => is_repository(text),
        Some(text) => is_free(name) || !is_place(text),
        None => true,
    });
    let mut found = fields.len() < before;
    for (name, value) in fields.iter_mut() {
        match value {
            Value::Object(inner) => found |= forget_places(inner),
            Value::Array(items) if !is_free(name) => {
                let many = items.len();
                items.retain(|item| !item.as_str().is_some_and(is_place));
                found |= items.len() < many;
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    found |= forget_places(item);
                }
            }
            Value::String(text) if !is_free(name) => {
                let without = without_places(text);
                if without != *text {
                    *text = without;
                    found = true;
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a field holds tokens or a template: texts that may look like anything.
fn is_free(name: &str) -> bool {
    name.ends_with("_token") || name.ends_with("_tokens") || ["content", "chat_template"].contains(&name)
}

/// Takes out what the configuration claims about zeros, and the whole entry where it says nothing else. Whether there was something.
pub(crate) fn forget_zeros(fields: &mut Map<String, Value>) -> bool {
    let mut found = fields.shift_remove(SPARSITY).is_some();
    for name in COMPRESSION {
        let Some(entry) = fields.get_mut(name).and_then(Value::as_object_mut) else { continue };
        if entry.shift_remove(SPARSITY).is_none() {
            continue;
        }
        found = true;
        if !is_quantizing(entry) {
            fields.shift_remove(name);
        }
    }
    found
}

/// Whether an entry `quantization_config` speaks of quantized weights. `compressed-tensors` writes one for weights that are sparse only.
pub(crate) fn is_quantizing(entry: &Map<String, Value>) -> bool {
    let method = entry.get("quant_method").and_then(Value::as_str);
    let groups = entry.get("config_groups").and_then(Value::as_object);
    match method {
        Some("compressed-tensors" | "compressed_tensors") | None => groups.is_some_and(|groups| !groups.is_empty()),
        Some(_) => true,
    }
}

/// Whether a text can be the hub's name of a repository, `OWNER/NAME`, or `NAME` of the hub's first models. A path of two relative parts
/// cannot be told from one.
pub(crate) fn is_repository(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    text.len() <= 192 && text.split('/').count() <= 2 && text.split('/').all(plain)
}

/// The hub's name of the repository that a folder is a snapshot of; none for other folders.
pub fn repository(folder: &Path) -> Option<String> {
    let folder = std::fs::canonicalize(folder).ok()?;
    let name = snapshot(&folder)?.file_name()?.to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
    is_repository(&name).then_some(name)
}

/// What a model folder is called among people: the hub's name of it, or the folder's own name without its place.
pub fn shown_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let own = || absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    repository(folder).unwrap_or_else(own)
}

/// Every text in a value, without places ([`without_places`]).
pub(crate) fn value(value: &mut Value) {
    match value {
        Value::String(found) => *found = without_places(found),
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::Object(fields) => fields.values_mut().for_each(self::value),
        _ => {}
    }
}

/// A model card without paths of the machine; `None` where it has none. A base model that is no repository of the hub is left out.
pub(crate) fn card(bytes: &[u8]) -> Option<Vec<u8>> {
    let card = std::str::from_utf8(without_mark(bytes)).ok()?;
    let mut kept = String::with_capacity(card.len());
    let mut matter = card.lines().next().map(str::trim_end) == Some("---");
    let mut of_base = false;
    for (number, line) in card.split_inclusive('\n').enumerate() {
        if number > 0 && line.trim_end() == "---" {
            matter = false;
        }
        if matter {
            let continues = line.starts_with([' ', '\t', '-']) && line.trim_end() != "---";
            let value = line.strip_prefix("base_model:");
            of_base = value.is_some() || (of_base && continues);
            let name = value.unwrap_or(line).trim().trim_start_matches("- ").trim_matches(['"', '\'', ' ']);
            if of_base && !name.is_empty() && !is_repository(name) {
                continue;
            }
        }
        kept.push_str(&without_places(line));
    }
    (kept.as_bytes() != bytes).then(|| kept.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_forget_places_and_old_zeros() {
        let config = |changed, text: &str| {
            let cleaned = settings(Path::new("config.json"), text.as_bytes(), changed)?;
            Some(serde_json::from_slice::<Value>(&cleaned).unwrap().to_string())
        };
        let place = r#"{"_name_or_path":"/data/x","a":{"tokenizer_file":"/data/x/t.json","eos_token":"/a/b"}}"#;
        assert_eq!(config(false, place).unwrap(), r#"{"a":{"eos_token":"/a/b"}}"#);
        let hidden =
            r#"{"list":["/data/bob/l",1],"/data/bob/key":1,"note":"loaded from /data/bob/zz","extra_tokens":["/x/y"]}"#;
        let shown = r#"{"list":[1],"note":"loaded from zz","extra_tokens":["/x/y"]}"#;
        assert_eq!(config(false, hidden).unwrap(), shown);
        assert_eq!(config(false, r#"{"_name_or_path":"Salesforce/blip2"}"#), None);
        assert_eq!(config(false, r#"{"sparsity_config":{},"b":1}"#), None);
        assert_eq!(config(true, r#"{"sparsity_config":{},"b":1}"#).unwrap(), r#"{"b":1}"#);
        let sparse = |groups: &str| {
            format!(
                r#"{{"quantization_config":{{"quant_method":"compressed-tensors","config_groups":{groups},"sparsity_config":{{}}}}}}"#
            )
        };
        assert_eq!(config(true, &sparse("{}")).unwrap(), "{}");
        assert!(config(true, &sparse(r#"{"group_0":{}}"#)).unwrap().contains("config_groups"));
        assert_eq!(config(true, "\u{feff}{}").unwrap(), "{}");
    }

    #[test]
    fn cards_keep_base_models_of_the_hub_only() {
        let cleaned = |text: &str| card(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(cleaned("---\nbase_model: a/b\nlicense: mit\n---\n# x\n"), None);
        assert_eq!(cleaned("---\nbase_model: \"/x/y/z\"\nlicense: mit\n---\n").unwrap(), "---\nlicense: mit\n---\n");
        let list = "---\nbase_model:\n- a/b\n- /x/y\ntags:\n- /t\n---\n";
        assert_eq!(cleaned(list).unwrap(), "---\nbase_model:\n- a/b\ntags:\n- t\n---\n");
    }
}
