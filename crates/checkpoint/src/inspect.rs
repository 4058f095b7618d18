//! What a folder holds: parts, blocks, parameters, types, bytes, zeros. Works on folders of which much is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ressa_experiment::Pattern;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Checkpoint, CheckpointError, Companion, Entry, File, Part,
    certificate::examine,
    companions,
    ids::{GENERATION, wrong_ids},
    is_qwen_vl, json,
    names::{block, is_prunable, leftover, originals},
    outline::{Outline, misfits_of, quoted, read_config},
    quantized,
    scan::Counts,
};

/// Sizes of a network that are quoted from its configuration.
const QUOTED: [&str; 17] = [
    "hidden_size",
    "d_model",
    "num_hidden_layers",
    "num_layers",
    "num_decoder_layers",
    "num_attention_heads",
    "num_heads",
    "intermediate_size",
    "d_ff",
    "vocab_size",
    "depth",
    "embed_dim",
    "out_hidden_size",
    "spatial_merge_size",
    "window_size",
    "image_size",
    "patch_size",
];

/// What was found in a folder, or in one safetensors file.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The folder or file.
    pub path: PathBuf,
    /// What `config.json` says; none where it cannot be read.
    pub architecture: Option<Architecture>,
    /// Files that programs look for beside the weights.
    pub files: Vec<Companion>,
    /// Files of weights.
    pub weights: Vec<PathBuf>,
    /// Name of the layout in which linears are stored without their zeros, and how many are; none where all are dense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<(&'static str, usize)>,
    /// Everything, leftovers excluded. Of packed linears, the unpacked ones.
    pub total: Sums,
    /// The parts that are there.
    pub parts: Vec<PartSums>,
    /// Tensors that the network computes or has under another name.
    pub leftovers: Vec<Leftover>,
    /// Whether weights were counted, or headers read only.
    pub counted: bool,
    /// What keeps the folder from being used; empty when nothing does.
    pub problems: Vec<String>,
}

/// What `config.json` says, as written.
#[derive(Clone, Debug, Serialize)]
pub struct Architecture {
    /// `model_type`.
    pub model_type: Option<String>,
    /// `model_type` of the language model.
    pub language: Option<String>,
    /// Class names.
    pub classes: Vec<String>,
    /// `dtype`, or `torch_dtype` in older folders.
    pub dtype: Option<String>,
    /// Sizes by part; fields that are not written are at their class's defaults.
    pub sizes: BTreeMap<&'static str, Map<String, Value>>,
}

/// A tensor that belongs to nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// Why it can be ignored.
    pub reason: String,
    /// Bytes.
    pub bytes: u64,
}

/// Sums over tensors.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sums {
    /// Tensors.
    pub tensors: u64,
    /// Elements.
    pub parameters: u64,
    /// Elements of prunable linears.
    pub prunable: u64,
    /// Bytes.
    pub bytes: u64,
    /// Tensors of each type.
    pub dtypes: BTreeMap<String, u64>,
    /// Zeros among the prunable elements; none where nothing was counted.
    pub zeros: Option<u64>,
    /// Zeros among all elements.
    pub all_zeros: Option<u64>,
    /// Infinities and NaNs among all elements.
    pub non_finite: Option<u64>,
    /// The pattern that every prunable linear follows.
    pub pattern: Option<Pattern>,
    #[serde(skip)]
    patterns: BTreeSet<Option<Pattern>>,
}

/// Sums of a part.
#[derive(Clone, Debug, Serialize)]
pub struct PartSums {
    /// The part.
    pub part: Part,
    /// Over the part.
    #[serde(flatten)]
    pub sums: Sums,
    /// By block, stacks in the order of their tensors.
    pub blocks: Vec<BlockSums>,
}

/// Sums of a block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockSums {
    /// The stack, such as `vision_model.encoder.layers`.
    pub stack: String,
    /// Number in the stack.
    pub index: usize,
    /// Over the block.
    #[serde(flatten)]
    pub sums: Sums,
}

impl Sums {
    /// Fraction of zeros among prunable elements.
    pub fn sparsity(&self) -> Option<f64> {
        Some(self.zeros? as f64 / self.prunable as f64).filter(|_| self.prunable > 0)
    }

    fn add(&mut self, entry: &Entry, counts: Option<&Counts>, counted: bool) {
        let elements = entry.elements() as u64;
        let prunable = is_prunable(&entry.name, &entry.shape);
        self.tensors += 1;
        self.parameters += elements;
        self.bytes += entry.bytes() as u64;
        *self.dtypes.entry(entry.dtype.to_string()).or_default() += 1;
        if prunable {
            self.prunable += elements;
        }
        if !counted {
            return;
        }
        let found = counts.copied().unwrap_or_default();
        *self.all_zeros.get_or_insert(0) += found.zeros;
        *self.non_finite.get_or_insert(0) += found.non_finite;
        *self.zeros.get_or_insert(0) += if prunable { found.zeros } else { 0 };
        if prunable {
            self.patterns.insert(counts.and_then(|counts| counts.pattern(entry.shape[1])));
            self.pattern = if self.patterns.len() == 1 { self.patterns.first().copied().flatten() } else { None };
        }
    }
}

/// Looks at a folder or at one safetensors file. With `count`, every weight is looked at; without, headers only.
///
/// # Errors
/// When there is no such folder or file. Everything else that is wrong is listed in [`Inspection::problems`].
pub fn inspect(path: &Path, count: bool) -> Result<Inspection, CheckpointError> {
    let metadata = std::fs::metadata(path).map_err(CheckpointError::io("read", path))?;
    let mut problems = Vec::new();
    let (mut config, mut files) = (None, Vec::new());
    let opened = if metadata.is_dir() {
        config = read_config(path).map_err(|error| problems.push(error.to_string())).ok();
        files = companions(path, config.as_ref());
        Checkpoint::open(path)
    } else {
        Checkpoint::of_file(path)
    };
    let mut found = Inspection {
        path: path.to_owned(),
        architecture: config.as_ref().map(architecture),
        files,
        weights: Vec::new(),
        container: None,
        total: Sums::default(),
        parts: Vec::new(),
        leftovers: Vec::new(),
        counted: count,
        problems,
    };
    match opened {
        Ok(checkpoint) => {
            found.add(&checkpoint);
            found.problems.extend(match &config {
                Some(config) => unfit(path, config, &checkpoint),
                None => codes(path, &checkpoint).into_iter().collect(),
            });
        }
        Err(error) => {
            found.problems.push(error.to_string());
            found.problems.extend(config.iter().filter_map(|config| Outline::of(config).err()).flat_map(quoted));
        }
    }
    Ok(found)
}

/// What keeps a model folder from being used, as far as its configuration and the headers of its weights tell; empty when nothing does. For
/// those who ask before they start something: cheap, however large the weights are.
pub fn problems(folder: &Path) -> Vec<String> {
    match (read_config(folder), Checkpoint::open(folder)) {
        (Ok(config), Ok(checkpoint)) => unfit(folder, &config, &checkpoint),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => vec![error.to_string()],
        (Err(first), Err(second)) => vec![first.to_string(), second.to_string()],
    }
}

/// What keeps the weights and the settings of a folder from being those of its configuration.
fn unfit(folder: &Path, config: &Map<String, Value>, checkpoint: &Checkpoint) -> Vec<String> {
    let generation = json::optional(&folder.join(GENERATION));
    let mut problems: Vec<String> = generation.as_ref().err().map(ToString::to_string).into_iter().collect();
    let ids = wrong_ids(config, &generation.unwrap_or_default().unwrap_or_default());
    problems.extend(ids.into_iter().map(|(file, reason)| format!("`{file}`: {reason}")));
    match codes(folder, checkpoint) {
        // What else is odd about the tensors follows from that.
        Some(problem) => problems.push(problem),
        None => problems.extend(misfits_of(config, checkpoint)),
    }
    problems
}

/// That the weights of a folder are quantized, in words.
fn codes(folder: &Path, checkpoint: &Checkpoint) -> Option<String> {
    quantized(checkpoint).map(|reason| CheckpointError::file(folder, reason).to_string())
}

impl Inspection {
    fn add(&mut self, checkpoint: &Checkpoint) {
        self.container = checkpoint.container();
        self.weights = checkpoint.files().iter().map(|file| file.path().to_owned()).collect();
        let tensors: Vec<(&File, &Entry)> = checkpoint.tensors().collect();
        let counts = match self.counted {
            true => examine(&tensors, false).into_iter().map(|(counts, _)| counts).collect(),
            false => vec![None; tensors.len()],
        };
        let mut parts: BTreeMap<Part, PartSums> = BTreeMap::new();
        let mut stray: Vec<&str> = Vec::new();
        for ((file, entry), counts) in tensors.into_iter().zip(&counts) {
            if let Some(reason) = reason(checkpoint, file, entry) {
                self.leftovers.push(Leftover { name: entry.name.clone(), reason, bytes: entry.bytes() as u64 });
                continue;
            }
            let part = Part::of(&entry.name);
            if part == Part::Other {
                stray.push(&entry.name);
            }
            self.total.add(entry, counts.as_ref(), self.counted);
            let sums =
                parts.entry(part).or_insert_with(|| PartSums { part, sums: Sums::default(), blocks: Vec::new() });
            sums.sums.add(entry, counts.as_ref(), self.counted);
            if let Some(block) = block(&entry.name) {
                let known = sums.blocks.iter_mut().find(|b| b.stack == block.stack && b.index == block.index);
                let sums = match known {
                    Some(known) => known,
                    None => {
                        let new =
                            BlockSums { stack: block.stack.to_owned(), index: block.index, sums: Sums::default() };
                        sums.blocks.push(new);
                        sums.blocks.last_mut().expect("just pushed")
                    }
                };
                sums.sums.add(entry, counts.as_ref(), self.counted);
            }
        }
        for part in parts.values_mut() {
            part.blocks.sort_by(|a, b| (stack_order(&a.stack), a.index).cmp(&(stack_order(&b.stack), b.index)));
        }
        self.parts = parts.into_values().collect();
        if !stray.is_empty() {
            let shown: Vec<String> = stray.iter().take(3).map(|name| format!("`{name}`")).collect();
            let more = if stray.len() > 3 { format!(" and {} more", stray.len() - 3) } else { String::new() };
            self.problems.push(format!("tensors that no supported model has: {}{more}", shown.join(", ")));
        }
        let odd = self.total.non_finite.unwrap_or(0);
        if odd > 0 {
            self.problems.push(format!("{odd} values are not finite; `ressa verify` names the tensors"));
        }
    }
}

/// An encoder runs before its decoder.
fn stack_order(stack: &str) -> (bool, &str) {
    (stack.contains(".decoder."), stack)
}

/// Why a tensor is a leftover: the network computes it, or it is a copy, byte for byte.
fn reason(checkpoint: &Checkpoint, file: &File, entry: &Entry) -> Option<String> {
    if let Some(reason) = leftover(&entry.name) {
        return Some(reason.to_owned());
    }
    let original = originals(&entry.name).iter().find(|original| {
        checkpoint.get(original).is_some_and(|(other, known)| {
            known.dtype == entry.dtype && known.shape == entry.shape && other.read(known) == file.read(entry)
        })
    })?;
    Some(format!("a copy of `{original}`"))
}

fn architecture(config: &Map<String, Value>) -> Architecture {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let classes = config.get("architectures").and_then(Value::as_array);
    let mut sizes = BTreeMap::new();
    for part in ["vision_config", "qformer_config", "text_config"] {
        let fields = match config.get(part).and_then(Value::as_object) {
            Some(fields) => fields,
            // Older folders of Qwen-VL have them at the top.
            None if part == "text_config" && is_qwen_vl(config) => config,
            None => continue,
        };
        let quoted = QUOTED.iter().filter_map(|&name| Some((name.to_owned(), fields.get(name)?.clone())));
        sizes.insert(part, quoted.collect());
    }
    Architecture {
        model_type: text(config.get("model_type")),
        language: text(config.get("text_config").and_then(|text| text.get("model_type"))),
        classes: classes.into_iter().flatten().filter_map(|class| text(Some(class))).collect(),
        dtype: text(config.get("dtype").or_else(|| config.get("torch_dtype"))),
        sizes,
    }
}
