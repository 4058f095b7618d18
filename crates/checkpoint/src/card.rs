//! The model card of an exported folder: how the weights were made, and what was counted on them.

use std::path::Path;

use ressa_experiment::{json::without_mark, places::without_places, rounded_percent};
use serde::{Deserialize, Serialize};

use crate::{CARD, CERTIFICATE, ContainerClaim, FolderCertificate, carry::is_own, clean, json};

/// How weights were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Making {
    /// The dense model: name of a published checkpoint or of its folder ([`crate::shown_name`]), or a preset.
    pub base: String,
    /// The run: experiment and coordinates.
    pub label: String,
    /// Identity of the run.
    pub run: String,
    /// Stages by what they do, with their keys, in the order they ran.
    pub stages: Vec<(String, String)>,
    /// What was done to the dense model, in words and in order: what, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(String, String)>,
    /// How the pruned model was restored, in words; none where it was not.
    pub restored: Option<String>,
    /// Replicate seed; none where nothing was drawn.
    pub seed: Option<u64>,
    /// Scores of this model.
    pub scores: Vec<CardScore>,
    /// Program, version and source revision.
    pub program: String,
}

/// A score on the card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardScore {
    /// The task.
    pub task: String,
    /// What was computed.
    pub metric: String,
    /// In points.
    pub value: f64,
    /// Standard error over the items.
    pub standard_error: f64,
    /// Items.
    pub items: u64,
}

/// The card's text. `source` is the dense model's folder: its licence and languages, where its own card names them, hold for what was made
/// of it.
pub fn card(name: &str, making: Option<&Making>, certificate: &FolderCertificate, source: &Path) -> String {
    let sparse = certificate.towers.values().any(|tower| tower.zeros * 100 > tower.elements);
    let mut text = String::from("---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n");
    let known = making.and_then(|making| base(making, source));
    if let Some(repository) = &known {
        text += &format!("base_model: \"{repository}\"\n");
    }
    for line in inherited(source) {
        text += &line;
        text.push('\n');
    }
    text += if sparse { "tags:\n- pruned\n- sparse\n- ressa\n" } else { "tags:\n- ressa\n" };
    text += &format!("---\n\n# {name}\n\n");
    match making {
        Some(making) => text += &made(making, known.as_deref().unwrap_or(&making.base)),
        None => text += "The same weights as the folder this was written from.\n",
    }
    text += "\n## Sparsity\n\nCounted on the files of this folder after they were written.\n\n";
    text += "| tower | zero weights | of | sparsity | pattern |\n| --- | ---: | ---: | ---: | --- |\n";
    for (&tower, sums) in &certificate.towers {
        let pattern = certificate.pattern(tower).map_or_else(|| "unstructured".to_owned(), |p| p.to_string());
        let pattern = if sums.zeros * 100 > sums.elements { pattern } else { "dense".to_owned() };
        let share = rounded_percent(sums.sparsity);
        text += &format!("| {tower} | {} | {} | {share} | {pattern} |\n", sums.zeros, sums.elements);
    }
    text += &format!(
        "\n`{CERTIFICATE}` holds the counts and digests of all {} tensors; `ressa verify` on this folder recounts them.\n",
        certificate.tensors.len()
    );
    if let Some(container) = &certificate.container {
        text += &section(container);
    }
    text += &format!("\nWritten by {}.\n", certificate.counted_by);
    without_places(&text)
}

/// Heading of what a card says about packed linears.
const CONTAINER: &str = "## Container";
/// Words by which that is told from what others say below such a heading.
const STORED: &str = "linears are stored without their zeros (`";

/// What a card says about packed linears.
fn section(container: &ContainerClaim) -> String {
    let ContainerClaim { format, packed, linears, bytes, dense_bytes, .. } = container;
    format!(
        "\n{CONTAINER}\n\n{packed} of {linears} {STORED}{format}`, the layout of compressed-tensors): \
         {bytes} bytes of weights, {dense_bytes} when all is dense. `ressa` reads the folder as it is, and \
         `ressa export --model DIR --output NEW` writes it dense; `scripts/read_container.py` of ressa gives the dense tensors to \
         PyTorch.\n"
    )
}

/// A carried card with what holds about packed linears now; `None` where it says that already. What is replaced is our own section alone, the heading
/// and the line below it.
pub(crate) fn with_container(card: &[u8], container: Option<&ContainerClaim>) -> Option<String> {
    let text = std::str::from_utf8(card).ok()?;
    let heading = format!("\n{CONTAINER}\n\n");
    let section = container.map(section).unwrap_or_default();
    let is_ours = |at: &usize| text[at + heading.len()..].lines().next().is_some_and(|line| line.contains(STORED));
    let own = text.match_indices(&heading).map(|(at, _)| at).find(is_ours);
    let new = match own {
        None => format!("{}{section}", text.trim_end_matches('\n').to_owned() + "\n"),
        Some(at) => {
            let paragraph = &text[at + heading.len()..];
            let rest = paragraph.find('\n').map_or("", |end| &paragraph[end + 1..]);
            format!("{}{section}{rest}", &text[..at])
        }
    };
    let changes = container.is_some() || own.is_some();
    (changes && new != text).then_some(new)
}

/// The hub's name of the dense model: its own, that of the snapshot that its folder is, or of the model that the folder's card names. A
/// folder of this machine means nothing to others.
fn base(making: &Making, source: &Path) -> Option<String> {
    let is_name = |name: &str| clean::is_repository(name) && name.contains('/');
    let own = Some(making.base.clone()).filter(|name| is_name(name));
    let named = || {
        let lines = front_matter(source);
        let at = lines.iter().position(|line| line.starts_with("base_model:"))?;
        let value = lines[at].split_once(':')?.1.trim();
        let value = if value.is_empty() { lines.get(at + 1)?.trim().strip_prefix("- ")? } else { value };
        let name = value.trim_matches(['"', '\'', ' ']);
        is_name(name).then(|| name.to_owned())
    };
    own.or_else(|| clean::repository(source)).or_else(named)
}

/// Whether a folder has a card of its own that goes along when it is written again.
pub fn has_card(folder: &Path) -> bool {
    is_own(folder, CARD)
}

fn made(making: &Making, base: &str) -> String {
    let mut text = format!("Made from `{base}` by the run `{}`.\n\n", making.label);
    for (what, how) in &making.steps {
        text += &format!("- {what}: {how}\n");
    }
    if making.restored.is_none() {
        text += "- restoration: none\n";
    }
    if let Some(seed) = making.seed {
        text += &format!("- seed: {seed}\n");
    }
    if !making.scores.is_empty() {
        text +=
            "\n## Scores\n\n| task | score | value | standard error | items |\n| --- | --- | ---: | ---: | ---: |\n";
        for CardScore { task, metric, value, standard_error, items } in &making.scores {
            text += &format!("| {task} | {metric} | {value:.2} | {standard_error:.2} | {items} |\n");
        }
    }
    text += &format!("\n## Stages\n\nRun `{}`.\n\n", making.run);
    for (what, key) in &making.stages {
        text += &format!("- {what}: `{key}`\n");
    }
    text
}

/// Lines of the source card's front matter that hold for every model made of it: single lines, and lists below them.
fn inherited(source: &Path) -> Vec<String> {
    const KEPT: [&str; 4] = ["license", "license_name", "license_link", "language"];
    let mut kept = Vec::new();
    let mut keeps = false;
    for line in front_matter(source) {
        let continues = line.starts_with([' ', '\t', '-']);
        if !continues {
            keeps = line.split_once(':').is_some_and(|(key, _)| KEPT.contains(&key));
        }
        if keeps {
            kept.push(line);
        }
    }
    kept
}

/// The lines between the two `---` at the beginning of a folder's card; none where it has no card of its own.
fn front_matter(source: &Path) -> Vec<String> {
    const LIMIT: u64 = 1 << 20;
    let bytes = if has_card(source) { json::bytes(&source.join(CARD), LIMIT).unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8(without_mark(&bytes).to_vec()).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    lines.take_while(|line| line.trim_end() != "---").map(|line| line.trim_end().to_owned()).collect()
}
