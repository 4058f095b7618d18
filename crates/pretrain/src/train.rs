//! The training itself: four stages, each with its own parameters, optimiser and schedule.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ressa_data::{Processor, World};
use ressa_models::{Blip2Config, Model, config::TextConfig};
use ressa_runtime::optim::{AdamW, AdamWOptions, Parameter, Schedule};

use crate::{
    TrainError,
    auxiliary::Auxiliary,
    checkpoint::{Checkpoint, Position},
    corpus::Corpus,
    interface, joint, language,
    parameters::{Parameters, TensorMap, initial},
    recipe::Recipe,
    shards::{Measured, Shard, Shards},
    vision,
};

/// Share of the past in the running means of the progress line.
const MEMORY: f64 = 0.95;
/// Gradients above this norm are scaled down.
const CLIP: f64 = 1.0;

/// What to train.
pub struct Request<'a> {
    /// Architecture and sizes.
    pub config: &'a Blip2Config,
    /// Numbers of the training.
    pub recipe: Recipe,
    /// Seed of initial values and batches.
    pub seed: u64,
    /// Images, questions, facts.
    pub world: &'a World,
    /// Tokenizers and pixels.
    pub processor: &'a Processor,
    /// Folder that survives a kill; the training goes on from what it finds there.
    pub resume: &'a Path,
    /// Time between two checkpoints.
    pub checkpoint_interval: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Vision,
    Language,
    Interface,
    Joint,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Vision, Stage::Language, Stage::Interface, Stage::Joint];

    fn name(self) -> &'static str {
        match self {
            Stage::Vision => "vision",
            Stage::Language => "language",
            Stage::Interface => "interface",
            Stage::Joint => "joint",
        }
    }

    fn schedule(self, recipe: &Recipe) -> Schedule {
        match self {
            Stage::Vision => recipe.vision,
            Stage::Language => recipe.language,
            Stage::Interface => recipe.interface,
            Stage::Joint => recipe.joint,
        }
    }

    /// Relative cost of a step, for the share done; measured once, only the progress line depends on it.
    fn cost(self) -> f64 {
        match self {
            Stage::Vision => 1.0,
            Stage::Language => 2.4,
            Stage::Interface => 1.0,
            Stage::Joint => 3.6,
        }
    }

    /// Whether the stage trains a parameter.
    fn trains(self, name: &str) -> bool {
        let any = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match self {
            Stage::Vision => any(&["vision_model.", "auxiliary.patch"]),
            Stage::Language => {
                any(&["language_model.", "auxiliary."])
                    && !any(&["auxiliary.patch", "auxiliary.slot", "auxiliary.temperature"])
            }
            Stage::Interface => any(&[
                "qformer.",
                "query_tokens",
                "language_projection.",
                "vision_projection.",
                "text_projection.",
                "auxiliary.slot",
                "auxiliary.temperature",
            ]),
            Stage::Joint => !any(&["auxiliary.place", "auxiliary.empty"]),
        }
    }
}

/// Trains a model and returns its tensors by checkpoint name, f32. `progress` gets the share done and a line for people.
pub fn train(request: &Request<'_>, progress: &mut dyn FnMut(f64, &str)) -> Result<TensorMap, TrainError> {
    let Request { config, recipe, seed, .. } = *request;
    progress(0.0, "drawing training images");
    let corpus = Corpus::new(request.world, request.processor, recipe.images, crate::shards::SHARDS)?;
    let mut shapes = Model::tensor_shapes(config)?;
    shapes.extend(Auxiliary::shapes(
        config.vision_config.hidden_size,
        config.qformer_config.hidden_size,
        config.text_config.word_width(),
        config.num_query_tokens,
        config.text_config.vocab_size(),
    ));
    let head_width = match &config.text_config {
        TextConfig::T5(t5) => Some(t5.d_kv),
        TextConfig::Llama(_) | TextConfig::Qwen2(_) | TextConfig::Mistral(_) | TextConfig::Opt(_) => None,
    };
    let start = |name: &str, shape: &[i64]| match Auxiliary::owns(name) {
        true => Auxiliary::initial(name, shape),
        false => initial(name, shape, head_width),
    };
    let mut parameters = Parameters::draw(&shapes, start, seed);
    let checkpoint = Checkpoint::in_folder(request.resume);
    let mut saved = checkpoint.load(&mut parameters)?;
    let mut shards = Shards::new(&parameters, |leaves| Ok(Model::from_tensors(config, leaves)?))?;
    let begin = saved.as_ref().map_or(Position { stage: 0, step: 0 }, |s| s.position);
    let mut target = saved.as_mut().and_then(|s| s.target.take());

    let all: f64 = Stage::ALL.iter().map(|s| s.cost() * f64::from(s.schedule(&recipe).steps)).sum();
    let mut done: f64 = 0.0;
    for (number, stage) in Stage::ALL.into_iter().enumerate() {
        let schedule = stage.schedule(&recipe);
        let weight = stage.cost() / all;
        if number < begin.stage {
            done += weight * f64::from(schedule.steps);
            continue;
        }
        if number >= 2 && target.is_none() {
            target = Some(language::slot_parts(shards.first()).frozen());
        }
        if let Some(target) = &target {
            shards.set_target(target);
        }
        let mut optimiser =
            AdamW::new(trained(&shards, stage, &recipe), AdamWOptions { beta2: 0.98, ..Default::default() });
        let mut first = 0;
        if number == begin.stage
            && let Some(saved) = saved.take()
        {
            optimiser
                .resume(&saved.optimiser)
                .map_err(|e| TrainError::Checkpoint { path: request.resume.to_owned(), what: e.to_string() })?;
            first = begin.step;
        }
        let mut shown = Shown::default();
        let mut kept = Instant::now();
        for step in first..schedule.steps {
            let objective = |shard: &Shard, half: usize| match stage {
                Stage::Vision => Ok(vision::objective(shard, half, step, &corpus, &recipe, seed)),
                Stage::Language => language::objective(shard, half, step, &corpus, &recipe, seed),
                Stage::Interface => interface::objective(shard, half, step, &corpus, &recipe, seed),
                Stage::Joint => joint::objective(shard, half, step, &corpus, &recipe, seed),
            };
            let measured = shards.accumulate(&objective)?;
            let norm = optimiser.step(schedule.at(step), Some(CLIP));
            if !measured.loss.is_finite() || !norm.is_finite() {
                return Err(TrainError::Diverged { stage: stage.name(), step, loss: measured.loss });
            }
            shown.add(&measured);
            let share = done + weight * f64::from(step + 1);
            progress(share, &shown.line(stage, step + 1, schedule.steps));
            let is_asked = ressa_runtime::is_asked_to_stop();
            if is_asked || kept.elapsed() >= request.checkpoint_interval {
                let position = Position { stage: number, step: step + 1 };
                checkpoint.save(position, &parameters, &optimiser, target.as_ref())?;
                kept = Instant::now();
                if is_asked {
                    return Err(TrainError::GivenBack { stage: stage.name(), steps: step + 1 });
                }
            }
        }
        done += weight * f64::from(schedule.steps);
    }
    Ok(parameters.into_tensors().into_iter().filter(|(name, _)| !Auxiliary::owns(name)).collect())
}

fn trained(shards: &Shards, stage: Stage, recipe: &Recipe) -> Vec<Parameter> {
    shards
        .leaves()
        .iter()
        .filter(|(name, _)| stage.trains(name))
        .map(|(name, leaf)| {
            let vector = leaf.dim() < 2 || name.starts_with("auxiliary.place");
            Parameter { tensor: leaf.shallow_clone(), weight_decay: if vector { 0.0 } else { recipe.weight_decay } }
        })
        .collect()
}

/// Running means for the progress line.
#[derive(Default)]
struct Shown {
    weight: f64,
    loss: f64,
    right: [f64; 3],
    asked: [f64; 3],
}

impl Shown {
    fn add(&mut self, measured: &Measured) {
        self.weight = MEMORY * self.weight + 1.0;
        self.loss = MEMORY * self.loss + measured.loss;
        for kind in 0..3 {
            self.right[kind] = MEMORY * self.right[kind] + measured.right[kind];
            self.asked[kind] = MEMORY * self.asked[kind] + measured.asked[kind];
        }
    }

    fn line(&self, stage: Stage, step: u32, steps: u32) -> String {
        use std::fmt::Write;
        let mut line = format!("{} {step}/{steps} loss {:.3}", stage.name(), self.loss / self.weight);
        for (kind, name) in ["vqav2", "gqa", "okvqa"].into_iter().enumerate() {
            if self.asked[kind] > 0.0 {
                let _ = write!(line, " {name} {:.0}%", 100.0 * self.right[kind] / self.asked[kind]);
            }
        }
        line
    }
}
