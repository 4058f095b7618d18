//! Configurations of the published models, by the names they have on the hub. Shapes only: a folder's own files are always what is read.

use serde_json::{Map, Value, json};

use crate::{
    Blip2Config,
    config::{Family, Ids, TextConfig},
    layers::Activation,
    llama::LlamaConfig,
    opt::OptConfig,
    qformer::QFormerConfig,
    t5::T5Config,
    vit::VisionConfig,
};

/// Names that [`published_config`] knows.
pub const PUBLISHED: [&str; 10] = [
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

/// Words of the instructions' tokenizer: BERT's and one for the beginning of what the decoder writes.
const QFORMER_WORDS: i64 = 30523;

/// The configuration of a published model.
pub fn published_config(name: &str) -> Option<Blip2Config> {
    let instructed = Family::InstructBlip;
    let described = Family::Blip2;
    Some(match name {
        "instructblip-flan-t5-xl" => with_language(instructed, TextConfig::T5(flan_t5(2048, 5120, 32)), 32100),
        "instructblip-flan-t5-xxl" => with_language(instructed, TextConfig::T5(flan_t5(4096, 10240, 64)), 32100),
        "instructblip-vicuna-7b" => with_language(instructed, TextConfig::Llama(vicuna(4096, 11008, 32, 32)), 32000),
        "instructblip-vicuna-13b" => with_language(instructed, TextConfig::Llama(vicuna(5120, 13824, 40, 40)), 32000),
        "blip2-flan-t5-xl" => with_language(described, TextConfig::T5(flan_t5(2048, 5120, 32)), 32100),
        "blip2-flan-t5-xxl" => with_language(described, TextConfig::T5(flan_t5(4096, 10240, 64)), 32100),
        "blip2-opt-2.7b" => with_language(described, TextConfig::Opt(opt(2560, 10240)), 50265),
        "blip2-opt-6.7b" => with_language(described, TextConfig::Opt(opt(4096, 16384)), 50265),
        "blip2-itm-vit-g" => retrieval(224),
        "blip2-itm-vit-g-coco" => retrieval(364),
        _ => return None,
    })
}

fn with_language(family: Family, text: TextConfig, image_token: i64) -> Blip2Config {
    let decoder_only = !matches!(text, TextConfig::T5(_));
    let mut config = of_family(family, text);
    config.rest.insert("image_token_index".to_owned(), json!(image_token));
    config.rest.insert("use_decoder_only_language_model".to_owned(), json!(decoder_only));
    config
}

fn retrieval(image: i64) -> Blip2Config {
    let mut config = of_family(Family::ImageTextRetrieval, TextConfig::default());
    config.vision_config.image_size = image;
    config.qformer_config.use_qformer_text_input = true;
    config.image_text_hidden_size = Some(256);
    config
}

/// Image encoder and Q-Former are the same in all of them: the classes' defaults.
fn of_family(family: Family, text: TextConfig) -> Blip2Config {
    let (vision, qformer) = match family {
        Family::InstructBlip => ("instructblip_vision_model", "instructblip_qformer"),
        Family::Blip2 | Family::ImageTextRetrieval => ("blip_2_vision_model", "blip_2_qformer"),
    };
    let words = if family == Family::Blip2 { QFormerConfig::default().vocab_size } else { QFORMER_WORDS };
    Blip2Config {
        model_type: family.model_type().to_owned(),
        num_query_tokens: 32,
        image_text_hidden_size: None,
        vision_config: VisionConfig { rest: fields(json!({ "model_type": vision })), ..VisionConfig::default() },
        qformer_config: QFormerConfig {
            vocab_size: words,
            rest: fields(json!({ "model_type": qformer })),
            ..QFormerConfig::default()
        },
        text_config: text,
        rest: fields(json!({ "architectures": [family.architecture()], "dtype": "float32" })),
    }
}

fn flan_t5(width: i64, feed_forward: i64, heads: i64) -> T5Config {
    T5Config {
        d_model: width,
        d_ff: feed_forward,
        num_heads: heads,
        num_layers: 24,
        num_decoder_layers: Some(24),
        feed_forward_proj: "gated-gelu".to_owned(),
        dense_act_fn: Some(Activation::Gelu),
        pad_token_id: Some(0),
        eos_token_id: Some(Ids::One(1)),
        decoder_start_token_id: Some(0),
        rest: fields(json!({
            "architectures": ["T5ForConditionalGeneration"],
            "bos_token_id": 1,
            "is_gated_act": true,
            "tie_word_embeddings": false,
        })),
        ..T5Config::default()
    }
}

fn vicuna(width: i64, feed_forward: i64, layers: usize, heads: i64) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 32001,
        hidden_size: width,
        intermediate_size: feed_forward,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        pad_token_id: Some(0),
        eos_token_id: Some(Ids::One(2)),
        rest: fields(json!({
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "tie_word_embeddings": false,
        })),
        ..LlamaConfig::default()
    }
}

fn opt(width: i64, feed_forward: i64) -> OptConfig {
    /// The line feed: BLIP-2's captions end with it.
    const LINE_FEED: i64 = 50118;
    OptConfig {
        vocab_size: 50304,
        hidden_size: width,
        ffn_dim: feed_forward,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        word_embed_proj_dim: Some(width),
        pad_token_id: Some(1),
        eos_token_id: Some(Ids::One(LINE_FEED)),
        rest: fields(json!({ "architectures": ["OPTForCausalLM"], "bos_token_id": 2 })),
        ..OptConfig::default()
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
    use std::collections::BTreeMap;

    use ressa_checkpoint::{Outline, names::is_prunable};

    use super::*;
    use crate::Blip2;

    /// Counted by hand from the papers' and the hub's figures; copies of tied tensors count once.
    #[test]
    fn published_models_have_their_published_numbers_of_parameters() {
        for (name, parameters) in [
            ("instructblip-flan-t5-xl", 4_022_969_088_i64),
            ("instructblip-vicuna-7b", 7_913_210_624),
            ("blip2-flan-t5-xl", 3_942_446_592),
            ("blip2-opt-2.7b", 3_744_761_856),
        ] {
            let config = published_config(name).expect("it is in the list");
            let shapes = Blip2::tensor_shapes(&config).expect("published shapes are sound");
            let found: i64 = shapes.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
            assert_eq!(found, parameters, "{name}");
        }
        for name in PUBLISHED {
            let config = published_config(name).expect("it is in the list");
            let again: Blip2Config = serde_json::from_value(serde_json::to_value(&config).expect("JSON")).expect(name);
            assert_eq!(again, config, "{name} reads as written");
            assert!(Blip2::tensor_shapes(&config).is_ok(), "{name}");
        }
    }

    /// Folders are looked at without the networks; what is known there must be what the networks have.
    #[test]
    fn outlines_of_configurations_are_the_networks_own() {
        let golden = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
            crate::folder::read_config(&path).expect(name)
        };
        let published = PUBLISHED.map(|name| published_config(name).expect("it is in the list"));
        let goldens =
            ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt", "blip2-itm"].map(golden);
        for config in published.into_iter().chain(goldens) {
            let written = serde_json::to_value(&config).expect("JSON");
            let outline = Outline::of(written.as_object().expect("an object")).expect("a supported network");
            let shapes = Blip2::tensor_shapes(&config).expect("sound shapes").into_iter();
            let shapes: BTreeMap<String, Vec<usize>> =
                shapes.map(|(name, shape)| (name, shape.into_iter().map(|size| size as usize).collect())).collect();
            let linears: BTreeMap<_, _> =
                shapes.clone().into_iter().filter(|(name, shape)| is_prunable(name, shape)).collect();
            assert_eq!(outline.linears, linears);
            for (name, shape) in &outline.others {
                assert_eq!(shapes.get(name), Some(shape), "{name}");
            }
            // Every matrix that is no prunable linear, T5's tables of position biases aside.
            let matrices =
                shapes.iter().filter(|(name, shape)| shape.len() > 1 && !name.contains("relative_attention_bias"));
            for (name, shape) in matrices.filter(|(name, _)| !outline.linears.contains_key(*name)) {
                let known = outline.others.get(name).or(outline.heads.get(name));
                assert!(known == Some(shape) || name.ends_with("_projection.weight"), "{name}");
            }
        }
    }
}
