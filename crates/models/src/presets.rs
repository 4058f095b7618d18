//! Configurations of the embedded world's models, and smaller ones for tests. Ordinary InstructBLIP configurations.

use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::{
    Blip2Config, Family, Model, ModelError, TensorMap,
    config::{Ids, TextConfig},
    llama::LlamaConfig,
    opt::OptConfig,
    qformer::QFormerConfig,
    t5::T5Config,
    vit::VisionConfig,
};

pub use crate::published::{PUBLISHED, published_config};

/// Special tokens of the embedded world's tokenizers, which follow the published ones: T5 has no begin token, so its end token comes first.
const PAD: i64 = 0;
const T5_EOS: i64 = 1;
const LLAMA_BOS: i64 = 1;
const LLAMA_EOS: i64 = 2;
/// Placeholder of an image position in each family's tokenizer.
const T5_IMAGE: i64 = 3;
const LLAMA_IMAGE: i64 = 4;

/// The embedded world's model with a T5 encoder-decoder. 1.3 M parameters; the language tower has 2.6 times the weights of the vision
/// tower.
pub fn shapes_flant5(vocab_size: i64) -> Blip2Config {
    let text = T5Config {
        d_model: 96,
        d_kv: 16,
        d_ff: 128,
        num_layers: 5,
        num_decoder_layers: Some(4),
        num_heads: 6,
        ..t5(vocab_size)
    };
    small(SHAPES, vocab_size, 96, TextConfig::T5(text))
}

/// The embedded world's model with a LLaMA decoder. 1.2 M parameters; the language tower has 2.2 times the weights of the vision tower.
pub fn shapes_vicuna(vocab_size: i64) -> Blip2Config {
    let text = LlamaConfig {
        hidden_size: 96,
        intermediate_size: 256,
        num_hidden_layers: 6,
        num_attention_heads: 6,
        ..llama(vocab_size)
    };
    small(SHAPES, vocab_size, 96, TextConfig::Llama(text))
}

/// Two blocks of everything, for tests; widths divide by 8.
pub fn tiny_flant5(vocab_size: i64) -> Blip2Config {
    let text = T5Config {
        d_model: 32,
        d_kv: 8,
        d_ff: 48,
        num_layers: 2,
        num_decoder_layers: Some(2),
        num_heads: 4,
        ..t5(vocab_size)
    };
    small(TINY, vocab_size, 32, TextConfig::T5(text))
}

/// Two blocks of everything, for tests; widths divide by 8.
pub fn tiny_vicuna(vocab_size: i64) -> Blip2Config {
    let text = LlamaConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        ..llama(vocab_size)
    };
    small(TINY, vocab_size, 32, TextConfig::Llama(text))
}

/// Two blocks of everything, for tests: BLIP-2, whose Q-Former reads nothing, with T5.
pub fn tiny_blip2_flant5(vocab_size: i64) -> Blip2Config {
    described(tiny_flant5(vocab_size), Family::Blip2)
}

/// Two blocks of everything, for tests: BLIP-2 with OPT. `before`: norms before their layers and words as wide as the blocks; otherwise
/// norms after and narrower words, with projections between.
pub fn tiny_blip2_opt(vocab_size: i64, before: bool) -> Blip2Config {
    let text = OptConfig {
        vocab_size,
        hidden_size: 32,
        ffn_dim: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: 64,
        do_layer_norm_before: before,
        word_embed_proj_dim: Some(if before { 32 } else { 24 }),
        rest: fields(json!({ "architectures": ["OPTForCausalLM"] })),
        ..OptConfig::default()
    };
    described(small(TINY, vocab_size, 32, TextConfig::Opt(text)), Family::Blip2)
}

/// Two blocks of everything, for tests: the retrieval model, which has no language model.
pub fn tiny_retrieval(vocab_size: i64) -> Blip2Config {
    let mut config = described(small(TINY, vocab_size, 32, TextConfig::default()), Family::ImageTextRetrieval);
    config.qformer_config.use_qformer_text_input = true;
    config
}

/// The same sizes in a BLIP-2 family.
fn described(mut config: Blip2Config, family: Family) -> Blip2Config {
    config.model_type = family.model_type().to_owned();
    config.rest.insert("architectures".to_owned(), json!([family.architecture()]));
    config.vision_config.rest.insert("model_type".to_owned(), json!("blip_2_vision_model"));
    config.qformer_config.rest.insert("model_type".to_owned(), json!("blip_2_qformer"));
    config
}

/// A model with weights drawn from `seed`, at scales that keep activations near 1. Nothing is left at 0 or 1, so that tests see every
/// tensor.
pub fn random(config: &Blip2Config, seed: u64) -> Result<Model, ModelError> {
    Model::from_tensors(config, &random_tensors(config, seed)?)
}

/// The tensors of [`random`].
pub fn random_tensors(config: &Blip2Config, seed: u64) -> Result<TensorMap, ModelError> {
    let mut bits = seed;
    let mut tensors = TensorMap::new();
    for (name, shape) in Model::tensor_shapes(config)? {
        let fan_in: i64 = shape.iter().skip(1).product();
        let (mean, spread) = match shape.len() {
            1 if name.ends_with("bias") => (0.0, 0.1),
            1 => (1.0, 0.1),
            _ if name.contains("embed") || name.contains("shared") || name == "query_tokens" => (0.0, 0.5),
            _ => (0.0, (fan_in as f32).powf(-0.5)),
        };
        let count = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = (0..count).map(|_| mean + spread * bell(&mut bits)).collect();
        tensors.insert(name, Tensor::from_slice(&values).view(shape.as_slice()));
    }
    Ok(tensors)
}

/// Nearly normal: the sum of twelve uniform numbers less its mean. SplitMix64 gives four of them at once.
fn bell(state: &mut u64) -> f32 {
    let mut sum = -6.0;
    for _ in 0..3 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        sum += (0..4).map(|part| (z >> (16 * part) & 0xffff) as f32 / 65536.0).sum::<f32>();
    }
    sum
}

/// Widths of image encoder and Q-Former.
struct Sizes {
    vision: i64,
    vision_blocks: usize,
    vision_heads: i64,
    vision_ffn: i64,
    image: i64,
    qformer: i64,
    qformer_heads: i64,
    qformer_ffn: i64,
    queries: i64,
    positions: i64,
    retrieval: i64,
}

const SHAPES: Sizes = Sizes {
    vision: 80,
    vision_blocks: 4,
    vision_heads: 5,
    vision_ffn: 320,
    image: 48,
    qformer: 64,
    qformer_heads: 4,
    qformer_ffn: 128,
    queries: 10,
    positions: 48,
    retrieval: 64,
};

const TINY: Sizes = Sizes {
    vision: 24,
    vision_blocks: 2,
    vision_heads: 3,
    vision_ffn: 40,
    image: 16,
    qformer: 16,
    qformer_heads: 2,
    qformer_ffn: 24,
    queries: 3,
    positions: 24,
    retrieval: 8,
};

fn small(sizes: Sizes, vocab_size: i64, width: i64, text: TextConfig) -> Blip2Config {
    debug_assert!(width % 8 == 0, "widths divide by 8, so that every N:M pattern up to 4:8 applies");
    let decoder_only = !matches!(text, TextConfig::T5(_));
    Blip2Config {
        model_type: "instructblip".to_owned(),
        num_query_tokens: sizes.queries,
        image_text_hidden_size: Some(sizes.retrieval),
        vision_config: VisionConfig {
            hidden_size: sizes.vision,
            intermediate_size: sizes.vision_ffn,
            num_hidden_layers: sizes.vision_blocks,
            num_attention_heads: sizes.vision_heads,
            image_size: sizes.image,
            patch_size: 8,
            rest: fields(json!({ "model_type": "instructblip_vision_model" })),
            ..VisionConfig::default()
        },
        qformer_config: QFormerConfig {
            vocab_size,
            hidden_size: sizes.qformer,
            num_hidden_layers: 2,
            num_attention_heads: sizes.qformer_heads,
            intermediate_size: sizes.qformer_ffn,
            max_position_embeddings: sizes.positions,
            cross_attention_frequency: 1,
            encoder_hidden_size: sizes.vision,
            rest: fields(json!({ "model_type": "instructblip_qformer", "pad_token_id": PAD })),
            ..QFormerConfig::default()
        },
        text_config: text,
        rest: fields(json!({
            "architectures": ["InstructBlipForConditionalGeneration"],
            "image_token_index": if decoder_only { LLAMA_IMAGE } else { T5_IMAGE },
            "use_decoder_only_language_model": decoder_only,
            "dtype": "float32",
        })),
    }
}

fn t5(vocab_size: i64) -> T5Config {
    T5Config {
        vocab_size,
        feed_forward_proj: "gated-gelu".to_owned(),
        dense_act_fn: Some(crate::layers::Activation::Gelu),
        pad_token_id: Some(PAD),
        eos_token_id: Some(Ids::One(T5_EOS)),
        decoder_start_token_id: Some(PAD),
        rest: fields(
            json!({ "architectures": ["T5ForConditionalGeneration"], "is_gated_act": true, "tie_word_embeddings": false }),
        ),
        ..T5Config::default()
    }
}

fn llama(vocab_size: i64) -> LlamaConfig {
    LlamaConfig {
        vocab_size,
        max_position_embeddings: 128,
        rope_theta: Some(10_000.0.into()),
        pad_token_id: Some(PAD),
        eos_token_id: Some(Ids::One(LLAMA_EOS)),
        rest: fields(
            json!({ "architectures": ["LlamaForCausalLM"], "bos_token_id": LLAMA_BOS, "tie_word_embeddings": false }),
        ),
        ..LlamaConfig::default()
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use ressa_checkpoint::{Outline, preset_config};
    use ressa_experiment::model::Preset;

    use super::*;

    /// Programs without tensors know the embedded world's models by files.
    #[test]
    fn presets_are_those_that_are_known_without_tensors() {
        for preset in [Preset::ShapesFlanT5, Preset::ShapesVicuna] {
            let known = preset_config(preset);
            let words = known["text_config"]["vocab_size"].as_i64().expect("a size");
            let own = match preset {
                Preset::ShapesFlanT5 => shapes_flant5(words),
                Preset::ShapesVicuna => shapes_vicuna(words),
            };
            let written = fields(serde_json::to_value(own).expect("JSON"));
            let outline = |config: &Map<String, Value>| Outline::of(config).expect("a supported network");
            assert_eq!(outline(&written), outline(&known), "{preset:?}");
        }
    }
}
