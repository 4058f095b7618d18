//! A model folder of published shape with random weights: for trials of capacity and speed where no published weights are at hand.

mod space;
mod texts;
mod weights;

use std::{fs, path::Path};

use ressa_checkpoint::{CheckpointError, Draft, keeps_first, llava_vision};
use ressa_experiment::job::RandomCheckpoint;
use ressa_models::{
    Architecture, Family, Model, ModelError,
    config::{GenerationConfig, TextConfig},
    folder::{CONFIG, GENERATION, read_config_file},
    published::{PUBLISHED, published_architecture},
};
use serde_json::{Map, Value, json};

use crate::LabError;
use texts::{Files, Style, Texts};
use weights::Values;

/// Writes the folder: configuration, generation settings, tokenizers that know whole words, processor settings, weights in files of at most
/// 5 GB. The same settings give the same bytes. It is filled beside its place and appears when it is whole; what an interrupted run left
/// is removed by the next one.
///
/// # Errors
/// An unknown name, a configuration that no network can have, an output folder with something in it, a disk without room for it.
pub fn random_checkpoint(job: &RandomCheckpoint, progress: crate::Progress<'_>) -> Result<Value, LabError> {
    checkpoint(job, Values::Random(job.seed), progress)
}

/// The same folder with weights of zero that take no room on the disk, for trials in which values mean nothing. The seed is not looked at.
///
/// # Errors
/// Those of [`random_checkpoint`].
pub fn hollow_checkpoint(job: &RandomCheckpoint, progress: crate::Progress<'_>) -> Result<Value, LabError> {
    checkpoint(job, Values::Hollow, progress)
}

fn checkpoint(job: &RandomCheckpoint, values: Values, progress: crate::Progress<'_>) -> Result<Value, LabError> {
    let (mut written, config) = configuration(&job.like)?;
    set_dtype(&mut written, job.dtype.name());
    let mut shapes = Model::tensor_shapes(config.as_ref())?;
    shapes.iter_mut().for_each(|(name, _)| *name = config.written(name));
    let draft = Draft::begin(&job.output)?;
    let folder = draft.folder();
    if values != Values::Hollow {
        let needed = weights::bytes(&shapes, job.dtype);
        space::check(folder, needed).map_err(CheckpointError::io("write", &job.output))?;
    }
    save(folder, CONFIG, &written)?;
    if let Some(generation) = generation(config.as_ref())? {
        save(folder, GENERATION, &generation)?;
    }
    texts(config.as_ref())?.write(folder)?;
    let summary = weights::write(folder, &shapes, values, job.dtype, weights::LARGEST, progress)?;
    draft.publish()?;
    Ok(json!({
        "folder": job.output,
        "tensors": shapes.len(),
        "parameters": summary.parameters,
        "bytes": summary.bytes,
        "files": summary.files,
    }))
}

/// The configuration as it will be written, and as the network reads it.
fn configuration(like: &str) -> Result<(Value, Box<dyn Architecture>), LabError> {
    if let Some(config) = published_architecture(like) {
        let written = config.to_json().map_err(|e| LabError::Unsupported(e.to_string()))?;
        return Ok((written, config));
    }
    let path = match Path::new(like) {
        folder if folder.is_dir() => folder.join(CONFIG),
        file if file.exists() => file.to_owned(),
        _ => {
            let names = PUBLISHED.join(", ");
            let message = format!("`{like}` is neither a file nor a published shape; there are {names}");
            return Err(LabError::Unsupported(message));
        }
    };
    let config = read_config_file(&path)?;
    let text = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let written: Value = serde_json::from_slice(&text).map_err(|e| LabError::input(&path, e))?;
    Ok((written, config))
}

/// Notes the type of the weights under the name that the configuration uses for it.
fn set_dtype(config: &mut Value, dtype: &str) {
    if let Value::Object(fields) = config {
        let name = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        fields.insert(name.to_owned(), dtype.into());
    }
}

fn save(folder: &Path, name: &str, value: &Value) -> Result<(), LabError> {
    let path = folder.join(name);
    fs::write(&path, format!("{value:#}\n")).map_err(CheckpointError::io("write", &path))?;
    Ok(())
}

/// Begin token of the language model: its configuration, then its class's default.
fn begin(config: &dyn Architecture) -> Result<i64, LabError> {
    let text = serde_json::to_value(config.text_config()).map_err(|e| LabError::Unsupported(e.to_string()))?;
    Ok(text["bos_token_id"].as_i64().unwrap_or(match config.text_config() {
        TextConfig::Opt(_) => 2,
        _ => 1,
    }))
}

/// `generation_config.json`, where there is something to generate with.
fn generation(config: &dyn Architecture) -> Result<Option<Value>, LabError> {
    if !config.writes() {
        return Ok(None);
    }
    let special = config.special_tokens(&GenerationConfig::default());
    let mut fields = Map::new();
    fields.insert("_from_model_config".to_owned(), json!(true));
    fields.insert("bos_token_id".to_owned(), json!(begin(config)?));
    if config.text_config().has_encoder() {
        fields.insert("decoder_start_token_id".to_owned(), json!(special.decoder_start));
    }
    let eos = if let [one] = special.eos.as_slice() { json!(one) } else { json!(special.eos) };
    fields.insert("eos_token_id".to_owned(), eos);
    fields.insert("pad_token_id".to_owned(), json!(special.pad));
    Ok(Some(Value::Object(fields)))
}

fn texts(config: &dyn Architecture) -> Result<Texts, LabError> {
    let special = config.special_tokens(&GenerationConfig::default());
    let id = |id: i64| usize::try_from(id).map_err(|_| ModelError::Config(format!("token id {id} is negative")));
    let words = config.text_config();
    let mut style = match words {
        TextConfig::T5(_) => Style::T5,
        TextConfig::Llama(_) | TextConfig::Mistral(_) => Style::Llama,
        TextConfig::Qwen2(_) => Style::Qwen,
        TextConfig::Opt(_) => Style::Opt,
    };
    let mut vocabulary = id(words.vocab_size())?;
    let (mut qformer, image_size) = (None, id(config.image_size())?);
    let files = match (config.blip2(), config.grid()) {
        (Some(blip2), _) => {
            let (family, rows) = (blip2.family()?, id(blip2.qformer_config.vocab_size)?);
            if family == Family::ImageTextRetrieval {
                (style, vocabulary) = (Style::Bert, rows);
            }
            qformer = (family == Family::InstructBlip).then_some(rows);
            let class = if family == Family::InstructBlip { "InstructBlipProcessor" } else { "Blip2Processor" };
            Files::Queries { class, queries: id(config.image_tokens())? }
        }
        (None, Some(cut)) => {
            let class = if config.model_type() == "qwen2_vl" { "Qwen2VLProcessor" } else { "Qwen2_5_VLProcessor" };
            Files::Cells {
                class,
                patch: id(cut.patch)?,
                merge: id(cut.merge)?,
                frames: id(cut.frames)?,
                start: id(cut.start)?,
            }
        }
        (None, None) if let Some(tile) = config.tile() => {
            let class = match config.model_type() {
                "smolvlm" => "SmolVLMProcessor",
                "internvl" => "InternVLProcessor",
                _ => "Idefics3Processor",
            };
            Files::Tiles { class, features: tile.features(), by_shape: config.has_tiles_in_one() }
        }
        (None, None) => {
            let fields = config.rest();
            let (encoder, _) = llava_vision(fields).map_err(ModelError::Config)?;
            let resolutions = config.pinpoints().map(|pinpoints| pinpoints.sizes.clone());
            Files::Patches { encoder, patch: id(config.patch())?, full: keeps_first(fields), resolutions }
        }
    };
    Ok(Texts {
        style,
        vocabulary,
        eos: id(special.eos[0])?,
        bos: id(begin(config)?)?,
        pad: id(special.pad)?,
        image: config.image_token().map(id).transpose()?,
        qformer,
        image_size,
        files,
    })
}
