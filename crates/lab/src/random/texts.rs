//! Tokenizers and processor settings for a configuration whose own are not at hand: whole words, as many as the model has rows for, with the
//! special tokens where the configuration has them.

use std::{collections::BTreeMap, fs, path::Path};

use ressa_checkpoint::{CheckpointError, EncoderKind};
use ressa_data::{shapes::vocabulary, tokenizer::word_level};
use serde_json::{Map, Value, json};

/// Mean and standard deviation of the published image encoders, which a configuration does not tell.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// Both of them of later ones.
const HALF: [f64; 3] = [0.5; 3];

/// Kinds of tokenizers, by whose special tokens they follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Texts end with `</s>`.
    T5,
    /// Texts begin with `<s>`.
    Llama,
    /// Texts begin with `</s>`.
    Opt,
    /// Turns are between `<|im_start|>` and `<|im_end|>`.
    Qwen,
    /// Texts are between `[CLS]` and `[SEP]`.
    Bert,
}

/// What a configuration says about texts and images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// The language model's, or the only reader's, style.
    pub style: Style,
    /// Rows of its embeddings.
    pub vocabulary: usize,
    /// Its end, begin and padding tokens.
    pub eos: usize,
    pub bos: usize,
    pub pad: usize,
    /// Token of an image position.
    pub image: Option<usize>,
    /// Rows of the Q-Former's embeddings, where it reads instructions with a tokenizer of its own.
    pub qformer: Option<usize>,
    /// Height and width.
    pub image_size: usize,
    /// The family's own settings.
    pub files: Files,
}

/// Settings of a processor that depend on the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// The BLIP-2 family: the class that reads the folder in transformers, and the image positions.
    Queries { class: &'static str, queries: usize },
    /// LLaVA: an image takes a position per patch; whether there is a class token, and whether all tokens are features.
    /// In LLaVA-NeXT, a position per patch of its tiles: the resolutions.
    Patches { encoder: EncoderKind, patch: usize, full: bool, resolutions: Option<Vec<[u32; 2]>> },
    /// Idefics3 and SmolVLM, or InternVL, where the shape of an image says how many tiles it becomes: a tile takes so many positions.
    Tiles { class: &'static str, features: usize, by_shape: bool },
    /// Qwen-VL: an image takes a position per square of patches; the token before it.
    Cells { class: &'static str, patch: usize, merge: usize, frames: usize, start: usize },
}

/// A conversation as SmolVLM was tuned on.
const UTTERANCES: &str = "{% for message in messages %}{{ message['role'] | capitalize }}:\
    {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}\
    {% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/// A conversation as InternVL was tuned on, without what a system says.
const CONTEXTS: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n\
    {% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part['text'] }}{% endif %}\
    {% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A conversation as Qwen-VL was tuned on, without what a system says.
const TURNS: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n\
    {% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
    {% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A conversation as LLaVA-1.5 was tuned on, one turn of each side after the other.
const CONVERSATION: &str = "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}\
    {% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}\
    {% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

impl Texts {
    /// Writes the files.
    pub fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let mut files = self.tokenizer(self.style, self.vocabulary, "");
        if let Some(rows) = self.qformer {
            files.extend(self.tokenizer(Style::Bert, rows, "qformer_tokenizer/"));
        }
        files.extend(self.processor());
        let template = match self.files {
            Files::Queries { .. } => None,
            Files::Patches { .. } => Some(CONVERSATION),
            Files::Cells { .. } => Some(TURNS),
            Files::Tiles { by_shape: true, .. } => Some(CONTEXTS),
            Files::Tiles { .. } => Some(UTTERANCES),
        };
        if let Some(template) = template {
            let path = folder.join("chat_template.jinja");
            fs::write(&path, template).map_err(CheckpointError::io("write", &path))?;
        }
        for (name, value) in files {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(CheckpointError::io("write", parent))?;
            }
            fs::write(&path, format!("{value:#}\n")).map_err(CheckpointError::io("write", &path))?;
        }
        Ok(())
    }

    /// Settings of images, and of prompts with an image.
    fn processor(&self) -> Vec<(String, Value)> {
        let size = json!({ "height": self.image_size, "width": self.image_size });
        let mut images = json!({
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
            "resample": 3,
            "rescale_factor": 1.0 / 255.0,
        });
        let mut processor = Map::new();
        let class = match self.files {
            Files::Queries { class, queries } => {
                images["image_processor_type"] = json!("BlipImageProcessor");
                images["size"] = size;
                if self.image.is_some() {
                    processor.insert("num_query_tokens".to_owned(), json!(queries));
                }
                class
            }
            Files::Cells { class, patch, merge, frames, .. } => {
                images["image_processor_type"] = json!("Qwen2VLImageProcessor");
                // Four to sixty-four features a side, roughly.
                let feature = patch * merge;
                images["min_pixels"] = json!(4 * feature * feature);
                images["max_pixels"] = json!(16_384 * feature * feature);
                images["patch_size"] = json!(patch);
                images["merge_size"] = json!(merge);
                images["temporal_patch_size"] = json!(frames);
                class
            }
            Files::Tiles { class, features, by_shape: true } => {
                images["image_processor_type"] = json!("GotOcr2ImageProcessor");
                images["crop_to_patches"] = json!(true);
                images["min_patches"] = json!(1);
                images["max_patches"] = json!(12);
                images["size"] = size;
                processor.insert("image_seq_length".to_owned(), json!(features));
                class
            }
            Files::Tiles { class, features, .. } => {
                images["image_processor_type"] = json!("Idefics3ImageProcessor");
                images["image_mean"] = json!(HALF);
                images["image_std"] = json!(HALF);
                images["do_image_splitting"] = json!(true);
                images["max_image_size"] = json!({ "longest_edge": self.image_size });
                images["size"] = json!({ "longest_edge": (4 * self.image_size).min(4096) });
                images["resample"] = json!(1);
                processor.insert("image_seq_len".to_owned(), json!(features));
                class
            }
            Files::Patches { encoder, patch, full, ref resolutions } => {
                if encoder == EncoderKind::Siglip {
                    images["image_mean"] = json!(HALF);
                    images["image_std"] = json!(HALF);
                }
                if encoder == EncoderKind::Siglip && resolutions.is_none() {
                    images["image_processor_type"] = json!("SiglipImageProcessor");
                    images["size"] = size;
                } else {
                    let class = match (resolutions, encoder) {
                        (Some(_), _) => "LlavaNextImageProcessor",
                        (None, EncoderKind::Clip) => "CLIPImageProcessor",
                        (None, _) => "BitImageProcessor",
                    };
                    images["image_processor_type"] = json!(class);
                    if let Some(resolutions) = resolutions {
                        images["image_grid_pinpoints"] = json!(resolutions);
                    }
                    images["do_center_crop"] = json!(true);
                    images["crop_size"] = size;
                    images["size"] = json!({ "shortest_edge": self.image_size });
                }
                let strategy = if full { "full" } else { "default" };
                processor.insert("image_token".to_owned(), json!("<image>"));
                processor.insert("num_additional_image_tokens".to_owned(), json!(u32::from(encoder.has_class())));
                processor.insert("patch_size".to_owned(), json!(patch));
                processor.insert("vision_feature_select_strategy".to_owned(), json!(strategy));
                if resolutions.is_some() { "LlavaNextProcessor" } else { "LlavaProcessor" }
            }
        };
        images["processor_class"] = json!(class);
        processor.insert("processor_class".to_owned(), json!(class));
        let named = |name: &str, value: Value| (name.to_owned(), value);
        vec![named("preprocessor_config.json", images), named("processor_config.json", Value::Object(processor))]
    }

    fn tokenizer(&self, style: Style, rows: usize, folder: &str) -> Vec<(String, Value)> {
        let names = self.special(style, rows);
        let tokens = Tokens::new(rows, &names);
        let named = |role: &str| names.iter().find(|(known, _, _)| *known == role).map(|(_, token, _)| token.as_str());
        let (prefix, suffix) = match style {
            Style::T5 => (None, named("eos_token")),
            Style::Llama | Style::Opt => (named("bos_token"), None),
            Style::Bert => (named("cls_token"), named("sep_token")),
            Style::Qwen => (None, None),
        };
        let special: Vec<&str> = tokens.special.values().map(String::as_str).collect();
        let all: Vec<&str> = tokens.all.iter().map(String::as_str).collect();
        let unknown = named("unk_token").unwrap_or_default();
        let roles: Map<String, Value> = names
            .iter()
            .filter(|(role, _, _)| !role.is_empty())
            .map(|(role, token, _)| ((*role).to_owned(), json!(token)))
            .collect();
        let mut config = roles.clone();
        let decoder = tokens.special.iter().map(|(id, token)| {
            let flags = json!({
                "content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true,
            });
            (id.to_string(), flags)
        });
        config.insert("added_tokens_decoder".to_owned(), Value::Object(decoder.collect()));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        if style == Style::T5 {
            config.insert("extra_ids".to_owned(), json!(0));
        }
        config.insert("model_max_length".to_owned(), json!(512));
        let left = matches!(style, Style::Llama | Style::Opt | Style::Qwen);
        config.insert("padding_side".to_owned(), json!(if left { "left" } else { "right" }));
        let class = match style {
            Style::T5 => "T5TokenizerFast",
            Style::Llama => "LlamaTokenizerFast",
            Style::Opt => "PreTrainedTokenizerFast",
            Style::Bert => "BertTokenizerFast",
            Style::Qwen => "Qwen2TokenizerFast",
        };
        config.insert("tokenizer_class".to_owned(), json!(class));
        vec![
            (format!("{folder}tokenizer.json"), word_level(&all, &special, unknown, prefix, suffix)),
            (format!("{folder}tokenizer_config.json"), Value::Object(config)),
            (format!("{folder}special_tokens_map.json"), Value::Object(roles)),
        ]
    }

    /// Roles, texts and wanted ids of special tokens; those without an id get the first that is free. A role of the same id as an earlier
    /// one has its text.
    fn special(&self, style: Style, rows: usize) -> Vec<(&'static str, String, Option<usize>)> {
        let at = |id: usize| (id < rows).then_some(id);
        let mut list: Vec<(&str, &str, Option<usize>)> = match style {
            Style::Bert => vec![
                ("pad_token", "[PAD]", at(0)),
                ("unk_token", "[UNK]", None),
                ("cls_token", "[CLS]", None),
                ("sep_token", "[SEP]", None),
                ("mask_token", "[MASK]", None),
            ],
            Style::T5 => {
                vec![
                    ("pad_token", "<pad>", at(self.pad)),
                    ("eos_token", "</s>", at(self.eos)),
                    ("unk_token", "<unk>", None),
                ]
            }
            Style::Llama => vec![
                ("bos_token", "<s>", at(self.bos)),
                ("eos_token", "</s>", at(self.eos)),
                ("pad_token", "<pad>", at(self.pad)),
                ("unk_token", "<unk>", None),
            ],
            Style::Opt => vec![
                ("eos_token", "</s>", at(self.eos)),
                ("bos_token", "<s>", at(self.bos)),
                ("pad_token", "<pad>", at(self.pad)),
                ("unk_token", "<unk>", None),
            ],
            Style::Qwen => vec![
                ("eos_token", "<|im_end|>", at(self.eos)),
                ("pad_token", "<|endoftext|>", at(self.pad)),
                ("unk_token", "<unk>", None),
                ("", "<|im_start|>", None),
                ("", "<|vision_end|>", None),
            ],
        };
        if let (true, Some(image)) = (style == self.style, self.image) {
            let text = match self.files {
                Files::Cells { .. } => "<|image_pad|>",
                Files::Tiles { by_shape: true, .. } => "<IMG_CONTEXT>",
                _ => "<image>",
            };
            list.push(("", text, at(image)));
        }
        if let Files::Cells { start, .. } = self.files {
            list.push(("", "<|vision_start|>", at(start)));
        }
        if let (true, Files::Tiles { by_shape, .. }) = (style == self.style, &self.files) {
            let words: &[&str] = match by_shape {
                true => &["<img>", "</img>"],
                false => &["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"],
            };
            list.extend(words.iter().map(|token| ("", *token, None)));
        }
        let mut special: Vec<(&'static str, String, Option<usize>)> = Vec::new();
        for (role, text, id) in list {
            let same = id.and_then(|_| special.iter().find(|(_, _, known)| *known == id));
            let text = same.map_or_else(|| text.to_owned(), |(_, text, _)| text.clone());
            special.push((role, text, id));
        }
        special
    }
}

/// Every token of a tokenizer.
struct Tokens {
    all: Vec<String>,
    special: BTreeMap<usize, String>,
}

impl Tokens {
    /// `rows` tokens: special ones at their ids or at the first that are free, then words of the embedded world, then made-up ones.
    fn new(rows: usize, names: &[(&'static str, String, Option<usize>)]) -> Self {
        let mut special = BTreeMap::new();
        for (_, text, id) in names {
            if let Some(id) = id {
                special.insert(*id, text.clone());
            }
        }
        for (_, text, _) in names.iter().filter(|(_, _, id)| id.is_none()) {
            if let Some(free) = (0..rows).find(|id| !special.contains_key(id)) {
                special.insert(free, text.clone());
            }
        }
        let mut words = vocabulary::words().into_iter().map(str::to_owned);
        let token = |id: usize| {
            let known = special.get(&id).cloned();
            known.unwrap_or_else(|| words.next().unwrap_or_else(|| format!("word{id}")))
        };
        Self { all: (0..rows).map(token).collect(), special }
    }
}
