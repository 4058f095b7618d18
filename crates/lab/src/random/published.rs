//! Configurations of the published models, as far as they decide shapes and arithmetic; what is not said is the class's default.
//!
//! Sources: the conversion scripts of transformers (`models/blip_2`, `models/instructblip`) and the configurations of the language models
//! that they start from (FlanT5, Vicuna 1.1, OPT).

use serde_json::{Value, json};

/// Names of the shapes, as on the hub.
pub const NAMES: [&str; 10] = [
    "instructblip-flan-t5-xl",
    "instructblip-flan-t5-xxl",
    "instructblip-vicuna-7b",
    "instructblip-vicuna-13b",
    "blip2-flan-t5-xl",
    "blip2-flan-t5-xxl",
    "blip2-opt-2.7b",
    "blip2-opt-6.7b",
    "blip2-itm-vit-g",
    "blip2-itm-vit-g-coco",
];

/// `config.json` of a published shape.
pub fn config(name: &str) -> Option<Value> {
    let (family, language) = name.strip_prefix("instructblip-").map(|rest| ("instructblip", rest)).or_else(|| {
        let rest = name.strip_prefix("blip2-")?;
        Some(("blip-2", rest))
    })?;
    let instructed = family == "instructblip";
    let (text, image_token) = match language {
        "flan-t5-xl" => (t5(2048, 5120, 32), 32100),
        "flan-t5-xxl" => (t5(4096, 10240, 64), 32100),
        "vicuna-7b" if instructed => (llama(4096, 11008, 32), 32000),
        "vicuna-13b" if instructed => (llama(5120, 13824, 40), 32000),
        "opt-2.7b" if !instructed => (opt(2560, 10240), 50265),
        "opt-6.7b" if !instructed => (opt(4096, 16384), 50265),
        "itm-vit-g" if !instructed => return Some(matching(224)),
        "itm-vit-g-coco" if !instructed => return Some(matching(364)),
        _ => return None,
    };
    let class = if instructed { "InstructBlipForConditionalGeneration" } else { "Blip2ForConditionalGeneration" };
    let prefix = if instructed { "instructblip" } else { "blip_2" };
    let decoder_only = text["model_type"] != "t5";
    Some(json!({
        "architectures": [class],
        "image_token_index": image_token,
        "model_type": family,
        "num_query_tokens": 32,
        "qformer_config": qformer(prefix, false),
        "text_config": text,
        "use_decoder_only_language_model": decoder_only,
        "vision_config": vision(prefix, 224),
    }))
}

fn matching(image_size: u32) -> Value {
    json!({
        "architectures": ["Blip2ForImageTextRetrieval"],
        "image_text_hidden_size": 256,
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "qformer_config": qformer("blip_2", true),
        "text_config": { "model_type": "opt" },
        "vision_config": vision("blip_2", image_size),
    })
}

/// EVA-CLIP ViT-g without its last block.
fn vision(prefix: &str, image_size: u32) -> Value {
    json!({
        "hidden_act": "gelu",
        "hidden_size": 1408,
        "image_size": image_size,
        "intermediate_size": 6144,
        "layer_norm_eps": 1e-6,
        "model_type": format!("{prefix}_vision_model"),
        "num_attention_heads": 16,
        "num_hidden_layers": 39,
        "patch_size": 14,
        "qkv_bias": true,
    })
}

/// BERT-base with cross-attention in every other block.
fn qformer(prefix: &str, reads_text: bool) -> Value {
    let mut config = json!({
        "cross_attention_frequency": 2,
        "encoder_hidden_size": 1408,
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": format!("{prefix}_qformer"),
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": if prefix == "instructblip" || reads_text { 30523 } else { 30522 },
    });
    if prefix == "blip_2" {
        config["use_qformer_text_input"] = reads_text.into();
    }
    config
}

fn t5(width: u32, inner: u32, heads: u32) -> Value {
    json!({
        "architectures": ["T5ForConditionalGeneration"],
        "bos_token_id": 1,
        "d_ff": inner,
        "d_kv": 64,
        "d_model": width,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu",
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": true,
        "layer_norm_epsilon": 1e-6,
        "model_type": "t5",
        "num_decoder_layers": 24,
        "num_heads": heads,
        "num_layers": 24,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": false,
        "vocab_size": 32128,
    })
}

fn llama(width: u32, inner: u32, blocks: u32) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": blocks,
        "num_hidden_layers": blocks,
        "num_key_value_heads": blocks,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "vocab_size": 32001,
    })
}

fn opt(width: u32, inner: u32) -> Value {
    json!({
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "bos_token_id": 2,
        "do_layer_norm_before": true,
        // A line break ends an answer of the published models.
        "eos_token_id": 50118,
        "ffn_dim": inner,
        "hidden_size": width,
        "max_position_embeddings": 2048,
        "model_type": "opt",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "pad_token_id": 1,
        "tie_word_embeddings": true,
        "vocab_size": 50304,
        "word_embed_proj_dim": width,
    })
}
