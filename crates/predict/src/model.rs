//! A model by its sizes: what a `config.json` says, without weights.

use std::{collections::BTreeSet, path::Path};

use ressa_checkpoint::{
    LLAMA_LIKE, Outline, PUBLISHED, Pinpoints, TileSizes, decoder_fields, is_idefics, is_internvl, is_llava,
    is_llava_next, is_qwen_vl, llava_tokens, llava_vision, names, published_config, qwen_text, read_config,
    reads_tiles, tiled_vision,
};
use ressa_experiment::{Tower, job::Compute, search::SearchSizes};
use serde_json::{Map, Value};

use crate::PredictError;

/// What runs through a linear: which of a pass's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// Patches of every image, once for each image.
    Patches,
    /// Queries and text of the connector, for each row.
    QueriesAndText,
    /// Queries of the connector.
    Queries,
    /// Text of the connector.
    Text,
    /// What an encoder reads, or a decoder-only model: image tokens and prompt (and for the latter the answer).
    Sequence,
    /// What a decoder writes.
    Answer,
}

/// A prunable linear `[outputs, inputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its tower.
    pub tower: Tower,
    /// The kind of block it is in.
    pub kind: BlockKind,
    /// What runs through it.
    pub reads: Reads,
    /// Number of its block within the stack.
    pub block: usize,
    /// The last word of its name, such as `qkv`.
    pub role: String,
    /// Its name.
    pub path: String,
    /// Rows of the weight.
    pub outputs: f64,
    /// Columns of the weight.
    pub inputs: f64,
}

impl Layer {
    /// Its weights.
    pub fn weights(&self) -> f64 {
        self.outputs * self.inputs
    }
}

/// Blocks that run the same operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockKind {
    /// Image encoder.
    Vision,
    /// Connector.
    Qformer,
    /// T5's encoder.
    T5Encoder,
    /// T5's decoder.
    T5Decoder,
    /// LLaMA.
    Llama,
    /// OPT.
    Opt,
}

impl BlockKind {
    /// The tower that has such blocks.
    pub fn tower(self) -> Tower {
        match self {
            BlockKind::Vision => Tower::Vision,
            BlockKind::Qformer => Tower::Connector,
            BlockKind::T5Encoder | BlockKind::T5Decoder | BlockKind::Llama | BlockKind::Opt => Tower::Language,
        }
    }
}

/// A stack of equal blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// What its blocks do.
    pub kind: BlockKind,
    /// How many there are.
    pub blocks: f64,
    /// Width of the residual stream.
    pub width: f64,
    /// Width of the feed-forward layers.
    pub inner: f64,
    /// Width of all heads together.
    pub attention: f64,
    /// Heads.
    pub heads: f64,
    /// Width of all key heads together, which may be shared by query heads.
    pub keys: f64,
}

/// A vision-language model by its sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Prunable linears.
    pub layers: Vec<Layer>,
    /// The projection of the queries, a layer of the connector where it is pruned with it.
    pub projection: Option<Layer>,
    /// Stacks in the order in which they run.
    pub stacks: Vec<Stack>,
    /// Tokens of an image, the class token among them.
    pub patches: f64,
    /// Queries: tokens that stand for an image in the language model.
    pub queries: f64,
    /// Whether the connector reads the instruction.
    pub reads_instruction: bool,
    /// Words of the language model; 0 where there is none.
    pub words: f64,
    /// Width of the language model's words.
    pub word_width: f64,
    /// All parameters.
    pub parameters: f64,
    /// The type of the stored weights.
    pub stored: Compute,
}

impl Model {
    /// The model of a checkpoint folder: from its `config.json`, or where it has none from the published model that its name says.
    ///
    /// # Errors
    /// A folder without a configuration that has no published name; a configuration of no supported network.
    pub fn at(folder: &Path) -> Result<Self, PredictError> {
        let shown = folder.display().to_string();
        if let Ok(config) = read_config(folder) {
            return Self::of(&config).map_err(|reason| PredictError::Model { folder: shown, reason });
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let config = published_config(&name)
            .ok_or_else(|| PredictError::UnknownModel { folder: shown.clone(), known: PUBLISHED.join(", ") })?;
        Self::of(&config).map_err(|reason| PredictError::Model { folder: shown, reason })
    }

    /// The model of a configuration.
    ///
    /// # Errors
    /// What no supported network can have.
    pub fn of(config: &Map<String, Value>) -> Result<Self, String> {
        let outline = Outline::of(config).map_err(|problems| problems.join("; "))?;
        let layers: Vec<Layer> =
            outline.linears.iter().filter_map(|(name, shape)| layer(name, shape, config)).collect();
        let other = |name: &str| outline.others.get(name).or(outline.heads.get(name));
        let size = |name: &str, dimension: usize| other(name).and_then(|shape| shape.get(dimension)).copied();
        let words = ["shared", "model.embed_tokens", "model.decoder.embed_tokens"]
            .iter()
            .find_map(|at| outline.others.get(&format!("language_model.{at}.weight")));
        let elements = |shape: &Vec<usize>| shape.iter().map(|&size| size as f64).product::<f64>();
        let all = outline.linears.values().chain(outline.others.values());
        let stored = config.get("dtype").or(config.get("torch_dtype")).and_then(Value::as_str);
        let [patches, queries] = match () {
            // Where images keep their sizes, one of middling size counts: 32 patches a side, four of which are a feature.
            () if is_qwen_vl(config) => [1024, 256],
            () if reads_tiles(config) => TileSizes::of(config)?.of_photograph(),
            () if is_llava_next(config) => {
                let mosaic = Pinpoints::of(config)?.of_photograph();
                [mosaic.count() * llava_tokens(config).unwrap_or_default()[0], mosaic.features()]
            }
            () if is_llava(config) => llava_tokens(config).unwrap_or_default(),
            () => [("vision_model.embeddings.position_embedding", 1), ("query_tokens", 1)]
                .map(|(name, dimension)| size(name, dimension).unwrap_or_default()),
        };
        let projection = outline.others.get(names::PROJECTION).and_then(|shape| projection(shape, &layers));
        Ok(Self {
            projection,
            stacks: stacks(&layers, config),
            patches: patches as f64,
            queries: queries as f64,
            reads_instruction: layers.iter().any(|layer| layer.reads == Reads::Text),
            words: words.map_or(0.0, |shape| shape[0] as f64),
            word_width: words.map_or(0.0, |shape| shape[1] as f64),
            parameters: all.map(elements).sum(),
            stored: stored.and_then(|name| name.parse().ok()).unwrap_or(Compute::Float32),
            layers,
        })
    }

    /// Prunable weights of a tower.
    pub fn weights(&self, tower: Tower) -> f64 {
        self.layers.iter().filter(|layer| layer.tower == tower).map(Layer::weights).sum()
    }

    /// Prunable weights of all towers.
    pub fn prunable(&self) -> f64 {
        self.layers.iter().map(Layer::weights).sum()
    }

    /// Sizes that the memory of a search follows from, with elements of so many bytes; `None` where nothing writes.
    pub fn search_sizes(&self, element: f64) -> Option<SearchSizes> {
        let writes = |kind| matches!(kind, BlockKind::T5Decoder | BlockKind::Llama | BlockKind::Opt);
        let stack = self.stacks.iter().find(|stack| writes(stack.kind))?;
        Some(SearchSizes {
            blocks: stack.blocks as u64,
            keys: stack.keys as u64,
            width: stack.width as u64,
            inner: stack.inner as u64,
            words: self.words as u64,
            has_encoder: self.has_decoder(),
            element: element as u64,
        })
    }

    /// Bytes of an image's features, with elements of so many bytes.
    pub fn feature_bytes(&self, element: f64) -> f64 {
        self.patches * self.stacks.first().map_or(0.0, |stack| stack.width) * element
    }

    /// Bytes of an image's pixels, three bytes each: a square of patches of the published size.
    pub fn pixel_bytes(&self) -> f64 {
        const PATCH: f64 = 14.0;
        3.0 * (self.patches - 1.0) * PATCH * PATCH
    }

    /// Whether answers are written by a decoder that looks at an encoder's states.
    pub fn has_decoder(&self) -> bool {
        self.stacks.iter().any(|stack| stack.kind == BlockKind::T5Decoder)
    }
}

/// A linear by its name.
fn layer(name: &str, shape: &[usize], config: &Map<String, Value>) -> Option<Layer> {
    let &[outputs, inputs] = shape else { return None };
    let tower = names::Part::of(name).tower()?;
    let block = names::block(name)?;
    let has = |part: &str| name.contains(part);
    let (kind, reads) = match tower {
        Tower::Vision => (BlockKind::Vision, Reads::Patches),
        Tower::Connector => {
            let reads = match () {
                // Keys and values of an image are made once, however many rows look at it.
                () if has(".crossattention.attention.key.") || has(".crossattention.attention.value.") => {
                    Reads::Patches
                }
                () if has(".crossattention.") || has("_query.") => Reads::Queries,
                () if has(".attention.") => Reads::QueriesAndText,
                () => Reads::Text,
            };
            (BlockKind::Qformer, reads)
        }
        Tower::Language => match decoder(config) {
            Some("t5") if has(".encoder.") => (BlockKind::T5Encoder, Reads::Sequence),
            Some("t5") if has(".EncDecAttention.k.") || has(".EncDecAttention.v.") => {
                (BlockKind::T5Decoder, Reads::Sequence)
            }
            Some("t5") => (BlockKind::T5Decoder, Reads::Answer),
            Some(kind) if LLAMA_LIKE.contains(&kind) => (BlockKind::Llama, Reads::Sequence),
            _ => (BlockKind::Opt, Reads::Sequence),
        },
    };
    let role = name.rsplit('.').nth(1).unwrap_or_default().to_owned();
    let path = name.to_owned();
    Some(Layer { tower, kind, reads, block: block.index, role, path, outputs: outputs as f64, inputs: inputs as f64 })
}

/// The projection behind the connector's layers.
fn projection(shape: &[usize], layers: &[Layer]) -> Option<Layer> {
    let &[outputs, inputs] = shape else { return None };
    let blocks = layers.iter().filter(|layer| layer.kind == BlockKind::Qformer).map(|layer| layer.block + 1);
    Some(Layer {
        tower: Tower::Connector,
        kind: BlockKind::Qformer,
        reads: Reads::Queries,
        block: blocks.max().unwrap_or(0),
        role: names::role(names::PROJECTION.trim_end_matches(".weight")).to_owned(),
        path: names::PROJECTION.to_owned(),
        outputs: outputs as f64,
        inputs: inputs as f64,
    })
}

/// `model_type` of the language model, where it is known.
fn decoder(config: &Map<String, Value>) -> Option<&str> {
    let written = config.get("text_config").and_then(|text| text.get("model_type")?.as_str());
    match written {
        _ if is_qwen_vl(config) => Some("qwen2"),
        None if is_llava(config) || is_idefics(config) => Some("llama"),
        None if is_internvl(config) => Some("qwen2"),
        written => written,
    }
}

/// A part of a configuration with the defaults of its class, as far as they are not the same for all.
fn fields(config: &Map<String, Value>, part: &str) -> Map<String, Value> {
    let written = config.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
    match part {
        "text_config" if is_qwen_vl(config) => qwen_text(config),
        "text_config" => decoder_fields(decoder(config).unwrap_or_default(), &written),
        "vision_config" if reads_tiles(config) => tiled_vision(config).map_or(written, |(_, fields)| fields),
        "vision_config" if is_llava(config) => llava_vision(config).map_or(written, |(_, fields)| fields),
        _ => written,
    }
}

/// The stacks that the layers are in.
fn stacks(layers: &[Layer], config: &Map<String, Value>) -> Vec<Stack> {
    let order = [
        BlockKind::Vision,
        BlockKind::Qformer,
        BlockKind::T5Encoder,
        BlockKind::T5Decoder,
        BlockKind::Llama,
        BlockKind::Opt,
    ];
    let of_kind = |kind: BlockKind| {
        let own: Vec<&Layer> = layers.iter().filter(|layer| layer.kind == kind).collect();
        let blocks: BTreeSet<usize> = own.iter().map(|layer| layer.block).collect();
        let first = own.first()?;
        let (part, heads, default) = match kind {
            BlockKind::Vision if is_qwen_vl(config) => ("vision_config", "num_heads", 16),
            BlockKind::Vision => ("vision_config", "num_attention_heads", 16),
            BlockKind::Qformer => ("qformer_config", "num_attention_heads", 12),
            BlockKind::T5Encoder | BlockKind::T5Decoder => ("text_config", "num_heads", 8),
            BlockKind::Llama => ("text_config", "num_attention_heads", 32),
            BlockKind::Opt => ("text_config", "num_attention_heads", 12),
        };
        let fields = fields(config, part);
        let field = |name: &str| fields.get(name)?.as_u64();
        let heads = field(heads).unwrap_or(default) as f64;
        let of_block: Vec<&&Layer> = own.iter().filter(|layer| layer.block == first.block).collect();
        // The residual stream is what most layers of a block read; the widest side of a block's layers is the feed-forward width.
        let inputs = |layer: &&&Layer| layer.inputs;
        let width = match kind {
            BlockKind::Qformer => {
                of_block.iter().filter(|layer| layer.reads == Reads::Queries).map(inputs).reduce(f64::min)
            }
            _ => of_block.iter().map(inputs).reduce(f64::min),
        }?;
        let inner = of_block.iter().map(|layer| layer.inputs).fold(width, f64::max);
        let attention = match kind {
            BlockKind::T5Encoder | BlockKind::T5Decoder => heads * field("d_kv").unwrap_or(64) as f64,
            BlockKind::Llama => field("head_dim").map_or(width, |head| heads * head as f64),
            BlockKind::Vision | BlockKind::Qformer | BlockKind::Opt => width,
        };
        let shared = field("num_key_value_heads").map_or(heads, |keys| keys as f64);
        Some(Stack {
            kind,
            blocks: blocks.len() as f64,
            width,
            inner,
            attention,
            heads,
            keys: attention * shared / heads,
        })
    };
    order.into_iter().filter_map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(name: &str) -> Model {
        Model::of(&published_config(name).expect("it is in the list")).expect("a supported network")
    }

    /// Biases and gains, of which an outline knows nothing, are less than two thousandths.
    #[test]
    fn published_models_have_their_published_numbers_of_parameters() {
        for (name, parameters) in [
            ("instructblip-flan-t5-xl", 4_022_969_088_f64),
            ("instructblip-vicuna-7b", 7_913_210_624.0),
            ("blip2-flan-t5-xl", 3_942_446_592.0),
            ("blip2-opt-2.7b", 3_744_761_856.0),
            ("qwen2.5-vl-3b-instruct", 3_754_622_976.0),
            ("smolvlm-256m-instruct", 256_484_928.0),
        ] {
            let found = published(name).parameters;
            assert!((0.998..=1.0).contains(&(found / parameters)), "{name}: {found}");
        }
    }

    #[test]
    fn stacks_have_the_sizes_of_their_configurations() {
        let sizes = |name: &str| -> Vec<(BlockKind, [f64; 5])> {
            let model = published(name);
            let of =
                |stack: &Stack| (stack.kind, [stack.blocks, stack.width, stack.inner, stack.attention, stack.heads]);
            model.stacks.iter().map(of).collect()
        };
        let image = [
            (BlockKind::Vision, [39.0, 1408.0, 6144.0, 1408.0, 16.0]),
            (BlockKind::Qformer, [12.0, 768.0, 3072.0, 768.0, 12.0]),
        ];
        let t5 = [2048.0, 5120.0, 2048.0, 32.0];
        let t5 = |kind| (kind, [24.0, t5[0], t5[1], t5[2], t5[3]]);
        let xl = [t5(BlockKind::T5Encoder), t5(BlockKind::T5Decoder)];
        assert_eq!(sizes("instructblip-flan-t5-xl"), [&image[..], &xl].concat());
        let vicuna = (BlockKind::Llama, [32.0, 4096.0, 11008.0, 4096.0, 32.0]);
        assert_eq!(sizes("instructblip-vicuna-7b"), [&image[..], &[vicuna]].concat());
        let smolvlm = [
            (BlockKind::Vision, [12.0, 768.0, 3072.0, 768.0, 12.0]),
            (BlockKind::Llama, [30.0, 576.0, 1536.0, 576.0, 9.0]),
        ];
        assert_eq!(sizes("smolvlm-256m-instruct"), smolvlm);
        let internvl = [
            (BlockKind::Vision, [24.0, 1024.0, 4096.0, 1024.0, 16.0]),
            (BlockKind::Llama, [24.0, 896.0, 4864.0, 896.0, 14.0]),
        ];
        assert_eq!(sizes("internvl3-1b-hf"), internvl);
        let interleave = [
            (BlockKind::Vision, [26.0, 1152.0, 4304.0, 1152.0, 16.0]),
            (BlockKind::Llama, [24.0, 1024.0, 2816.0, 1024.0, 16.0]),
        ];
        assert_eq!(sizes("llava-interleave-qwen-0.5b-hf"), interleave);
        let images = |name: &str| [published(name).patches, published(name).queries];
        assert_eq!(images("smolvlm-256m-instruct"), [13.0 * 1024.0, 13.0 * 64.0]);
        assert_eq!(images("internvl3-1b-hf"), [13.0 * 1024.0, 13.0 * 256.0]);
        assert_eq!(images("llava-interleave-qwen-0.5b-hf"), [729.0, 729.0]);
        assert_eq!(images("llava-1.5-7b-hf"), [577.0, 576.0]);
        assert_eq!(images("llava-v1.6-mistral-7b-hf"), [5.0 * 577.0, 2340.0]);
        assert_eq!(images("qwen2-vl-2b-instruct"), [1024.0, 256.0]);
        let model = published("blip2-itm-vit-g-coco");
        assert_eq!((model.patches, model.words, model.reads_instruction), (677.0, 0.0, true));
        assert!(!published("blip2-opt-2.7b").reads_instruction);
    }

    #[test]
    fn a_folder_that_is_not_there_is_known_by_its_name() {
        assert!(Model::at(Path::new("nowhere/InstructBLIP-flan-t5-xl")).is_ok());
        let unknown = Model::at(Path::new("nowhere/mine")).expect_err("unknown").to_string();
        assert!(unknown.contains("`nowhere/mine`") && unknown.contains("blip2-opt-2.7b"), "{unknown}");
    }
}
