//! The same for models that read images as tiles: those of all images of a row one after the other, rows filled up with tiles of zeros.
//!
//! Semantics of `Idefics3ForConditionalGeneration.forward` in transformers 4.57, `modeling_idefics3.py`: a tile of zeros is none; and of
//! `InternVLForConditionalGeneration.forward`, `modeling_internvl.py`, whose tiles are not in rows.

use ressa_checkpoint::TileSizes;
use tch::{Device, Kind, Tensor};

use super::{Checked, ForwardInputs, ForwardOutputs, Places, input, loss};
use crate::{Infer, Model, ModelError, Prompts, TextBatch, generate::ids as on_host, model::MUTE, qformer::QFormer};

impl Model {
    /// As [`Model::forward`], for a model that reads images as tiles: `pixel_values` are `[rows, tiles, 3, side, side]`, `mask` says
    /// `[rows, tiles, side, side]` which pixels are no padding; all are where it is absent. Of InternVL they are `[tiles, 3, side, side]`. Rows of `input_ids` may have any number of
    /// images. Outputs of the tiles stand in one row, one tile after the other.
    ///
    /// # Errors
    /// Inputs that do not fit together or not to the model.
    pub fn forward_tiles(&self, inputs: &ForwardInputs, mask: Option<&Tensor>) -> Result<ForwardOutputs, ModelError> {
        tch::no_grad(|| self.forward_tiled(inputs, mask))
    }

    fn forward_tiled(&self, inputs: &ForwardInputs, mask: Option<&Tensor>) -> Result<ForwardOutputs, ModelError> {
        let language = self.language().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        let Some(tile) = self.config().tile() else {
            let reason = "this model reads images of one size, `pixel_values` [images, 3, height, width]";
            return Err(input("pixel_attention_mask", reason));
        };
        let device = self.device();
        let in_rows = !self.config().has_tiles_in_one();
        if !in_rows && mask.is_some() {
            return Err(input("pixel_attention_mask", "the tiles of this model have no padding"));
        }
        let pixels = if in_rows { inputs.pixel_values.shallow_clone() } else { inputs.pixel_values.unsqueeze(0) };
        let (tiles, real) = tiles(&pixels, mask, tile, self.config().patch(), in_rows)?;
        let features = tile.features() as i64;
        let image = self.config().image_token().unwrap_or(-1);
        let find = |ids: &Tensor, _: &Tensor| places(ids, image, tiles.size()[0], features);
        let rows = if in_rows { pixels.size()[0] } else { inputs.input_ids.size()[0] };
        let checked = Checked::of_texts(self, inputs, rows, &find)?;
        let tiles = tiles.f_to_device(device)?;
        let unread = || input("pixel_values", "this model's image encoder takes no tiles");
        let encoded = self.encode_tiles(&tiles, &real).ok_or_else(unread)?;
        let none = || TextBatch::pad(&[Vec::new()], 0, device);
        let prompts = Prompts { image: QFormer::each(tiles.size()[0], device), qformer: none(), language: none() };
        let in_one_row = |states: &Tensor| states.reshape([1, -1, states.size()[2]]);
        let queries = in_one_row(&self.query_output(&encoded, &prompts));
        let prefix = self.project(&queries);
        let (x, seen) = checked.place(&language.words(&checked.words()), &prefix);
        let logits = language.read(x, &seen, &checked.decoder_ids(self), None);
        let loss = checked.labels.as_ref().map(|labels| loss(&logits, labels, true));
        Ok(ForwardOutputs {
            vision_last_hidden_state: in_one_row(&encoded),
            qformer_query_output: queries.to_kind(self.kind()),
            language_model_inputs: prefix,
            logits,
            loss,
        })
    }
}

/// The places of the features of so many tiles.
fn places(ids: &Tensor, image: i64, tiles: i64, features: i64) -> Result<Places, ModelError> {
    let tokens = ids.eq(image);
    let rows = on_host(&tokens.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64));
    let found: i64 = rows.iter().sum();
    if found != tiles * features || rows.iter().any(|row| row % features != 0) {
        let reason = format!(
            "{found} image tokens `{image}`, in its rows {rows:?}, for {tiles} tiles of {features} features each that are not of zeros"
        );
        return Err(input("input_ids", reason));
    }
    Ok(Places::Tokens(tokens))
}

/// Tiles `[tiles, 3, side, side]` that are, where rows are filled up with them, not of zeros, and the rows and columns of patches of each that are not padding.
fn tiles(
    pixels: &Tensor,
    mask: Option<&Tensor>,
    tile: TileSizes,
    patch: i64,
    in_rows: bool,
) -> Result<(Tensor, Vec<[i64; 2]>), ModelError> {
    const MASK: &str = "pixel_attention_mask";
    let (size, side) = (pixels.size(), tile.side as i64);
    let &[rows, count, 3, height, width] = size.as_slice() else {
        let (found, wanted) = if in_rows { (&size[..], "[rows, tiles, ") } else { (&size[1..], "[tiles, ") };
        return Err(input("pixel_values", format!("shape {found:?} is not {wanted}3, {side}, {side}]")));
    };
    if rows == 0 || count == 0 || height != side || width != side {
        let message = format!("shape {size:?} holds no tile of {side} x {side} pixels");
        return Err(input("pixel_values", message));
    }
    if !pixels.is_floating_point() {
        return Err(input("pixel_values", format!("type {:?} is not a floating-point one", pixels.kind())));
    }
    let all = pixels.reshape([rows * count, 3, side, side]);
    let used = all.ne(0.0).flatten(1, -1).any_dim(1, false);
    // Without any, the first is taken for one, as in the reference.
    let first = Tensor::arange(rows * count, (Kind::Int64, used.device())).eq(0);
    let used = used.logical_or(&first.logical_and(&used.any().logical_not()));
    let used = if in_rows { used } else { used.ones_like() };
    let used = used.nonzero().squeeze_dim(1);
    let tiles = all.index_select(0, &used);
    let patches = tile.patches as i64;
    let Some(mask) = mask else {
        let whole = vec![[patches; 2]; tiles.size()[0] as usize];
        return Ok((tiles, whole));
    };
    if mask.size() != [rows, count, side, side] {
        let wanted = [rows, count, side, side];
        return Err(input(MASK, format!("shape {:?} is not that of the tiles, {wanted:?}", mask.size())));
    }
    let seen = mask.f_ne(0)?.reshape([rows * count, side, side]).index_select(0, &used.to_device(mask.device()));
    let seen = seen.narrow(1, 0, patches * patch).narrow(2, 0, patches * patch);
    let seen = seen.reshape([-1, patches, patch, patches, patch]).any_dim(4, false).any_dim(2, false);
    let seen = seen.to_kind(Kind::Int64).to_device(Device::Cpu);
    let seen = seen.unbind(0);
    let sizes = seen.iter().map(|tile| {
        let [down, across] = [tile.select(1, 0), tile.select(0, 0)].map(|side| side.sum(Kind::Int64).int64_value(&[]));
        // A rectangle in the upper left corner.
        let rectangle =
            (0..patches).flat_map(|row| (0..patches).map(move |column| i64::from(row < down && column < across)));
        if down == 0 || across == 0 || !on_host(tile).into_iter().eq(rectangle) {
            let reason = "what it leaves of a tile is no rectangle in the upper left corner";
            return Err(input(MASK, reason));
        }
        Ok([down, across])
    });
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    Ok((tiles, sizes))
}
