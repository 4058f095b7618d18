//! A forward pass over raw inputs, padded and masked as the caller has them: for comparing with other implementations.
//!
//! Semantics of `forward` in transformers 4.57, `modeling_instructblip.py` and its siblings: image positions take the places of the image
//! tokens, every position gets logits, a decoder-only model shifts its labels by one, T5 makes its decoder's inputs from them. Folders
//! of 2023 have no image token; their queries come before the text, as in the releases of that time.

mod grids;
mod sizes;
mod tiles;

use tch::{Kind, Tensor};

use crate::{
    Family, Infer, Model, ModelError, Prompts, TextBatch, config::TextConfig, layers::prefixed, model::MUTE,
    qformer::QFormer,
};

/// Label of a position that does not count.
const IGNORED: i64 = -100;

/// What goes in. Rows are `B`; masks are anything that is 0 where a token is padding.
#[derive(Debug)]
pub struct ForwardInputs {
    /// `[B, 3, height, width]`. For another size than the configured one, BLIP-2 and InstructBLIP interpolate their positions; other families
    /// refuse it. Families that read patches or tiles have passes of their own, which say what it is there.
    pub pixel_values: Tensor,
    /// Tokens of the language model, i64 `[B, T]`, image tokens included if the configuration has one.
    pub input_ids: Tensor,
    /// `[B, T]`.
    pub attention_mask: Tensor,
    /// Targets, i64, -100 where nothing is asked: `[B, L]` for T5, `[B, T]` for a decoder-only model.
    pub labels: Option<Tensor>,
    /// Tokens of the instruction as the Q-Former reads it, i64 `[B, Q]`. InstructBLIP needs it, BLIP-2 has no use for it.
    pub qformer_input_ids: Option<Tensor>,
    /// `[B, Q]`; all ones if absent.
    pub qformer_attention_mask: Option<Tensor>,
}

/// What comes out, in the type of the computation.
#[derive(Debug)]
pub struct ForwardOutputs {
    /// After the vision tower's last norm, `[B, patches + 1, width]`.
    pub vision_last_hidden_state: Tensor,
    /// Last states of the Q-Former's queries, `[B, N, width]`.
    pub qformer_query_output: Tensor,
    /// What takes the places of the image tokens, `[B, N, language width]`.
    pub language_model_inputs: Tensor,
    /// `[B, T, vocabulary]`, for T5 `[B, L, vocabulary]`; T5 without labels gives the first token's only. Where queries come before the
    /// text, `[B, N + T, vocabulary]`.
    pub logits: Tensor,
    /// Mean cross entropy over the labels that count, f32, a scalar; nothing without labels.
    pub loss: Option<Tensor>,
}

impl Model {
    /// Runs the model without gradients. Taps on its linears see every position, padding included.
    pub fn forward(&self, inputs: &ForwardInputs) -> Result<ForwardOutputs, ModelError> {
        tch::no_grad(|| self.forward_raw(inputs))
    }

    fn forward_raw(&self, inputs: &ForwardInputs) -> Result<ForwardOutputs, ModelError> {
        let Some(language) = self.language() else {
            return Err(ModelError::Config(MUTE.to_owned()));
        };
        if self.config().grid().is_some() {
            let reason = "it is missing; this model reads images of any size as patches in rows and columns";
            return Err(input("image_grid_thw", reason));
        }
        if self.config().pinpoints().is_some() {
            return Err(input("image_sizes", "it is missing; this model reads images as tiles without their padding"));
        }
        if self.config().tile().is_some() {
            return self.forward_tiles(inputs, None);
        }
        let checked = Checked::new(self, inputs)?;
        let features = self.encode_images(&checked.pixels);
        let unread = || TextBatch::new(checked.ids.shallow_clone(), checked.mask.shallow_clone());
        let prompts = Prompts {
            image: QFormer::each(checked.rows, self.device()),
            qformer: checked.instruction.as_ref().map_or_else(unread, TextBatch::shallow_clone),
            language: unread(),
        };
        let queries = self.query_output(&features, &prompts);
        let prefix = self.project(&queries);
        let (x, mask) = checked.place(&language.words(&checked.words()), &prefix);
        let logits = language.read(x, &mask, &checked.decoder_ids(self), None);
        let shifted = !self.config().text_config().has_encoder();
        let loss = checked.labels.as_ref().map(|labels| loss(&logits, labels, shifted));
        Ok(ForwardOutputs {
            vision_last_hidden_state: features,
            qformer_query_output: queries.to_kind(self.kind()),
            language_model_inputs: prefix,
            logits,
            loss,
        })
    }
}

/// Where the image goes.
enum Places {
    /// Onto these positions, bool `[B, T]`.
    Tokens(Tensor),
    /// Before the text.
    Before,
}

/// Inputs that fit together and to the model, on its device.
struct Checked {
    rows: i64,
    pixels: Tensor,
    ids: Tensor,
    mask: Tensor,
    places: Places,
    labels: Option<Tensor>,
    instruction: Option<TextBatch>,
}

impl Checked {
    fn new(model: &Model, inputs: &ForwardInputs) -> Result<Self, ModelError> {
        let config = model.config();
        let rows = pixels(&inputs.pixel_values, config.patch())?;
        if config.blip2().is_none() {
            of_side(&inputs.pixel_values, config.image_size())?;
        }
        let find = |ids: &Tensor, mask: &Tensor| places(ids, mask, config.image_token(), config.image_tokens());
        let texts = Self::of_texts(model, inputs, rows, &find)?;
        let instruction = instruction(model, inputs, rows)?;
        Ok(Self { pixels: inputs.pixel_values.f_to_device(model.device())?, instruction, ..texts })
    }

    /// Everything but the images and the Q-Former's instruction, which are left as they are; `find` says where images go, from ids and mask.
    fn of_texts(
        model: &Model,
        inputs: &ForwardInputs,
        rows: i64,
        find: &dyn Fn(&Tensor, &Tensor) -> Result<Places, ModelError>,
    ) -> Result<Self, ModelError> {
        let (config, device) = (model.config(), model.device());
        let vocabulary = config.text_config().vocab_size();
        let ids = whole("input_ids", &inputs.input_ids, rows)?.f_to_device(device)?;
        let mask = mask("attention_mask", &inputs.attention_mask, &ids.size())?.f_to_device(device)?;
        let places = find(&ids, &mask)?;
        if let Places::Tokens(tokens) = &places {
            within("input_ids", &ids.masked_fill(tokens, 0), vocabulary)?;
        } else {
            within("input_ids", &ids, vocabulary)?;
        }
        let labels = match &inputs.labels {
            None => None,
            Some(labels) => {
                let labels = whole("labels", labels, rows)?.f_to_device(device)?;
                within("labels", &labels.masked_fill(&labels.eq(IGNORED), 0), vocabulary)?;
                let decoder_only = !config.text_config().has_encoder();
                if decoder_only && labels.size() != ids.size() {
                    let found = labels.size();
                    return Err(input(
                        "labels",
                        format!("shape {found:?} is not that of `input_ids`, {:?}", ids.size()),
                    ));
                }
                Some(labels)
            }
        };
        if let (TextConfig::Opt(c), Places::Before) = (config.text_config(), &places) {
            longest("input_ids", ids.size()[1] + config.image_tokens(), c.max_position_embeddings)?;
        } else if let TextConfig::Opt(c) = config.text_config() {
            longest("input_ids", ids.size()[1], c.max_position_embeddings)?;
        }
        let pixels = inputs.pixel_values.shallow_clone();
        Ok(Self { rows, pixels, ids, mask, places, labels, instruction: None })
    }

    /// Tokens to look up: image tokens may lie outside the vocabulary and are replaced anyway.
    fn words(&self) -> Tensor {
        match &self.places {
            Places::Tokens(tokens) => self.ids.masked_fill(tokens, 0),
            Places::Before => self.ids.shallow_clone(),
        }
    }

    /// Word embeddings with the image in its place, and their mask.
    fn place(&self, words: &Tensor, prefix: &Tensor) -> (Tensor, Tensor) {
        match &self.places {
            Places::Tokens(tokens) => {
                let whole = tokens.unsqueeze(-1).expand_as(words);
                (words.masked_scatter(&whole, prefix), self.mask.shallow_clone())
            }
            Places::Before => (Tensor::cat(&[prefix, words], 1), prefixed(&self.mask, prefix.size()[1])),
        }
    }

    /// What T5's decoder reads: the labels moved right by one behind the start token; what is ignored becomes padding.
    fn decoder_ids(&self, model: &Model) -> Tensor {
        let special = model.special_tokens();
        let start = Tensor::full([self.rows, 1], special.decoder_start, (Kind::Int64, model.device()));
        match &self.labels {
            None => start,
            Some(labels) => {
                let moved = Tensor::cat(&[start, labels.narrow(1, 0, labels.size()[1] - 1)], 1);
                moved.masked_fill(&moved.eq(IGNORED), special.pad)
            }
        }
    }
}

/// Mean cross entropy over the labels that count. `shifted`: a position's logits predict the next position's label.
fn loss(logits: &Tensor, labels: &Tensor, shifted: bool) -> Tensor {
    let (tokens, vocabulary) = (labels.size()[1], logits.size()[2]);
    // Where queries come before the text, the text's logits are the last ones.
    let logits = logits.narrow(1, logits.size()[1] - tokens, tokens).to_kind(Kind::Float);
    let (logits, labels) = match shifted {
        true => (logits.narrow(1, 0, tokens - 1), labels.narrow(1, 1, tokens - 1)),
        false => (logits, labels.shallow_clone()),
    };
    logits.reshape([-1, vocabulary]).cross_entropy_loss::<Tensor>(
        &labels.reshape([-1]),
        None,
        tch::Reduction::Mean,
        IGNORED,
        0.0,
    )
}

fn input(name: &'static str, reason: impl Into<String>) -> ModelError {
    ModelError::Input { name, reason: reason.into() }
}

/// Rows of a batch of images.
fn pixels(pixels: &Tensor, patch: i64) -> Result<i64, ModelError> {
    let size = pixels.size();
    let &[rows, 3, height, width] = size.as_slice() else {
        return Err(input("pixel_values", format!("shape {size:?} is not [images, 3, height, width]")));
    };
    if rows == 0 || height < patch || width < patch {
        return Err(input("pixel_values", format!("shape {size:?} holds no patch of {patch} x {patch} pixels")));
    }
    if !pixels.is_floating_point() {
        return Err(input("pixel_values", format!("type {:?} is not a floating-point one", pixels.kind())));
    }
    Ok(rows)
}

/// Refuses images that are not as large as the positions of the image encoder say.
fn of_side(pixels: &Tensor, side: i64) -> Result<(), ModelError> {
    match pixels.size()[2..] {
        [height, width] if (height, width) == (side, side) => Ok(()),
        ref size => {
            let reason =
                format!("images of {size:?} pixels; this model reads {side} x {side} (`vision_config.image_size`)");
            Err(input("pixel_values", reason))
        }
    }
}

/// A table of whole numbers with at least one column, as i64.
fn whole(name: &'static str, table: &Tensor, rows: i64) -> Result<Tensor, ModelError> {
    let size = table.size();
    if size.len() != 2 || size[0] != rows || size[1] == 0 {
        return Err(input(
            name,
            format!("shape {size:?} is not [{rows}, tokens], as `pixel_values` has {rows} images"),
        ));
    }
    if !matches!(table.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8) {
        return Err(input(name, format!("type {:?} is not one of whole numbers", table.kind())));
    }
    Ok(table.f_to_kind(Kind::Int64)?)
}

fn mask(name: &'static str, mask: &Tensor, size: &[i64]) -> Result<Tensor, ModelError> {
    if mask.size() != size {
        return Err(input(name, format!("shape {:?} is not that of its tokens, {size:?}", mask.size())));
    }
    Ok(mask.f_ne(0)?)
}

fn within(name: &'static str, ids: &Tensor, vocabulary: i64) -> Result<(), ModelError> {
    for bad in [ids.min(), ids.max()].map(|id| id.int64_value(&[])) {
        if !(0..vocabulary).contains(&bad) {
            return Err(input(name, format!("id {bad} is not in the vocabulary of {vocabulary}")));
        }
    }
    Ok(())
}

pub(crate) fn longest(name: &'static str, tokens: i64, longest: i64) -> Result<(), ModelError> {
    if tokens <= longest {
        return Ok(());
    }
    Err(input(name, format!("{tokens} tokens are more than the {longest} positions that the model has")))
}

/// Where the image goes among the tokens.
fn places(ids: &Tensor, mask: &Tensor, image: Option<i64>, queries: i64) -> Result<Places, ModelError> {
    let size = ids.size();
    if let Some(image) = image {
        let tokens = ids.eq(image);
        let (found, wanted) = (tokens.sum(Kind::Int64).int64_value(&[]), size[0] * queries);
        if found != wanted {
            let reason = format!("{found} image tokens `{image}` for {wanted} queries ({queries} for each image)");
            return Err(input("input_ids", reason));
        }
        return Ok(Places::Tokens(tokens));
    }
    // Inputs made for a newer folder of the same model: as many equal ids as there are queries, nowhere else in the text. A single id says
    // nothing, since every text may begin with the same token.
    if queries > 1 && size[1] >= queries {
        let first = ids.select(1, 0).select(0, 0).int64_value(&[]);
        let tokens = ids.eq(first).logical_and(mask);
        let leading = bool::try_from(tokens.narrow(1, 0, queries).all())?;
        if leading && tokens.sum(Kind::Int64).int64_value(&[]) == size[0] * queries {
            return Ok(Places::Tokens(tokens));
        }
    }
    Ok(Places::Before)
}

/// The Q-Former's instruction, where the family has one.
fn instruction(model: &Model, inputs: &ForwardInputs, rows: i64) -> Result<Option<TextBatch>, ModelError> {
    let Some(config) = model.config().blip2().filter(|config| config.family().is_ok_and(|f| f == Family::InstructBlip))
    else {
        return Ok(None);
    };
    let missing = || input("qformer_input_ids", "it is missing; InstructBLIP's Q-Former reads the instruction");
    let ids = whole("qformer_input_ids", inputs.qformer_input_ids.as_ref().ok_or_else(missing)?, rows)?;
    let config = &config.qformer_config;
    within("qformer_input_ids", &ids, config.vocab_size)?;
    longest("qformer_input_ids", ids.size()[1], config.max_position_embeddings)?;
    let mask = match &inputs.qformer_attention_mask {
        Some(given) => mask("qformer_attention_mask", given, &ids.size())?,
        None => Tensor::f_ones_like(&ids)?.f_to_kind(Kind::Bool)?,
    };
    Ok(Some(TextBatch::new(ids.f_to_device(model.device())?, mask.f_to_device(model.device())?)))
}
