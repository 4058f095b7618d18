//! What a model is asked: texts, the images that they are about, answers.

use std::sync::Arc;

use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::Layout;

/// The two images of text that an instructed model reads, and token ids padded on the right.
#[derive(Debug)]
pub struct TextBatch {
    /// Token ids, i64 `[rows, tokens]`.
    pub ids: Tensor,
    /// True where a token is real, bool `[rows, tokens]`.
    pub mask: Tensor,
    /// The rows on the host, where they came from there: reading them back would wait for the device.
    rows: Option<Arc<[Vec<u32>]>>,
    /// What stands before every row, the image's places in it; nothing where the image comes first and alone.
    layout: Option<Arc<Layout>>,
}

impl TextBatch {
    /// From tensors; `mask` is true on a prefix of each row.
    pub fn new(ids: Tensor, mask: Tensor) -> Self {
        Self { ids, mask, rows: None, layout: None }
    }

    /// The rows from `from` on, padded as they are.
    pub fn narrow(&self, from: i64, count: i64) -> Self {
        let part = from as usize..(from + count) as usize;
        let rows = self.rows.as_ref().map(|rows| rows[part].into());
        let layout = self.layout.clone();
        Self { ids: self.ids.narrow(0, from, count), mask: self.mask.narrow(0, from, count), rows, layout }
    }

    /// A second handle on the same tokens.
    pub fn shallow_clone(&self) -> Self {
        Self {
            ids: self.ids.shallow_clone(),
            mask: self.mask.shallow_clone(),
            rows: self.rows.clone(),
            layout: self.layout.clone(),
        }
    }

    /// Texts with what stands before them, padded on the right with `pad`: the same for all, `None` where rows differ in it.
    pub fn prompts(rows: Vec<(Option<Layout>, Vec<u32>)>, pad: u32, device: Device) -> Option<Self> {
        let (layouts, rows): (Vec<Option<Layout>>, Vec<Vec<u32>>) = rows.into_iter().unzip();
        let mut layouts = layouts.into_iter();
        let layout = layouts.next().flatten();
        if layouts.any(|other| other != layout) {
            return None;
        }
        Some(Self::pad(&rows, pad, device).behind(layout.map(Arc::new)))
    }

    /// The same rows behind a layout.
    #[must_use]
    pub fn behind(self, layout: Option<Arc<Layout>>) -> Self {
        Self { layout, ..self }
    }

    /// What stands before every row.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_deref()
    }

    /// The real tokens of each row, on the host.
    pub(crate) fn on_host(&self) -> Arc<[Vec<u32>]> {
        if let Some(rows) = &self.rows {
            return Arc::clone(rows);
        }
        let width = self.ids.size()[1] as usize;
        let ids = crate::generate::ids(&self.ids);
        let real = crate::generate::ids(&self.mask.sum_dim_intlist(1, false, Kind::Int64));
        let row = |(row, &real): (usize, &i64)| {
            ids[row * width..row * width + real as usize].iter().map(|&id| id as u32).collect()
        };
        real.iter().enumerate().map(row).collect()
    }

    /// Pads rows on the right with `pad`. At least one token wide.
    pub fn pad(rows: &[Vec<u32>], pad: u32, device: Device) -> Self {
        Self::pad_to(1, rows, pad, device)
    }

    /// As [`TextBatch::pad`], at least `width` tokens wide.
    pub fn pad_to(width: usize, rows: &[Vec<u32>], pad: u32, device: Device) -> Self {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(width).max(1);
        let mut ids = vec![i64::from(pad); rows.len() * width];
        let mut mask = vec![false; rows.len() * width];
        for (r, row) in rows.iter().enumerate() {
            for (t, &id) in row.iter().enumerate() {
                ids[r * width + t] = i64::from(id);
                mask[r * width + t] = true;
            }
        }
        let shape = [rows.len() as i64, width as i64];
        Self {
            ids: Tensor::from_slice(&ids).view(shape).to_device(device),
            mask: Tensor::from_slice(&mask).view(shape).to_device(device),
            rows: Some(rows.into()),
            layout: None,
        }
    }
}

/// A batch of instructions over images: several rows may ask about the same image, whose features are computed once.
#[derive(Debug)]
pub struct Prompts {
    /// Row of the image features each prompt is about, i64 `[rows]`.
    pub image: Tensor,
    /// The instruction as the Q-Former reads it.
    pub qformer: TextBatch,
    /// The instruction as the language model reads it, without image positions.
    pub language: TextBatch,
}

/// Answers to the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBatch<'a> {
    /// Tokens of each answer, without start and end.
    pub rows: &'a [Vec<u32>],
    /// Least number of tokens to pad to, the end token included: that of the batch that these rows are a part of.
    pub width: usize,
}

impl<'a> AnswerBatch<'a> {
    /// Answers that are a batch of their own.
    pub fn whole(rows: &'a [Vec<u32>]) -> Self {
        Self { rows, width: 0 }
    }
}

/// One calibration sample.
#[derive(Debug)]
pub struct Sample {
    /// Pixels `[1, 3, height, width]`.
    pub pixels: Tensor,
    /// The instruction.
    pub prompt: Prompts,
    /// The answer's tokens without start and end, one row.
    pub answer: Vec<u32>,
}
