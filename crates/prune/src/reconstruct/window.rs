//! Windows of a tower: what is trained together, and what enters and leaves it.

use std::sync::{Arc, Mutex, PoisonError};

use ressa_experiment::reconstruct::{NamedWindow, Window};
use ressa_models::{Flow, Linear, Observer, Tower, VisionLanguage, Weight};
use tch::Tensor;

use crate::walk::{Place, layers_of};

/// A part of a tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Blocks that follow each other.
    Blocks {
        /// The first.
        first: usize,
        /// How many.
        count: usize,
    },
    /// A part of a block with its own residual connection.
    Part {
        /// The block.
        block: usize,
        /// The part.
        part: usize,
    },
    /// A linear.
    Matrix {
        /// Its block.
        block: usize,
        /// Its module path.
        layer: String,
    },
}

/// A stretch over which activations move on, with the windows in it.
#[derive(Debug)]
pub(super) struct Station {
    /// The stretch.
    pub span: Span,
    /// Its windows: itself, or the linears of its block.
    pub windows: Vec<Span>,
}

/// The stretches of a tower, in the order of execution. `entry` is what enters its first block. Several blocks never go on behind one that hands something new beside the
/// hidden states to those behind it: what leaves T5's encoder.
pub(super) fn stations(model: &dyn VisionLanguage, tower: Tower, window: Window, entry: &Flow) -> Vec<Station> {
    let blocks = model.blocks(tower);
    let alone = |span: Span| Station { windows: vec![span.clone()], span };
    match window {
        Window::Named(NamedWindow::Matrix) => (0..blocks)
            .map(|block| {
                let layers = layers_of(model, Place { tower, block });
                let windows = layers.map(|(id, _)| Span::Matrix { block, layer: id.name.clone() }).collect();
                Station { span: Span::Blocks { first: block, count: 1 }, windows }
            })
            .collect(),
        Window::Named(NamedWindow::AttentionMlp) => (0..blocks)
            .flat_map(|block| (0..model.parts(tower, block)).map(move |part| Span::Part { block, part }))
            .map(alone)
            .collect(),
        Window::Named(NamedWindow::Block) | Window::Blocks(0 | 1) => {
            (0..blocks).map(|first| alone(Span::Blocks { first, count: 1 })).collect()
        }
        Window::Blocks(most) => {
            let mut spans: Vec<(usize, usize)> = Vec::new();
            let (mut flow, mut goes_on) = (entry.shallow_clone(), false);
            for block in 0..blocks {
                match spans.last_mut() {
                    Some((_, count)) if goes_on && *count < most as usize => *count += 1,
                    _ => spans.push((block, 1)),
                }
                let next = model.run_block(tower, block, &flow);
                goes_on = next.made_since(&flow).is_none();
                flow = next;
            }
            spans.into_iter().map(|(first, count)| alone(Span::Blocks { first, count })).collect()
        }
    }
}

impl Span {
    /// What results call it.
    pub fn name(&self, tower: Tower) -> String {
        match self {
            Span::Blocks { first, count: 1 } => format!("{tower}.{first}"),
            Span::Blocks { first, count } => format!("{tower}.{first}-{}", first + count - 1),
            Span::Part { block, part } => format!("{tower}.{block}.{part}"),
            Span::Matrix { layer, .. } => layer.clone(),
        }
    }

    /// Weights, biases and norms that may be read in it.
    pub fn weights<'m>(&self, model: &'m dyn VisionLanguage, tower: Tower) -> Vec<&'m Weight> {
        match self {
            Span::Blocks { first, count } => {
                (*first..first + count).flat_map(|block| model.block_weights(tower, block)).collect()
            }
            Span::Part { block, .. } => model.block_weights(tower, *block),
            Span::Matrix { .. } => self.linear(model, tower).into_iter().flat_map(Linear::weights).collect(),
        }
    }

    /// What leaves it.
    pub fn run(&self, model: &dyn VisionLanguage, tower: Tower, flow: &Flow) -> Flow {
        match self {
            Span::Blocks { first, count } => {
                let run = |flow: Flow, block| model.run_block(tower, block, &flow);
                (*first..first + count).fold(flow.shallow_clone(), run)
            }
            Span::Part { block, part } => model.run_part(tower, *block, *part, flow),
            Span::Matrix { .. } => {
                let linear = self.linear(model, tower).expect("a layer of the model that windows were made of");
                Flow::from_parts(linear.forward(&flow.hidden), Vec::new())
            }
        }
    }

    /// What enters it, where `flows` enter the stretch that it is in. Of a linear all tokens that it reads, `[1, tokens, in]`; `None` where it reads nothing.
    pub fn inputs(&self, model: &dyn VisionLanguage, tower: Tower, flows: &[Flow]) -> Option<Vec<Flow>> {
        let Span::Matrix { block, .. } = self else {
            return Some(flows.iter().map(Flow::shallow_clone).collect());
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let linear = self.linear(model, tower)?;
        let tap = linear.tap(Arc::<Mutex<Seen>>::clone(&seen));
        let of_flow = |flow: &Flow| {
            model.run_block(tower, *block, flow);
            let read = std::mem::take(&mut seen.lock().unwrap_or_else(PoisonError::into_inner).0);
            let read: Vec<Tensor> = read.iter().map(|x| x.reshape([1, -1, linear.shape().1])).collect();
            (!read.is_empty()).then(|| Flow::from_parts(Tensor::cat(&read, 1), Vec::new()))
        };
        let inputs = flows.iter().map(of_flow).collect();
        drop(tap);
        inputs
    }

    fn linear<'m>(&self, model: &'m dyn VisionLanguage, tower: Tower) -> Option<&'m Linear> {
        let Span::Matrix { block, layer } = self else { return None };
        let mut layers = layers_of(model, Place { tower, block: *block });
        layers.find(|(id, _)| id.name == *layer).map(|(_, linear)| linear)
    }
}

/// What a linear has read.
#[derive(Default)]
struct Seen(Vec<Tensor>);

impl Observer for Seen {
    fn observe(&mut self, input: &Tensor) {
        self.0.push(input.shallow_clone());
    }
}
