//! The files that a model's programs read beside the weights: which they are, and which of them a folder has.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::json;

/// File name of the image processor's settings.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// File name of the processor's settings. transformers 5 writes the image processor's into it too.
pub const PROCESSOR: &str = "processor_config.json";
/// The entry of a processor's settings that holds those of its image processor.
const NESTED: &str = "image_processor";

/// A file beside the weights.
#[derive(Clone, Debug, Serialize)]
pub struct Companion {
    /// Path in the folder.
    pub name: &'static str,
    /// What it is for.
    pub holds: &'static str,
    /// Whether it, or a file that serves for it, is there.
    pub present: bool,
    /// Whether the model cannot be used without it.
    #[serde(skip)]
    pub required: bool,
}

/// Where a folder keeps the settings of its image processor.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// The file.
    pub path: PathBuf,
    /// The settings.
    pub fields: Map<String, Value>,
    /// Settings in `processor_config.json` too, where the folder has both. transformers 4 reads the file of their own, transformers 5 these.
    pub nested: Option<Map<String, Value>>,
}

/// The settings of a folder's image processor: `preprocessor_config.json`, or the entry `image_processor` of `processor_config.json`.
///
/// # Errors
/// A file that is there and cannot be read; neither is there.
pub fn image_processor(folder: &Path) -> Result<ImageSettings, crate::CheckpointError> {
    let (own, shared) = (folder.join(PREPROCESSOR), folder.join(PROCESSOR));
    let nested = json::optional(&shared)?.and_then(|mut fields| fields.shift_remove(NESTED));
    let nested = match nested {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    match (json::optional(&own)?, nested) {
        (Some(fields), nested) => Ok(ImageSettings { path: own, fields, nested }),
        (None, Some(fields)) => Ok(ImageSettings { path: shared, fields, nested: None }),
        (None, None) => {
            json::read(&own, json::CONFIG_LIMIT).map(|fields| ImageSettings { path: own, fields, nested: None })
        }
    }
}

/// The files that the programs of a folder's model look for.
pub fn companions(folder: &Path, config: Option<&Map<String, Value>>) -> Vec<Companion> {
    let mut files = vec![
        ("config.json", "architecture", true),
        ("generation_config.json", "generation settings", false),
        (PREPROCESSOR, "image preprocessing", true),
        (PROCESSOR, "image tokens", false),
        ("tokenizer.json", "tokenizer of the language model", true),
    ];
    // Only InstructBLIP's Q-Former reads text with a tokenizer of its own.
    if config.is_some_and(|config| config.get("model_type").is_some_and(|kind| kind == "instructblip")) {
        files.push(("qformer_tokenizer/tokenizer.json", "tokenizer of the Q-Former", true));
    }
    let look = |(name, holds, required)| {
        // What is wrong with a file that is there is said by whoever reads it.
        let nested = || name == PREPROCESSOR && image_processor(folder).is_ok();
        Companion { name, holds, present: folder.join(name).is_file() || nested(), required }
    };
    files.into_iter().map(look).collect()
}
