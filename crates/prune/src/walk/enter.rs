//! From a calibration's images and texts to what enters the first block of a tower.

use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};

use ressa_experiment::{Tower, config::TokenConfig};
use ressa_models::{AnswerBatch, Entry, Flow, Prompts, Sample};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Blocks, Flows, Look, Walk};
use crate::{
    error::PruneError,
    statistics::Needs,
    tokens::{TokenWeights, Visible},
};

/// Samples that run together on a device that is not the CPU.
const ON_DEVICE: usize = 32;
/// Tokens that run together on a CPU: what fills the products, and no more memory than that takes.
const TOKENS: usize = 1024;
/// Images that run together on a CPU; one has hundreds of tokens.
const IMAGES: usize = 4;
/// On a CPU, products of fewer rows are other operations than products of many: such samples run alone.
const FEW: i64 = 8;

/// Which samples may run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// None: least memory.
    Alone,
    /// Those of one shape that follow each other, on a CPU. A Gram matrix is built from blocks of tokens in their order.
    Neighbours,
    /// Those of one shape, on a CPU.
    Shapes,
    /// Those of one shape, more of them, on another device.
    Device,
    /// Those of one shape, so many at most: a training takes them so.
    Batches(usize),
}

impl Together {
    /// What statistics that are collected as `look` says allow on a device.
    pub fn on(device: Device, look: Look) -> Self {
        match device {
            _ if !TokenWeights::from(look).are_one() => Together::Alone,
            Device::Cpu if look.needs.gram => Together::Neighbours,
            Device::Cpu => Together::Shapes,
            _ => Together::Device,
        }
    }

    /// Samples of so many tokens that may run together at most.
    fn most(self, tokens: usize) -> usize {
        match self {
            Together::Alone => 1,
            Together::Neighbours | Together::Shapes => (TOKENS / tokens).max(1),
            Together::Device => ON_DEVICE,
            Together::Batches(most) => most.max(1),
        }
    }
}

/// The images and texts of a calibration. Several texts may be about one image, which the image encoder then sees once.
pub trait CalibrationSet {
    /// Why an image cannot be had.
    type Error;

    /// Distinct images.
    fn images(&self) -> usize;

    /// Pixels of an image, `[1, 3, height, width]`, on the device.
    ///
    /// # Errors
    /// It cannot be read.
    fn pixels(&self, image: usize) -> Result<Tensor, Self::Error>;

    /// Texts.
    fn texts(&self) -> usize;

    /// A text: the number of its image, the instruction on the device, the answer's tokens without start and end.
    fn text(&self, at: usize) -> (usize, &Prompts, &[u32]);
}

/// How samples are distributed among activations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// The samples of each, by their number among the tower's images or texts.
    pub rows: Vec<Vec<usize>>,
    /// The visual tokens that count in the statistics, where not all do.
    pub visible: Vec<Visible>,
}

impl Layout {
    /// Samples of equal shapes together, in the order in which the shapes first occur. `shapes` gives a key, and how many tokens that is.
    fn by_shape<K: Ord>(shapes: impl Iterator<Item = (K, usize)>, together: Together) -> Vec<Vec<usize>> {
        let mut rows: Vec<Vec<usize>> = Vec::new();
        let mut open: BTreeMap<K, usize> = BTreeMap::new();
        for (sample, (shape, tokens)) in shapes.enumerate() {
            match open.get(&shape) {
                Some(&at) if rows[at].len() < together.most(tokens) => rows[at].push(sample),
                _ => {
                    if together == Together::Neighbours {
                        open.clear();
                    }
                    open.insert(shape, rows.len());
                    rows.push(vec![sample]);
                }
            }
        }
        rows
    }

    /// The samples of an activation; nothing where all run alone, in their order.
    pub(super) fn numbers(&self, at: usize) -> Option<&[usize]> {
        let together = self.rows.iter().any(|rows| rows.len() > 1);
        self.rows.get(at).filter(|_| together).map(Vec::as_slice)
    }

    /// Where a sample is.
    fn find(&self, sample: usize) -> Option<(usize, i64)> {
        // Where every sample runs alone it is in its own place.
        if self.rows.get(sample).is_some_and(|rows| rows.as_slice() == [sample]) {
            return Some((sample, 0));
        }
        let row = |rows: &Vec<usize>| rows.iter().position(|&other| other == sample);
        self.rows.iter().enumerate().find_map(|(at, rows)| row(rows).map(|row| (at, row as i64)))
    }
}

/// What the tower below made of the samples, computed when it is first asked for.
struct Below<'a, F> {
    tower: Tower,
    flows: &'a F,
    layout: &'a Layout,
    last: Option<(usize, Tensor)>,
}

impl<B: Blocks, F: Flows<Error = B::Error>> Walk<B, F> {
    /// Takes every sample to the entry of a tower. The tower below, if there is one, must have been
    /// run to its end.
    ///
    /// # Errors
    /// Images or activations that cannot be read or written.
    pub fn enter<S: CalibrationSet<Error = B::Error>>(
        &mut self,
        tower: Tower,
        samples: &S,
        together: Together,
    ) -> Result<(), B::Error> {
        let texts = || (0..samples.texts()).map(|at| samples.text(at));
        let width = |tensor: &Tensor| tensor.size().last().copied().unwrap_or(0);
        let rows = match tower {
            Tower::Vision => Layout::by_shape((0..samples.images()).map(|_| ((), TOKENS / IMAGES)), together),
            Tower::Connector => {
                let shape = |(_, prompts, _): (_, &Prompts, &[u32])| width(&prompts.qformer.ids);
                Layout::by_shape(texts().map(shape).map(|width| (width, tokens(width, 0))), together)
            }
            Tower::Language => {
                let shape = |(_, prompts, answer): (_, &Prompts, &[u32])| {
                    let (width, answer) = (width(&prompts.language.ids), answer.len());
                    ((width, answer), tokens(width, answer))
                };
                Layout::by_shape(texts().map(shape), together)
            }
        };
        let (mut layout, device) = (Layout::default(), self.blocks.device());
        no_grad(|| {
            self.flows.clear()?;
            let mut last = None;
            for rows in rows {
                let mut flows = Vec::with_capacity(rows.len());
                for &sample in &rows {
                    let mut below = Below { tower, flows: &self.flows, layout: &self.layout, last: last.take() };
                    flows.push(below.entry(&self.blocks, samples, sample)?);
                    last = below.last;
                }
                let handed = last.as_ref().map_or(0, |(_, handed): &(usize, Tensor)| handed.size()[1]);
                // Where the image has its places among words, they are what stands before a text.
                let queries = match tower {
                    Tower::Language => {
                        let before = samples.text(rows[0]).1.language.layout();
                        before.map_or(handed, |before| before.tokens() as i64)
                    }
                    _ => handed,
                };
                let few = device == Device::Cpu && fewest_rows(tower, &flows[0], queries, samples, rows[0]) < FEW;
                let stacked = if flows.len() > 1 && !few { self.blocks.model().stack(tower, &flows) } else { None };
                if let Some(stacked) = stacked {
                    self.flows.add(stacked)?;
                    layout.rows.push(rows);
                    continue;
                }
                for (sample, flow) in rows.into_iter().zip(flows) {
                    self.flows.add(flow)?;
                    layout.rows.push(vec![sample]);
                }
            }
            self.flows.turn()
        })?;
        self.layout = layout;
        Ok(())
    }

    /// Takes every sample to the entry of a tower, through the towers below with the weights that they have.
    ///
    /// # Errors
    /// As [`Walk::enter`] and [`Walk::block`].
    pub fn arrive<S: CalibrationSet<Error = B::Error>>(
        &mut self,
        tower: Tower,
        samples: &S,
        look: Look,
    ) -> Result<(), B::Error> {
        let together = Together::on(self.blocks.device(), look);
        self.arrive_in(tower, samples, together)
    }

    /// As [`Walk::arrive`], with samples that run together as they are told.
    ///
    /// # Errors
    /// As [`Walk::enter`] and [`Walk::block`].
    pub fn arrive_in<S: CalibrationSet<Error = B::Error>>(
        &mut self,
        tower: Tower,
        samples: &S,
        together: Together,
    ) -> Result<(), B::Error> {
        let device = self.blocks.device();
        let unseen = Look { needs: Needs::WEIGHT, tokens: TokenConfig::default() };
        for below in Tower::ALL.into_iter().take_while(|&below| below != tower) {
            self.enter(below, samples, Together::on(device, unseen))?;
            self.pass(below)?;
        }
        self.enter(tower, samples, together)
    }
}

/// Tokens of a text, with those that stand for its image.
fn tokens(prompt: i64, answer: usize) -> usize {
    /// Queries of all published models.
    const QUERIES: usize = 32;
    QUERIES + usize::try_from(prompt).unwrap_or_default() + answer
}

/// Rows of the smallest product that a sample takes part in: some layers read only a part of the tokens.
fn fewest_rows<S: CalibrationSet>(tower: Tower, flow: &Flow, queries: i64, samples: &S, sample: usize) -> i64 {
    let all = flow.hidden.size()[1];
    if tower == Tower::Vision {
        return all;
    }
    let (_, prompts, answer) = samples.text(sample);
    let answer = answer.len() as i64;
    match tower {
        // Queries and text have layers of their own.
        Tower::Connector => {
            let text = prompts.qformer.ids.size()[1];
            if all > text { text.min(all - text) } else { all }
        }
        // A decoder-only model reads all in one sequence; T5's decoder reads the answer behind its start.
        _ if all == queries + prompts.language.ids.size()[1] + answer => all,
        _ => all.min(answer + 1),
    }
}

impl<F: Flows> Below<'_, F> {
    fn entry<B: Blocks<Error = F::Error>, S: CalibrationSet<Error = F::Error>>(
        &mut self,
        blocks: &B,
        samples: &S,
        sample: usize,
    ) -> Result<Flow, F::Error> {
        let model = blocks.model();
        if self.tower == Tower::Vision {
            return Ok(model.enter_from(Entry::Pixels(&samples.pixels(sample)?)));
        }
        let (image, prompts, answer) = samples.text(sample);
        Ok(match self.tower {
            Tower::Connector => {
                let features = self.of(blocks, Tower::Vision, image)?;
                model.enter_from(Entry::Features { features: &features, prompts })
            }
            _ => {
                let prefix = model.place_images(self.of(blocks, Tower::Connector, sample)?, &prompts.language);
                let answers = [answer.to_vec()];
                let (prompt, answers) = (&prompts.language, AnswerBatch::whole(&answers));
                model.enter_from(Entry::Prefix { prefix: &prefix, prompt, answers })
            }
        })
    }

    /// What the tower below hands on for one of its samples.
    fn of<B: Blocks<Error = F::Error>>(&mut self, blocks: &B, below: Tower, sample: usize) -> Result<Tensor, F::Error> {
        let lost = || PruneError::NotEntered { tower: self.tower };
        let (at, row) = self.layout.find(sample).ok_or_else(lost)?;
        let (_, all) = match self.last.take() {
            Some(last) if last.0 == at => self.last.insert(last),
            _ => {
                let handed = blocks.model().leave(below, &self.flows.get(at)?);
                self.last.insert((at, handed))
            }
        };
        Ok(all.narrow(0, row, 1))
    }
}

/// Samples in memory. Images are the same when all their pixels are.
pub(crate) struct Listed<'a> {
    samples: &'a [Sample],
    /// The first sample with each distinct image.
    images: Vec<usize>,
    /// The image of each sample.
    of: Vec<usize>,
}

impl<'a> Listed<'a> {
    pub(crate) fn new(samples: &'a [Sample]) -> Self {
        let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
        let (mut images, mut of): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::with_capacity(samples.len()));
        for (at, sample) in samples.iter().enumerate() {
            let same = seen.entry(digest(&sample.pixels)).or_default();
            let known = |&&image: &&usize| {
                let other = &samples[images[image]].pixels;
                is_same(other, &sample.pixels) || (other.size() == sample.pixels.size() && other.equal(&sample.pixels))
            };
            let image = same.iter().find(known).copied();
            of.push(image.unwrap_or_else(|| {
                same.push(images.len());
                images.push(at);
                images.len() - 1
            }));
        }
        Self { samples, images, of }
    }
}

impl CalibrationSet for Listed<'_> {
    type Error = PruneError;

    fn images(&self) -> usize {
        self.images.len()
    }

    fn pixels(&self, image: usize) -> Result<Tensor, PruneError> {
        Ok(self.samples[self.images[image]].pixels.shallow_clone())
    }

    fn texts(&self) -> usize {
        self.samples.len()
    }

    fn text(&self, at: usize) -> (usize, &Prompts, &[u32]) {
        let Sample { prompt, answer, .. } = &self.samples[at];
        (self.of[at], prompt, answer)
    }
}

/// Whether two handles are on the same pixels.
fn is_same(left: &Tensor, right: &Tensor) -> bool {
    left.data_ptr() == right.data_ptr() && left.size() == right.size() && left.kind() == right.kind()
}

/// A digest that equal pixels share; unequal ones may collide.
fn digest(pixels: &Tensor) -> u64 {
    let mut hasher = DefaultHasher::new();
    for moment in [pixels.sum(Kind::Double), pixels.square().sum(Kind::Double)] {
        moment.double_value(&[]).to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shapes_come_together_and_alone_keeps_the_order() {
        let shapes = || [7, 5, 7, 7, 5, 9].into_iter().map(|width| (width, 300));
        assert_eq!(Layout::by_shape(shapes(), Together::Alone), [[0], [1], [2], [3], [4], [5]]);
        assert_eq!(Layout::by_shape(shapes(), Together::Neighbours), [vec![0], vec![1], vec![2, 3], vec![4], vec![5]]);
        let few = shapes().map(|(width, _)| (width, 500));
        assert_eq!(Layout::by_shape(few, Together::Shapes), [vec![0, 2], vec![1, 4], vec![3], vec![5]]);
        let layout = Layout { rows: Layout::by_shape(shapes(), Together::Device), visible: Vec::new() };
        assert_eq!(layout.rows, [vec![0, 2, 3], vec![1, 4], vec![5]]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|at| layout.find(at).unwrap()),
            [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0)]
        );
        assert_eq!(layout.find(6), None);
        assert_eq!(layout.numbers(1), Some([1, 4].as_slice()));
        let alone = Layout { rows: Layout::by_shape(shapes(), Together::Alone), visible: Vec::new() };
        assert_eq!(alone.numbers(1), None);
    }
}
