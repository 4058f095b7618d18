//! A benchmark as tensors: made once per process, used for every model that is evaluated.

use std::{collections::BTreeMap, path::PathBuf};

use ressa_data::{Benchmark, Content, Image, Item, Picture, Processor, parallel};
use ressa_experiment::Task;
use ressa_models::{Prompts, TextBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::EvalError;

/// Images whose features are held in memory together.
const BLOCK: usize = 512;
/// The same where images are files: those of the models that such benchmarks are for are larger.
const FILE_BLOCK: usize = 128;

/// Pixels and token ids of one benchmark on one device. Images that are files are opened whenever they are needed, a block at a time.
pub struct Prepared {
    pub(crate) task: Task,
    pub(crate) items: Vec<Item>,
    pub(crate) images: usize,
    pub(crate) blocks: Vec<Block>,
    pub(crate) processor: Processor,
    pub(crate) device: Device,
}

/// Some images with the items about them.
pub(crate) struct Block {
    /// Its images.
    pixels: Pixels,
    /// Prompts of equal length, so that no batch holds padding.
    pub batches: Vec<Batch>,
}

/// Images of a block.
enum Pixels {
    /// `[images, 3, height, width]`.
    Ready(Tensor),
    /// Still on disk.
    Files(Vec<PathBuf>),
}

impl Block {
    /// Pixels `[images, 3, height, width]` for a processor.
    pub fn pixels(&self, processor: &Processor, device: Device) -> Result<Tensor, EvalError> {
        match &self.pixels {
            Pixels::Ready(pixels) => Ok(pixels.shallow_clone()),
            Pixels::Files(paths) => {
                let open = |index: usize| processor.pixels([&Image::open(&paths[index])?]);
                let images = parallel(paths.len(), tch::get_num_threads().max(1) as usize, open)?;
                Ok(tensor(&images.concat(), paths.len(), processor, device))
            }
        }
    }
}

fn tensor(pixels: &[f32], images: usize, processor: &Processor, device: Device) -> Tensor {
    let (height, width) = processor.image_size();
    Tensor::from_slice(pixels).view([images as i64, 3, i64::from(height), i64::from(width)]).to_device(device)
}

/// Items whose prompts have the same numbers of tokens.
pub(crate) struct Batch {
    /// Indices into the items.
    pub items: Vec<usize>,
    /// Their prompts; `image` counts within the block.
    pub prompts: Prompts,
}

impl Prepared {
    /// Tokenizes and normalises a benchmark.
    ///
    /// # Errors
    /// Texts or images that the model's processor cannot read.
    pub fn new(processor: &Processor, benchmark: &Benchmark, device: Device) -> Result<Self, EvalError> {
        Self::tokenized(processor, benchmark, device, &|item| {
            let (text, read_by_language) = match &item.content {
                Content::Question { text, .. } => (text, true),
                Content::Caption { instruction, .. } => (instruction, true),
                Content::Retrieval { caption } => (caption, false),
            };
            let language = if read_by_language { processor.encode_prompt(text)? } else { Vec::new() };
            Ok((processor.encode_qformer(text)?, language))
        })
    }

    /// A retrieval benchmark for an image-text matching model, whose only tokenizer is that of its Q-Former. Longer captions are cut to
    /// `tokens` tokens, the last of which stays the end.
    ///
    /// # Errors
    /// Texts or images that the model's processor cannot read.
    pub fn for_matching(
        processor: &Processor,
        benchmark: &Benchmark,
        tokens: usize,
        device: Device,
    ) -> Result<Self, EvalError> {
        Self::tokenized(processor, benchmark, device, &|item| {
            let Content::Retrieval { caption } = &item.content else {
                return Err(EvalError::WrongKind { task: benchmark.task(), id: item.id.clone() });
            };
            let mut ids = processor.encode_prompt(caption)?;
            if ids.len() > tokens {
                ids.drain(tokens.saturating_sub(1)..ids.len() - 1);
            }
            Ok((ids, Vec::new()))
        })
    }

    fn tokenized(
        processor: &Processor,
        benchmark: &Benchmark,
        device: Device,
        tokens: Tokens<'_>,
    ) -> Result<Self, EvalError> {
        let on_disk = benchmark.images().iter().any(|picture| matches!(picture, Picture::File(_)));
        let most = if on_disk { FILE_BLOCK } else { BLOCK };
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); benchmark.images().len().div_ceil(most)];
        for (index, item) in benchmark.items().iter().enumerate() {
            members[item.image / most].push(index);
        }
        let mut blocks = Vec::new();
        for (number, pictures) in benchmark.images().chunks(most).enumerate() {
            let held: Option<Vec<&Image>> = pictures
                .iter()
                .map(|picture| match picture {
                    Picture::Held(image) => Some(image),
                    Picture::File(_) => None,
                })
                .collect();
            let pixels = match held {
                Some(images) => {
                    let count = images.len();
                    Pixels::Ready(tensor(&processor.pixels(images)?, count, processor, device))
                }
                None => Pixels::Files(
                    pictures
                        .iter()
                        .filter_map(|picture| match picture {
                            Picture::File(path) => Some(path.clone()),
                            Picture::Held(_) => None,
                        })
                        .collect(),
                ),
            };
            let batches = batches(processor, benchmark.items(), &members[number], number * most, device, tokens)?;
            blocks.push(Block { pixels, batches });
        }
        Ok(Self {
            task: benchmark.task(),
            items: benchmark.items().to_vec(),
            images: benchmark.images().len(),
            blocks,
            processor: processor.clone(),
            device,
        })
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }
}

/// What the Q-Former and the language model read of an item.
type Tokens<'a> = &'a dyn Fn(&Item) -> Result<(Vec<u32>, Vec<u32>), EvalError>;

/// Groups the items of the block that starts at image `first` by the lengths of their prompts.
fn batches(
    processor: &Processor,
    items: &[Item],
    members: &[usize],
    first: usize,
    device: Device,
    tokens: Tokens<'_>,
) -> Result<Vec<Batch>, EvalError> {
    type Group = (Vec<usize>, Vec<i64>, Vec<Vec<u32>>, Vec<Vec<u32>>);
    let mut groups: BTreeMap<(usize, usize), Group> = BTreeMap::new();
    for &index in members {
        let item = &items[index];
        let (qformer, language) = tokens(item)?;
        let (grouped, images, qformers, languages) = groups.entry((qformer.len(), language.len())).or_default();
        grouped.push(index);
        images.push((item.image - first) as i64);
        qformers.push(qformer);
        languages.push(language);
    }
    Ok(groups
        .into_values()
        .map(|(items, images, qformers, languages)| Batch {
            items,
            prompts: Prompts {
                image: Tensor::from_slice(&images).to_kind(Kind::Int64).to_device(device),
                qformer: TextBatch::pad(&qformers, processor.qformer_pad(), device),
                language: TextBatch::pad(&languages, processor.pad(), device),
            },
        })
        .collect())
}
