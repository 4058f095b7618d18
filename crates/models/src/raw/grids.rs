//! The same for models that read images of any size: patches of all images one after the other, with the rows and columns of each.
//!
//! Semantics of `Qwen2VLForConditionalGeneration.forward` in transformers 4.57, `modeling_qwen2_vl.py`.

use tch::{Kind, Tensor};

use super::{ForwardInputs, ForwardOutputs, IGNORED, input, loss, mask, within};
use crate::{
    Infer, Model, ModelError, Prompts, TextBatch, axes::axes, families::Grid, generate::ids as on_host, model::MUTE,
    qformer::QFormer,
};

/// Most patches of an image.
const MOST_PATCHES: i64 = 1 << 20;

impl Model {
    /// As [`Model::forward`], for a model that reads images of any size: `pixel_values` are patches `[patches, values]`, `grids` the frames,
    /// rows and columns of each image, whole numbers `[images, 3]`. Rows of `input_ids` may have any number of images. Outputs of the
    /// images stand in one row, one image after the other.
    ///
    /// # Errors
    /// Inputs that do not fit together or not to the model.
    pub fn forward_grids(&self, inputs: &ForwardInputs, grids: &Tensor) -> Result<ForwardOutputs, ModelError> {
        tch::no_grad(|| self.forward_cut(inputs, grids))
    }

    fn forward_cut(&self, inputs: &ForwardInputs, grids: &Tensor) -> Result<ForwardOutputs, ModelError> {
        let language = self.language().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        let Some(cut) = self.config().grid() else {
            return Err(input(
                "image_grid_thw",
                "this model reads images of one size, `pixel_values` [images, 3, height, width]",
            ));
        };
        let grids = images(grids, cut)?;
        let patches = patches(&inputs.pixel_values, &grids, cut)?.f_to_device(self.device())?;
        let vocabulary = self.config().text_config().vocab_size();
        let image = self.config().image_token().unwrap_or(-1);
        let ids = table("input_ids", &inputs.input_ids)?;
        let real = mask("attention_mask", &inputs.attention_mask, &ids.size())?;
        let features: i64 = grids.iter().map(|[rows, columns]| rows * columns / (cut.merge * cut.merge)).sum();
        let places = ids.eq(image);
        let found = places.sum(Kind::Int64).int64_value(&[]);
        if found != features {
            return Err(input(
                "input_ids",
                format!("{found} image tokens `{image}` for {features} features of the images in `image_grid_thw`"),
            ));
        }
        within("input_ids", &ids.masked_fill(&places, 0), vocabulary)?;
        let labels = match &inputs.labels {
            None => None,
            Some(labels) => {
                let labels = table("labels", labels)?;
                if labels.size() != ids.size() {
                    let (found, wanted) = (labels.size(), ids.size());
                    return Err(input("labels", format!("shape {found:?} is not that of `input_ids`, {wanted:?}")));
                }
                within("labels", &labels.masked_fill(&labels.eq(IGNORED), 0), vocabulary)?;
                Some(labels.f_to_device(self.device())?)
            }
        };
        let positions = positions(&ids, &real, image, &grids, cut)?.to_device(self.device());

        let device = self.device();
        let none = || TextBatch::pad(&[Vec::new()], 0, device);
        let (mut from, mut states) = (0, [Vec::new(), Vec::new()]);
        for &[rows, columns] in &grids {
            let own = patches.narrow(0, from, rows * columns).unsqueeze(0);
            from += rows * columns;
            let unread = || input("image_grid_thw", "this model's image encoder takes no patches");
            let encoded = self.encode_patches(&own, [rows, columns]).ok_or_else(unread)?;
            let prompts = Prompts { image: QFormer::each(1, device), qformer: none(), language: none() };
            states[1].push(self.query_output(&encoded, &prompts));
            states[0].push(encoded);
        }
        let [encoded, queries] = states.map(|states| Tensor::cat(&states, 1));
        let prefix = self.project(&queries);
        let (ids, places, real) = (ids.to_device(device), places.to_device(device), real.to_device(device));
        let words = language.words(&ids.masked_fill(&places, 0));
        let x = words.masked_scatter(&places.unsqueeze(-1).expand_as(&words), &prefix);
        let logits = language.read(x, &real, &ids, Some(&positions));
        let loss = labels.as_ref().map(|labels| loss(&logits, labels, true));
        Ok(ForwardOutputs {
            vision_last_hidden_state: encoded,
            qformer_query_output: queries.to_kind(self.kind()),
            language_model_inputs: prefix,
            logits,
            loss,
        })
    }
}

/// Whole numbers `[rows, columns]` on the host, with at least one of each.
fn table(name: &'static str, table: &Tensor) -> Result<Tensor, ModelError> {
    let size = table.size();
    if size.len() != 2 || size.contains(&0) {
        return Err(input(name, format!("shape {size:?} is not [rows, columns] with something in it")));
    }
    if !matches!(table.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8) {
        return Err(input(name, format!("type {:?} is not one of whole numbers", table.kind())));
    }
    Ok(table.f_to_kind(Kind::Int64)?.f_to_device(tch::Device::Cpu)?)
}

/// Rows and columns of patches of each image.
fn images(grids: &Tensor, cut: Grid) -> Result<Vec<[i64; 2]>, ModelError> {
    const NAME: &str = "image_grid_thw";
    let grids = table(NAME, grids)?;
    if grids.size()[1] != 3 {
        return Err(input(NAME, format!("shape {:?} is not [images, 3]", grids.size())));
    }
    let image = |(at, grid): (usize, &[i64; 3])| {
        let &[frames, rows, columns] = grid;
        if frames != 1 {
            return Err(input(
                NAME,
                format!("image {at} has {frames} frames; an image has 1, and videos are not supported"),
            ));
        }
        let fits = |side: i64| side > 0 && side % cut.merge == 0;
        if !fits(rows) || !fits(columns) || rows.saturating_mul(columns) > MOST_PATCHES {
            return Err(input(
                NAME,
                format!(
                    "image {at} has {rows} rows and {columns} columns of patches; they must be multiples of {}, of at most {MOST_PATCHES} \
                     patches in all",
                    cut.merge
                ),
            ));
        }
        Ok([rows, columns])
    };
    on_host(&grids).as_chunks::<3>().0.iter().enumerate().map(image).collect()
}

/// Patches of all images.
fn patches(pixels: &Tensor, grids: &[[i64; 2]], cut: Grid) -> Result<Tensor, ModelError> {
    let wanted = [grids.iter().map(|[rows, columns]| rows * columns).sum(), cut.values];
    if pixels.size() != wanted {
        return Err(input(
            "pixel_values",
            format!(
                "shape {:?} is not {wanted:?}, the patches of `image_grid_thw` and the values of a patch",
                pixels.size()
            ),
        ));
    }
    if !pixels.is_floating_point() {
        return Err(input("pixel_values", format!("type {:?} is not a floating-point one", pixels.kind())));
    }
    Ok(pixels.shallow_clone())
}

/// Positions i64 `[3, rows, tokens]`. An image begins where its token follows the one that announces images.
fn positions(ids: &Tensor, real: &Tensor, image: i64, grids: &[[i64; 2]], cut: Grid) -> Result<Tensor, ModelError> {
    let width = ids.size()[1] as usize;
    let (ids, real) = (on_host(ids), on_host(&real.to_kind(Kind::Int64)));
    let mut left = grids.iter().map(|&[rows, columns]| [1, (rows / cut.merge) as u32, (columns / cut.merge) as u32]);
    let rows = ids.len() / width.max(1);
    let mut all = vec![1i64; 3 * ids.len()];
    for (row, (ids, real)) in ids.chunks(width).zip(real.chunks(width)).enumerate() {
        let kept: Vec<usize> = (0..width).filter(|&at| real[at] != 0).collect();
        let words: Vec<u32> = kept.iter().map(|&at| u32::try_from(ids[at]).unwrap_or(u32::MAX)).collect();
        let announced = words.windows(2).filter(|two| i64::from(two[0]) == cut.start && i64::from(two[1]) == image);
        let own: Vec<[u32; 3]> = left.by_ref().take(announced.count()).collect();
        let axes = axes(&words, image as u32, &own).ok_or_else(|| {
            input("input_ids", format!("the image tokens of row {row} are not those of its images in `image_grid_thw`"))
        })?;
        for (axis, positions) in axes.iter().enumerate() {
            for (&at, &position) in kept.iter().zip(positions) {
                all[(axis * rows + row) * width + at] = position;
            }
        }
    }
    Ok(Tensor::from_slice(&all).view([3, rows as i64, width as i64]))
}
