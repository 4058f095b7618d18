//! The images of a benchmark through a model's image encoder: decoded ahead of it, taken from the cache where they are in it.

use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use ressa_data::{Ahead, ImageLoader, Picture, parallel};
use ressa_models::Infer;
use ressa_runtime::{Device, Levels};
use ressa_store::CacheKey;
use tch::Tensor;

use crate::{
    Batching, EvalError, FeatureCache, Prepared,
    prepared::{Block, Pixels},
};

/// Features of one block of images after the other.
pub(crate) struct Encoder<'a> {
    prepared: &'a Prepared,
    rows: usize,
    /// Loads of each block.
    loads: Vec<Range<usize>>,
    files: Option<Files>,
}

/// Images on disk.
struct Files {
    loads: Ahead<Result<Load, EvalError>>,
    writer: Option<Writer>,
}

/// Some images, ready to be encoded or encoded before.
struct Load {
    images: Vec<Source>,
    /// Those that are not known, in order.
    levels: Levels,
}

/// Where an image's features come from.
enum Source {
    /// `[tokens, width]`, on the host.
    Known(Tensor),
    /// The next of the levels, and the key to keep its features by.
    Levels(Option<CacheKey>),
}

impl<'a> Encoder<'a> {
    /// An encoder for these blocks of a benchmark.
    pub fn new(prepared: &'a Prepared, blocks: &[Block], batching: &Batching) -> Self {
        let rows = batching.rows.max(1);
        let mut ranges = Vec::new();
        let mut loads = Vec::with_capacity(blocks.len());
        for block in blocks {
            let first = ranges.len();
            let parts = block.images.clone().step_by(rows).map(|at| at..(at + rows).min(block.images.end));
            ranges.extend(parts.map(|part| (part, block.size)));
            loads.push(first..ranges.len());
        }
        let files = match &prepared.pixels {
            Pixels::Ready(_) => None,
            Pixels::Files(paths) => Some(Files::new(prepared, paths, ranges, batching)),
        };
        Self { prepared, rows, loads, files }
    }

    /// Features `[images, tokens, width]` of a block, computed at most `rows` images at a time.
    pub fn features(&mut self, model: &dyn Infer, block: usize) -> Result<Tensor, EvalError> {
        let parts: Vec<Tensor> = match (&self.prepared.pixels, &mut self.files) {
            (Pixels::Ready(blocks), _) => {
                let pixels = blocks[block].split(self.rows as i64, 0);
                pixels.iter().map(|pixels| model.encode_images(pixels)).collect()
            }
            (Pixels::Files(_), Some(files)) => {
                let encode = |number| {
                    let load = files.loads.get(number)?;
                    encoded(model, load, self.prepared, files.writer.as_ref())
                };
                self.loads[block].clone().map(encode).collect::<Result<_, _>>()?
            }
            (Pixels::Files(_), None) => Vec::new(),
        };
        Ok(if parts.len() == 1 { parts[0].shallow_clone() } else { Tensor::cat(&parts, 0) })
    }
}

impl Files {
    /// Loads of images that have one size each, height and width.
    fn new(
        prepared: &Prepared,
        paths: &Arc<[Picture]>,
        ranges: Vec<(Range<usize>, (u32, u32))>,
        batching: &Batching,
    ) -> Self {
        let loader = ImageLoader::new(&prepared.processor, batching.pixels.as_ref());
        let features = batching.features.as_ref().map(|cache| cache.after(prepared.processor.images()));
        let writer = features.as_ref().and_then(|cache| Writer::start(cache.clone(), paths.len()));
        let (device, paths) = (prepared.device, Arc::clone(paths));
        let threads = tch::get_num_threads().max(1) as usize;
        let count = ranges.len();
        let load = move |number: usize| {
            let (images, size) = ranges[number].clone();
            load(&paths[images], size, &loader, features.as_ref(), device, threads)
        };
        Self { loads: Ahead::new(count, batching.ahead, load), writer }
    }
}

/// Decodes what is not known yet.
fn load(
    pictures: &[Picture],
    size: (u32, u32),
    loader: &ImageLoader,
    cache: Option<&FeatureCache>,
    device: Device,
    threads: usize,
) -> Result<Load, EvalError> {
    let opened = parallel(pictures.len(), threads, |position| {
        let picture = &pictures[position];
        let key = cache.and_then(|cache| cache.key(picture));
        if let Some(known) = cache.zip(key.as_ref()).and_then(|(cache, key)| cache.get(key)) {
            return Ok((Source::Known(known), Vec::new()));
        }
        let sized = loader.levels_of(picture)?;
        if sized.size != size {
            return Err(EvalError::Replaced { wanted: size, found: sized.size });
        }
        Ok::<_, EvalError>((Source::Levels(key), sized.levels))
    })?;
    let (images, levels): (Vec<Source>, Vec<Vec<u8>>) = opened.into_iter().unzip();
    Ok(Load { images, levels: Levels::new(levels.concat(), size, device) })
}

/// Features of a load, in the order of its images.
fn encoded(model: &dyn Infer, load: Load, prepared: &Prepared, writer: Option<&Writer>) -> Result<Tensor, EvalError> {
    let new = load.levels.images();
    let fresh =
        (new > 0).then(|| model.encode_images(&load.levels.pixels(0, new, prepared.processor.images().table())));
    if let (Some(fresh), Some(writer)) = (&fresh, writer) {
        let keys = load.images.iter().filter_map(|source| match source {
            Source::Levels(key) => Some(key.clone()),
            Source::Known(_) => None,
        });
        writer.keep(keys.collect(), fresh);
    }
    if let Some(fresh) = fresh.as_ref().filter(|_| new == load.images.len()) {
        return Ok(fresh.shallow_clone());
    }
    let mut next = 0;
    let mut parts = Vec::with_capacity(load.images.len());
    for source in &load.images {
        match (source, &fresh) {
            (Source::Known(features), _) => parts.push(features.unsqueeze(0).to_device(prepared.device)),
            (Source::Levels(_), Some(fresh)) => {
                parts.push(fresh.narrow(0, next, 1));
                next += 1;
            }
            (Source::Levels(_), None) => {}
        }
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// A thread that writes features to the cache while the device computes.
struct Writer {
    sender: Option<SyncSender<(Vec<Option<CacheKey>>, Tensor)>>,
    thread: Option<JoinHandle<()>>,
    cache: FeatureCache,
    /// Images of the benchmark.
    images: usize,
}

impl Writer {
    fn start(cache: FeatureCache, images: usize) -> Option<Self> {
        let (sender, features) = sync_channel::<(Vec<Option<CacheKey>>, Tensor)>(1);
        let writing = cache.clone();
        let work = move || {
            for (keys, features) in features {
                for (row, key) in keys.iter().enumerate() {
                    if let Some(key) = key {
                        writing.put(key, &features.get(row as i64));
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("features".to_owned()).spawn(work).ok()?;
        Some(Self { sender: Some(sender), thread: Some(thread), cache, images })
    }

    /// Keeps features `[images, tokens, width]`, one key each, unless the benchmark's are more than the cache should hold.
    fn keep(&self, keys: Vec<Option<CacheKey>>, features: &Tensor) {
        let bytes = features.numel() * features.kind().elt_size_in_bytes() / keys.len().max(1);
        if let Some(sender) = self.sender.as_ref().filter(|_| self.cache.has_room(self.images, bytes)) {
            let _ = sender.send((keys, features.detach().to_device(Device::Cpu)));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
