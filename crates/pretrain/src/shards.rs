//! Data-parallel gradients: each step's batch is split over a fixed number of shards, each differentiated by a thread of its own.
//!
//! Products at this scale are too small for libtorch's own threads to help, so the parallelism is over rows. The number of shards is part
//! of the recipe, not of the machine: the result does not depend on how many cores there are.

use ressa_models::Model;
use tch::{Kind, Tensor};

use crate::{
    TrainError,
    auxiliary::Auxiliary,
    parameters::{Parameters, TensorMap},
    slots::SlotParts,
};

/// Shards of a step.
pub const SHARDS: usize = 2;

/// A model and its training heads over one shard's leaves.
pub struct Shard {
    /// The model.
    pub model: Model,
    /// The heads.
    pub auxiliary: Auxiliary,
    /// The oracle slots as they were when the language model had learnt to read them; from the third stage on.
    pub target: Option<SlotParts>,
    leaves: TensorMap,
}

/// What a shard reports of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// Right answers to VQAv2-, GQA- and OK-VQA-like questions.
    pub right: [f64; 3],
    /// Questions of each sort.
    pub asked: [f64; 3],
}

/// A shard's loss and report, from the shard and its number.
pub type Objective<'a> = &'a (dyn Fn(&Shard, usize) -> Result<(Tensor, Measured), TrainError> + Sync);

/// The shards of a training.
pub struct Shards {
    shards: Vec<Shard>,
}

impl Shards {
    /// Shards over `parameters`; `build` makes the model of one from its leaves.
    pub fn new(
        parameters: &Parameters,
        mut build: impl FnMut(&TensorMap) -> Result<Model, TrainError>,
    ) -> Result<Self, TrainError> {
        let shards = (0..SHARDS)
            .map(|_| {
                let leaves = parameters.leaves();
                // A leaf has no gradient before its first use; a shard that happens not to use one must still have zeros to add.
                leaves
                    .values()
                    .map(|leaf| (leaf * 0.0).sum(Kind::Float))
                    .reduce(|a, b| a + b)
                    .expect("parameters")
                    .backward();
                Ok(Shard { model: build(&leaves)?, auxiliary: Auxiliary::of(&leaves), target: None, leaves })
            })
            .collect::<Result<_, TrainError>>()?;
        Ok(Self { shards })
    }

    /// Fixes the slots that the interface is to produce.
    pub fn set_target(&mut self, target: &SlotParts) {
        for shard in &mut self.shards {
            shard.target = Some(target.shallow_clone());
        }
    }

    /// The leaves whose gradients `accumulate` fills: those the optimiser holds.
    pub fn leaves(&self) -> &TensorMap {
        &self.shards[0].leaves
    }

    /// The shard whose leaves the optimiser holds, to look at between steps.
    pub fn first(&self) -> &Shard {
        &self.shards[0]
    }

    /// Leaves the gradient of the mean loss of all shards in [`Shards::leaves`], and returns what was measured.
    pub fn accumulate(&mut self, objective: Objective<'_>) -> Result<Measured, TrainError> {
        let measured: Vec<Result<Measured, TrainError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .shards
                .iter_mut()
                .enumerate()
                .map(|(number, shard)| scope.spawn(move || shard.differentiate(number, objective)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        let _no_grad = tch::no_grad_guard();
        let (first, rest) = self.shards.split_first().expect("at least one shard");
        for shard in rest {
            for (sum, leaf) in first.leaves.values().zip(shard.leaves.values()) {
                let _ = sum.grad().g_add_(&leaf.grad());
            }
        }
        let mut total = Measured::default();
        for one in measured {
            let one = one?;
            total.loss += one.loss / SHARDS as f64;
            for sort in 0..3 {
                total.right[sort] += one.right[sort];
                total.asked[sort] += one.asked[sort];
            }
        }
        Ok(total)
    }
}

impl Shard {
    /// The language model's word embeddings `[vocabulary, width]`, whatever its family calls them.
    pub fn word_embeddings(&self) -> &Tensor {
        const NAMES: [&str; 2] = ["language_model.shared.weight", "language_model.model.embed_tokens.weight"];
        NAMES.iter().find_map(|name| self.leaves.get(*name)).expect("both families have word embeddings")
    }

    fn differentiate(&mut self, number: usize, objective: Objective<'_>) -> Result<Measured, TrainError> {
        ressa_runtime::flush_denormals();
        for leaf in self.leaves.values_mut() {
            leaf.zero_grad();
        }
        let (loss, mut measured) = tch::with_grad(|| objective(self, number))?;
        measured.loss = loss.double_value(&[]);
        (loss / SHARDS as f64).backward();
        Ok(measured)
    }
}
