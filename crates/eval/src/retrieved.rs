//! Captions retrieved for images: those of a pool that a contrastive head finds nearest (Rao et al., arXiv 2406.19150).

use std::collections::{BTreeMap, HashSet};

use ressa_data::{Picture, PoolCaption};
use ressa_experiment::search;
use ressa_models::{Retrieve, TextBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::{Batching, EvalError, Prediction, Prepared, encoder::Encoder, prepared::Pixels};

/// Captions that are sorted for each one that is wanted, and by how much more where too few differ.
const SEVERAL: usize = 8;

/// Captions with their embeddings by one model.
#[derive(Debug)]
pub struct CaptionPool {
    captions: Vec<PoolCaption>,
    /// `[captions, d]`, of length 1.
    embeddings: Tensor,
}

impl CaptionPool {
    /// Embeds captions, given as the tokens that the head reads of each. On a CPU, captions of one length run together, so that embeddings do not
    /// depend on their neighbours.
    ///
    /// # Errors
    /// [`EvalError::NoCaptionHead`]; a failed tensor operation.
    pub fn embed(
        model: &dyn Retrieve,
        captions: Vec<PoolCaption>,
        tokens: &[Vec<u32>],
        pad: u32,
        batching: &Batching,
        device: Device,
    ) -> Result<Self, EvalError> {
        let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, ids) in tokens.iter().enumerate() {
            lengths.entry(if batching.padded { 0 } else { ids.len() }).or_default().push(at);
        }
        let (mut parts, mut order) = (Vec::new(), Vec::with_capacity(tokens.len()));
        tch::no_grad(|| {
            for places in lengths.values().flat_map(|places| places.chunks(batching.rows.max(1))) {
                let rows: Vec<Vec<u32>> = places.iter().map(|&at| tokens[at].clone()).collect();
                let texts = TextBatch::pad(&rows, pad, device);
                parts.push(model.retrieval_texts(&texts).ok_or(EvalError::NoCaptionHead)?);
                order.extend_from_slice(places);
            }
            let mut places = vec![0i64; order.len()];
            order.iter().enumerate().for_each(|(row, &at)| places[at] = row as i64);
            let places = Tensor::from_slice(&places).to_device(device);
            Ok(Self { captions, embeddings: Tensor::f_cat(&parts, 0)?.index_select(0, &places) })
        })
    }

    /// Bytes of the embeddings.
    pub fn bytes(&self) -> u64 {
        (self.embeddings.numel() * self.embeddings.kind().elt_size_in_bytes()) as u64
    }
}

/// Of each item of a benchmark, the `count` captions of a pool that are nearest to its image, nearest first: the largest dot product of the caption with
/// any of the image's queries, lower places in the pool first among equals. A text counts once, and captions of the image itself do not count.
///
/// `prepared` comes from [`Prepared::images_of`] with the processor of `model`. `progress` is told the share done, 0 to 1.
///
/// # Errors
/// [`EvalError::NoCaptionHead`]; images that cannot be read; a failed tensor operation.
pub fn nearest(
    model: &dyn Retrieve,
    prepared: &Prepared,
    pool: &CaptionPool,
    count: usize,
    batching: &Batching,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Vec<String>>, EvalError> {
    tch::no_grad(|| {
        let blocks = prepared.blocks(batching);
        let mut encoder = Encoder::new(prepared, &blocks, batching);
        let mut found: Vec<Vec<usize>> = Vec::with_capacity(prepared.images);
        for (number, block) in blocks.iter().enumerate() {
            let features = encoder.features(model, number)?;
            let images = model.retrieval_images(&features).ok_or(EvalError::NoCaptionHead)?;
            let (rows, queries, width) = images.size3()?;
            let together = at_once(batching.rows, queries as usize * pool.captions.len()) as i64;
            for first in (0..rows).step_by(together.max(1) as usize) {
                let some = together.min(rows - first);
                let products = images.narrow(0, first, some).reshape([some * queries, width]);
                let products = products.f_matmul(&pool.embeddings.transpose(0, 1))?;
                let similarity = products.view([some, queries, -1]).amax(1, false);
                let similarity = similarity.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
                let similarity: Vec<f32> = Vec::try_from(similarity.view(-1))?;
                let of_block = block.images.clone().skip(first as usize);
                for (row, image) in similarity.chunks(pool.captions.len().max(1)).zip(of_block) {
                    found.push(best(row, &pool.captions, name(prepared, image).as_deref(), count));
                }
            }
            progress((number + 1) as f64 / blocks.len() as f64);
        }
        let texts = |places: &Vec<usize>| places.iter().map(|&at| pool.captions[at].text.clone()).collect();
        Ok(prepared.items.iter().map(|item| found.get(item.image).map(texts).unwrap_or_default()).collect())
    })
}

/// Images that are compared with a pool at once: as many as keep the similarities, so many of each image, below a number that shrinks with the rows of a
/// pass; at least 1.
fn at_once(rows: usize, of_image: usize) -> usize {
    (rows * search::SIMILARITIES_OF_ROW / of_image.max(1)).max(1)
}

/// The name of an image's file, where it has one.
fn name(prepared: &Prepared, image: usize) -> Option<String> {
    match &prepared.pixels {
        Pixels::Files(pictures) => pictures.get(image).and_then(Picture::name),
        Pixels::Ready(_) => None,
    }
}

/// Places of the captions nearest to an image of a name.
fn best(similarity: &[f32], captions: &[PoolCaption], image: Option<&str>, count: usize) -> Vec<usize> {
    let is_own = |at: usize| image.is_some() && captions[at].image.as_deref() == image;
    let mut order: Vec<usize> = (0..similarity.len()).filter(|&at| !is_own(at)).collect();
    let nearer = |a: &usize, b: &usize| similarity[*b].total_cmp(&similarity[*a]).then(a.cmp(b));
    // A pool is large, and few of it are wanted: the nearest are sorted, more of them where texts repeat.
    let mut several = SEVERAL * (count + 1);
    loop {
        let near = match several < order.len() {
            true => order.select_nth_unstable_by(several, nearer).0,
            false => order.as_mut_slice(),
        };
        near.sort_unstable_by(nearer);
        let mut texts = HashSet::new();
        let is_new = |at: &usize| texts.len() < count && texts.insert(captions[*at].text.as_str());
        let found: Vec<usize> = near.iter().copied().filter(is_new).collect();
        if found.len() >= count || several >= order.len() {
            return found;
        }
        several *= SEVERAL;
    }
}

/// Writes down what was read before the prompts of some items, by their places.
pub fn record(predictions: &mut [Prediction], retrieved: Vec<Vec<String>>) {
    for (prediction, captions) in predictions.iter_mut().zip(retrieved) {
        if let Some(aided) = prediction.aided_mut() {
            aided.retrieved = captions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_each_text_once_and_none_of_its_own() {
        let caption = |text: &str, image: &str| PoolCaption { text: text.to_owned(), image: Some(image.to_owned()) };
        let captions = [caption("a", "1"), caption("b", "2"), caption("a", "3"), caption("c", "1"), caption("d", "4")];
        let similarity = [0.1, 0.5, 0.9, 0.8, 0.5];
        assert_eq!(best(&similarity, &captions, Some("5"), 3), [2, 3, 1]);
        assert_eq!(best(&similarity, &captions, Some("1"), 3), [2, 1, 4], "no caption of its own");
        assert_eq!(best(&similarity, &captions, Some("3"), 9), [3, 1, 4, 0]);
        assert_eq!(best(&similarity, &captions, None, 9), [2, 3, 1, 4], "the same text once");
        assert_eq!(best(&similarity, &captions, None, 0), [0usize; 0]);
    }

    #[test]
    fn a_large_pool_gives_what_sorting_all_of_it_would() {
        let caption = |at: usize| PoolCaption { text: format!("{}", at % 40), image: Some(format!("{}", at % 7)) };
        let captions: Vec<PoolCaption> = (0..1000).map(caption).collect();
        // Most of the nearest have one text, and many are equally near.
        let similarity: Vec<f32> =
            (0..1000).map(|at| if at % 40 == 3 { 500.0 } else { (at * 37 % 101) as f32 }).collect();
        let mut sorted: Vec<usize> = (0..1000).filter(|at| at % 7 != 5).collect();
        sorted.sort_by(|&a, &b| similarity[b].total_cmp(&similarity[a]));
        let mut texts = HashSet::new();
        sorted.retain(|at| texts.insert(at % 40));
        for count in [0, 1, 3, 40, 64] {
            assert_eq!(best(&similarity, &captions, Some("5"), count), sorted[..count.min(40)], "{count}");
        }
    }

    #[test]
    fn similarities_at_once_are_bounded_and_shrink_with_the_rows() {
        // All of COCO's captions, 32 queries.
        let of_image = 32 * 600_000;
        let (first, again) = (at_once(search::ROWS, of_image), at_once(search::ROWS / search::SHRINK, of_image));
        assert!(
            first * of_image <= search::ROWS * search::SIMILARITIES_OF_ROW && again * 8 <= first + 7,
            "{first} {again}"
        );
        assert_eq!(at_once(1, usize::MAX), 1);
        assert!(at_once(128, 32 * 2000) >= 1024, "the pool of the defaults takes a block at once");
    }
}
