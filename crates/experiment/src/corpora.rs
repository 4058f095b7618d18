//! Settings of training data on disk: which caption corpora, and how an image and its caption become a sample.

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
            augment: Augment::None,
        }
    }
}

/// A caption corpus: a list of images with one caption each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corpus {
    /// COCO captions, Karpathy's training split.
    Coco,
    /// Visual Genome region captions.
    Vg,
    /// Conceptual Captions 3M.
    Cc3m,
}

impl Corpus {
    /// The name used in YAML and messages.
    pub fn name(self) -> &'static str {
        match self {
            Corpus::Coco => "coco",
            Corpus::Vg => "vg",
            Corpus::Cc3m => "cc3m",
        }
    }
}

impl std::str::FromStr for Corpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Corpus::Coco, Corpus::Vg, Corpus::Cc3m];
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
