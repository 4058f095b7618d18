//! How labels, axes and values are written for readers.

use ressa_experiment::value::Value;

/// The reader's name of a label: `ressa` is RESSA, `0.5` on a sparsity axis is 50 %.
pub fn label(axis: &str, label: &str) -> String {
    if axis.ends_with("sparsity")
        && let Ok(fraction) = label.parse::<f64>()
        && (0.0..=1.0).contains(&fraction)
    {
        return format!("{} %", fixed(100.0 * fraction, 0));
    }
    let known = match label {
        "none" if axis.starts_with("restor") => "Pruned",
        "none" if axis.ends_with("metric") => "Dense",
        "random" => "Random",
        "magnitude" => "Magnitude",
        "wanda" => "Wanda",
        "ria" => "RIA",
        "sparsegpt" => "SparseGPT",
        "dsnot" => "DSnoT",
        "uniform" => "Uniform",
        "owl" => "OWL",
        "ecoflap" => "ECoFLaP",
        "each" if axis.contains("tower") => "Each tower for itself",
        "joint" if axis.contains("tower") => "Towers together",
        "pruned" => "Pruned",
        "dense" => "Dense",
        "lora" => "LoRA (merged, dense)",
        "lora-remasked" => "LoRA (re-masked)",
        "sparse-lora" => "SparseLoRA",
        "sparse-lora+distill" => "SparseLoRA + distillation",
        "ressa" => "RESSA",
        "unstructured" => "Unstructured",
        "vision" => "Vision",
        "qformer" => "Q-Former",
        "language" => "Language",
        "both" | "vision+language" => "V + L",
        "shapes-flant5" => "FlanT5 (shapes)",
        "shapes-vicuna" => "Vicuna (shapes)",
        other => return other.to_owned(),
    };
    known.to_owned()
}

/// The reader's name of an axis: the last part of its path, as words.
pub fn axis(name: &str) -> String {
    let words = match name {
        "prune.metric" => "Pruning".to_owned(),
        "prune.allocation.method" => "Allocation".to_owned(),
        "restore.method" => "Restoration".to_owned(),
        "prune.pattern" => "Pattern".to_owned(),
        "model.channel-spread" => "Planted channel spread".to_owned(),
        "model.preset" => "Model".to_owned(),
        "prune.vision.sparsity" => "Vision sparsity".to_owned(),
        "prune.language.sparsity" => "Language sparsity".to_owned(),
        other => other.rsplit('.').next().unwrap_or(other).replace(['-', '_'], " "),
    };
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

/// The reader's name of a value, and its decimals: points have one, fractions three, counts none.
pub fn value(name: &str) -> (String, usize) {
    let Ok(value) = name.parse::<Value>() else { return (name.to_owned(), 1) };
    let decimals = match value {
        Value::Sparsity(_) | Value::Density(_) | Value::TargetSparsity(_) => 3,
        Value::Revived | Value::GroupViolations => 0,
        _ => 1,
    };
    (value.title(), decimals)
}

/// A number with fixed decimals; never `-0.0`.
pub fn fixed(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_like_the_paper() {
        assert_eq!(label("restoration", "lora-remasked"), "LoRA (re-masked)");
        assert_eq!(label("prune.vision.sparsity", "0.7"), "70 %");
        assert_eq!(label("split", "30:70"), "30:70");
        assert_eq!(axis("calibration.images"), "Images");
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(fixed(-0.06, 1), "-0.1");
    }
}
