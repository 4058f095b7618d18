//! Settings of the step `reconstruct`: a part of the network at a time is trained to put out what the dense model puts out there.

use serde::{Deserialize, Serialize};

use crate::{
    Tower,
    config::{CalibrationConfig, MatrixUpdate, Propagate, TokenConfig},
    method::is_default,
};

/// Local reconstruction under the masks that there are (arXiv 2510.14444).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ReconstructConfig {
    /// What of a window trains; `none` leaves the model as it is.
    pub train: Trained,
    /// What is trained together.
    pub window: Window,
    /// What enters a window.
    pub inputs: WindowInputs,
    /// What is to leave it.
    pub targets: WindowTargets,
    /// The image encoder.
    pub vision: TowerReconstruct,
    /// The connector.
    pub connector: TowerReconstruct,
    /// The language model.
    pub language: TowerReconstruct,
    /// Rank of updates of low rank.
    pub rank: u32,
    /// Factor on such an update.
    pub scale: f64,
    /// Samples: images for the image encoder, texts about images for what comes behind it.
    pub samples: u32,
    /// Questions about each image, beside one caption.
    pub questions: u32,
    /// Samples of a step.
    pub batch: u32,
    /// How often every sample is seen.
    pub passes: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises; it then falls to 0, both linearly.
    pub warmup: f64,
    /// Weight of the mean cosine between outputs and targets, which is taken from the mean squared error.
    pub cosine: f64,
}

impl Default for ReconstructConfig {
    fn default() -> Self {
        let (train, window, inputs, targets) = Default::default();
        let (vision, connector, language) = Default::default();
        Self {
            train,
            window,
            inputs,
            targets,
            vision,
            connector,
            language,
            rank: 16,
            scale: 2.0,
            samples: 128,
            questions: 3,
            batch: 2,
            passes: 1,
            learning_rate: 1e-4,
            warmup: 0.1,
            cosine: 0.0,
        }
    }
}

impl ReconstructConfig {
    /// Whether a tower has something to reconstruct, where `changed` says which towers compute otherwise than in the dense model: its own weights, or, where
    /// changed inputs are to be made good, what it reads.
    pub fn is_due(&self, tower: Tower, changed: impl Fn(Tower) -> bool) -> bool {
        let makes_good = self.inputs == WindowInputs::Changed && self.targets == WindowTargets::Dense;
        changed(tower) || makes_good && Tower::ALL.into_iter().any(|below| below < tower && changed(below))
    }
}

/// Whether a tower is reconstructed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TowerReconstruct {
    /// Whether it is.
    pub tune: bool,
}

impl Default for TowerReconstruct {
    fn default() -> Self {
        Self { tune: true }
    }
}

/// What trains in a window. Norms and biases always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trained {
    /// Nothing.
    None,
    /// Every kept weight.
    #[default]
    All,
    /// Norms and biases alone.
    Norms,
    /// An update of matrices as a restoration has it: [`crate::config::RestoreMethod::SparseLora`].
    SparseLora,
    /// The same of [`crate::config::RestoreMethod::ScaleLora`].
    ScaleLora,
    /// The same of [`crate::config::RestoreMethod::Spp`].
    Spp,
    /// The same of [`crate::config::RestoreMethod::SppLora`].
    SppLora,
}

impl Trained {
    /// All of them, by the names used in YAML and tables.
    pub const NAMES: [&str; 7] = ["none", "all", "norms", "sparse-lora", "scale-lora", "spp", "spp-lora"];

    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// How matrices change, where they do so by an update of low rank.
    pub fn update(self) -> Option<MatrixUpdate> {
        match self {
            Trained::None | Trained::All | Trained::Norms => None,
            Trained::SparseLora => Some(MatrixUpdate::Sum),
            Trained::ScaleLora => Some(MatrixUpdate::Scale),
            Trained::Spp => Some(MatrixUpdate::Spp),
            Trained::SppLora => Some(MatrixUpdate::SppLora),
        }
    }
}

/// What is trained together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Window {
    /// A part of the network that has a name.
    Named(NamedWindow),
    /// So many blocks.
    Blocks(u32),
}

/// A window with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedWindow {
    /// Each linear for itself.
    Matrix,
    /// Attention and feed-forward layer apart, each with its norm and its residual connection.
    AttentionMlp,
    /// A block.
    Block,
}

impl Default for Window {
    fn default() -> Self {
        Self::BLOCK
    }
}

impl Window {
    /// The names used in YAML and tables; a number of blocks is written as a number.
    pub const NAMES: [&str; 3] = ["matrix", "attention-mlp", "block"];
    /// Each linear for itself.
    pub const MATRIX: Self = Self::Named(NamedWindow::Matrix);
    /// Attention and feed-forward layer apart.
    pub const ATTENTION_MLP: Self = Self::Named(NamedWindow::AttentionMlp);
    /// A block.
    pub const BLOCK: Self = Self::Named(NamedWindow::Block);

    /// One block has a name.
    fn canonical(self) -> Self {
        if self == Self::Blocks(1) { Self::BLOCK } else { self }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Window::Named(name) => f.write_str(Self::NAMES[*name as usize]),
            Window::Blocks(count) => write!(f, "{count} blocks"),
        }
    }
}

/// What enters a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowInputs {
    /// What enters it in the dense model.
    #[default]
    Dense,
    /// What enters it in the model as earlier steps, and earlier windows, have left it.
    Changed,
}

/// What is to leave a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowTargets {
    /// What leaves it in the dense model.
    #[default]
    Dense,
    /// What the dense model's weights make of the window's own inputs.
    Window,
}

/// What a stage of this kind is told of its training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WindowTraining {
    /// What trains.
    pub train: Trained,
    /// What is trained together.
    pub window: Window,
    /// What enters a window.
    pub inputs: WindowInputs,
    /// What is to leave it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub targets: WindowTargets,
    /// Rank of updates of low rank; null for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Factor on such an update; null for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Samples of a step.
    pub batch: u32,
    /// How often every sample is seen.
    pub passes: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises.
    pub warmup: f64,
    /// Weight of the mean cosine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cosine: f64,
}

impl ReconstructConfig {
    /// The settings of one tower.
    pub fn tower(&self, tower: Tower) -> TowerReconstruct {
        match tower {
            Tower::Vision => self.vision,
            Tower::Connector => self.connector,
            Tower::Language => self.language,
        }
    }

    /// What a stage is told.
    pub fn training(&self) -> WindowTraining {
        let low_rank = self.train.update().is_some();
        WindowTraining {
            train: self.train,
            window: self.window,
            inputs: self.inputs,
            targets: self.targets,
            rank: low_rank.then_some(self.rank),
            scale: (low_rank && self.train != Trained::ScaleLora).then_some(self.scale),
            batch: self.batch,
            passes: self.passes,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            cosine: self.cosine,
        }
    }

    /// The samples of a tower: images that are looked at once, or texts about fewer images.
    pub fn calibration(&self, tower: Tower) -> CalibrationConfig {
        let questions = if tower == Tower::Vision { 0 } else { self.questions };
        CalibrationConfig {
            images: self.samples.div_ceil(questions.saturating_add(1)),
            questions,
            captions: 1,
            propagate: Propagate::Dense,
            tokens: TokenConfig::default(),
        }
    }

    /// The same with what it cannot see made neutral.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let neutral = Self::default();
        if self.train == Trained::None {
            return Self { train: Trained::None, ..neutral };
        }
        let low_rank = self.train.update().is_some();
        Self {
            window: self.window.canonical(),
            targets: if self.inputs == WindowInputs::Dense { neutral.targets } else { self.targets },
            rank: if low_rank { self.rank } else { neutral.rank },
            scale: if low_rank && self.train != Trained::ScaleLora { self.scale } else { neutral.scale },
            ..self.clone()
        }
    }
}
