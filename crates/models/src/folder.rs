//! Model folders as the hub has them: `config.json`, `generation_config.json`, weights. Tokenizers and processors are the data crate's.

use std::path::Path;

use ressa_checkpoint::{check_ids, json};
use ressa_experiment::job::Compute;
use ressa_runtime::Device;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Architecture, LoadOptions, Model, ModelError, TensorMap, VisionLanguage, Weights,
    config::{GenerationConfig, Ids},
    families,
    weights::{self, Pages, SINGLE, Storage},
};

/// File name of the configuration.
pub const CONFIG: &str = "config.json";
/// File name of the generation settings.
pub const GENERATION: &str = "generation_config.json";

/// Loads the model in a folder, whatever its family, computing in f32.
pub fn load_folder(folder: &Path, device: Device) -> Result<Box<dyn VisionLanguage>, ModelError> {
    load_folder_with(folder, &LoadOptions::on(device))
}

/// Loads the model in a folder, whatever its family.
pub fn load_folder_with(folder: &Path, options: &LoadOptions) -> Result<Box<dyn VisionLanguage>, ModelError> {
    Ok(Box::new(load_model(folder, options)?))
}

/// Loads the model in a folder. Every tensor must be there, finite, of the configured shape, and every tensor must have a place.
pub fn load_model(folder: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
    let config = read_config(folder)?;
    load_as(folder, config.as_ref(), options)
}

/// Loads the weights of a folder with a configuration that may be written differently from the folder's own.
pub fn load_as(folder: &Path, config: &dyn Architecture, options: &LoadOptions) -> Result<Model, ModelError> {
    check_ids(folder)?;
    let special = config.special_tokens(&read_generation(folder)?);
    let mut weights = Weights::open(folder, options)?;
    let model = Model::load(config, special, &mut weights, options)?;
    weights.finish()?;
    Ok(model)
}

/// Loads a folder for running one block after the other: every prunable matrix stays mapped on the host, in its own type,
/// until it is used, and what was used can be given back. Their values are not checked. Everything else is on the device; on the host, other
/// matrices stay mapped too, so that nothing of the files is in memory afterwards.
pub fn load_streamed(folder: &Path, compute: Compute, device: Device) -> Result<(Model, Pages), ModelError> {
    let config = read_config(folder)?;
    check_ids(folder)?;
    let options = LoadOptions { compute, ..LoadOptions::on(device) };
    let special = config.special_tokens(&read_generation(folder)?);
    let mut weights = Weights::open_streamed(folder, &options)?;
    let model = Model::load(config.as_ref(), special, &mut weights, &options)?;
    let pages = weights.pages();
    weights.finish()?;
    pages.release_all();
    Ok((model, pages))
}

/// Reads `config.json`.
pub fn read_config(folder: &Path) -> Result<Box<dyn Architecture>, ModelError> {
    read_config_file(&folder.join(CONFIG))
}

/// Reads a configuration from a file of any name.
pub fn read_config_file(path: &Path) -> Result<Box<dyn Architecture>, ModelError> {
    let config = families::parse(read_json(path)?).map_err(|reason| ModelError::file(path, reason))?;
    match config.check() {
        Err(ModelError::Config(reason)) => Err(ModelError::file(path, reason)),
        other => other.map(|()| config),
    }
}

/// Reads `generation_config.json`; a folder without one has no settings.
pub fn read_generation(folder: &Path) -> Result<GenerationConfig, ModelError> {
    let path = folder.join(GENERATION);
    if path.exists() { read_json(&path) } else { Ok(GenerationConfig::default()) }
}

/// How a folder is loaded where the caller may leave the type of the computation open: f32 on a CPU, on a GPU the type of the weights.
pub fn load_options(folder: &Path, device: Device, compute: Option<Compute>) -> Result<LoadOptions, ModelError> {
    let stored = || -> Result<Option<Compute>, ModelError> {
        let config = read_config(folder)?;
        let named = config.rest().get("dtype").or(config.rest().get("torch_dtype")).and_then(serde_json::Value::as_str);
        Ok(named.and_then(|name| name.parse().ok()))
    };
    let compute = match compute {
        Some(compute) => compute,
        None if device.is_cuda() => stored()?.unwrap_or(Compute::Float32),
        None => Compute::Float32,
    };
    Ok(LoadOptions { compute, ..LoadOptions::on(device) })
}

/// Writes a model folder: same configuration and tensors, same bytes. `transformers` opens it.
pub fn save_folder(
    folder: &Path,
    config: &dyn Architecture,
    tensors: &TensorMap,
    storage: Storage,
) -> Result<(), ModelError> {
    let special = config.special_tokens(&GenerationConfig::default());
    let start = config.text_config().has_encoder().then_some(special.decoder_start);
    let generation = GenerationConfig {
        eos_token_id: Some(match special.eos.as_slice() {
            [one] => Ids::One(*one),
            many => Ids::Many(many.to_vec()),
        }),
        pad_token_id: Some(special.pad),
        decoder_start_token_id: start,
        ..GenerationConfig::default()
    };
    save_folder_with(folder, config, &generation, tensors, storage)
}

/// [`save_folder`] with the generation settings of the folder that the model came from ([`read_generation`]).
pub fn save_folder_with(
    folder: &Path,
    config: &dyn Architecture,
    generation: &GenerationConfig,
    tensors: &TensorMap,
    storage: Storage,
) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(ModelError::io("write", folder))?;
    let mut config = config.boxed();
    for field in ["dtype", "torch_dtype"] {
        if let Some(written) = config.rest_mut().get_mut(field) {
            *written = storage.name().into();
        }
    }
    let path = folder.join(CONFIG);
    write_json(&path, &config.to_json().map_err(|e| ModelError::file(&path, e))?)?;
    write_json(&folder.join(GENERATION), generation)?;
    let stored = weights::stored(tensors, storage)?;
    let stored = stored.into_iter().map(|(name, tensor)| (config.written(&name), tensor)).collect();
    weights::write(&folder.join(SINGLE), &stored, ("format", "pt".to_owned()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    Ok(json::read(path, json::CONFIG_LIMIT)?)
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| ModelError::file(path, e))?;
    text.push('\n');
    std::fs::write(path, text).map_err(ModelError::io("write", path))
}
