//! What a training learns from: a teacher of another folder, and hidden states of the language model's blocks.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use ressa_checkpoint::read_config;
use ressa_data::reads_otherwise;
use ressa_experiment::{Stage, Tower, stage::AdaptTraining};
use ressa_predict::Model;
use ressa_store::Store;
use ressa_sweep::GraphStage;

use super::Preflight;

/// The blocks of a language model, by the modules that number them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// All blocks.
    pub blocks: usize,
    /// Those of an encoder for the prompt, which come first; 0 where there is none.
    pub encoder: usize,
}

impl Depth {
    /// From the module paths of the language model's layers.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let block = |name: &'a str| {
            let end = name.split('.').scan(0, |end, module| {
                *end += module.len() + 1;
                Some((*end, module.bytes().all(|byte| byte.is_ascii_digit())))
            });
            end.into_iter().find_map(|(end, is_number)| is_number.then(|| &name[..end - 1]))
        };
        let blocks: BTreeSet<&str> = names.filter_map(block).collect();
        let encoder = blocks.iter().filter(|block| block.contains(".encoder.")).count();
        Self { blocks: blocks.len(), encoder }
    }

    /// What hidden states cannot be compared.
    pub fn look(self, training: &AdaptTraining, found: &mut Preflight) {
        let Some(distill) = training.distill.as_ref().filter(|distill| distill.compares_states()) else { return };
        let (setting, hidden) = ("restore.distill.hidden.layers", &distill.hidden);
        let last = vec![self.blocks.saturating_sub(1) as u32];
        let layers = if hidden.layers.is_empty() { &last } else { &hidden.layers };
        for &layer in layers {
            let block = layer as usize;
            if block >= self.blocks {
                let blocks = self.blocks;
                found.problem(
                    setting,
                    format!("there is no block {layer}: the language model has {blocks}, counted from 0"),
                );
                continue;
            }
            let (tokens, weight) = match self.encoder {
                0 => ("image, text and answer", hidden.image + hidden.text + hidden.answer),
                encoder if block < encoder => ("image and text", hidden.image + hidden.text),
                _ => ("answer", hidden.answer),
            };
            if weight <= 0.0 {
                let what = format!(
                    "block {layer} is compared on no token: what leaves it is {tokens}, which weighs 0; name another block or raise the weight"
                );
                found.problem(setting, what);
            }
        }
    }
}

/// What teachers read otherwise than their students, by both folders: vocabularies are large, and an experiment has many trainings.
pub(super) type Compared = HashMap<(PathBuf, PathBuf), Option<String>>;

/// Whether a teacher of another folder can be given what its student reads.
pub(super) fn teacher(
    training: &AdaptTraining,
    dense: &GraphStage,
    (store, root): (&Store, &Path),
    known: &mut Compared,
    found: &mut Preflight,
) {
    let Some(folder) = training.distill.as_ref().and_then(|distill| distill.teacher.as_ref()) else { return };
    let student = match &*dense.node.stage {
        Stage::Dense { checkpoint: Some(folder), .. } => root.join(folder),
        _ => match store.entry(&dense.node.key.hex()) {
            Ok(Some(entry)) => entry.folder().join("model"),
            // It is yet to be trained.
            _ => return,
        },
    };
    let teacher = root.join(folder);
    // What cannot be read is said where files are looked for.
    if !teacher.is_dir() {
        return;
    }
    let compare = || reads_otherwise(&student, &teacher).ok().flatten();
    if let Some(what) = known.entry((student.clone(), teacher.clone())).or_insert_with(compare) {
        let what = format!(
            "`{}` reads otherwise than the model that it teaches: {what}; choose a teacher with the same tokenizer and image preprocessing",
            folder.display()
        );
        found.problem("restore.distill.teacher", what);
    }
    if training.distill.as_ref().is_some_and(|distill| distill.compares_attention())
        && let (Some(own), Some(other)) = (heads(&student), heads(&teacher))
        && own != other
    {
        let what = format!(
            "attention is compared head by head, and the language model of `{}` has {} in the stacks of its blocks, this one {}; compare hidden states (`restore.distill.hidden`) instead",
            folder.display(),
            listed(&other),
            listed(&own)
        );
        found.problem("restore.distill.attention.weight", what);
    }
}

/// Query heads of each stack of a folder's language model, where its configuration says so.
fn heads(folder: &Path) -> Option<Vec<u64>> {
    let model = Model::of(&read_config(folder).ok()?).ok()?;
    let stacks = model.stacks.iter().filter(|stack| stack.kind.tower() == Tower::Language);
    Some(stacks.map(|stack| stack.heads as u64).collect())
}

/// `8 heads`, or `8 and 8 heads`.
fn listed(heads: &[u64]) -> String {
    let numbers: Vec<String> = heads.iter().map(u64::to_string).collect();
    format!("{} heads", numbers.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_by_their_paths() {
        let t5 =
            ["language_model.encoder.block.0.layer.0.SelfAttention.q", "language_model.encoder.block.0.layer.1.wo"];
        let decoder = ["language_model.decoder.block.0.layer.0.SelfAttention.q", "language_model.decoder.block.1.x.q"];
        assert_eq!(Depth::of(t5.into_iter().chain(decoder)), Depth { blocks: 3, encoder: 1 });
        let llama = ["model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.1.mlp.up_proj"];
        assert_eq!(Depth::of(llama.into_iter()), Depth { blocks: 2, encoder: 0 });
    }
}
