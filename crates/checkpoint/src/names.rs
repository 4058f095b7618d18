//! Where a tensor belongs, by its name in a checkpoint: the one rule behind what may be pruned, shared by everything that counts.

use ressa_experiment::Tower;
use serde::Serialize;

/// The projection of images into the space in which they are compared with texts: a model that has it can retrieve.
pub const COMPARES: &str = "vision_projection.weight";

/// A part of a vision-language checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The image encoder.
    Vision,
    /// The Q-Former with its queries and text embeddings.
    Qformer,
    /// What stands between image encoder and language model where that is no Q-Former.
    Connector,
    /// From the Q-Former's width to the language model's.
    Projection,
    /// The language model.
    Language,
    /// Projections and head for image-text matching.
    Retrieval,
    /// Nothing that a published checkpoint has.
    Other,
}

impl Part {
    /// Every part, in the order in which tables show them.
    pub const ALL: [Part; 7] =
        [Part::Vision, Part::Qformer, Part::Connector, Part::Projection, Part::Language, Part::Retrieval, Part::Other];

    /// The name used in tables.
    pub fn name(self) -> &'static str {
        match self {
            Part::Vision => "vision",
            Part::Qformer => "qformer",
            Part::Connector => "connector",
            Part::Projection => "projection",
            Part::Language => "language",
            Part::Retrieval => "retrieval",
            Part::Other => "other",
        }
    }

    /// The part that a tensor belongs to.
    pub fn of(name: &str) -> Part {
        let first = name.split('.').next().unwrap_or_default();
        match first {
            "visual" if name.starts_with("visual.merger.") => Part::Connector,
            "vision_model" | "vision_tower" | "visual" => Part::Vision,
            // `embeddings` at the top is the text input of the Q-Former in image-text matching checkpoints.
            "qformer" | "query_tokens" | "embeddings" => Part::Qformer,
            "multi_modal_projector" | "image_newline" | "connector" => Part::Connector,
            "language_projection" => Part::Projection,
            "language_model" => Part::Language,
            "vision_projection" | "text_projection" | "itm_head" => Part::Retrieval,
            _ => Part::Other,
        }
    }

    /// The tower that the part is, where it is one.
    pub fn tower(self) -> Option<Tower> {
        match self {
            Part::Vision => Some(Tower::Vision),
            Part::Qformer | Part::Connector => Some(Tower::Connector),
            Part::Language => Some(Tower::Language),
            Part::Projection | Part::Retrieval | Part::Other => None,
        }
    }
}

/// The name that the published checkpoints have for a tensor that another program wrote below `model.`, where it wraps the network in a
/// module of that name, or beside it. `None` for every other name: no part is called `model`.
pub(crate) fn canonical(name: &str) -> Option<String> {
    if let Some(head) = name.strip_prefix("lm_head.") {
        return Some(format!("language_model.lm_head.{head}"));
    }
    let inner = name.strip_prefix("model.")?;
    // Newer versions of transformers keep the head beside the model, so the language model's own `model` is gone.
    let headless = |rest: &str| ["layers.", "embed_tokens.", "norm."].iter().any(|part| rest.starts_with(part));
    if let Some(rest) = inner.strip_prefix("language_model.").filter(|rest| headless(rest)) {
        return Some(format!("language_model.model.{rest}"));
    }
    if let Some(rest) = inner.strip_prefix("text_model.") {
        return Some(format!("language_model.model.{rest}"));
    }
    // Qwen-VL's folders of 2024 have them right there.
    if headless(inner) {
        return Some(format!("language_model.model.{inner}"));
    }
    (Part::of(inner) != Part::Other).then(|| inner.to_owned())
}

/// Whether a name is one that a language model in a folder of its own has. Where a folder has only such names, they are the published ones.
pub(crate) fn is_of_text(name: &str) -> bool {
    let inner = name.strip_prefix("model.").map(|inner| inner.strip_prefix("decoder.").unwrap_or(inner));
    name.starts_with("lm_head.") || inner.is_some_and(|inner| Part::of(inner) == Part::Other)
}

/// A block of a stack of equal blocks, such as `vision_model.encoder.layers.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block<'a> {
    /// The stack, such as `vision_model.encoder.layers`.
    pub stack: &'a str,
    /// Number within the stack.
    pub index: usize,
}

/// The block that a tensor is in; none for embeddings, final norms and heads.
pub fn block(name: &str) -> Option<Block<'_>> {
    let mut start = 0;
    for (at, _) in name.match_indices('.') {
        let word = &name[start..at];
        if ["layers", "layer", "block", "blocks"].contains(&word) {
            let index = name[at + 1..].split('.').next()?.parse().ok()?;
            return Some(Block { stack: &name[..at], index });
        }
        start = at + 1;
    }
    None
}

/// Whether a tensor is the weight of a prunable linear: a matrix inside a block of a tower, T5's table of position biases excepted, or one
/// of a connector that has no blocks. [`Part::tower`] says whose.
pub fn is_prunable(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2
        && name.ends_with(".weight")
        && !name.ends_with(".relative_attention_bias.weight")
        && Part::of(name).tower().is_some()
        && (block(name).is_some() || Part::of(name) == Part::Connector)
}

/// The weight of the projection into the language model, beside the Q-Former.
pub const PROJECTION: &str = "language_projection.weight";

/// The learned queries of a Q-Former.
pub const QUERIES: &str = "query_tokens";

/// The tower whose prunable weights a tensor counts among. `projection` says whether the projection was pruned with the connector, as one of its layers.
pub fn counted_in(name: &str, shape: &[usize], projection: bool) -> Option<Tower> {
    match name {
        PROJECTION => projection.then_some(Tower::Connector),
        _ => Part::of(name).tower().filter(|_| is_prunable(name, shape)),
    }
}

/// What a linear does within its block: the last word of its module path, or the last two where that word is only a number.
pub fn role(module: &str) -> &str {
    let (before, last) = module.rsplit_once('.').unwrap_or(("", module));
    match before.rsplit('.').next() {
        Some(word) if !word.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) => {
            &module[module.len() - word.len() - 1 - last.len()..]
        }
        _ => last,
    }
}

/// Why a tensor can be in a checkpoint although the network computes it; copies of other tensors are told by their bytes.
pub fn leftover(name: &str) -> Option<&'static str> {
    if name.starts_with("vision_tower.vision_model.head.") {
        return Some("SigLIP's pooling head, which no image feature goes through");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    match last {
        "mask_token" if Part::of(name) == Part::Vision => {
            Some("DINOv2's token of hidden patches, which its own training reads")
        }
        "position_ids" => Some("a range that the network computes"),
        "inv_freq" => Some("a constant that the network computes"),
        _ => None,
    }
}

/// Tensors that may be copies of the tensor `name`: tied embeddings are written several times by some programs.
pub(crate) fn originals(name: &str) -> &'static [&'static str] {
    match name {
        "language_model.encoder.embed_tokens.weight" | "language_model.decoder.embed_tokens.weight" => {
            &["language_model.shared.weight"]
        }
        "language_model.lm_head.weight" => &[
            "language_model.shared.weight",
            "language_model.model.embed_tokens.weight",
            "language_model.model.decoder.embed_tokens.weight",
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_tensor_belongs() {
        let seen = |name: &str, shape: &[usize]| {
            let block = block(name).map(|b| (b.stack.to_owned(), b.index));
            (Part::of(name), block, is_prunable(name, shape))
        };
        let at = |stack: &str, index| Some((stack.to_owned(), index));
        assert_eq!(
            seen("vision_model.encoder.layers.11.self_attn.qkv.weight", &[9, 3]),
            (Part::Vision, at("vision_model.encoder.layers", 11), true)
        );
        assert_eq!(
            seen("qformer.encoder.layer.0.crossattention.output.dense.weight", &[4, 4]),
            (Part::Qformer, at("qformer.encoder.layer", 0), true)
        );
        // The outer stack counts, and the bias table is no linear although it is a matrix in a block.
        let t5 = "language_model.encoder.block.0.layer.0.SelfAttention";
        assert_eq!(
            seen(&format!("{t5}.relative_attention_bias.weight"), &[32, 4]),
            (Part::Language, at("language_model.encoder.block", 0), false)
        );
        assert!(is_prunable(&format!("{t5}.q.weight"), &[4, 4]));
        assert!(!is_prunable(&format!("{t5}.q.weight"), &[4]));
        assert_eq!(seen("language_model.model.decoder.embed_tokens.weight", &[9, 4]), (Part::Language, None, false));
        assert!(is_prunable("language_model.model.decoder.layers.2.fc1.weight", &[8, 4]));
        assert_eq!(seen("language_projection.weight", &[4, 4]), (Part::Projection, None, false));
        assert_eq!(seen("multi_modal_projector.linear_1.weight", &[8, 4]), (Part::Connector, None, true));
        assert_eq!(seen("itm_head.weight", &[2, 4]), (Part::Retrieval, None, false));
        assert_eq!(canonical("model.vision_model.post_layernorm.bias").unwrap(), "vision_model.post_layernorm.bias");
        assert_eq!(canonical("model.query_tokens").unwrap(), "query_tokens");
        let newer = [
            ("lm_head.weight", "language_model.lm_head.weight"),
            ("model.language_model.layers.3.mlp.up_proj.weight", "language_model.model.layers.3.mlp.up_proj.weight"),
            ("model.vision_tower.vision_model.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
            ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
            ("model.image_newline", "image_newline"),
        ];
        assert!(newer.iter().all(|(written, published)| canonical(written).as_deref() == Some(*published)));
        assert_eq!(canonical("language_model.model.norm.weight"), None);
        // Qwen-VL, in both of its layouts.
        for written in ["visual.merger.mlp.0.weight", "model.visual.merger.mlp.0.weight"] {
            let name = canonical(written).unwrap_or_else(|| written.to_owned());
            assert_eq!(seen(&name, &[8, 8]), (Part::Connector, None, true));
        }
        let qkv = "visual.blocks.3.attn.qkv.weight";
        assert_eq!(seen(qkv, &[9, 3]), (Part::Vision, at("visual.blocks", 3), true));
        assert_eq!(seen("visual.patch_embed.proj.weight", &[9, 3, 2, 4, 4]), (Part::Vision, None, false));
        // Idefics3 and SmolVLM.
        for (written, published) in [
            ("model.text_model.layers.3.mlp.up_proj.weight", "language_model.model.layers.3.mlp.up_proj.weight"),
            ("model.connector.modality_projection.proj.weight", "connector.modality_projection.proj.weight"),
        ] {
            assert_eq!(canonical(written).as_deref(), Some(published));
        }
        assert_eq!(seen("connector.modality_projection.proj.weight", &[4, 8]), (Part::Connector, None, true));
        assert!(is_of_text("model.norm.weight") && is_of_text("lm_head.weight"));
        assert!(!is_of_text("visual.merger.ln_q.weight") && !is_of_text("model.visual.merger.ln_q.weight"));
        for written in ["model.norm.weight", "model.language_model.norm.weight"] {
            assert_eq!(canonical(written).as_deref(), Some("language_model.model.norm.weight"));
        }
        assert_eq!([role("visual.merger.mlp.0"), role("a.b.qkv"), role("qkv")], ["mlp.0", "qkv", "qkv"]);
        assert_eq!(seen("stray.layers.1.weight", &[2, 4]), (Part::Other, at("stray.layers", 1), false));
    }
}
