//! One tokenizer of a checkpoint folder, behaving as the fast tokenizer that `transformers` makes of the same files.
//!
//! `tokenizer.json` holds most of it; `transformers` then changes some parts by what `tokenizer_config.json` says, and so does this.
//! Reference: `tokenization_utils_base.py`, `tokenization_utils_fast.py` and the fast tokenizers of LLaMA, GPT-2 (OPT), BERT and T5.

use std::path::Path;

use ressa_checkpoint::{CheckpointError, is_qwen_vl, json, rows};
use ressa_experiment::json::without_mark;
use serde_json::Value;
use tokenizers::{
    AddedToken, Encoding, NormalizerWrapper, PaddingDirection, PostProcessor, PreTokenizerWrapper, Tokenizer,
    TruncationDirection, processors::template::TemplateProcessing,
};

use crate::{DataError, library, settings::Settings};

/// Where padding goes, or from where a text that is too long is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the text.
    Left,
    /// After the text.
    Right,
}

/// A tokenizer and what surrounds it.
#[derive(Clone)]
pub(crate) struct Text {
    tokenizer: Tokenizer,
    class: Class,
    pad: u32,
    padding: Side,
    truncation: Side,
    max_length: Option<usize>,
    /// Blanks before punctuation are taken out of decoded text.
    clean_up: bool,
    image_token: Option<u32>,
    /// The text of that token.
    image_text: String,
    /// Whether the folder names it.
    names_image: bool,
    /// Texts of the tokens that begin and end a text.
    ends: (Option<String>, Option<String>),
    /// Tokens that the model embeds; none where the model is not known.
    embedded: Option<u32>,
}

/// Classes whose fast tokenizer changes what `tokenizer.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Llama,
    Gpt2,
    Bert,
    T5,
    Qwen2,
    Other,
}

impl Class {
    fn of(name: Option<&str>) -> Self {
        match name.map(|name| name.trim_end_matches("Fast")) {
            Some("LlamaTokenizer") => Self::Llama,
            Some("GPT2Tokenizer") => Self::Gpt2,
            Some("BertTokenizer") => Self::Bert,
            Some("T5Tokenizer") => Self::T5,
            Some("Qwen2Tokenizer") => Self::Qwen2,
            _ => Self::Other,
        }
    }

    /// The special token of a role where the files name none.
    fn default_token(self, role: &str) -> Option<&'static str> {
        match (self, role) {
            (Self::Llama, "bos_token") => Some("<s>"),
            (Self::Llama | Self::T5, "eos_token") => Some("</s>"),
            (Self::T5, "pad_token") => Some("<pad>"),
            (Self::Bert, "pad_token") => Some("[PAD]"),
            (Self::Gpt2, "bos_token" | "eos_token") | (Self::Qwen2, "eos_token" | "pad_token") => Some("<|endoftext|>"),
            _ => None,
        }
    }
}

impl Text {
    /// Reads the tokenizer of `folder`; `fallback_pad` is the padding id of the model's configuration, for tokenizers that name none.
    pub(crate) fn load(folder: &Path, fallback_pad: Option<u32>) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let broken = |reason: String| DataError::Tokenizer { path: path.clone(), reason };
        let bytes = json::bytes(&path, json::TOKENIZER_LIMIT).map_err(|error| match error {
            CheckpointError::Io { source, .. } => without_tokenizer(folder, &path, source),
            other => DataError::of_tokenizer(other),
        })?;
        let mut tokenizer = library::read(without_mark(&bytes)).map_err(broken)?;
        let settings = Settings::load(folder)?;
        let class = Class::of(settings.text("tokenizer_class"));

        settings.add_missing_tokens(&mut tokenizer).map_err(broken)?;
        let own_padding = tokenizer.get_padding().cloned();
        // Both are asked for with each text, never taken from the file.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| broken(e.to_string()))?;

        let named = |role: &str| settings.token(role).or_else(|| class.default_token(role).map(str::to_owned));
        let id = |role: &str| named(role).map(|token| (tokenizer.token_to_id(&token), token));
        match class {
            Class::Llama => {
                let around = |flag: &str, default: bool, role: &str| {
                    if !settings.flag(flag).unwrap_or(default) {
                        return Ok(None);
                    }
                    match id(role) {
                        Some((Some(id), token)) => Ok(Some((token, id))),
                        Some((None, token)) => {
                            Err(settings.wrong(role, &format!("{token:?}, which the tokenizer does not know")))
                        }
                        None => Err(settings.wrong(role, "missing, but the tokenizer adds it to each text")),
                    }
                };
                let begin = around("add_bos_token", true, "bos_token")?;
                let end = around("add_eos_token", false, "eos_token")?;
                tokenizer
                    .with_post_processor(Some(surrounding(begin, end).map_err(|e| settings.wrong("bos_token", &e))?));
            }
            Class::Bert => {
                let lower = settings.flag("do_lower_case").unwrap_or(true);
                let chinese = settings.flag("tokenize_chinese_chars").unwrap_or(true);
                if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() {
                    let mut normalizer = *normalizer;
                    normalizer.lowercase = lower;
                    normalizer.strip_accents = settings.flag("strip_accents");
                    normalizer.handle_chinese_chars = chinese;
                    tokenizer
                        .with_normalizer(Some(normalizer))
                        .map_err(|e| settings.wrong("do_lower_case", &e.to_string()))?;
                }
            }
            Class::Gpt2 => {
                if let Some(PreTokenizerWrapper::ByteLevel(level)) = tokenizer.get_pre_tokenizer() {
                    let level = level.add_prefix_space(settings.flag("add_prefix_space").unwrap_or(false));
                    tokenizer.with_pre_tokenizer(Some(level));
                }
            }
            Class::T5 | Class::Qwen2 | Class::Other => {}
        }

        let pad_name = named("pad_token").or_else(|| own_padding.as_ref().map(|padding| padding.pad_token.clone()));
        let pad = match (pad_name, fallback_pad) {
            (Some(token), _) => tokenizer
                .token_to_id(&token)
                .ok_or_else(|| settings.wrong("pad_token", &format!("{token:?}, which the tokenizer does not know")))?,
            (None, Some(id)) => id,
            (None, None) => {
                return Err(
                    settings.wrong("pad_token", "missing, and the model's configuration names no `pad_token_id`")
                );
            }
        };
        let left_padded = own_padding.is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left));
        let padding_default = if left_padded || class == Class::Llama { Side::Left } else { Side::Right };
        let image_text = settings.named("image_token").unwrap_or("<image>").to_owned();
        let image_token = tokenizer.token_to_id(&image_text);
        let ends = (named("bos_token"), named("eos_token"));
        Ok(Self {
            class,
            pad,
            padding: settings.side("padding_side")?.unwrap_or(padding_default),
            truncation: settings.side("truncation_side")?.unwrap_or(Side::Right),
            max_length: settings.max_length(),
            clean_up: settings.flag("clean_up_tokenization_spaces").unwrap_or(false),
            image_token,
            image_text,
            names_image: settings.named("image_token").is_some(),
            ends,
            embedded: None,
            tokenizer,
        })
    }

    /// From here on, refuses texts with a token that the model has no embedding for. `embedded` says how many it has, and the part of
    /// `config.json` that says so.
    ///
    /// Tokens that were added to the vocabulary may lie beyond: no text has them that does not spell them out.
    ///
    /// # Errors
    /// A vocabulary, or a special token that every text gets, beyond the model's.
    pub(crate) fn within(&mut self, folder: &Path, embedded: Option<(usize, &'static str)>) -> Result<(), DataError> {
        let Some((rows, part)) = embedded else { return Ok(()) };
        let path = folder.join("tokenizer.json");
        let beyond = |what: &str, id: u32| DataError::Tokenizer {
            path: path.clone(),
            reason: format!(
                "{what} has id {id}, and the model's vocabulary ends at {} (`{part}.vocab_size` in its config.json is {rows}); \
                 tokenizer and model are not of one folder",
                rows.saturating_sub(1)
            ),
        };
        let is_beyond = |id: u32| id as usize >= rows;
        let largest = self.tokenizer.get_vocab(false).into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, id)) = largest.filter(|(_, id)| is_beyond(*id)) {
            return Err(beyond(&format!("token {token:?}"), id));
        }
        let around = self.encode("", true)?;
        if let Some(id) = around.into_iter().find(|id| is_beyond(*id)) {
            return Err(beyond("the special token of every text", id));
        }
        // What fills up is never seen, so any token does.
        self.pad = if is_beyond(self.pad) { 0 } else { self.pad };
        self.embedded = u32::try_from(rows).ok();
        Ok(())
    }

    /// Sees that the model takes the same token for an image position as the processor writes. `of_model` is field and id in `config.json`.
    ///
    /// # Errors
    /// Two different tokens: with transformers, no image would be seen.
    pub(crate) fn agrees(&self, folder: &Path, of_model: Option<(&str, u64)>) -> Result<(), DataError> {
        match (of_model, self.image_token) {
            (Some((field, of_model)), Some(own)) if of_model != u64::from(own) => {
                let reason = format!(
                    "its image token has id {own}, and `{field}` in config.json is {of_model}; tokenizer and model are not of one folder"
                );
                Err(DataError::Tokenizer { path: folder.join("tokenizer.json"), reason })
            }
            _ => Ok(()),
        }
    }

    /// Ids that the model has an embedding for.
    fn known(&self, ids: &[u32], text: &str) -> Result<Vec<u32>, DataError> {
        match ids.iter().find(|id| self.embedded.is_some_and(|rows| **id >= rows)) {
            None => Ok(ids.to_vec()),
            Some(id) => {
                let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
                let reason = format!("the model has no embedding for its token {token:?} (id {id})");
                Err(DataError::Encode { text: brief(text), reason })
            }
        }
    }

    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = library::guarded(|| self.tokenizer.encode_fast(text, special));
        let failed = |reason: String| DataError::Encode { text: brief(text), reason };
        self.known(encoding.map_err(failed)?.get_ids(), text)
    }

    /// As [`Text::encode`], but of at most `max` ids: special tokens stay, the text is cut on the folder's side.
    pub(crate) fn encode_within(&self, text: &str, special: bool, max: usize) -> Result<Vec<u32>, DataError> {
        let failed = |reason: String| DataError::Encode { text: brief(text), reason };
        let added = match self.tokenizer.get_post_processor() {
            Some(processor) if special => processor.added_tokens(false),
            _ => 0,
        };
        let room = max
            .checked_sub(added)
            .ok_or_else(|| failed(format!("at most {max} tokens leave no room for the {added} special ones")))?;
        let mut encoding: Encoding = library::guarded(|| self.tokenizer.encode_fast(text, false)).map_err(failed)?;
        let direction = match self.truncation {
            Side::Left => TruncationDirection::Left,
            Side::Right => TruncationDirection::Right,
        };
        encoding.truncate(room, 0, direction);
        let whole = library::guarded(|| self.tokenizer.post_process(encoding, None, special)).map_err(failed)?;
        self.known(whole.get_ids(), text)
    }

    pub(crate) fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, DataError> {
        let text = library::guarded(|| self.tokenizer.decode(tokens, skip_special))
            .map_err(|reason| DataError::Encode { text: format!("{tokens:?}"), reason })?;
        Ok(if self.clean_up { cleaned(text) } else { text })
    }

    pub(crate) fn pad(&self) -> u32 {
        self.pad
    }

    pub(crate) fn padding(&self) -> Side {
        self.padding
    }

    pub(crate) fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// Whether this is the tokenizer of a Q-Former that reads text.
    pub(crate) fn is_bert(&self) -> bool {
        self.class == Class::Bert
    }

    /// The token that stands for an image position.
    pub(crate) fn image_token(&self) -> Option<u32> {
        self.image_token
    }

    /// The text of the token that stands for an image position.
    pub(crate) fn image_text(&self) -> &str {
        &self.image_text
    }

    /// Texts of the tokens that begin and end a text, where the folder names them.
    pub(crate) fn ends(&self) -> (Option<String>, Option<String>) {
        self.ends.clone()
    }

    /// Takes a token for the one that stands for an image position, unless the folder names another.
    pub(crate) fn reads_images_as(&mut self, text: &str) {
        if !self.names_image {
            self.image_token = self.tokenizer.token_to_id(text);
            text.clone_into(&mut self.image_text);
        }
    }

    /// The id of a token.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    /// Adds the token that stands for an image position where the folder's tokenizer has none, as `transformers`' processors do.
    pub(crate) fn with_image_token(&mut self) {
        if self.image_token.is_none() {
            let token = AddedToken::from("<image>", true).normalized(false);
            // A token that cannot be added stays unknown.
            let _ = self.tokenizer.add_special_tokens([token]);
            self.image_token = self.tokenizer.token_to_id("<image>");
        }
    }
}

/// A text, or its beginning where it is long, for messages.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text as the language model of a folder reads it, with the special tokens that its family puts around it; the folder needs no other part of
/// a processor.
///
/// # Errors
/// A tokenizer that is missing, malformed or not the model's; a text that cannot be tokenized.
pub fn tokens_of(folder: &Path, text: &str) -> Result<Vec<u32>, DataError> {
    let config = json::optional(&folder.join("config.json")).map_err(DataError::of_settings)?.unwrap_or_default();
    // Nothing is filled up.
    let mut tokenizer = Text::load(folder, Some(0))?;
    let part = if is_qwen_vl(&config) || config.contains_key("text_config") { "text_config" } else { "config" };
    let words = match part {
        "config" => config.get("vocab_size").and_then(Value::as_u64).and_then(|words| usize::try_from(words).ok()),
        part => rows(&config, part),
    };
    tokenizer.within(folder, words.map(|words| (words, part)))?;
    tokenizer.encode(text, true)
}

/// Tokens of a folder's language model: one more than the largest id that its tokenizer makes and its model has an embedding for. Columns of logits behind
/// them are padding.
///
/// # Errors
/// A tokenizer that is missing or malformed; settings that cannot be read.
pub fn tokens_made(folder: &Path) -> Result<u64, DataError> {
    let embedded = words_of(folder)?;
    let vocabulary = Text::load(folder, Some(0))?.tokenizer.get_vocab(true);
    let made = vocabulary.into_values().map(u64::from).filter(|id| embedded.is_none_or(|words| *id < words)).max();
    Ok(made.map_or(0, |largest| largest + 1))
}

/// Words of a folder's language model, as its configuration says; `None` where it does not.
///
/// # Errors
/// A configuration that cannot be read.
pub fn words_of(folder: &Path) -> Result<Option<u64>, DataError> {
    let config = json::optional(&folder.join("config.json")).map_err(DataError::of_settings)?;
    Ok(config.and_then(|config| rows(&config, "text_config")).map(|rows| rows as u64))
}

/// Largest text file that is read, in bytes.
const TEXT_LIMIT: u64 = 1 << 30;

/// A text file, as it is but for a byte-order mark at its beginning.
///
/// # Errors
/// [`DataError::Read`] for a file that cannot be read, [`DataError::Unfit`] for one that is too large or no UTF-8.
pub fn text_of(path: &Path) -> Result<String, DataError> {
    use std::io::Read;
    let unread = |source| DataError::Read { path: path.to_owned(), source };
    let unfit = |reason: String| DataError::Unfit { path: path.to_owned(), reason };
    if !path.metadata().map_err(unread)?.is_file() {
        // A pipe would never end.
        return Err(unread(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unread)?.take(TEXT_LIMIT + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > TEXT_LIMIT {
        return Err(unfit(format!("it has more than {TEXT_LIMIT} bytes, the most that is read")));
    }
    let text =
        std::str::from_utf8(without_mark(&bytes)).map_err(|error| unfit(format!("it is no UTF-8 text: {error}")))?;
    Ok(text.to_owned())
}

/// What LLaMA's fast tokenizer puts around a text, whatever `tokenizer.json` says.
fn surrounding(begin: Option<(String, u32)>, end: Option<(String, u32)>) -> Result<TemplateProcessing, String> {
    let piece = |token: &Option<(String, u32)>, kind: u8| token.as_ref().map(|(name, _)| format!("{name}:{kind}"));
    let template = |sequence: &str, kind: u8| {
        [piece(&begin, kind), Some(format!("{sequence}:{kind}")), piece(&end, kind)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let single = template("$A", 0);
    let pair = [single.clone(), template("$B", 1)].concat();
    let tokens: Vec<(String, u32)> = begin.iter().chain(&end).cloned().collect();
    TemplateProcessing::builder()
        .try_single(single)
        .map_err(|e| e.to_string())?
        .try_pair(pair)
        .map_err(|e| e.to_string())?
        .special_tokens(tokens)
        .build()
        .map_err(|e| e.to_string())
}

/// The blanks that some tokenizers leave in English, taken out.
fn cleaned(text: String) -> String {
    const PAIRS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// Says what to do with a folder that has only a slow tokenizer's files.
fn without_tokenizer(folder: &Path, path: &Path, source: std::io::Error) -> DataError {
    let slow = ["spiece.model", "tokenizer.model", "vocab.json", "vocab.txt"]
        .into_iter()
        .find(|name| folder.join(name).is_file());
    match slow {
        Some(name) if source.kind() == std::io::ErrorKind::NotFound => DataError::Tokenizer {
            path: path.to_path_buf(),
            reason: format!(
                "it is not there, only `{name}`; write it with transformers: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`"
            ),
        },
        _ => DataError::Read { path: path.to_path_buf(), source },
    }
}

/// The token of an entry: a string, or an object that holds it.
pub(crate) fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
