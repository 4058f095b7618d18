//! Tokenizer and processor files of the small models, in the formats of the published checkpoints.
//!
//! One word, one token. Words have the same ids in the language model's tokenizer of either family and in the Q-Former's; only the
//! few special tokens before them differ, and they follow the published conventions (T5 ends a prompt with `</s>`, LLaMA begins it
//! with `<s>`, BERT wraps it in `[CLS]` and `[SEP]`).

use std::path::Path;

use ressa_experiment::model::Preset;
use serde_json::{Map, Value, json};

use crate::{
    DataError,
    shapes::{IMAGE_SIZE, vocabulary},
};

/// Rows of every embedding table: tokens in use, rounded up as published checkpoints do.
pub const VOCABULARY_SIZE: usize = 128;
/// Id of the first word; all below are special.
pub const FIRST_WORD: u32 = 6;
/// Id of the padding token in every tokenizer.
pub const PAD: u32 = 0;
/// Mean and standard deviation by which pixels are normalised, in the file `preprocessor_config.json`.
pub const PIXEL_MEAN_STD: (f64, f64) = (0.35, 0.3);

/// Family of a language model: decides its special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Encoder-decoder; prompts end with `</s>`, decoding starts from `<pad>`.
    T5,
    /// Decoder-only; prompts begin with `<s>`.
    Llama,
}

impl Family {
    /// The family of a preset.
    pub fn of(preset: Preset) -> Self {
        match preset {
            Preset::ShapesFlanT5 => Family::T5,
            Preset::ShapesVicuna => Family::Llama,
        }
    }

    /// Id of the beginning of a text (`bos_token_id`; T5 has none and starts decoding from the padding token).
    pub fn bos(self) -> u32 {
        match self {
            Family::T5 => PAD,
            Family::Llama => 1,
        }
    }

    /// Id of the end of a text (`eos_token_id`).
    pub fn eos(self) -> u32 {
        match self {
            Family::T5 => 1,
            Family::Llama => 2,
        }
    }

    /// Id of the placeholder for image positions (`image_token_index`).
    pub fn image(self) -> u32 {
        match self {
            Family::T5 => 3,
            Family::Llama => 4,
        }
    }

    fn special_tokens(self) -> [&'static str; FIRST_WORD as usize] {
        match self {
            Family::T5 => ["<pad>", "</s>", "<unk>", "<image>", "<extra_id_0>", "<extra_id_1>"],
            Family::Llama => ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<extra_id_0>"],
        }
    }

    fn tokenizer_class(self) -> &'static str {
        match self {
            Family::T5 => "T5Tokenizer",
            Family::Llama => "LlamaTokenizer",
        }
    }
}

const BERT_TOKENS: [&str; FIRST_WORD as usize] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"];

/// Writes everything that a checkpoint folder says about text and pixels, for a model with `query_tokens` queries.
///
/// # Errors
/// [`DataError::Write`] for a file that cannot be written.
pub fn write_processor_files(folder: &Path, family: Family, query_tokens: usize) -> Result<(), DataError> {
    let special = family.special_tokens();
    let (prefix, suffix) = match family {
        Family::T5 => (None, Some("</s>")),
        Family::Llama => (Some("<s>"), None),
    };
    let named = |bos: bool| {
        let mut map = Map::new();
        if bos && family == Family::Llama {
            map.insert("bos_token".into(), json!("<s>"));
        }
        for (name, token) in [("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>")] {
            map.insert(name.into(), json!(token));
        }
        map
    };
    let mut config = named(true);
    config.insert("added_tokens_decoder".into(), added_tokens_decoder(&special));
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    if family == Family::T5 {
        // Published T5 tokenizers have a hundred of these; readers add as many unless told otherwise.
        let extra = special.iter().filter(|token| token.starts_with("<extra_id_")).count();
        config.insert("extra_ids".into(), json!(extra));
    }
    config.insert("model_max_length".into(), json!(512));
    config.insert("padding_side".into(), json!(if family == Family::Llama { "left" } else { "right" }));
    config.insert("processor_class".into(), json!("InstructBlipProcessor"));
    config.insert("tokenizer_class".into(), json!(family.tokenizer_class()));
    write(folder, "tokenizer.json", &tokenizer(&special, "<unk>", prefix, suffix))?;
    write(folder, "tokenizer_config.json", &Value::Object(config))?;
    write(folder, "special_tokens_map.json", &Value::Object(named(true)))?;

    let bert = json!({
        "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]", "bos_token": "[DEC]",
    });
    let mut config = bert.as_object().cloned().unwrap_or_default();
    config.insert("added_tokens_decoder".into(), added_tokens_decoder(&BERT_TOKENS));
    config.insert("do_lower_case".into(), json!(true));
    config.insert("model_max_length".into(), json!(512));
    config.insert("tokenizer_class".into(), json!("BertTokenizer"));
    write(folder, "qformer_tokenizer/tokenizer.json", &tokenizer(&BERT_TOKENS, "[UNK]", Some("[CLS]"), Some("[SEP]")))?;
    write(folder, "qformer_tokenizer/tokenizer_config.json", &Value::Object(config))?;
    write(folder, "qformer_tokenizer/special_tokens_map.json", &bert)?;

    let (mean, std) = PIXEL_MEAN_STD;
    write(
        folder,
        "preprocessor_config.json",
        &json!({
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": [mean, mean, mean],
            "image_processor_type": "BlipImageProcessor",
            "image_std": [std, std, std],
            "processor_class": "InstructBlipProcessor",
            "resample": 3,
            "rescale_factor": 1.0 / 255.0,
            "size": { "height": IMAGE_SIZE, "width": IMAGE_SIZE },
        }),
    )?;
    let processor = json!({ "num_query_tokens": query_tokens, "processor_class": "InstructBlipProcessor" });
    write(folder, "processor_config.json", &processor)
}

fn tokenizer(special: &[&str], unknown: &str, prefix: Option<&str>, suffix: Option<&str>) -> Value {
    let tokens: Vec<&str> = special.iter().copied().chain(vocabulary::words()).collect();
    word_level(&tokens, special, unknown, prefix, suffix)
}

/// `tokenizer.json` of a tokenizer that knows whole words: one token for each, in the order of their ids. Texts are wrapped in `prefix` and
/// `suffix`; `special` tokens are found inside of texts as well.
pub fn word_level(
    tokens: &[&str],
    special: &[&str],
    unknown: &str,
    prefix: Option<&str>,
    suffix: Option<&str>,
) -> Value {
    let id = |token: &str| tokens.iter().position(|t| *t == token).unwrap_or_default();
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let piece = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let around = |inner: Vec<Value>| -> Vec<Value> {
        prefix.map(piece).into_iter().chain(inner).chain(suffix.map(piece)).collect()
    };
    let special_tokens: Map<String, Value> = [prefix, suffix]
        .into_iter()
        .flatten()
        .map(|token| (token.to_owned(), json!({ "id": token, "ids": [id(token)], "tokens": [token] })))
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.iter().map(|token| added_token(token, Some(id(token)))).collect::<Vec<_>>(),
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around(vec![sequence("A")]),
            "pair": around(vec![sequence("A"), sequence("B")]),
            "special_tokens": special_tokens,
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": unknown },
    })
}

fn added_token(token: &str, id: Option<usize>) -> Value {
    let mut map = Map::new();
    if let Some(id) = id {
        map.insert("id".into(), json!(id));
    }
    map.insert("content".into(), json!(token));
    for (name, value) in
        [("single_word", false), ("lstrip", false), ("rstrip", false), ("normalized", false), ("special", true)]
    {
        map.insert(name.into(), json!(value));
    }
    Value::Object(map)
}

fn added_tokens_decoder(special: &[&str]) -> Value {
    Value::Object(special.iter().enumerate().map(|(id, token)| (id.to_string(), added_token(token, None))).collect())
}

fn write(folder: &Path, name: &str, value: &Value) -> Result<(), DataError> {
    let path = folder.join(name);
    let io = |source| DataError::Write { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let mut text = format!("{value:#}");
    text.push('\n');
    std::fs::write(&path, text).map_err(io)
}
