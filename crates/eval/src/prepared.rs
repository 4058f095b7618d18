//! A benchmark as token ids and images: made once per process, used for every model that is evaluated.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use ressa_data::{Benchmark, Content, Image, Item, Picture, Processor, Prompt, parallel};
use ressa_experiment::Task;
use ressa_models::{Layout, Prompts, TextBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::{Batching, EvalError};

/// Images in memory whose features are held together.
const BLOCK: usize = 512;

/// What is read of an item, by its place, about an image whose pixels have this height and width.
type Reads<'a> = dyn Fn(usize, &Item, (u32, u32), &Layouts) -> Result<Tokens, EvalError> + Sync + 'a;

/// What the language model reads of the text of an item, by its place.
type Worded<'a> = dyn Fn(usize, &str) -> String + Sync + 'a;

/// Token ids and images of one benchmark, for one device. Images that are files are opened whenever they are needed.
pub struct Prepared {
    pub(crate) task: Task,
    /// Its items; their images are counted in the order of `runs`.
    pub(crate) items: Vec<Item>,
    pub(crate) images: usize,
    /// Images at which the model looks at one size, height and width.
    runs: Vec<(Range<usize>, (u32, u32))>,
    pub(crate) texts: Vec<Tokens>,
    /// Which of the different layouts each text is behind.
    layouts: Vec<usize>,
    /// Of items with options, what their likelihoods are computed from.
    pub(crate) choices: Vec<Option<Choice>>,
    pub(crate) pixels: Pixels,
    pub(crate) processor: Processor,
    pub(crate) device: Device,
}

/// What the Q-Former and the language model read of an item.
pub(crate) struct Tokens {
    pub qformer: Vec<u32>,
    pub language: Vec<u32>,
    /// What stands before the language model's text; prompts of one batch have the same.
    pub layout: Option<Arc<Layout>>,
}

/// The different layouts of a benchmark, each kept once: one has an id for each position of an image.
#[derive(Default)]
struct Layouts(Mutex<HashSet<Arc<Layout>>>);

impl Layouts {
    fn shared(&self, layout: Layout) -> Arc<Layout> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&layout) {
            return Arc::clone(same);
        }
        let new = Arc::new(layout);
        known.insert(Arc::clone(&new));
        new
    }

    /// A prompt as the language model reads it.
    fn prompt(&self, Prompt { layout, text }: Prompt, qformer: Vec<u32>) -> Tokens {
        Tokens { qformer, language: text, layout: layout.map(|layout| self.shared(layout)) }
    }
}

/// A question with options.
pub(crate) struct Choice {
    /// What stands before an option.
    pub stem: Tokens,
    /// Which of the different layouts the stem is behind.
    pub layout: usize,
    /// Each option's own tokens.
    pub options: Vec<Vec<u32>>,
}

impl Choice {
    /// `None` for other items.
    ///
    /// An option's tokens are those that its text, behind a blank, adds to the stem. Where the stem is a turn of a conversation or ends with a
    /// token of its own (an encoder's), or the last word would be cut otherwise, they are those of the option alone.
    fn of(
        processor: &Processor,
        item: &Item,
        size: (u32, u32),
        worded: &dyn Fn(&str) -> String,
        layouts: &Layouts,
    ) -> Result<Option<Self>, EvalError> {
        let Content::Choice { stem: asked, options, .. } = &item.content else { return Ok(None) };
        let stem = &worded(asked);
        let tokens = layouts.prompt(processor.prompt(stem, size)?, processor.encode_qformer(asked)?);
        let ids = |option: &String| {
            let whole = match &tokens.layout {
                None => processor.encode_prompt(&format!("{stem} {option}"))?,
                Some(_) => Vec::new(),
            };
            let ids = match whole.strip_prefix(tokens.language.as_slice()) {
                Some(added) if !added.is_empty() => added.to_vec(),
                _ => processor.encode_answer(option)?,
            };
            match ids.is_empty() {
                true => Err(EvalError::Unfit {
                    id: item.id.clone(),
                    reason: format!("the tokenizer makes nothing of its option `{option}`"),
                }),
                false => Ok(ids),
            }
        };
        let options = options.iter().map(ids).collect::<Result<_, EvalError>>()?;
        Ok(Some(Self { stem: tokens, layout: 0, options }))
    }
}

/// Numbers of layouts that are kept once, in their order.
fn numbered<'a>(layouts: impl Iterator<Item = &'a Option<Arc<Layout>>>) -> Vec<usize> {
    let mut known: HashMap<Option<*const Layout>, usize> = HashMap::new();
    let number = |layout: &Option<Arc<Layout>>| {
        let next = known.len();
        *known.entry(layout.as_ref().map(Arc::as_ptr)).or_insert(next)
    };
    layouts.map(number).collect()
}

/// Images of a benchmark.
pub(crate) enum Pixels {
    /// Model-ready `[images, 3, height, width]` of each block.
    Ready(Vec<Tensor>),
    /// On disk.
    Files(Arc<[Picture]>),
}

/// Consecutive images with the items about them.
pub(crate) struct Block {
    /// Its images.
    pub images: Range<usize>,
    /// Height and width of their pixels.
    pub size: (u32, u32),
    /// Indices of its items, in the benchmark's order.
    pub items: Vec<usize>,
}

/// Items whose prompts are read together.
pub(crate) struct Batch {
    /// Indices into the items.
    pub items: Vec<usize>,
    /// Their prompts; `image` counts within the block.
    pub prompts: Prompts,
}

impl Prepared {
    /// Tokenizes a benchmark, and normalises its images where they are in memory.
    ///
    /// # Errors
    /// Texts or images that the model's processor cannot read.
    pub fn new(processor: &Processor, benchmark: &Benchmark, device: Device) -> Result<Self, EvalError> {
        Self::worded(processor, benchmark, &|_, text| text.to_owned(), device)
    }

    /// The same where the language model reads more than the text of an item, by its place in the benchmark: what stands before it and behind. A
    /// Q-Former reads the text alone: it selects what of the image the question is about, and has positions for little more.
    ///
    /// # Errors
    /// As for [`Prepared::new`].
    pub fn worded(
        processor: &Processor,
        benchmark: &Benchmark,
        worded: &Worded<'_>,
        device: Device,
    ) -> Result<Self, EvalError> {
        Self::tokenized(processor, benchmark, device, Some(worded), &|at, item, size, layouts| {
            let (text, read_by_language) = match &item.content {
                Content::Question { text, .. } | Content::Choice { text, .. } => (text, true),
                Content::Caption { instruction, .. } => (instruction, true),
                Content::Retrieval { caption } => (caption, false),
            };
            let prompt = if read_by_language { processor.prompt(&worded(at, text), size)? } else { Prompt::default() };
            Ok(layouts.prompt(prompt, processor.encode_qformer(text)?))
        })
    }

    /// The images of a benchmark, of whose texts nothing is read.
    ///
    /// # Errors
    /// Images that the model's processor cannot read.
    pub fn images_of(processor: &Processor, benchmark: &Benchmark, device: Device) -> Result<Self, EvalError> {
        let nothing = |_: usize, _: &Item, _: (u32, u32), _: &Layouts| {
            Ok(Tokens { qformer: Vec::new(), language: Vec::new(), layout: None })
        };
        Self::tokenized(processor, benchmark, device, None, &nothing)
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
        Self::tokenized(processor, benchmark, device, None, &|_, item, _, _| {
            let Content::Retrieval { caption } = &item.content else {
                return Err(EvalError::WrongKind { task: benchmark.task(), id: item.id.clone() });
            };
            let mut ids = processor.encode_prompt(caption)?;
            if ids.len() > tokens {
                ids.drain(tokens.saturating_sub(1)..ids.len() - 1);
            }
            Ok(Tokens { qformer: ids, language: Vec::new(), layout: None })
        })
    }

    fn tokenized(
        processor: &Processor,
        benchmark: &Benchmark,
        device: Device,
        options: Option<&Worded<'_>>,
        tokens: &Reads<'_>,
    ) -> Result<Self, EvalError> {
        let mut items = benchmark.items().to_vec();
        let threads = tch::get_num_threads().max(1) as usize;
        let Ordered { pictures, runs } = Ordered::new(processor, benchmark.images(), &mut items, threads)?;
        // Runs follow each other without gaps.
        let size = |image: usize| {
            let own = runs.get(runs.partition_point(|(images, _)| images.end <= image));
            own.map_or_else(|| processor.image_size(), |(_, size)| *size)
        };
        let kept = Layouts::default();
        let texts = parallel(items.len(), threads, |item| tokens(item, &items[item], size(items[item].image), &kept))?;
        let layouts = numbered(texts.iter().map(|text| &text.layout));
        // Where nothing is asked, options are not compared.
        let choice = |item: usize| match options {
            Some(worded) => {
                let worded = |text: &str| worded(item, text);
                Choice::of(processor, &items[item], size(items[item].image), &worded, &kept)
            }
            None => Ok(None),
        };
        let mut choices: Vec<Option<Choice>> = parallel(items.len(), threads, choice)?;
        let numbers = numbered(choices.iter().flatten().map(|choice| &choice.stem.layout));
        for (choice, number) in choices.iter_mut().flatten().zip(numbers) {
            choice.layout = number;
        }
        Ok(Self {
            task: benchmark.task(),
            layouts,
            texts,
            choices,
            items,
            images: pictures.len(),
            pixels: Pixels::of(processor, &pictures, &runs, device)?,
            runs,
            processor: processor.clone(),
            device,
        })
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// All images, cut into blocks.
    pub(crate) fn blocks(&self, batching: &Batching) -> Vec<Block> {
        let most = match self.pixels {
            Pixels::Ready(_) => BLOCK,
            Pixels::Files(_) => batching.images.max(1),
        };
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of = vec![0; self.images];
        for (run, size) in &self.runs {
            for first in run.clone().step_by(most) {
                let images = first..(first + most).min(run.end);
                block_of[images.clone()].fill(blocks.len());
                blocks.push(Block { images, size: *size, items: Vec::new() });
            }
        }
        for (index, item) in self.items.iter().enumerate() {
            blocks[block_of[item.image]].items.push(index);
        }
        blocks
    }

    /// The items of a block in batches of at most `rows` prompts, given what stands before them and the tokens of the longest among them.
    pub(crate) fn batches(
        &self,
        block: &Block,
        batching: &Batching,
        rows: &dyn Fn(Option<&Layout>, usize) -> usize,
    ) -> impl Iterator<Item = Batch> {
        let lengths = |item: usize| (self.texts[item].qformer.len(), self.texts[item].language.len());
        let layouts = |item: usize| self.layouts[item];
        let mut parts: Vec<Vec<usize>> = Vec::new();
        if batching.padded {
            let mut items = block.items.clone();
            // The language model's steps cost most, so its lengths come first.
            items.sort_by_key(|&item| (layouts(item), lengths(item).1, lengths(item).0));
            // Each item is the longest so far.
            for item in items {
                let most = rows(self.texts[item].layout.as_deref(), lengths(item).1).max(1);
                match parts.last_mut() {
                    Some(part) if part.len() < most && layouts(part[0]) == layouts(item) => part.push(item),
                    _ => parts.push(vec![item]),
                }
            }
        } else {
            let mut equal: BTreeMap<(usize, usize, usize), Vec<usize>> = BTreeMap::new();
            for &item in &block.items {
                let (qformer, language) = lengths(item);
                equal.entry((layouts(item), qformer, language)).or_default().push(item);
            }
            for ((_, _, language), items) in &equal {
                let most = rows(self.texts[items[0]].layout.as_deref(), *language).max(1);
                parts.extend(items.chunks(most).map(<[usize]>::to_vec));
            }
        }
        let first = block.images.start;
        parts.into_iter().map(move |items| {
            let images: Vec<i64> = items.iter().map(|&item| (self.items[item].image - first) as i64).collect();
            let language: Vec<Vec<u32>> = items.iter().map(|&item| self.texts[item].language.clone()).collect();
            let prompts = Prompts {
                image: Tensor::from_slice(&images).to_kind(Kind::Int64).to_device(self.device),
                qformer: self.captions(&items),
                language: TextBatch::pad(&language, self.processor.pad(), self.device)
                    .behind(self.texts[items[0]].layout.clone()),
            };
            Batch { items, prompts }
        })
    }

    /// What the Q-Former reads of some items.
    pub(crate) fn captions(&self, items: &[usize]) -> TextBatch {
        let rows: Vec<Vec<u32>> = items.iter().map(|&item| self.texts[item].qformer.clone()).collect();
        TextBatch::pad(&rows, self.processor.qformer_pad(), self.device)
    }
}

impl Pixels {
    fn of(
        processor: &Processor,
        pictures: &[Picture],
        runs: &[(Range<usize>, (u32, u32))],
        device: Device,
    ) -> Result<Self, EvalError> {
        let is_held = |picture: &Picture| matches!(picture, Picture::Held(_));
        if pictures.iter().any(|picture| !is_held(picture)) {
            return Ok(Self::Files(pictures.into()));
        }
        let block = |pictures: &[Picture], (height, width): (u32, u32)| -> Result<Tensor, EvalError> {
            let images = pictures.iter().filter_map(|picture| match picture {
                Picture::Held(image) => Some(image),
                Picture::File(_) | Picture::Cell(_) => None,
            });
            let images: Vec<&Image> = images.collect();
            let shape = [images.len() as i64, 3, i64::from(height), i64::from(width)];
            Ok(Tensor::from_slice(&processor.pixels(images)?).view(shape).to_device(device))
        };
        let blocks = runs
            .iter()
            .flat_map(|(images, size)| pictures[images.clone()].chunks(BLOCK).map(|pictures| block(pictures, *size)));
        Ok(Self::Ready(blocks.collect::<Result<_, _>>()?))
    }
}

/// Pictures in an order in which those of one size follow each other.
struct Ordered<'a> {
    pictures: Cow<'a, [Picture]>,
    runs: Vec<(Range<usize>, (u32, u32))>,
}

impl<'a> Ordered<'a> {
    /// As they are where all have one size; `items` are told the new places of their pictures.
    fn new(
        processor: &Processor,
        pictures: &'a [Picture],
        items: &mut [Item],
        threads: usize,
    ) -> Result<Self, EvalError> {
        let all = 0..pictures.len();
        if processor.images().has_one_size() {
            return Ok(Self { pictures: Cow::Borrowed(pictures), runs: vec![(all, processor.image_size())] });
        }
        let size = |at: usize| {
            let sized = processor.size_of(pictures[at].image()?.as_ref());
            match &pictures[at] {
                Picture::File(path) => sized.map_err(|error| error.of_image(path)),
                Picture::Held(_) | Picture::Cell(_) => sized,
            }
        };
        let sizes = parallel(pictures.len(), threads, size)?;
        let mut order: Vec<usize> = all.collect();
        order.sort_by_key(|&image| sizes[image]);
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &image)| places[image] = place);
        items.iter_mut().for_each(|item| item.image = places[item.image]);
        let mut runs: Vec<(Range<usize>, (u32, u32))> = Vec::new();
        for (place, &image) in order.iter().enumerate() {
            match runs.last_mut() {
                Some((images, size)) if *size == sizes[image] => images.end = place + 1,
                _ => runs.push((place..place + 1, sizes[image])),
            }
        }
        Ok(Self { pictures: order.iter().map(|&image| pictures[image].clone()).collect(), runs })
    }
}
