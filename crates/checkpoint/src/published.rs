//! Configurations of the published models, by the names they have on the hub. Shapes only: a folder's own files always are what is read.
//!
//! What a configuration leaves out has its class's default; image encoder and Q-Former are the same in all
//! models of the BLIP-2 family.

use ressa_experiment::model::Preset;
use serde_json::{Map, Value, json};

/// Names that [`published_config`] knows, in small letters.
pub const PUBLISHED: [&str; 25] = [
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
    "llava-interleave-qwen-0.5b-hf",
    "llava-v1.6-vicuna-7b-hf",
    "llava-v1.6-mistral-7b-hf",
    "llama3-llava-next-8b-hf",
    "qwen2-vl-2b-instruct",
    "qwen2-vl-7b-instruct",
    "qwen2.5-vl-3b-instruct",
    "qwen2.5-vl-7b-instruct",
    "smolvlm-256m-instruct",
    "smolvlm-500m-instruct",
    "internvl3-1b-hf",
    "internvl3-2b-hf",
    "internvl3-8b-hf",
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
        "llava-interleave-qwen-0.5b-hf" => llava_interleave(),
        "llava-v1.6-vicuna-7b-hf" => llava_next(vicuna_1_5(vicuna(4096, 11008, 32, 32)), 32_000),
        "llava-v1.6-mistral-7b-hf" => llava_next(mistral(), 32_000),
        "llama3-llava-next-8b-hf" => llava_next(llama3(), 128_256),
        "qwen2-vl-2b-instruct" => qwen2_vl(qwen2([1536, 8960, 28, 12, 2], 151_936, true)),
        "qwen2-vl-7b-instruct" => qwen2_vl(qwen2([3584, 18944, 28, 28, 4], 152_064, false)),
        "qwen2.5-vl-3b-instruct" => qwen2_5_vl(qwen2([2048, 11008, 36, 16, 2], 151_936, true)),
        "qwen2.5-vl-7b-instruct" => qwen2_5_vl(qwen2([3584, 18944, 28, 28, 4], 152_064, false)),
        "smolvlm-256m-instruct" => smolvlm([576, 1536, 30, 9, 3]),
        "smolvlm-500m-instruct" => smolvlm([960, 2560, 32, 15, 5]),
        "internvl3-1b-hf" => internvl([896, 4864, 24, 14, 2]),
        "internvl3-2b-hf" => internvl([1536, 8960, 28, 12, 2]),
        "internvl3-8b-hf" => internvl([3584, 18944, 28, 28, 4]),
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

fn llava(text: Value) -> Value {
    let mut config = with_clip(vicuna_1_5(text), 32_000);
    config["architectures"] = json!(["LlavaForConditionalGeneration"]);
    config["model_type"] = json!("llava");
    config["pad_token_id"] = json!(32_001);
    config
}

/// What version 1.5 of Vicuna has of its own, which LLaVA adds an image token and padding to.
fn vicuna_1_5(mut text: Value) -> Value {
    text["vocab_size"] = json!(32_064);
    text["max_position_embeddings"] = json!(4096);
    text["rms_norm_eps"] = json!(1e-5);
    text
}

fn llava_next(text: Value, image_token: u32) -> Value {
    let words = text["vocab_size"].clone();
    let mut config = with_clip(text, image_token);
    config["architectures"] = json!(["LlavaNextForConditionalGeneration"]);
    config["image_grid_pinpoints"] = json!([[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]);
    config["model_type"] = json!("llava_next");
    config["tie_word_embeddings"] = json!(false);
    config["use_image_newline_parameter"] = json!(true);
    config["vocab_size"] = words;
    config
}

/// CLIP's large image encoder, two linears and a language model, as all LLaVA have them.
fn with_clip(text: Value, image_token: u32) -> Value {
    json!({
        "architectures": null,
        "dtype": "float16",
        "image_token_index": image_token,
        "model_type": null,
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

/// The language model of LLaVA-NeXT-Mistral.
fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"],
        "intermediate_size": 14_336,
        "max_position_embeddings": 32_768,
        "model_type": "mistral",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": null,
        "vocab_size": 32_064,
    })
}

/// The language model of LLaVA-NeXT-LLaMA-3.
fn llama3() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 128_000,
        "eos_token_id": 128_009,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "vocab_size": 128_320,
    })
}

fn llava_interleave() -> Value {
    json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "dtype": "float16",
        "image_token_index": 151_646,
        "model_type": "llava",
        "projector_hidden_act": "gelu",
        "text_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "max_position_embeddings": 32_768,
            "max_window_layers": 21,
            "model_type": "qwen2",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "num_key_value_heads": 16,
            "rope_theta": 1e6,
            "tie_word_embeddings": true,
            "vocab_size": 152_000,
        },
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 384,
            "intermediate_size": 4304,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 26,
            "patch_size": 14,
            "vision_use_head": false,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    })
}

/// The language model of a Qwen-VL, as folders of 2024 have it: beside the image encoder.
fn qwen2([width, feed_forward, layers, heads, keys]: [u32; 5], words: u32, tied: bool) -> Value {
    json!({
        "bos_token_id": 151_643,
        "dtype": "bfloat16",
        "eos_token_id": 151_645,
        "hidden_act": "silu",
        "hidden_size": width,
        "image_token_id": 151_655,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": keys,
        "rms_norm_eps": 1e-6,
        "rope_scaling": { "mrope_section": [16, 24, 24], "type": "mrope" },
        "rope_theta": 1e6,
        "tie_word_embeddings": tied,
        "use_sliding_window": false,
        "video_token_id": 151_656,
        "vision_end_token_id": 151_653,
        "vision_start_token_id": 151_652,
        "vocab_size": words,
    })
}

fn qwen2_vl(mut text: Value) -> Value {
    text["architectures"] = json!(["Qwen2VLForConditionalGeneration"]);
    text["max_position_embeddings"] = json!(32_768);
    text["model_type"] = json!("qwen2_vl");
    text["vision_config"] = json!({
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": text["hidden_size"],
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    });
    text
}

fn qwen2_5_vl(mut text: Value) -> Value {
    text["architectures"] = json!(["Qwen2_5_VLForConditionalGeneration"]);
    text["max_position_embeddings"] = json!(128_000);
    text["model_type"] = json!("qwen2_5_vl");
    text["vision_config"] = json!({
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": text["hidden_size"],
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
    });
    text
}

fn smolvlm([width, feed_forward, layers, heads, keys]: [u32; 5]) -> Value {
    json!({
        "architectures": ["Idefics3ForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_id": 49_190,
        "model_type": "idefics3",
        "scale_factor": 4,
        "text_config": {
            "bos_token_id": 1,
            "eos_token_id": 49_279,
            "head_dim": 64,
            "hidden_size": width,
            "intermediate_size": feed_forward,
            "max_position_embeddings": 8192,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": keys,
            "pad_token_id": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e5,
            "tie_word_embeddings": false,
            "vocab_size": 49_280,
        },
        "tie_word_embeddings": false,
        "vision_config": {
            "hidden_size": 768,
            "image_size": 512,
            "model_type": "idefics3",
            "num_attention_heads": 12,
            "patch_size": 16,
        },
        "vocab_size": 49_280,
    })
}

fn internvl([width, feed_forward, layers, heads, keys]: [u32; 5]) -> Value {
    json!({
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "dtype": "bfloat16",
        "image_seq_length": 256,
        "image_token_id": 151_667,
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": {
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
            "hidden_size": width,
            "intermediate_size": feed_forward,
            "max_position_embeddings": 32_768,
            "model_type": "qwen2",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": keys,
            "rms_norm_eps": 1e-6,
            "rope_scaling": { "factor": 2.0, "rope_type": "dynamic" },
            "rope_theta": 1e6,
            "tie_word_embeddings": false,
            "use_sliding_window": false,
            "vocab_size": 151_674,
        },
        "vision_config": {
            "attention_bias": true,
            "hidden_size": 1024,
            "image_size": [448, 448],
            "intermediate_size": 4096,
            "model_type": "internvl_vision",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": [14, 14],
        },
        "vision_feature_layer": -1,
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
