//! Configurations of the published models, by the names they have on the hub. Shapes only: a folder's own files always are what is read.
//!
//! What a configuration leaves out has its class's default; image encoder and Q-Former are the same in all
//! models of the BLIP-2 family.

use ressa_experiment::model::Preset;
use serde_json::{Map, Value, json};

/// Names that [`published_config`] knows.
pub const PUBLISHED: [&str; 12] = [
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
    "llava-1.5-7b-hf",
    "llava-1.5-13b-hf",
];

/// Words of the instructions' tokenizer: BERT's and one for the beginning of what the decoder writes.
const QFORMER_WORDS: usize = 30523;
/// Words of the Q-Former's class, where no text is read.
const QFORMER_DEFAULT_WORDS: usize = 30522;

/// The configuration of a published model, as its `config.json` would have it.
pub fn published_config(name: &str) -> Option<Map<String, Value>> {
    let instructed = |text, image_token| with_language("instructblip", text, image_token);
    let described = |text, image_token| with_language("blip-2", text, image_token);
    let config = match name {
        "instructblip-flan-t5-xl" => instructed(flan_t5(2048, 5120, 32), 32100),
        "instructblip-flan-t5-xxl" => instructed(flan_t5(4096, 10240, 64), 32100),
        "instructblip-vicuna-7b" => instructed(vicuna(4096, 11008, 32, 32), 32000),
        "instructblip-vicuna-13b" => instructed(vicuna(5120, 13824, 40, 40), 32000),
        "blip2-flan-t5-xl" => described(flan_t5(2048, 5120, 32), 32100),
        "blip2-flan-t5-xxl" => described(flan_t5(4096, 10240, 64), 32100),
        "blip2-opt-2.7b" => described(opt(2560, 10240), 50265),
        "blip2-opt-6.7b" => described(opt(4096, 16384), 50265),
        "blip2-itm-vit-g" => retrieval(224),
        "blip2-itm-vit-g-coco" => retrieval(364),
        "llava-1.5-7b-hf" => llava(vicuna(4096, 11008, 32, 32)),
        "llava-1.5-13b-hf" => llava(vicuna(5120, 13824, 40, 40)),
        _ => return None,
    };
    match config {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// The configuration of a model of the embedded world, as its `config.json` has it.
pub fn preset_config(preset: Preset) -> Map<String, Value> {
    let text = match preset {
        Preset::ShapesFlanT5 => include_str!("presets/shapes-flant5.json"),
        Preset::ShapesVicuna => include_str!("presets/shapes-vicuna.json"),
    };
    serde_json::from_str(text).expect("the file of a preset is a JSON object")
}

fn with_language(model_type: &str, text: Value, image_token: u32) -> Value {
    let instructed = model_type == "instructblip";
    let (class, vision, qformer, words) = if instructed {
        let class = "InstructBlipForConditionalGeneration";
        (class, "instructblip_vision_model", "instructblip_qformer", QFORMER_WORDS)
    } else {
        ("Blip2ForConditionalGeneration", "blip_2_vision_model", "blip_2_qformer", QFORMER_DEFAULT_WORDS)
    };
    json!({
        "architectures": [class],
        "dtype": "float32",
        "image_token_index": image_token,
        "model_type": model_type,
        "num_query_tokens": 32,
        "qformer_config": { "model_type": qformer, "vocab_size": words },
        "use_decoder_only_language_model": text["model_type"] != "t5",
        "text_config": text,
        "vision_config": { "model_type": vision },
    })
}

fn retrieval(image: u32) -> Value {
    json!({
        "architectures": ["Blip2ForImageTextRetrieval"],
        "dtype": "float32",
        "image_text_hidden_size": 256,
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "qformer_config": { "model_type": "blip_2_qformer", "use_qformer_text_input": true, "vocab_size": QFORMER_WORDS },
        "vision_config": { "image_size": image, "model_type": "blip_2_vision_model" },
    })
}

fn llava(mut text: Value) -> Value {
    text["vocab_size"] = json!(32064);
    text["max_position_embeddings"] = json!(4096);
    text["rms_norm_eps"] = json!(1e-5);
    json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "dtype": "float16",
        "image_token_index": 32000,
        "model_type": "llava",
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    })
}

fn flan_t5(width: u32, feed_forward: u32, heads: u32) -> Value {
    json!({
        "architectures": ["T5ForConditionalGeneration"],
        "bos_token_id": 1,
        "d_ff": feed_forward,
        "d_model": width,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu",
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": true,
        "model_type": "t5",
        "num_decoder_layers": 24,
        "num_heads": heads,
        "num_layers": 24,
        "pad_token_id": 0,
        "tie_word_embeddings": false,
    })
}

fn vicuna(width: u32, feed_forward: u32, layers: u32, heads: u32) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "tie_word_embeddings": false,
        "vocab_size": 32001,
    })
}

fn opt(width: u32, feed_forward: u32) -> Value {
    /// The line feed: BLIP-2's captions end with it.
    const LINE_FEED: u32 = 50118;
    json!({
        "architectures": ["OPTForCausalLM"],
        "bos_token_id": 2,
        "eos_token_id": LINE_FEED,
        "ffn_dim": feed_forward,
        "hidden_size": width,
        "model_type": "opt",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "pad_token_id": 1,
        "vocab_size": 50304,
        "word_embed_proj_dim": width,
    })
}
