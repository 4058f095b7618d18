//! The same for models that read images as tiles without their padding: of each image the whole and its tiles, and the size that it had.
//!
//! Semantics of `LlavaNextForConditionalGeneration.forward` in transformers 4.57, `modeling_llava_next.py`.

use ressa_checkpoint::Pinpoints;
use tch::{Kind, Tensor};

use super::{Checked, ForwardInputs, ForwardOutputs, Places, input, loss};
use crate::{
    Infer, Model, ModelError, Mosaic, Prompts, TextBatch, generate::ids as on_host, model::MUTE, qformer::QFormer,
};

const SIZES: &str = "image_sizes";

impl Model {
    /// As [`Model::forward`], for a model that reads images as tiles without their padding: `pixel_values` are `[images, tiles, 3, side, side]`,
    /// of each image the whole first, filled up behind; or `[tiles, 3, side, side]`, of all images one after the other. `sizes` are heights
    /// and widths, whole numbers `[images, 2]`. Rows of `input_ids` may have any number of images. Outputs of the images stand in one row.
    ///
    /// # Errors
    /// Inputs that do not fit together or not to the model.
    pub fn forward_sizes(&self, inputs: &ForwardInputs, sizes: &Tensor) -> Result<ForwardOutputs, ModelError> {
        tch::no_grad(|| self.forward_sized(inputs, sizes))
    }

    fn forward_sized(&self, inputs: &ForwardInputs, sizes: &Tensor) -> Result<ForwardOutputs, ModelError> {
        let language = self.language().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        let Some(pinpoints) = self.config().pinpoints() else {
            let reason = "this model reads images of one size, `pixel_values` [images, 3, height, width]";
            return Err(input(SIZES, reason));
        };
        let device = self.device();
        let mosaics = mosaics(sizes, pinpoints)?;
        let canvases = canvases(&inputs.pixel_values, &mosaics, i64::from(pinpoints.pixels))?;
        let image = self.config().image_token().unwrap_or(-1);
        let features: usize = mosaics.iter().map(Mosaic::features).sum();
        let find = |ids: &Tensor, _: &Tensor| places(ids, image, features as i64);
        let rows = inputs.input_ids.size().first().copied().unwrap_or_default();
        let checked = Checked::of_texts(self, inputs, rows, &find)?;
        let none = || TextBatch::pad(&[Vec::new()], 0, device);
        let (mut encoded, mut queries, mut prefix) = (Vec::new(), Vec::new(), Vec::new());
        for (canvas, mosaic) in canvases.iter().zip(&mosaics) {
            let own = self.encode_images(&canvas.f_to_device(device)?);
            let prompts = Prompts { image: QFormer::each(1, device), qformer: none(), language: none() };
            let states = self.query_output(&own, &prompts);
            prefix.push(self.lay(&self.project(&states), mosaic));
            queries.push(states);
            encoded.push(own);
        }
        let [encoded, queries, prefix] = [encoded, queries, prefix].map(|states| Tensor::cat(&states, 1));
        let (x, seen) = checked.place(&language.words(&checked.words()), &prefix);
        let logits = language.read(x, &seen, &checked.decoder_ids(self), None);
        let loss = checked.labels.as_ref().map(|labels| loss(&logits, labels, true));
        Ok(ForwardOutputs {
            vision_last_hidden_state: encoded,
            qformer_query_output: queries.to_kind(self.kind()),
            language_model_inputs: prefix,
            logits,
            loss,
        })
    }
}

/// The places of all features of all images.
fn places(ids: &Tensor, image: i64, features: i64) -> Result<Places, ModelError> {
    let tokens = ids.eq(image);
    let found = tokens.sum(Kind::Int64).int64_value(&[]);
    if found != features {
        let reason = format!("{found} image tokens `{image}` for {features} features of the images in `{SIZES}`");
        return Err(input("input_ids", reason));
    }
    Ok(Places::Tokens(tokens))
}

/// What is read of each image.
fn mosaics(sizes: &Tensor, pinpoints: &Pinpoints) -> Result<Vec<Mosaic>, ModelError> {
    let size = sizes.size();
    if size.len() != 2 || size[0] == 0 || size[1] != 2 {
        return Err(input(SIZES, format!("shape {size:?} is not [images, 2]")));
    }
    if !matches!(sizes.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8) {
        return Err(input(SIZES, format!("type {:?} is not one of whole numbers", sizes.kind())));
    }
    let sizes = on_host(&sizes.f_to_kind(Kind::Int64)?);
    let mosaic = |(at, size): (usize, &[i64; 2])| {
        let wrong = |reason: String| input(SIZES, format!("image {at} of {size:?} in height and width: {reason}"));
        let own = size.map(|length| u32::try_from(length).unwrap_or_default());
        pinpoints.mosaic(own).map_err(wrong)
    };
    sizes.as_chunks::<2>().0.iter().enumerate().map(mosaic).collect()
}

/// Each image as a canvas `[1, 3, height, width]`: its tiles in rows, the whole below.
fn canvases(pixels: &Tensor, mosaics: &[Mosaic], side: i64) -> Result<Vec<Tensor>, ModelError> {
    const PIXELS: &str = "pixel_values";
    let size = pixels.size();
    let filled = size.len() == 5;
    if !filled && size.len() != 4 || size[size.len() - 3..] != [3, side, side] {
        let wanted = format!("[images, tiles, 3, {side}, {side}] or [tiles, 3, {side}, {side}]");
        return Err(input(PIXELS, format!("shape {size:?} is not {wanted}")));
    }
    if !pixels.is_floating_point() {
        return Err(input(PIXELS, format!("type {:?} is not a floating-point one", pixels.kind())));
    }
    let counts: Vec<i64> = mosaics.iter().map(|mosaic| mosaic.count() as i64).collect();
    let fits = match filled {
        true => size[0] == counts.len() as i64 && counts.iter().all(|count| *count <= size[1]),
        false => size[0] == counts.iter().sum::<i64>(),
    };
    if !fits {
        return Err(input(
            PIXELS,
            format!("shape {size:?} does not hold the images of `{SIZES}`, of {counts:?} tiles"),
        ));
    }
    let mut from = 0;
    let canvas = |(at, (mosaic, &count)): (usize, (&Mosaic, &i64))| {
        let own = match filled {
            true => pixels.get(at as i64).narrow(0, 0, count),
            false => pixels.narrow(0, from, count),
        };
        from += count;
        let [rows, columns] = mosaic.tiles.map(i64::from);
        let grid = own.narrow(0, 1, count - 1).view([rows, columns, 3, side, side]).permute([2, 0, 3, 1, 4]);
        let grid = grid.reshape([1, 3, rows * side, columns * side]);
        let whole = own.narrow(0, 0, 1).constant_pad_nd([0, (columns - 1) * side, 0, 0]);
        Tensor::cat(&[grid, whole], 2)
    };
    Ok(mosaics.iter().zip(&counts).enumerate().map(canvas).collect())
}
