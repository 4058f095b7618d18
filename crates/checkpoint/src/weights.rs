//! Where the weights of a folder are: the one answer for everything that opens, lists or copies them.
//!
//! As `transformers` looks for them: `model.safetensors` first, then the pieces of `model.safetensors.index.json`. What it would load in
//! another way (an adapter with its base model, a variant) is refused by name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CheckpointError, json};

/// File name of a checkpoint in one piece.
pub const SINGLE: &str = "model.safetensors";
/// File name of the list of pieces.
pub const INDEX: &str = "model.safetensors.index.json";
/// File name of the configuration of a PEFT adapter.
const ADAPTER: &str = "adapter_config.json";
/// Largest list of pieces that is read. The published ones are a few hundred kilobytes.
pub(crate) const INDEX_LIMIT: u64 = 64 << 20;
/// Files that an error names.
const SHOWN: usize = 3;

/// The list of pieces, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Free-form entries, among them `total_size`.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Piece of each tensor.
    pub weight_map: Map<String, Value>,
}

/// The files of weights of a folder, all of which are there.
#[derive(Clone, Debug)]
pub enum WeightFiles {
    /// One file. A list of pieces beside it is not looked at.
    Whole(PathBuf),
    /// The pieces that a list names, in the order of their names.
    Pieces {
        /// The list.
        index: Index,
        /// The files.
        files: Vec<PathBuf>,
    },
}

impl WeightFiles {
    /// Finds the weights of a folder.
    ///
    /// # Errors
    /// The folder is not there or is an adapter's; it holds no safetensors weights, or only part of them. The error says what it holds.
    pub fn find(folder: &Path) -> Result<Self, CheckpointError> {
        if !folder.is_dir() {
            return Err(CheckpointError::file(folder, "there is no such folder"));
        }
        if let Some(reason) = adapter(folder) {
            return Err(CheckpointError::file(folder, reason));
        }
        let (whole, listed) = (folder.join(SINGLE), folder.join(INDEX));
        if is_there(&whole) {
            return Ok(WeightFiles::Whole(whole));
        }
        if is_there(&listed) {
            let (index, files) = pieces(folder, &listed)?;
            return Ok(WeightFiles::Pieces { index, files });
        }
        Err(CheckpointError::file(folder, instead(folder)))
    }
}

/// Whether there is anything of a name, a broken link among it: what is wrong with it is then said of it.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// What an adapter's folder is, in words; `None` for other folders. Where weights lie beside an adapter, `transformers` loads the base
/// model that the adapter names and not these.
pub fn adapter(folder: &Path) -> Option<String> {
    let path = folder.join(ADAPTER);
    let bare = folder.join("adapter_model.safetensors").is_file() || folder.join("adapter_model.bin").is_file();
    if !path.is_file() {
        let whole = is_there(&folder.join(SINGLE)) || is_there(&folder.join(INDEX));
        return (bare && !whole).then(|| format!("it holds an adapter without its `{ADAPTER}`, not a model"));
    }
    let config: Map<String, Value> = json::read(&path, json::CONFIG_LIMIT).unwrap_or_default();
    let base = config.get("base_model_name_or_path").and_then(Value::as_str);
    let base = base.map_or_else(|| "its base model".to_owned(), |base| format!("`{base}`"));
    Some(if is_there(&folder.join(SINGLE)) || is_there(&folder.join(INDEX)) {
        format!(
            "it holds an adapter (`{ADAPTER}`) beside weights, and transformers would load {base} and the adapter; \
             remove the adapter's files to use the weights as they are"
        )
    } else {
        format!(
            "it holds an adapter (`{ADAPTER}`) of {base}, not a model; merge the adapter into the base model with PEFT's \
             `merge_and_unload()` and save the result"
        )
    })
}

/// What a folder without `model.safetensors` and its list holds instead, in words.
fn instead(folder: &Path) -> String {
    let neither = format!("it holds neither `{SINGLE}` nor `{INDEX}`");
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|item| item.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors") || name.ends_with(".json") || name.ends_with(".bin"))
        .collect();
    names.sort();
    let has = |name: &str| names.iter().any(|found| found == name);
    if let Some((name, variant)) = names.iter().find_map(|name| Some((name, variant(name)?))) {
        let plain = if name.contains(".index.") { INDEX } else { SINGLE };
        return format!(
            "{neither}, only the variant `{variant}` (`{name}`); rename its files to names without `.{variant}`, \
             such as `{plain}`"
        );
    }
    if ["pytorch_model.bin", "pytorch_model.bin.index.json"].into_iter().any(has) {
        return "it holds a pickled checkpoint, which is refused; convert it to safetensors".to_owned();
    }
    let others: Vec<&String> = names.iter().filter(|name| name.ends_with(".safetensors")).collect();
    let shown: Vec<String> = others.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match others.as_slice() {
        [] => neither,
        [one] => format!("{neither}, but `{one}`; if that is the whole model, rename it to `{SINGLE}`"),
        many if many.iter().all(|name| name.contains("-of-")) => {
            format!("{neither}, but pieces without the list of their tensors ({}, ...); copy `{INDEX}` too", shown[0])
        }
        many => format!("{neither}, but {} other safetensors files ({}, ...)", many.len(), shown.join(", ")),
    }
}

/// The variant of weights that a file's name speaks of: `fp16` of `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`,
/// `model.safetensors.index.fp16.json` and `model.fp16.safetensors.index.json`.
fn variant(name: &str) -> Option<&str> {
    let inner = name.strip_prefix("model.")?;
    let listed = inner.strip_prefix("safetensors.index.").and_then(|rest| rest.strip_suffix(".json"));
    let before = || inner.strip_suffix(".safetensors").or_else(|| inner.strip_suffix(".safetensors.index.json"));
    let variant = listed.or_else(before)?;
    let variant = variant.split_once('-').map_or(variant, |(variant, _)| variant);
    (!variant.is_empty() && !variant.contains('.')).then_some(variant)
}

/// The pieces that a folder's list names and the folder lacks, in the order of their names; none where the weights are in one file, or the
/// list itself is wrong.
pub fn absent_pieces(folder: &Path) -> Vec<String> {
    let listed = folder.join(INDEX);
    if is_there(&folder.join(SINGLE)) || !is_there(&listed) {
        return Vec::new();
    }
    let names = json::read(&listed, INDEX_LIMIT).and_then(|index: Index| names(&index, &listed));
    names.unwrap_or_default().into_iter().filter(|name| !folder.join(name).exists()).collect()
}

/// The names of the files that a list names; none leaves the folder.
fn names(index: &Index, listed: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let mut names = BTreeSet::new();
    for file in index.weight_map.values() {
        let name = file.as_str().unwrap_or_default();
        if Path::new(name).components().count() != 1 || name.starts_with('.') || !name.ends_with(".safetensors") {
            let reason = format!("`{file}` is not the name of a safetensors file in this folder");
            return Err(CheckpointError::file(listed, reason));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err(CheckpointError::file(listed, "it names no pieces"));
    }
    Ok(names)
}

fn pieces(folder: &Path, listed: &Path) -> Result<(Index, Vec<PathBuf>), CheckpointError> {
    let index: Index = json::read(listed, INDEX_LIMIT)?;
    let names = names(&index, listed)?;
    let absent = absent_pieces(folder);
    if !absent.is_empty() {
        let reason = format!("{} of its {} pieces are missing: {}", absent.len(), names.len(), absent.join(", "));
        return Err(CheckpointError::file(listed, reason));
    }
    let files = names.into_iter().map(|name| folder.join(name)).collect();
    Ok((index, files))
}

#[cfg(test)]
mod tests {
    use super::variant;

    #[test]
    fn variants_are_told_by_their_names() {
        let names = [
            "model.fp16.safetensors",
            "model.fp16-00001-of-00002.safetensors",
            "model.safetensors.index.fp16.json",
            "model.fp16.safetensors.index.json",
        ];
        assert_eq!(names.map(variant), [Some("fp16"); 4]);
        let plain = [super::SINGLE, super::INDEX, "model-00001-of-00002.safetensors", "config.json"];
        assert_eq!(plain.map(variant), [None; 4]);
    }
}
