//! The processor of a checkpoint folder: prompts to token ids, images to normalised pixels, token ids to text.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ressa_checkpoint::{
    PREPROCESSOR, PROCESSOR, Pinpoints, TileSizes, is_idefics, is_internvl, is_llava, is_llava_next, is_qwen_vl, json,
    keeps_first, known::QFORMER, llava_tokens, llava_vision, rows,
};
use serde_json::{Map, Value};

use crate::{
    Cells, DataError, Image, ImageProcessor, Prompt,
    chat::{Chat, Takes},
    preprocess::MOST_FEATURES,
    settings::Settings,
    text::{Side, Text},
    tiles::{Spelling, Words},
};

/// Most image positions that a processor may ask for; published ones ask for 32.
const MOST_QUERIES: usize = 1 << 16;
/// Largest side of an image or a patch, in pixels, as the networks' configurations are checked.
const LARGEST_SIDE: u64 = 1 << 24;

/// Tokenizers and image processor of one model, read from its folder. Clones share them.
#[derive(Clone)]
pub struct Processor {
    folder: PathBuf,
    language: Arc<Text>,
    qformer: Option<Arc<Text>>,
    images: Arc<ImageProcessor>,
    query_tokens: Option<usize>,
    chat: Option<Arc<Chat>>,
}

impl Processor {
    /// The same processor, but images keep their shape ([`ImageProcessor::center_cropped`]).
    #[must_use]
    pub fn center_cropped(mut self) -> Self {
        self.images = Arc::new((*self.images).clone().center_cropped());
        self
    }

    /// Reads `tokenizer.json` and the files beside it, the same of `qformer_tokenizer/` where there is one,
    /// `preprocessor_config.json` and `processor_config.json`.
    ///
    /// An image-text matching model has one tokenizer, its Q-Former's; it serves for both kinds of text.
    ///
    /// # Errors
    /// Names the file that is missing or malformed, and the tokenizer whose words the model of `config.json` does not have.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let model = folder.join("config.json");
        let config = optional(&model)?;
        let pad_of = |part: &str| {
            let id =
                config.get(part).and_then(|part| part.get("pad_token_id")).or_else(|| config.get("pad_token_id"))?;
            id.as_u64().and_then(|id| u32::try_from(id).ok())
        };
        let mut language = Text::load(folder, pad_of("text_config"))?;
        let path = folder.join(PROCESSOR);
        let query_tokens = match optional(&path)?.get("num_query_tokens") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                let wrong = |what: String| DataError::Processor {
                    path: path.clone(),
                    reason: format!("`num_query_tokens` is {value}; {what}"),
                };
                let count = count.filter(|count| *count <= MOST_QUERIES);
                let count =
                    count.ok_or_else(|| wrong(format!("it must be a number of tokens up to {MOST_QUERIES}")))?;
                match whole(&model, &config, "num_query_tokens")? {
                    Some(of_model) if of_model != count as u64 => {
                        return Err(wrong(format!("the model in config.json has {of_model}")));
                    }
                    _ => Some(count),
                }
            }
        };
        if query_tokens.is_some() {
            language.with_image_token();
        }
        let own = folder.join(QFORMER);
        // Without a configuration there is nothing to compare with: a folder in the making.
        let embedded = |part: &'static str| rows(&config, part).filter(|_| !config.is_empty()).map(|rows| (rows, part));
        let classes = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
        let matches = classes == Some("Blip2ForImageTextRetrieval") || (!own.is_dir() && language.is_bert());
        language.within(folder, embedded(if matches { "qformer_config" } else { "text_config" }))?;
        let images = ImageProcessor::load(folder)?;
        let cells = cells(folder, &config, &images)?;
        let spelling = tiles(folder, &config, &images, &language)?;
        let takes = match (cells, spelling) {
            (_, Some(spelling)) => {
                if is_internvl(&config) {
                    let image =
                        Settings::load(folder)?.named("context_image_token").unwrap_or(INTERNVL_IMAGE).to_owned();
                    language.reads_images_as(&image);
                }
                Some(Takes::Tiles(spelling))
            }
            (Some(cells), None) => {
                language.reads_images_as(QWEN_IMAGE);
                let start = whole(&model, &config, "vision_start_token_id")?;
                let start = start.map_or_else(|| language.id(QWEN_START), |id| u32::try_from(id).ok());
                Some(Takes::Cells { cells, start })
            }
            (None, None) => match mosaic(folder, &config, &images)? {
                Some(takes) => Some(takes),
                None => patches(folder, &config)?.map(Takes::Fixed),
            },
        };
        if takes.is_some() || query_tokens.is_some() {
            let by_default = match takes {
                Some(Takes::Cells { .. }) => Some(QWEN_IMAGE_ID),
                Some(Takes::Mosaic { .. }) => Some(LLAVA_NEXT_IMAGE_ID),
                Some(Takes::Tiles(_)) if is_internvl(&config) => Some(INTERNVL_IMAGE_ID),
                _ => None,
            };
            language.agrees(folder, of_image(&model, &config)?.or(by_default))?;
        }
        let chat = takes.map(|takes| Chat::load(folder, &language, takes)).transpose()?;
        let language = Arc::new(language);
        let qformer = if own.is_dir() {
            let mut qformer = Text::load(&own, pad_of("qformer_config"))?;
            qformer.within(&own, embedded("qformer_config"))?;
            Some(Arc::new(qformer))
        } else if config.get("model_type").is_some_and(|family| family == "instructblip") {
            let reason = "an InstructBLIP folder needs it: its Q-Former reads the instruction too".to_owned();
            return Err(DataError::Tokenizer { path: own, reason });
        } else {
            language.is_bert().then(|| Arc::clone(&language))
        };
        let side = match () {
            // Tiles have been compared; their sides may be a list.
            () if is_internvl(&config) => None,
            () => whole(&model, &config, "vision_config.image_size")?,
        };
        let side = match side {
            // What a configuration leaves out is the default of its encoder's kind.
            None if is_llava(&config) => {
                llava_vision(&config).ok().and_then(|(_, encoder)| encoder.get("image_size")?.as_u64())
            }
            written => written,
        };
        let (height, width) = images.image_size();
        if let Some(side) =
            side.filter(|side| images.has_one_size() && (u64::from(height), u64::from(width)) != (*side, *side))
        {
            let reason = format!(
                "it makes pictures of {width}x{height} pixels, and the model reads {side}x{side} (`vision_config.image_size` in its \
                 config.json)"
            );
            return Err(DataError::Processor { path: folder.join(PREPROCESSOR), reason });
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            language,
            qformer,
            images: Arc::new(images),
            query_tokens,
            chat: chat.map(Arc::new),
        })
    }

    /// A text as the language model's tokenizer reads it, with or without the special tokens that its family puts around it.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        self.language.encode(text, special)
    }

    /// As [`Processor::tokenize`], but of at most `max` ids, special ones included; cut on the side that the folder says.
    ///
    /// # Errors
    /// [`DataError::Encode`], also where the special tokens alone are more.
    pub fn tokenize_within(&self, text: &str, special: bool, max: usize) -> Result<Vec<u32>, DataError> {
        self.language.encode_within(text, special, max)
    }

    /// A text as the Q-Former's tokenizer reads it.
    ///
    /// # Errors
    /// [`DataError::Encode`]; [`DataError::Processor`] for a model whose Q-Former reads no text.
    pub fn tokenize_qformer(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        self.reader()?.encode(text, special)
    }

    fn reader(&self) -> Result<&Text, DataError> {
        self.qformer.as_deref().ok_or_else(|| DataError::Processor {
            path: self.folder.join("qformer_tokenizer"),
            reason: "it is not there: the Q-Former of this model reads no text".into(),
        })
    }

    /// The prompt as the language model reads it, with the special tokens its family puts around it, without image placeholders.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.language.encode(text, true)
    }

    /// What the language model reads of a prompt about an image of so many pixels in height and width, as [`Processor::size_of`] gives them: a
    /// turn of a conversation where the folder's model reads those, else the prompt behind the image. Most models read all images at one
    /// size and do not look at it.
    ///
    /// # Errors
    /// [`DataError::Encode`]; a chat template that does not take such a turn.
    pub fn prompt(&self, text: &str, size: (u32, u32)) -> Result<Prompt, DataError> {
        match &self.chat {
            Some(chat) => chat.prompt(&self.language, text, size),
            None => Ok(Prompt { layout: None, text: self.encode_prompt(text)? }),
        }
    }

    /// The prompt with its image placeholders before it, even before the beginning token, as `transformers`' processors put them.
    /// The same as [`Processor::encode_prompt`] for a folder that has none ([`Processor::placeholders`]).
    ///
    /// Padding goes between the placeholders and the rest where [`Processor::padding_side`] is left.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn encode_prompt_with_image(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = self.placeholders().map_or_else(Vec::new, |(token, count)| vec![token; count]);
        ids.extend(self.encode_prompt(text)?);
        Ok(ids)
    }

    /// The token that stands for an image position and how many an image takes; `None` for folders from before such tokens.
    pub fn placeholders(&self) -> Option<(u32, usize)> {
        Some((self.language.image_token()?, self.query_tokens?))
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
        self.language.decode(tokens, true)
    }

    /// Text of token ids, with or without special tokens.
    ///
    /// # Errors
    /// [`DataError::Encode`].
    pub fn detokenize(&self, tokens: &[u32], skip_special: bool) -> Result<String, DataError> {
        self.language.decode(tokens, skip_special)
    }

    /// Id of a token of the language model's tokenizer by its text, where there is one.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.language.id(token)
    }

    /// Id that fills up prompts.
    pub fn pad(&self) -> u32 {
        self.language.pad()
    }

    /// Where prompts are filled up.
    pub fn padding_side(&self) -> Side {
        self.language.padding()
    }

    /// Most tokens of a text, where the folder names a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.language.max_length()
    }

    /// Id that fills up the Q-Former's texts.
    pub fn qformer_pad(&self) -> u32 {
        self.qformer.as_ref().map_or(0, |qformer| qformer.pad())
    }

    /// Most tokens of a text of the Q-Former, where the folder names a limit.
    pub fn qformer_max_length(&self) -> Option<usize> {
        self.qformer.as_ref()?.max_length()
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

    /// The image processor.
    pub fn images(&self) -> &ImageProcessor {
        &self.images
    }

    /// Height and width at which the model reads an image.
    ///
    /// # Errors
    /// [`DataError::Shape`].
    pub fn size_of(&self, image: &Image) -> Result<(u32, u32), DataError> {
        self.images.size_of(image.width(), image.height())
    }

    /// The one height and width at which the model reads some images.
    ///
    /// # Errors
    /// [`DataError::Sizes`] where it reads them at different ones, [`DataError::Shape`].
    pub fn common_size<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> Result<(u32, u32), DataError> {
        let mut common = None;
        for image in images {
            let size = self.size_of(image)?;
            match common {
                Some(other) if other != size => return Err(DataError::Sizes(other, size)),
                _ => common = Some(size),
            }
        }
        Ok(common.unwrap_or_else(|| self.image_size()))
    }

    /// Height and width that the model reads; nothing of both where they depend on the image.
    pub fn image_size(&self) -> (u32, u32) {
        self.images.image_size()
    }

    /// Model-ready pixels `[3, height, width]` of images one after the other, as the folder's image processor makes them.
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

/// The token of an image in Qwen-VL, where a folder names none, with its id where a configuration has none, and the token before an image.
const QWEN_IMAGE: &str = "<|image_pad|>";
const QWEN_IMAGE_ID: (&str, u64) = ("image_token_id", 151_655);
const QWEN_START: &str = "<|vision_start|>";
/// The token of an image in InternVL, where a folder names none, and its id where a configuration has none.
const INTERNVL_IMAGE: &str = "<IMG_CONTEXT>";
const INTERNVL_IMAGE_ID: (&str, u64) = ("image_token_id", 151_667);
/// The id of an image in LLaVA-NeXT where a configuration has none.
const LLAVA_NEXT_IMAGE_ID: (&str, u64) = ("image_token_index", 32_000);

/// How images are cut, for a model that reads them at their own size; `None` for other models.
///
/// # Errors
/// Settings of the processor that do not fit the model.
fn cells(folder: &Path, config: &Map<String, Value>, images: &ImageProcessor) -> Result<Option<Cells>, DataError> {
    let wrong = |reason: String| DataError::Processor { path: folder.join(PREPROCESSOR), reason };
    match (images.cells(), is_qwen_vl(config)) {
        (None, false) => Ok(None),
        (Some(cells), true) => {
            let fields = [
                ("patch_size", "patch_size", cells.patch, 14),
                ("merge_size", "spatial_merge_size", cells.merge, 2),
                ("temporal_patch_size", "temporal_patch_size", cells.frames, 2),
            ];
            for (own, of_model, found, default) in fields {
                let of_model = format!("vision_config.{of_model}");
                let wanted = whole(&folder.join("config.json"), config, &of_model)?.unwrap_or(default);
                if u64::from(found) != wanted {
                    let reason = format!("`{own}` is {found}; the model in config.json has {wanted} (`{of_model}`)");
                    return Err(wrong(reason));
                }
            }
            Ok(Some(cells))
        }
        (Some(_), false) if config.is_empty() => Ok(None),
        (Some(_), false) => {
            Err(wrong("it makes images of any size, and the model in config.json reads images of one size".to_owned()))
        }
        (None, true) => Err(wrong(
            "it makes images of one size, and the model in config.json reads them at their own; its `image_processor_type` is \
             `Qwen2VLImageProcessor`"
                .to_owned(),
        )),
    }
}

/// How an image is spelled in a prompt, for a model that reads it as tiles; `None` for other models.
///
/// # Errors
/// Settings of the processor that do not fit the model; a tokenizer without the word around images.
fn tiles(
    folder: &Path,
    config: &Map<String, Value>,
    images: &ImageProcessor,
    language: &Text,
) -> Result<Option<Spelling>, DataError> {
    let wrong = |file: &str, reason: String| DataError::Processor { path: folder.join(file), reason };
    let family = match () {
        () if is_idefics(config) => Some(IDEFICS),
        () if is_internvl(config) => Some(INTERNVL),
        () => None,
    };
    let (tiles, family) = match (images.tiles(), family) {
        (None, None) => return Ok(None),
        (Some(_), None) if config.is_empty() => return Ok(None),
        (Some(tiles), Some(family)) if images.splits_by_shape() == family.by_shape => (tiles, family),
        (Some(_), None) => {
            let reason = "it makes tiles of images, and the model in config.json reads images whole";
            return Err(wrong(PREPROCESSOR, reason.to_owned()));
        }
        (_, Some(family)) => {
            return Err(wrong(
                PREPROCESSOR,
                format!(
                    "it makes no tiles of images as the model in config.json reads them; its `image_processor_type` is {}",
                    family.classes
                ),
            ));
        }
    };
    let of_model = TileSizes::of(config).map_err(|reason| wrong("config.json", reason))?;
    if tiles.side as usize != of_model.side {
        return Err(wrong(
            PREPROCESSOR,
            format!(
                "it makes tiles of {0}x{0} pixels (`{2}`), and the model reads {1}x{1} (`vision_config.image_size` in its \
                 config.json)",
                tiles.side, of_model.side, family.side
            ),
        ));
    }
    let (field, default) = family.features;
    let written = optional(&folder.join(PROCESSOR))?.get(field).map_or(Some(default), Value::as_u64);
    let features = of_model.features();
    if written != Some(features as u64) {
        let shown = written.map_or_else(|| "no number".to_owned(), |count| count.to_string());
        return Err(wrong(
            PROCESSOR,
            format!(
                "`{field}` is {shown} ({default} where it is missing); the model in config.json has {features} features of a tile"
            ),
        ));
    }
    if features > MOST_QUERIES {
        return Err(wrong(
            "config.json",
            format!("a tile has {features} features; at most {MOST_QUERIES} are supported"),
        ));
    }
    // They are written out in the prompt before anybody counts its tokens; where images keep their sizes, each is looked at then.
    let most = images.most_tiles().unwrap_or(1);
    let taken = most.saturating_mul(features as u64);
    if taken > MOST_FEATURES {
        return Err(wrong(
            PREPROCESSOR,
            format!(
                "an image could become {most} tiles of {features} features each, {taken} positions; at most {MOST_FEATURES} are supported: lower \
                 `{}`",
                family.most
            ),
        ));
    }
    let settings = Settings::load(folder)?;
    let named = |(name, default): (&str, &str)| settings.named(name).unwrap_or(default).to_owned();
    let [first, second] = family.words.map(named);
    let around = if family.by_shape { vec![&first, &second] } else { vec![&first] };
    if let Some(unknown) = around.into_iter().find(|word| language.id(word).is_none()) {
        let reason = format!("it has no token {unknown:?}, which stands around an image in the prompts of this model");
        return Err(DataError::Tokenizer { path: folder.join("tokenizer.json"), reason });
    }
    let words = match family.by_shape {
        true => Words::Ends { start: first, end: second },
        false => Words::Places { fake: first, global: second },
    };
    Ok(Some(Spelling { tiles, features, words }))
}

/// What the folders of a family that reads images as tiles say, and where.
struct TileFamily {
    /// Its image processors, in words.
    classes: &'static str,
    /// Whether the shape of an image says how many tiles it becomes.
    by_shape: bool,
    /// Settings of a tile's side and of most tiles.
    side: &'static str,
    most: &'static str,
    /// Field of the features of a tile, and their number where it is missing.
    features: (&'static str, u64),
    /// Words in a prompt, as settings name them, and what they are where those do not.
    words: [(&'static str, &'static str); 2],
}

const IDEFICS: TileFamily = TileFamily {
    classes: "`Idefics3ImageProcessor` or `SmolVLMImageProcessor`",
    by_shape: false,
    side: "max_image_size",
    most: "size.longest_edge",
    features: ("image_seq_len", 169),
    words: [("fake_image_token", "<fake_token_around_image>"), ("global_image_token", "<global-img>")],
};

const INTERNVL: TileFamily = TileFamily {
    classes: "`GotOcr2ImageProcessor`",
    by_shape: true,
    side: "size",
    most: "max_patches",
    features: ("image_seq_length", 256),
    words: [("start_image_token", "<img>"), ("end_image_token", "</img>")],
};

/// The positions of an image in a model that reads it as tiles without padding; `None` for other models.
///
/// # Errors
/// Settings of the processor that do not fit the model.
fn mosaic(folder: &Path, config: &Map<String, Value>, images: &ImageProcessor) -> Result<Option<Takes>, DataError> {
    let wrong = |file: &str, reason: String| DataError::Processor { path: folder.join(file), reason };
    let own = match (images.pinpoints(), is_llava_next(config)) {
        (None, false) => return Ok(None),
        (Some(_), false) if config.is_empty() => return Ok(None),
        (Some(own), true) => own,
        (Some(_), false) => {
            let reason = "it makes tiles of images, and the model in config.json reads images whole";
            return Err(wrong(PREPROCESSOR, reason.to_owned()));
        }
        (None, true) => {
            let reason = "it makes no tiles of images, which the model in config.json reads; its `image_processor_type` is \
                          `LlavaNextImageProcessor`";
            return Err(wrong(PREPROCESSOR, reason.to_owned()));
        }
    };
    let of_model = Pinpoints::of(config).map_err(|reason| wrong("config.json", reason))?;
    if own.pixels != of_model.pixels {
        let reason = format!(
            "it makes tiles of {0}x{0} pixels, and the model reads {1}x{1} (`vision_config.image_size` in its config.json)",
            own.pixels, of_model.pixels
        );
        return Err(wrong(PREPROCESSOR, reason));
    }
    if own.sizes != of_model.sizes {
        let reason =
            "its `image_grid_pinpoints` are not those of the model in config.json, which takes images apart by them";
        return Err(wrong(PREPROCESSOR, reason.to_owned()));
    }
    agrees_on_patches(folder, config)?;
    Ok(Some(Takes::Mosaic { pixels: own.pixels, side: own.side }))
}

/// Positions that an image takes in a model that has one for each patch; `None` for other models.
///
/// # Errors
/// Settings of the processor that do not fit the model.
fn patches(folder: &Path, config: &Map<String, Value>) -> Result<Option<usize>, DataError> {
    if !is_llava(config) {
        return Ok(None);
    }
    let wrong = |reason: String| DataError::Processor { path: folder.join("config.json"), reason };
    for name in ["vision_config.image_size", "vision_config.patch_size"] {
        let size = whole(&folder.join("config.json"), config, name)?;
        if let Some(size) = size.filter(|size| !(1..=LARGEST_SIDE).contains(size)) {
            return Err(wrong(format!("`{name}` is {size}; it must be between 1 and {LARGEST_SIDE}")));
        }
    }
    let tokens = llava_tokens(config).map(|[_, features]| features).filter(|features| *features > 0);
    let Some(tokens) = tokens else {
        return Err(wrong(
            "`vision_config` has no `image_size` and `patch_size` that leave a feature of an image".to_owned(),
        ));
    };
    agrees_on_patches(folder, config)?;
    if tokens > MOST_QUERIES {
        return Err(wrong(format!(
            "an image takes {tokens} positions (`vision_config`); at most {MOST_QUERIES} are supported"
        )));
    }
    Ok(Some(tokens))
}

/// Refuses settings of a LLaVA's processor that count other positions of an image than the model.
fn agrees_on_patches(folder: &Path, config: &Map<String, Value>) -> Result<(), DataError> {
    let wrong = |reason: String| DataError::Processor { path: folder.join("config.json"), reason };
    let (kind, fields) = llava_vision(config).map_err(wrong)?;
    let patch = fields.get("patch_size").and_then(Value::as_u64).unwrap_or_default();
    let full = keeps_first(config);
    let path = folder.join(PROCESSOR);
    let settings = optional(&path)?;
    let class = u64::from(kind.has_class());
    for (field, of_model) in [("patch_size", patch), ("num_additional_image_tokens", class)] {
        if let Some(other) = whole(&path, &settings, field)?.filter(|&other| other != of_model) {
            let reason = format!("`{field}` is {other}; the model in config.json has {of_model}");
            return Err(DataError::Processor { path, reason });
        }
    }
    let strategy = settings.get("vision_feature_select_strategy").and_then(Value::as_str);
    if let Some(other) = strategy.filter(|&other| (other == "full") != full) {
        let reason = format!("`vision_feature_select_strategy` is `{other}`, and another one in config.json");
        return Err(DataError::Processor { path, reason });
    }
    Ok(())
}

/// Field and id of the token that stands for an image position in the model's configuration.
fn of_image(model: &Path, config: &Map<String, Value>) -> Result<Option<(&'static str, u64)>, DataError> {
    for field in ["image_token_index", "image_token_id"] {
        if let Some(id) = whole(model, config, field)? {
            return Ok(Some((field, id)));
        }
    }
    Ok(None)
}

/// A number of a settings file, under a name with a dot between a part and its field; `None` where it is absent or `null`.
///
/// # Errors
/// Anything but a whole number that is not negative.
fn whole(path: &Path, fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, DataError> {
    let mut parts = name.split('.');
    let top = parts.next().and_then(|part| fields.get(part));
    let Some(value) = parts.fold(top, |value, part| value?.get(part)).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let reason = || format!("`{name}` is {value}; it must be a whole number that is not negative");
    value.as_u64().map(Some).ok_or_else(|| DataError::Processor { path: path.to_owned(), reason: reason() })
}

/// A JSON object; empty where there is no such file.
fn optional(path: &Path) -> Result<Map<String, Value>, DataError> {
    Ok(json::optional(path).map_err(DataError::of_settings)?.unwrap_or_default())
}
