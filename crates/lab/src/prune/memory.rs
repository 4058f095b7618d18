//! How much memory a work needs, known before it starts.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::{Checkpoint, EXAMINED_AT_ONCE};
use ressa_experiment::{
    Tower,
    config::{Metric, StatisticsNeeds},
};
use ressa_models::{InBlocks, Linear, Model, Surgery};
use ressa_prune::walk::{Place, layers_of};
use tch::{Kind, Tensor};

use super::settings::PruneSettings;
use crate::{LabError, calibration::Samples};

/// A weight of more elements than this is converted in pieces when it is used.
const PIECE: u64 = 1 << 25;
/// What libraries take once they compute, whatever the model: pages of their code, thread stacks, buffers of products and images.
const LIBRARIES: u64 = 32 << 20;
/// What the estimate may be wrong by, in percent: the allocator's own needs, buffers of the matrix products.
const MARGIN: u64 = 15;

/// What a work needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needed {
    /// Bytes with activations on the disk.
    pub least: u64,
    /// How much of that the unpacked weights of a packed source take.
    pub unpacked: u64,
    /// Bytes that the weights of a block take once more, converted to the type of the computation.
    pub converted: u64,
    /// Bytes that activations take in memory.
    pub activations: u64,
}

/// What of it there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Whether the weights of a block are converted once instead of in each pass.
    pub converts: bool,
    /// Whether activations are in memory.
    pub keeps: bool,
}

impl Needed {
    /// What the blocks of the towers need that are visited. `held` is what the process holds already, `unpacked` what weights take that are not mapped.
    pub fn estimate(
        model: &Model,
        asked: &PruneSettings,
        samples: Option<&Samples>,
        (held, unpacked): (u64, u64),
    ) -> Self {
        let last = asked.towers.keys().next_back();
        let visited = |tower: &Tower| asked.prunes(*tower) || (samples.is_some() && Some(tower) < last);
        // What is measured before takes less than what is chosen then.
        let metric = asked.prune.metric;
        let gram = StatisticsNeeds::of(metric, &asked.prune.method()).gram;
        let kind = model.kind().elt_size_in_bytes() as u64;
        let (mut largest, mut activations, mut converted) = (0, 0, 0);
        for tower in Tower::ALL.into_iter().filter(visited) {
            let tokens = samples.map_or(0, |samples| tokens(model, tower, samples));
            let mut widest = 0;
            for block in 0..model.blocks(tower) {
                let linears: Vec<&Linear> =
                    layers_of(model, Place { tower, block }).map(|(_, linear)| linear).collect();
                let stored: u64 = linears.iter().map(|linear| bytes(linear)).sum();
                let run = if samples.is_some() { running(&linears, tokens, kind) } else { 0 };
                let (mut solve, mut seen) = (0, 0);
                if asked.prunes(tower) {
                    (solve, seen) = (solving(&linears, metric, gram), if gram { statistics(&linears) } else { 0 });
                }
                if linears.iter().any(|linear| linear.weight().kind() != model.kind()) && model.kind() == Kind::Float {
                    let elements: u64 = linears.iter().map(|linear| elements(linear)).sum();
                    converted = converted.max(elements * kind * (100 + MARGIN) / 100);
                }
                largest = largest.max(stored + seen + run.max(solve));
                // A projection is wider where it ends than anything before it.
                let ends = asked.prune.tower(tower).projection;
                let width = |linear: &&Linear| linear.shape().1.max(if ends { linear.shape().0 } else { 0 }) as u64;
                widest = linears.iter().map(width).fold(widest, u64::max);
            }
            if let Some(samples) = samples {
                // Old and new states, and what goes along: image features or the encoder's output, biases of the positions.
                let features = model.config().vision_shape().1 as u64;
                let along = match tower {
                    Tower::Vision => 0,
                    Tower::Connector => tokens_of_image(model, samples) * features,
                    Tower::Language => tokens * widest + 64 * tokens * tokens,
                };
                let rows = if tower == Tower::Vision { samples.images.len() } else { samples.texts.len() };
                activations = activations.max(rows as u64 * kind * (2 * tokens * widest + 2 * along));
            }
        }
        // In the end what was written is counted, some tensors at a time.
        let of_tensor = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        let written: u64 = model.tensors().values().map(of_tensor).sum();
        let least =
            held + unpacked + LIBRARIES + largest.max(written.min(EXAMINED_AT_ONCE as u64)) * (100 + MARGIN) / 100;
        Self { least, unpacked, converted, activations }
    }

    /// What there is room for under a limit.
    ///
    /// # Errors
    /// A limit that cannot be kept even with activations on the disk.
    pub fn decide(self, limit: Option<u64>) -> Result<Room, LabError> {
        let Some(limit) = limit else { return Ok(Room { converts: true, keeps: true }) };
        if self.least > limit {
            // What a process holds when it starts is not the same to the megabyte each time: what is asked for must be enough the next time.
            const STEP: u64 = 8;
            let enough = |bytes: u64| (bytes + (STEP << 19)).div_ceil(STEP << 20) * STEP;
            let packed = match self.unpacked {
                0 => String::new(),
                bytes => format!(
                    ", with {} MiB of unpacked weights, which a dense folder does not need (`ressa export --model DIR --output NEW` writes one)",
                    bytes.div_ceil(1 << 20)
                ),
            };
            let message = format!(
                "a memory limit of `{}` MiB cannot be kept: a block with its statistics, or the count at the end, needs {} MiB{packed}; raise the limit to that",
                limit >> 20,
                enough(self.least)
            );
            return Err(LabError::Unsupported(message));
        }
        let converts = self.least + self.converted <= limit;
        let taken = self.least + if converts { self.converted } else { 0 };
        Ok(Room { converts, keeps: taken + self.activations <= limit })
    }
}

/// Bytes that the tensors of packed files take once a model is loaded from them.
pub(super) fn unpacked(folder: &Path) -> Result<u64, LabError> {
    let checkpoint = Checkpoint::open(folder)?;
    let packed = checkpoint.tensors().filter(|(file, _)| file.is_packed());
    Ok(packed.map(|(_, entry)| entry.bytes() as u64).sum())
}

/// Bytes of a weight as it is stored.
fn bytes(linear: &Linear) -> u64 {
    elements(linear) * linear.weight().kind().elt_size_in_bytes() as u64
}

fn elements(linear: &Linear) -> u64 {
    linear.weight().numel() as u64
}

/// Tokens of an image in the image encoder; of the largest where images keep their sizes.
fn tokens_of_image(model: &Model, samples: &Samples) -> u64 {
    model.config().tokens_of(samples.pixels)[0]
}

/// Most tokens of a sample in a tower.
fn tokens(model: &Model, tower: Tower, samples: &Samples) -> u64 {
    let (qformer, language) = samples.longest();
    let queries = model.config().tokens_of(samples.pixels)[1] as i64;
    match tower {
        Tower::Vision => tokens_of_image(model, samples),
        Tower::Connector => (queries + qformer) as u64,
        Tower::Language => (queries + language) as u64,
    }
}

/// What one sample takes on its way through a block: a converted weight, inputs and outputs of all layers, attention's logits.
fn running(linears: &[&Linear], tokens: u64, kind: u64) -> u64 {
    /// More heads than any published model has.
    const HEADS: u64 = 64;
    let converted = linears.iter().map(|linear| elements(linear).min(PIECE) * kind).max().unwrap_or(0);
    let widths: u64 = linears.iter().map(|linear| (linear.shape().0 + linear.shape().1) as u64).sum();
    converted + 2 * tokens * widths * kind + 2 * HEADS * tokens * tokens * kind
}

/// Layers, elements of all and of the largest.
#[derive(Clone, Copy, Default)]
struct Siblings {
    layers: u64,
    elements: u64,
    largest: u64,
}

/// Layers of one module that are of one width: others never share an input.
fn siblings<'a>(linears: &[&'a Linear]) -> BTreeMap<(&'a str, u64), Siblings> {
    let mut found: BTreeMap<(&str, u64), Siblings> = BTreeMap::new();
    for linear in linears {
        let module = linear.name().rsplit_once('.').map_or("", |(module, _)| module);
        let group = found.entry((module, linear.shape().1 as u64)).or_default();
        group.layers += 1;
        group.elements += elements(linear);
        group.largest = group.largest.max(elements(linear));
    }
    found
}

/// What statistics of all inputs of a block take. The layers of an attention have three inputs at most: of the queries, of keys and values,
/// of the projection behind.
fn statistics(linears: &[&Linear]) -> u64 {
    siblings(linears).iter().map(|((_, width), group)| group.layers.min(3) * 4 * width * width).sum()
}

/// What choosing among the weights of layers that share an input takes.
fn solving(linears: &[&Linear], metric: Metric, gram: bool) -> u64 {
    // Bytes for each weight of all layers and of the one at work: importance and mask stay until all are done.
    let (each, working, square) = match metric {
        Metric::None | Metric::Magnitude | Metric::Random => (0, 4 + 4 + 4 + 8, 0),
        Metric::Wanda => (5, 4 + 4 + 8, 0),
        Metric::Ria => (5, 12 + 8, 0),
        Metric::Dsnot => (5, 24 + 8, if gram { 16 } else { 0 }),
        Metric::SparseGpt => (8 + 1 + 4 + 9, 8, 16),
        // Weights, importance and mask; ten matrices of the layer; Gram matrix, scaled one, two inverses and a factor.
        Metric::Alps => (4 + 4 + 1, 40, 24),
    };
    let need = |(&(_, width), group): (&(&str, u64), &Siblings)| {
        each * group.elements + working * group.largest + square * width * width
    };
    siblings(linears).iter().map(need).max().unwrap_or(0)
}
