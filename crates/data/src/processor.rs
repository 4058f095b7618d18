//! The processor of a checkpoint folder: prompts to token ids, images to normalised pixels, token ids to text.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::{DataError, Image, ImageProcessor};

/// Tokenizers and image processor of one model, read from its folder.
#[derive(Clone)]
pub struct Processor {
    language: Text,
    qformer: Option<Text>,
    images: ImageProcessor,
}

#[derive(Clone)]
struct Text {
    tokenizer: Tokenizer,
    pad: u32,
}

impl Processor {
    /// Reads `tokenizer.json`, `special_tokens_map.json`, `preprocessor_config.json` and, where there is one, `qformer_tokenizer/`.
    ///
    /// # Errors
    /// Names the file that is missing or malformed.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let qformer = folder.join("qformer_tokenizer");
        Ok(Self {
            language: Text::load(folder)?,
            qformer: if qformer.is_dir() { Some(Text::load(&qformer)?) } else { None },
            images: ImageProcessor::load(folder)?,
        })
    }

    /// The prompt as the language model reads it, with the special tokens its family puts around it.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.language.encode(text, true)
    }

    /// An answer as a training target: no start, no end.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn encode_answer(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.language.encode(text, false)
    }

    /// A text as the Q-Former reads it; empty for models whose Q-Former reads none.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn encode_qformer(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.qformer.as_ref().map_or(Ok(Vec::new()), |qformer| qformer.encode(text, true))
    }

    /// Text of generated tokens, special tokens left out.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.language
            .tokenizer
            .decode(tokens, true)
            .map_err(|e| DataError::Encode { text: format!("{tokens:?}"), reason: e.to_string() })
    }

    /// Id that fills up prompts.
    pub fn pad(&self) -> u32 {
        self.language.pad
    }

    /// Id that fills up the Q-Former's texts.
    pub fn qformer_pad(&self) -> u32 {
        self.qformer.as_ref().map_or(0, |qformer| qformer.pad)
    }

    /// Special tokens that stand before the first word of an encoded prompt.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn leading_specials(&self) -> Result<usize, DataError> {
        let probe = "the";
        let bare = self.encode_answer(probe)?;
        let whole = self.encode_prompt(probe)?;
        Ok(whole.windows(bare.len().max(1)).position(|window| window == bare).unwrap_or(0))
    }

    /// Height and width that the model reads.
    pub fn image_size(&self) -> (u32, u32) {
        self.images.image_size()
    }

    /// Model-ready pixels `[images, 3, height, width]` of images of any size, as the folder's image processor makes them.
    ///
    /// # Errors
    /// [`DataError::ImageSize`] where the folder's settings do not bring an image to the size that the model reads.
    pub fn pixels<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> Result<Vec<f32>, DataError> {
        let mut pixels = Vec::new();
        for image in images {
            self.images.pixels(image, &mut pixels)?;
        }
        Ok(pixels)
    }
}

impl Text {
    fn load(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(read(&path)?)
            .map_err(|e| DataError::Tokenizer { path: path.clone(), reason: e.to_string() })?;
        let map_path = folder.join("special_tokens_map.json");
        let map: serde_json::Value = serde_json::from_str(&read(&map_path)?)
            .map_err(|e| DataError::Tokenizer { path: map_path.clone(), reason: e.to_string() })?;
        let token = &map["pad_token"];
        let pad = token
            .as_str()
            .or_else(|| token["content"].as_str())
            .and_then(|token| tokenizer.token_to_id(token))
            .ok_or_else(|| DataError::Tokenizer {
            path: map_path,
            reason: format!("`pad_token` is {token}, which the tokenizer does not know"),
        })?;
        let mut tokenizer = tokenizer;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, pad })
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode_fast(text, special)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| DataError::Encode { text: text.to_owned(), reason: e.to_string() })
    }
}

fn read(path: &Path) -> Result<String, DataError> {
    std::fs::read_to_string(path).map_err(|source| DataError::Read { path: PathBuf::from(path), source })
}
