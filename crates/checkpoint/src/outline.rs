//! What a configuration says about a network's matrices, read without the network: whether a folder's weights can be its weights.
//!
//! The networks themselves are the models crate's, which checks every tensor; a test there holds the two together.

mod encoder;
mod llava;
mod qwen;
mod tiled;

use std::{collections::BTreeMap, path::Path};

use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::{
    Checkpoint, CheckpointError, LLAMA_LIKE, Part, check_windows, decoder_fields,
    export::CONFIG,
    json,
    names::{COMPARES, QUERIES, is_prunable, leftover},
    rope_theta,
};

/// Largest size in a configuration.
const LARGEST: usize = 1 << 24;
/// Most layers.
const MOST_LAYERS: usize = 1 << 12;
/// Tensors that a problem names.
const SHOWN: usize = 3;
/// Rows of OPT's position table before the first position; a rule of the architecture, not a setting.
const OPT_OFFSET: usize = 2;
/// Classes that are known, by `model_type`.
const CLASSES: [(&str, &str); 10] = [
    ("instructblip", "InstructBlipForConditionalGeneration"),
    ("blip-2", "Blip2ForConditionalGeneration"),
    ("blip-2", RETRIEVAL),
    ("llava", LLAVA),
    ("llava_next", LLAVA_NEXT),
    ("qwen2_vl", QWEN2),
    ("qwen2_5_vl", QWEN2_5),
    ("idefics3", IDEFICS),
    ("smolvlm", SMOLVLM),
    ("internvl", INTERNVL),
];
/// The classes of LLaVA-1.5 and LLaVA-NeXT.
const LLAVA: &str = "LlavaForConditionalGeneration";
const LLAVA_NEXT: &str = "LlavaNextForConditionalGeneration";
/// The classes of Qwen2-VL and Qwen2.5-VL.
const QWEN2: &str = "Qwen2VLForConditionalGeneration";
const QWEN2_5: &str = "Qwen2_5_VLForConditionalGeneration";
/// The classes of Idefics3 and SmolVLM.
const IDEFICS: &str = "Idefics3ForConditionalGeneration";
const SMOLVLM: &str = "SmolVLMForConditionalGeneration";
/// The class of InternVL.
const INTERNVL: &str = "InternVLForConditionalGeneration";
/// The class without a language model.
const RETRIEVAL: &str = "Blip2ForImageTextRetrieval";

/// The matrices of a network with their sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Weights of prunable linears, `[outputs, inputs]`. All must be there, and no others.
    pub linears: BTreeMap<String, Vec<usize>>,
    /// Embeddings, projections and untied heads, which must be there too.
    pub others: BTreeMap<String, Vec<usize>>,
    /// Heads that may be there although they are tied to an embedding.
    pub heads: BTreeMap<String, Vec<usize>>,
}

/// What keeps the weights of a folder from being those of its configuration; empty when nothing does. Headers are looked at, values are not.
pub fn misfits(checkpoint: &Checkpoint) -> Vec<String> {
    match read_config(checkpoint.folder()) {
        Ok(config) => misfits_of(&config, checkpoint),
        Err(error) => vec![error.to_string()],
    }
}

/// [`misfits`] with a configuration that has been read.
pub(crate) fn misfits_of(config: &Map<String, Value>, checkpoint: &Checkpoint) -> Vec<String> {
    match Outline::of(config) {
        Ok(outline) => outline.misfits(checkpoint),
        Err(problems) => quoted(problems).collect(),
    }
}

/// Problems of a configuration with where they are.
pub(crate) fn quoted(problems: Vec<String>) -> impl Iterator<Item = String> {
    problems.into_iter().map(|problem| format!("`config.json`: {problem}"))
}

/// Reads `config.json` of a folder.
///
/// # Errors
/// There is none, or it is not a JSON object of a configuration's size.
pub fn read_config(folder: &Path) -> Result<Map<String, Value>, CheckpointError> {
    let path = folder.join(CONFIG);
    if !path.exists() {
        return Err(CheckpointError::file(folder, "it has no `config.json`"));
    }
    json::read(&path, json::CONFIG_LIMIT)
}

impl Outline {
    /// The matrices that a configuration speaks of.
    ///
    /// # Errors
    /// Everything in it that no supported network can have.
    pub fn of(config: &Map<String, Value>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let class = class(config, &mut problems).unwrap_or_default();
        let mut outline = Self::default();
        match class {
            LLAVA | LLAVA_NEXT => outline.llava(config, &mut problems),
            QWEN2 | QWEN2_5 => outline.qwen(config, class == QWEN2_5, &mut problems),
            IDEFICS | SMOLVLM | INTERNVL => outline.tiled(config, &mut problems),
            _ => outline.blip2(config, class, &mut problems),
        }
        if problems.is_empty() { Ok(outline) } else { Err(problems) }
    }

    /// Everything of a configuration of the BLIP-2 family.
    fn blip2(&mut self, config: &Map<String, Value>, class: &str, problems: &mut Vec<String>) {
        let mut vision = Sizes::of(config, "vision_config", problems);
        let image_width = self.vision(&mut vision);
        problems.append(&mut vision.problems);
        let mut qformer = Sizes::of(config, "qformer_config", problems);
        let width = self.qformer(&mut qformer, class, image_width);
        problems.append(&mut qformer.problems);
        let mut top = Sizes { part: "", fields: Some(config), problems: Vec::new() };
        let queries = top.size("num_query_tokens", 32);
        self.others.insert(QUERIES.to_owned(), vec![1, queries, width]);
        if class != RETRIEVAL && !class.is_empty() {
            let mut text = Sizes::of(config, "text_config", problems);
            let words = self.language(&mut text);
            problems.append(&mut text.problems);
            self.others.insert("language_projection.weight".to_owned(), vec![words, width]);
        } else if class == RETRIEVAL {
            let shared = top.optional("image_text_hidden_size").unwrap_or(256);
            for name in [COMPARES, "text_projection.weight"] {
                self.others.insert(name.to_owned(), vec![shared, width]);
            }
            self.others.insert("itm_head.weight".to_owned(), vec![2, width]);
        }
        problems.append(&mut top.problems);
    }

    /// What keeps a checkpoint's tensors from being those of the network.
    pub fn misfits(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let mut problems = Vec::new();
        let required = || self.linears.iter().chain(&self.others);
        let absent = required().map(|(name, _)| name).filter(|name| checkpoint.get(name).is_none());
        problems.extend(listed("missing, although the configuration speaks of them", absent.cloned()));
        let placeless = checkpoint
            .tensors()
            .map(|(_, entry)| entry)
            .filter(|entry| is_prunable(&entry.name, &entry.shape) && !self.linears.contains_key(&entry.name));
        problems.extend(listed(
            "linears that the configuration has no place for",
            placeless.map(|entry| entry.name.clone()),
        ));
        let shaped = required().chain(&self.heads).filter_map(|(name, shape)| {
            let (_, entry) = checkpoint.get(name)?;
            Some((name, shape.as_slice(), &entry.shape)).filter(|(_, shape, found)| shape != found)
        });
        // What is added to the outputs of a linear is as long as they are many.
        let biases = self.linears.iter().filter_map(|(name, shape)| {
            let (_, entry) = checkpoint.get(&format!("{}bias", name.strip_suffix("weight")?))?;
            Some((&entry.name, &shape[..1], &entry.shape)).filter(|(_, shape, found)| shape != found)
        });
        problems.extend(listed(
            "of another shape than the configuration gives them",
            shaped.chain(biases).map(|(name, shape, found)| format!("{name} {found:?}, not {shape:?}")),
        ));
        let odd = checkpoint.tensors().map(|(_, entry)| entry).filter(|entry| {
            let is_float = matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
            !is_float && leftover(&entry.name).is_none() && Part::of(&entry.name) != Part::Other
        });
        problems.extend(listed(
            "of a type that weights cannot have",
            odd.map(|entry| format!("{} {}", entry.name, entry.dtype)),
        ));
        problems
    }

    fn linear(&mut self, name: String, outputs: usize, inputs: usize) {
        self.linears.insert(format!("{name}.weight"), vec![outputs, inputs]);
    }

    fn head(&mut self, tied: bool, words: usize, width: usize) {
        let to = if tied { &mut self.heads } else { &mut self.others };
        to.insert("language_model.lm_head.weight".to_owned(), vec![words, width]);
    }

    fn vision(&mut self, c: &mut Sizes<'_>) -> usize {
        let layers = c.layers("num_hidden_layers", 39);
        let (width, inner) = (c.size("hidden_size", 1408), c.size("intermediate_size", 6144));
        c.divides("hidden_size", width, "num_attention_heads", 16);
        let (image, patch) = (c.size("image_size", 224), c.size("patch_size", 14));
        c.require(patch <= image, || {
            format!("`vision_config.patch_size` is {patch}, larger than the image of {image}")
        });
        for layer in 0..layers {
            let at = format!("vision_model.encoder.layers.{layer}");
            self.linear(format!("{at}.self_attn.qkv"), 3 * width, width);
            self.linear(format!("{at}.self_attn.projection"), width, width);
            self.linear(format!("{at}.mlp.fc1"), inner, width);
            self.linear(format!("{at}.mlp.fc2"), width, inner);
        }
        let side = image / patch.max(1);
        for (name, shape) in [
            ("class_embedding", vec![1, 1, width]),
            ("position_embedding", vec![1, 1 + side * side, width]),
            ("patch_embedding.weight", vec![width, 3, patch, patch]),
        ] {
            self.others.insert(format!("vision_model.embeddings.{name}"), shape);
        }
        width
    }

    fn qformer(&mut self, c: &mut Sizes<'_>, class: &str, image_width: usize) -> usize {
        let layers = c.layers("num_hidden_layers", 12);
        let (width, inner) = (c.size("hidden_size", 768), c.size("intermediate_size", 3072));
        c.divides("hidden_size", width, "num_attention_heads", 12);
        let every = c.size("cross_attention_frequency", 2);
        let (words, positions) = (c.size("vocab_size", 30522), c.size("max_position_embeddings", 512));
        let asked = c.flag("use_qformer_text_input", false);
        if class == RETRIEVAL && !asked {
            let why = "an image-text matching model reads captions";
            c.problem(format!("`qformer_config.use_qformer_text_input` is `false`; {why}"));
        }
        let instructed = class == CLASSES[0].1;
        for layer in 0..layers {
            let at = format!("qformer.encoder.layer.{layer}");
            for (name, keys) in [("attention", width), ("crossattention", image_width)] {
                if name == "attention" || layer % every.max(1) == 0 {
                    self.linear(format!("{at}.{name}.attention.query"), width, width);
                    self.linear(format!("{at}.{name}.attention.key"), width, keys);
                    self.linear(format!("{at}.{name}.attention.value"), width, keys);
                    self.linear(format!("{at}.{name}.output.dense"), width, width);
                }
            }
            for suffix in if instructed || asked { &["_query", ""][..] } else { &["_query"] } {
                self.linear(format!("{at}.intermediate{suffix}.dense"), inner, width);
                self.linear(format!("{at}.output{suffix}.dense"), width, inner);
            }
        }
        let at = match class {
            RETRIEVAL => Some("embeddings"),
            _ if instructed => Some("qformer.embeddings"),
            _ => None,
        };
        if let Some(at) = at {
            self.others.insert(format!("{at}.word_embeddings.weight"), vec![words, width]);
            self.others.insert(format!("{at}.position_embeddings.weight"), vec![positions, width]);
        }
        width
    }

    /// The width of its words.
    fn language(&mut self, c: &mut Sizes<'_>) -> usize {
        let kind = c.fields.and_then(|fields| fields.get("model_type"));
        match kind.map(|kind| kind.as_str().unwrap_or_default()) {
            Some("t5") => self.t5(c),
            Some(kind) if LLAMA_LIKE.contains(&kind) => self.decoder(kind, c),
            // What the reference takes an entry without `model_type` for.
            Some("opt") | None => self.opt(c),
            Some(_) => {
                let kind = kind.unwrap_or(&Value::Null).to_string();
                let kind = kind.trim_matches('"');
                let known = LLAMA_LIKE.map(|name| format!("`{name}`")).join(", ");
                c.problem(format!("`text_config.model_type` is `{kind}`; supported are `t5`, `opt`, {known}"));
                1
            }
        }
    }

    fn t5(&mut self, c: &mut Sizes<'_>) -> usize {
        let (width, inner) = (c.size("d_model", 512), c.size("d_ff", 2048));
        let heads = c.size("num_heads", 8).saturating_mul(c.size("d_kv", 64));
        let encoder = c.layers("num_layers", 6);
        let decoder = c.optional("num_decoder_layers").map_or(encoder, |_| c.layers("num_decoder_layers", 0));
        let form = c.fields.and_then(|fields| fields.get("feed_forward_proj")).and_then(Value::as_str);
        let form = form.unwrap_or("relu");
        if !form.starts_with("gated-") {
            let message = "only gated forms such as `gated-gelu` are supported";
            c.problem(format!("`text_config.feed_forward_proj` is `{form}`; {message}"));
        }
        let attention = |outline: &mut Self, at: String| {
            for name in ["q", "k", "v"] {
                outline.linear(format!("{at}.{name}"), heads, width);
            }
            outline.linear(format!("{at}.o"), width, heads);
        };
        for (stack, blocks) in [("encoder", encoder), ("decoder", decoder)] {
            for block in 0..blocks {
                let at = format!("language_model.{stack}.block.{block}.layer");
                attention(self, format!("{at}.0.SelfAttention"));
                let last = if stack == "decoder" { 2 } else { 1 };
                if stack == "decoder" {
                    attention(self, format!("{at}.1.EncDecAttention"));
                }
                for name in ["wi_0", "wi_1"] {
                    self.linear(format!("{at}.{last}.DenseReluDense.{name}"), inner, width);
                }
                self.linear(format!("{at}.{last}.DenseReluDense.wo"), width, inner);
            }
        }
        let words = c.size("vocab_size", 32128);
        self.others.insert("language_model.shared.weight".to_owned(), vec![words, width]);
        self.head(c.flag("tie_word_embeddings", true), words, width);
        width
    }

    /// A language model of LLaMA's network, with the defaults of its own class.
    fn decoder(&mut self, kind: &str, c: &mut Sizes<'_>) -> usize {
        let none = Map::new();
        let fields = decoder_fields(kind, c.fields.unwrap_or(&none));
        let mut own = Sizes { part: c.part, fields: Some(&fields), problems: Vec::new() };
        let width = self.llama(&mut own);
        if let Err(problem) = check_windows(kind, &fields) {
            own.problem(problem);
        }
        c.problems.append(&mut own.problems);
        width
    }

    fn llama(&mut self, c: &mut Sizes<'_>) -> usize {
        let layers = c.layers("num_hidden_layers", 32);
        let (width, inner) = (c.size("hidden_size", 4096), c.size("intermediate_size", 11008));
        let heads = c.size("num_attention_heads", 32);
        let head = c.optional("head_dim").unwrap_or(width / heads.max(1));
        let shared = c.optional("num_key_value_heads").unwrap_or(heads);
        c.require(heads.is_multiple_of(shared), || {
            format!(
                "`text_config.num_attention_heads` is {heads}, which `num_key_value_heads` = {shared} does not divide"
            )
        });
        c.require(head > 0 && head.is_multiple_of(2), || {
            format!("`text_config.head_dim` is {head}; rotary positions need an even width")
        });
        if let Some(problem) = c.fields.and_then(|fields| rope_theta(fields).err()) {
            c.problem(problem);
        }
        for layer in 0..layers {
            let at = format!("language_model.model.layers.{layer}");
            self.linear(format!("{at}.self_attn.q_proj"), heads.saturating_mul(head), width);
            self.linear(format!("{at}.self_attn.k_proj"), shared.saturating_mul(head), width);
            self.linear(format!("{at}.self_attn.v_proj"), shared.saturating_mul(head), width);
            self.linear(format!("{at}.self_attn.o_proj"), width, heads.saturating_mul(head));
            self.linear(format!("{at}.mlp.gate_proj"), inner, width);
            self.linear(format!("{at}.mlp.up_proj"), inner, width);
            self.linear(format!("{at}.mlp.down_proj"), width, inner);
        }
        let words = c.size("vocab_size", 32000);
        self.others.insert("language_model.model.embed_tokens.weight".to_owned(), vec![words, width]);
        self.head(c.flag("tie_word_embeddings", false), words, width);
        width
    }

    fn opt(&mut self, c: &mut Sizes<'_>) -> usize {
        let layers = c.layers("num_hidden_layers", 12);
        let (width, inner) = (c.size("hidden_size", 768), c.size("ffn_dim", 3072));
        c.divides("hidden_size", width, "num_attention_heads", 12);
        let at = "language_model.model.decoder";
        for layer in 0..layers {
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.linear(format!("{at}.layers.{layer}.self_attn.{name}"), width, width);
            }
            self.linear(format!("{at}.layers.{layer}.fc1"), inner, width);
            self.linear(format!("{at}.layers.{layer}.fc2"), width, inner);
        }
        let word = c.optional("word_embed_proj_dim").unwrap_or(width);
        let (words, positions) = (c.size("vocab_size", 50272), c.size("max_position_embeddings", 2048));
        self.others.insert(format!("{at}.embed_tokens.weight"), vec![words, word]);
        self.others.insert(format!("{at}.embed_positions.weight"), vec![positions + OPT_OFFSET, width]);
        if word != width {
            self.others.insert(format!("{at}.project_in.weight"), vec![width, word]);
            self.others.insert(format!("{at}.project_out.weight"), vec![word, width]);
        }
        self.head(c.flag("tie_word_embeddings", true), words, word);
        word
    }
}

/// The class of the network; told by `model_type` where `architectures` is absent.
fn class(config: &Map<String, Value>, problems: &mut Vec<String>) -> Option<&'static str> {
    let kind = config.get("model_type").and_then(Value::as_str);
    let named = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let found = CLASSES.iter().find(|(of, class)| Some(*of) == kind && named.is_none_or(|name| name == *class));
    if found.is_none() {
        let quoted = |text: Option<&str>| text.map_or("absent".to_owned(), |text| format!("`{text}`"));
        let known: Vec<String> = CLASSES.iter().map(|(of, class)| format!("`{class}` ({of})")).collect();
        problems.push(format!(
            "`model_type` is {} and the class in `architectures` {}; supported are {}",
            quoted(kind),
            quoted(named),
            known.join(", ")
        ));
    }
    found.map(|(_, class)| *class)
}

/// The first few of a sort of tensors.
fn listed(what: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<String> = names.collect();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    (!names.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
}

/// Fields of a part of the configuration.
struct Sizes<'a> {
    part: &'static str,
    fields: Option<&'a Map<String, Value>>,
    problems: Vec<String>,
}

impl<'a> Sizes<'a> {
    /// A part; one that is absent or `null` has its class's defaults.
    fn of(config: &'a Map<String, Value>, part: &'static str, problems: &mut Vec<String>) -> Self {
        let fields = match config.get(part) {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) => Some(fields),
            Some(_) => {
                problems.push(format!("`{part}` is not an object"));
                None
            }
        };
        Self { part, fields, problems: Vec::new() }
    }

    fn problem(&mut self, message: String) {
        self.problems.push(message);
    }

    /// A field that is written, `null` among them.
    fn written(&self, field: &str) -> Option<&'a Value> {
        self.fields?.get(field)
    }

    fn bounded(&mut self, field: &str, value: &Value, most: usize) -> usize {
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=most).contains(size));
        if size.is_none() {
            let name = if self.part.is_empty() { field.to_owned() } else { format!("{}.{field}", self.part) };
            self.problem(format!("`{name}` is {value}; it must be between 1 and {most}"));
        }
        size.unwrap_or(1)
    }

    fn size(&mut self, field: &str, default: usize) -> usize {
        self.written(field).map_or(default, |value| self.bounded(field, value, LARGEST))
    }

    fn optional(&mut self, field: &str) -> Option<usize> {
        let value = self.written(field).filter(|value| !value.is_null())?;
        Some(self.bounded(field, value, LARGEST))
    }

    fn layers(&mut self, field: &str, default: usize) -> usize {
        self.written(field).map_or(default, |value| self.bounded(field, value, MOST_LAYERS))
    }

    fn divides(&mut self, field: &str, value: usize, by: &str, default: usize) {
        let divisor = self.size(by, default);
        let part = self.part;
        self.require(value.is_multiple_of(divisor), || {
            format!("`{part}.{field}` is {value}, which `{by}` = {divisor} does not divide")
        });
    }

    /// A relation between sizes; where one of them is bad by itself, that is enough said.
    fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds && self.problems.is_empty() {
            self.problems.push(message());
        }
    }

    fn flag(&self, field: &str, default: bool) -> bool {
        self.written(field).and_then(Value::as_bool).unwrap_or(default)
    }
}
