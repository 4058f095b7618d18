//! Settings of training data on disk: which corpora, and how an image and its caption or question become a sample.

use serde::{Deserialize, Serialize};

/// Caption corpora under `data.root` and what is made of their entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CorporaConfig {
    /// Corpora to draw from, samples split evenly.
    pub corpora: Vec<Corpus>,
    /// What the model reads and what it is to write.
    pub form: SampleForm,
    /// Instructions of `form: instruct`; each sample draws one.
    pub instructions: Vec<String>,
    /// What the model reads of a corpus of questions; `{}` stands for the question. Null means the question alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What happens to an image before the model's own preprocessing.
    pub augment: Augment,
}

impl CorporaConfig {
    /// Whether nothing is set, as in the embedded world.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for CorporaConfig {
    fn default() -> Self {
        Self {
            corpora: Vec::new(),
            form: SampleForm::Instruct,
            instructions: vec!["A short image caption.".to_owned()],
            question: None,
            augment: Augment::None,
        }
    }
}

/// A corpus: a list of images with one caption each, or with a question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corpus {
    /// COCO captions, Karpathy's training split.
    Coco,
    /// Visual Genome region captions.
    Vg,
    /// Conceptual Captions 3M.
    Cc3m,
    /// easy-VQA's training questions.
    EasyVqa,
    /// Questions and captions of the embedded world, written as files (`ressa data --write`).
    Shapes,
}

impl Corpus {
    /// All corpora.
    pub const ALL: [Corpus; 5] = [Corpus::Coco, Corpus::Vg, Corpus::Cc3m, Corpus::EasyVqa, Corpus::Shapes];

    /// Whether its entries are questions with an answer instead of captions.
    pub fn asks(self) -> bool {
        matches!(self, Corpus::EasyVqa | Corpus::Shapes)
    }

    /// The name used in YAML and messages.
    pub fn name(self) -> &'static str {
        match self {
            Corpus::Coco => "coco",
            Corpus::Vg => "vg",
            Corpus::Cc3m => "cc3m",
            Corpus::EasyVqa => "easy-vqa",
            Corpus::Shapes => "shapes",
        }
    }
}

impl std::str::FromStr for Corpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Corpus::ALL;
        let names = || all.map(Corpus::name).join(", ");
        all.into_iter()
            .find(|corpus| corpus.name() == text)
            .ok_or_else(|| format!("`{text}` is not one of {}", names()))
    }
}

/// What a captioned image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleForm {
    /// The beginning of the caption is read, the rest is written: cut at a random character of the first half, as in ECoFLaP.
    Prefix,
    /// An instruction is read, the caption is written.
    Instruct,
}

/// Random changes of a training image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// None: the image as evaluation sees it.
    None,
    /// A random part of 50 to 100 % of the area, stretched to the model's size, mirrored every other time (LAVIS' `blip2_image_train`).
    Crop,
}
