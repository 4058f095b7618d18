//! A benchmark as tensors: made once per process, used for every model that is evaluated.

use std::collections::BTreeMap;

use ressa_data::{Benchmark, Content, Item, Processor};
use ressa_experiment::Task;
use ressa_models::{Prompts, TextBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::EvalError;

/// Images whose features are held in memory together.
const BLOCK: usize = 512;

/// Pixels and token ids of one benchmark on one device.
pub struct Prepared {
    pub(crate) task: Task,
    pub(crate) items: Vec<Item>,
    pub(crate) images: usize,
    pub(crate) blocks: Vec<Block>,
    pub(crate) processor: Processor,
}

/// Some images with the items about them.
pub(crate) struct Block {
    /// `[images, 3, height, width]`.
    pub pixels: Tensor,
    /// Prompts of equal length, so that no batch holds padding.
    pub batches: Vec<Batch>,
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
        let (height, width) = processor.image_size();
        let mut blocks = Vec::new();
        for (number, images) in benchmark.images().chunks(BLOCK).enumerate() {
            let shape = [images.len() as i64, 3, i64::from(height), i64::from(width)];
            let pixels = Tensor::from_slice(&processor.pixels(images)?).view(shape).to_device(device);
            blocks.push(Block { pixels, batches: batches(processor, benchmark.items(), number * BLOCK, device)? });
        }
        Ok(Self {
            task: benchmark.task(),
            items: benchmark.items().to_vec(),
            images: benchmark.images().len(),
            blocks,
            processor: processor.clone(),
        })
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }
}

/// Groups the items of the block that starts at image `first` by the lengths of their prompts.
fn batches(processor: &Processor, items: &[Item], first: usize, device: Device) -> Result<Vec<Batch>, EvalError> {
    type Group = (Vec<usize>, Vec<i64>, Vec<Vec<u32>>, Vec<Vec<u32>>);
    let mut groups: BTreeMap<(usize, usize), Group> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        if !(first..first + BLOCK).contains(&item.image) {
            continue;
        }
        let (text, read_by_language) = match &item.content {
            Content::Question { text, .. } => (text, true),
            Content::Caption { instruction, .. } => (instruction, true),
            Content::Retrieval { caption } => (caption, false),
        };
        let qformer = processor.encode_qformer(text)?;
        let language = if read_by_language { processor.encode_prompt(text)? } else { Vec::new() };
        let (members, images, qformers, languages) = groups.entry((qformer.len(), language.len())).or_default();
        members.push(index);
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
