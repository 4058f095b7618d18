//! Settings that change what an evaluation asks: captions that are retrieved for an image, questions that are perturbed, copies of a question that are voted
//! on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{config::Corpus, method::is_default};

/// Where a template has the retrieved captions.
pub const CAPTIONS: &str = "{captions}";

/// Captions that are put before a prompt: those of a pool that are nearest to the image (Rao et al., arXiv 2406.19150). The language model reads them;
/// a Q-Former reads the question alone. No caption of an image of the same file name, or number in COCO, is retrieved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RetrievedConfig {
    /// Captions of each image; 0 retrieves none.
    pub captions: u32,
    /// Captions to choose from.
    pub pool: u32,
    /// Caption corpora of the pool (`data.source: folder`), captions split evenly; the embedded world has its training captions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corpora: Vec<Corpus>,
    /// Folder of a BLIP-2 image-text matching model that compares images and captions; null is the evaluated model's own contrastive head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Where captions and prompt go, `{captions}` and `{}`.
    pub template: String,
    /// What stands between two captions; null: a blank in the embedded world, which has no marks, and a full stop with a blank elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
}

impl RetrievedConfig {
    /// Whether captions are retrieved.
    pub fn is_on(&self) -> bool {
        self.captions > 0
    }

    /// A prompt behind the captions of its image, the nearest first; blanks at both ends are left out.
    pub fn prompt(&self, captions: &[impl AsRef<str>], prompt: &str, is_published: bool) -> String {
        let between = self.separator.as_deref().unwrap_or(if is_published { ". " } else { " " });
        let captions: Vec<&str> = captions.iter().map(AsRef::as_ref).collect();
        let captions = captions.join(between);
        // Only the places in the template count; braces in captions and prompts stay what they are.
        let (before, after) = self.template.split_once(CAPTIONS).unwrap_or(("", &self.template));
        let put = |part: &str| part.replacen("{}", prompt, 1);
        format!("{}{captions}{}", put(before), put(after)).trim().to_owned()
    }
}

impl Default for RetrievedConfig {
    fn default() -> Self {
        let template = format!("{CAPTIONS} {{}}");
        Self { captions: 0, pool: 2000, corpora: Vec::new(), checkpoint: None, template, separator: None }
    }
}

/// Questions that are perturbed before they are asked, the same for every model and replicate: what robustness is measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PerturbConfig {
    /// Share of the words of a question that are perturbed; 0 leaves questions as they are. What is perturbed at a rate is so at every higher one.
    pub rate: f64,
    /// What happens to such a word.
    pub kind: Perturbation,
    /// What the words are drawn with.
    pub seed: u64,
}

impl PerturbConfig {
    /// Whether questions are perturbed.
    pub fn is_on(&self) -> bool {
        self.rate > 0.0
    }
}

impl Default for PerturbConfig {
    fn default() -> Self {
        Self { rate: 0.0, kind: Perturbation::Mask, seed: 0 }
    }
}

/// What happens to a perturbed word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Perturbation {
    /// `___` stands in its place.
    #[default]
    Mask,
    /// It is left out.
    Drop,
    /// A word of another question of the benchmark stands in its place.
    Replace,
    /// It changes places with the word behind it, or before it where that one has changed places or is not there. A word changes places once, and stays where
    /// both have.
    Swap,
    /// Two neighbouring letters of it change places; a single letter is doubled.
    Typo,
}

impl Perturbation {
    /// The names used in YAML and tables.
    pub const NAMES: [&str; 5] = ["mask", "drop", "replace", "swap", "typo"];
}

/// Copies of each question with words masked at random, all of which are answered, and a majority vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SmoothingConfig {
    /// What becomes of masked words.
    pub method: SmoothingMethod,
    /// Copies of a question.
    pub copies: u32,
    /// Share of the words of a copy that are masked.
    pub mask: f64,
    /// What the words are drawn with.
    pub seed: u64,
    /// How a decoder-only model is asked to fill a question, `{}` for the question with its masks. A T5 is not asked: it fills sentinels.
    #[serde(skip_serializing_if = "is_default_prompt")]
    pub prompt: String,
}

/// How a decoder-only model is asked where an experiment does not say.
const FILL: &str =
    "Replace each blank (___) in the following question with one suitable word. Write the question alone.\n{}";

fn is_default_prompt(prompt: &str) -> bool {
    prompt == FILL
}

impl SmoothingConfig {
    /// Whether questions are copied.
    pub fn is_on(&self) -> bool {
        self.method != SmoothingMethod::None
    }

    /// How often each question is answered.
    pub fn answers(&self) -> u32 {
        if self.is_on() { self.copies } else { 1 }
    }
}

impl Default for SmoothingConfig {
    fn default() -> Self {
        Self { method: SmoothingMethod::None, copies: 5, mask: 0.3, seed: 0, prompt: FILL.to_owned() }
    }
}

/// What becomes of masked words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmoothingMethod {
    /// No copies: each question is asked once.
    #[default]
    None,
    /// They stay masked (Zeng et al., arXiv 2105.03743).
    Masked,
    /// They are left out, as Ji et al. do where many are masked.
    Removed,
    /// The evaluated model fills them in before it answers (Ji et al., arXiv 2404.12274).
    SelfDenoised,
}

impl SmoothingMethod {
    /// The names used in YAML and tables.
    pub const NAMES: [&str; 4] = ["none", "masked", "removed", "self-denoised"];
}

/// What an evaluation stage asks beyond the task's own questions; every part is absent where it changes nothing of the task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Aids {
    /// Captions before the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieved: Option<RetrievedConfig>,
    /// Perturbed questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perturb: Option<PerturbConfig>,
    /// Copies that are voted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<SmoothingConfig>,
}

impl Aids {
    /// Whether the task is asked as it is.
    pub fn is_none(&self) -> bool {
        is_default(self)
    }

    /// How often each item is answered.
    pub fn answers(&self) -> u32 {
        self.smoothing.as_ref().map_or(1, SmoothingConfig::answers)
    }

    /// Whether the model fills in words before it answers.
    pub fn denoises(&self) -> bool {
        self.smoothing.as_ref().is_some_and(|smoothing| smoothing.method == SmoothingMethod::SelfDenoised)
    }

    /// The checkpoint that captions are retrieved with.
    pub fn checkpoint(&self) -> Option<&PathBuf> {
        self.retrieved.as_ref()?.checkpoint.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_and_prompts_go_where_the_template_says_whatever_is_in_them() {
        let plain = RetrievedConfig::default();
        assert_eq!(plain.prompt(&["a {}", "b"], "what {captions}", false), "a {} b what {captions}");
        assert_eq!(plain.prompt(&["a", "b"], "", true), "a. b");
        let own = RetrievedConfig {
            template: "Q: {} Similar: {captions}!".to_owned(),
            separator: Some("; ".to_owned()),
            ..RetrievedConfig::default()
        };
        assert_eq!(own.prompt(&["a", "b"], "what", true), "Q: what Similar: a; b!");
    }

    #[test]
    fn names_are_those_of_files() {
        let of = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
        let kinds =
            [Perturbation::Mask, Perturbation::Drop, Perturbation::Replace, Perturbation::Swap, Perturbation::Typo];
        assert_eq!(kinds.map(|kind| of(serde_json::json!(kind))), Perturbation::NAMES);
        let methods =
            [SmoothingMethod::None, SmoothingMethod::Masked, SmoothingMethod::Removed, SmoothingMethod::SelfDenoised];
        assert_eq!(methods.map(|method| of(serde_json::json!(method))), SmoothingMethod::NAMES);
    }
}
