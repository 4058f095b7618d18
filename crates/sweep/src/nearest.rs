//! Why a stage is not cached: the published stage that comes closest, and where the two differ.

use ressa_experiment::{StageKey, StageNode};
use ressa_store::{MANIFEST, Manifest, Store, is_key};
use serde::Serialize;
use serde_json::Value;

/// The closest published stage of the same kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nearest {
    /// Its key.
    pub key: StageKey,
    /// Where it differs from the stage that was asked about; the first is the best hint.
    pub differences: Vec<Difference>,
}

/// One differing field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Path of the field, such as `calibration.images` or `inputs.masks.0`.
    pub field: String,
    /// Its value in the store.
    pub stored: String,
    /// Its value now.
    pub wanted: String,
}

/// The published stage of the same kind with the fewest differing fields, among those the one that has most of the same fields. Own settings
/// count before inputs: an input that differs is itself explained by its own stage.
pub fn nearest(store: &Store, node: &StageNode) -> Option<Nearest> {
    let wanted = identity(
        node.stage.version(),
        serde_json::to_value(node.stage.by_content(&node.readings)).ok()?,
        serde_json::to_value(&*node.inputs).ok()?,
    );
    manifests(store)
        .filter(|manifest| manifest.kind == node.stage.kind())
        .filter_map(|manifest| {
            let key = manifest.key.parse().ok().filter(|key| *key != node.key)?;
            let stored = identity(manifest.version, manifest.configuration, manifest.inputs);
            let mut differences = Vec::new();
            compare("", &stored, &wanted, &mut differences);
            Some(Nearest { key, differences })
        })
        .min_by(|a, b| a.rank().cmp(&b.rank()))
}

impl Nearest {
    fn rank(&self) -> (usize, usize, &StageKey) {
        let absent =
            |difference: &&Difference| [&difference.stored, &difference.wanted].iter().any(|&side| side == ABSENT);
        (self.differences.len(), self.differences.iter().filter(absent).count(), &self.key)
    }
}

/// How a value is shown that is not there.
const ABSENT: &str = "null";

/// Every manifest that can be read, in the writable root and in the shipped ones.
fn manifests(store: &Store) -> impl Iterator<Item = Manifest> {
    let mut entries: Vec<_> = store.all_entries().collect();
    entries.sort();
    entries
        .into_iter()
        .filter_map(|(_, folder)| serde_json::from_slice(&std::fs::read(folder.join(MANIFEST)).ok()?).ok())
}

fn identity(version: u32, configuration: Value, mut inputs: Value) -> Value {
    let mut identity = configuration;
    if let Value::Object(inputs) = &mut inputs {
        // Not part of a key.
        inputs.remove("statistics");
    }
    if let Value::Object(fields) = &mut identity {
        fields.insert("version".to_owned(), version.into());
        fields.insert("inputs".to_owned(), inputs);
    }
    identity
}

fn compare(path: &str, stored: &Value, wanted: &Value, differences: &mut Vec<Difference>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (stored, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                compare(&child(name), value, b.get(name).unwrap_or(&Value::Null), differences);
            }
            for (name, value) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
                compare(&child(name), &Value::Null, value, differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (stored, wanted)) in a.iter().zip(b).enumerate() {
                compare(&child(&index.to_string()), stored, wanted, differences);
            }
        }
        (a, b) if a != b => differences.push(Difference { field: path.to_owned(), stored: text(a), wanted: text(b) }),
        _ => {}
    }
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Keys and contents are shown as everywhere else, by their first twelve digits.
    let digest = text.strip_prefix("content:").unwrap_or(&text);
    if is_key(digest) { text[..text.len() - 52].to_owned() } else { text }
}
