//! The numbers of the training, per language family. Part of the `dense` stage's version: change one, raise the version.

use ressa_experiment::model::Preset;
use ressa_runtime::optim::Schedule;

/// The whole training of a preset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Image encoder on patch labels.
    pub vision: Schedule,
    /// Language model on oracle slots.
    pub language: Schedule,
    /// Interface between the two frozen towers.
    pub interface: Schedule,
    /// Everything together.
    pub joint: Schedule,
    /// Images per step of the vision stage.
    pub vision_images: usize,
    /// Questions per step of the language stage.
    pub language_questions: usize,
    /// Captions per step of the language stage, half of them positional.
    pub captions: usize,
    /// Text-only facts per step.
    pub facts: usize,
    /// Images per step of the interface stage.
    pub interface_images: usize,
    /// Images per step of the joint stage.
    pub joint_images: usize,
    /// Questions per image of the joint stage.
    pub joint_questions: usize,
    /// Shares of VQAv2-, GQA-, OK-VQA-like and yes-no relation questions in the language stage.
    pub language_mix: [f64; 4],
    /// The same in the interface stage, whose instructions are only read by the Q-Former.
    pub interface_mix: [f64; 4],
    /// The same in the joint stage.
    pub joint_mix: [f64; 4],
    /// Share of the language stage in which relation questions only ask for `left of` and `above`. Relation word and direction together
    /// decide like an exclusive or, which is not found from the start.
    pub one_direction: f64,
    /// Noise on the oracle slots.
    pub slot_noise: f64,
    /// Weight of the pointer losses in the language stage.
    pub pointer: f64,
    /// Language block after which an object phrase must have found its cell.
    pub pointer_block: usize,
    /// Language block after which two objects must have been compared.
    pub comparison_block: usize,
    /// Language block after which a yes-no question must be decided.
    pub truth_block: usize,
    /// Training images.
    pub images: usize,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
}

impl Recipe {
    /// The recipe of a preset.
    pub fn of(preset: Preset) -> Self {
        let common = Self {
            vision: Schedule { peak: 3e-3, warmup: 20, steps: 600, final_share: 0.2 },
            language: Schedule { peak: 3e-3, warmup: 50, steps: 850, final_share: 0.1 },
            interface: Schedule { peak: 3e-3, warmup: 30, steps: 300, final_share: 0.2 },
            joint: Schedule { peak: 1e-3, warmup: 50, steps: 250, final_share: 0.02 },
            vision_images: 64,
            language_questions: 128,
            captions: 8,
            facts: 24,
            interface_images: 48,
            joint_images: 32,
            joint_questions: 3,
            language_mix: [0.3, 0.3, 0.2, 0.2],
            interface_mix: [0.35, 0.41, 0.24, 0.0],
            joint_mix: [0.3, 0.3, 0.25, 0.15],
            one_direction: 0.4,
            slot_noise: 0.2,
            pointer: 1.0,
            pointer_block: 2,
            comparison_block: 3,
            truth_block: 4,
            images: 8000,
            weight_decay: 0.05,
        };
        match preset {
            Preset::ShapesFlanT5 => common,
            Preset::ShapesVicuna => Self {
                language: Schedule { steps: 1000, ..common.language },
                pointer_block: 3,
                comparison_block: 4,
                truth_block: 6,
                ..common
            },
        }
    }

    /// The recipe with every stage cut to at most `steps` steps: for trying things out, not for results.
    pub fn shortened(self, steps: u32) -> Self {
        let cut = |schedule: Schedule| Schedule { steps: schedule.steps.min(steps), ..schedule };
        Self {
            vision: cut(self.vision),
            language: cut(self.language),
            interface: cut(self.interface),
            joint: cut(self.joint),
            ..self
        }
    }
}
