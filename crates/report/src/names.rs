//! How labels, axes and values are written for readers.

use ressa_experiment::{Task, percent, value::Value};

/// The reader's name of a label: `ressa` is RESSA, `0.625` on a sparsity axis is 62.5 %. Two labels may have one name; what is shown together
/// is named together, by [`labels`].
pub fn label(axis: &str, label: &str) -> String {
    if axis.ends_with("sparsity")
        && let Ok(fraction) = label.parse::<f64>()
        && (0.0..=1.0).contains(&fraction)
    {
        return format!("{} %", percent(fraction));
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
        "alps" => "ALPS",
        "uniform" => "Uniform",
        "owl" => "OWL",
        "tamp" => "TAMP",
        "losa" => "LoSA",
        "evopress" => "EvoPress",
        "ecoflap" => "ECoFLaP",
        "each" if axis.contains("tower") => "Each tower for itself",
        "joint" if axis.contains("tower") => "Towers together",
        "pruned" => "Pruned",
        "dense" => "Dense",
        "lora" => "LoRA (merged, dense)",
        "lora-remasked" => "LoRA (re-masked)",
        "sparse-lora" => "SparseLoRA",
        "scale-lora" => "ScaleLoRA",
        "spp" => "SPP",
        "spp-lora" => "SPP-LoRA",
        "sparse-lora+distill" => "SparseLoRA + distillation",
        "ressa" => "RESSA",
        "unstructured" => "Unstructured",
        "vision" => "Vision",
        "connector" => "Connector",
        "qformer" => "Q-Former",
        "language" => "Language",
        "both" | "vision+language" => "V + L",
        "shapes-flant5" => "FlanT5 (shapes)",
        "shapes-vicuna" => "Vicuna (shapes)",
        other => return other.to_owned(),
    };
    known.to_owned()
}

/// The readers' names of the labels of one axis that are shown together: labels that would share a name keep their own text.
pub fn labels(axis: &str, labels: &[String]) -> Vec<String> {
    let names = labels.iter().map(|text| label(axis, text)).collect();
    distinct(names, labels)
}

/// The names, or, of those that are not alone with theirs, the exact texts.
fn distinct(mut names: Vec<String>, exact: &[String]) -> Vec<String> {
    // A text that replaces a name may be another's name; every round replaces at least one.
    loop {
        let shared = |at: usize| (0..names.len()).any(|other| names[other] == names[at] && exact[other] != exact[at]);
        let replaced: Vec<usize> = (0..names.len()).filter(|&at| names[at] != exact[at] && shared(at)).collect();
        if replaced.is_empty() {
            return names;
        }
        for at in replaced {
            names[at].clone_from(&exact[at]);
        }
    }
}

/// The readers' names of axes and values that head the columns of one table: those that would share a name say more of their path.
pub fn heads(axes: &[String], values: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let exact: Vec<String> = axes.iter().cloned().chain(values.iter().map(|(_, exact)| exact.clone())).collect();
    let short: Vec<String> =
        axes.iter().map(|name| axis(name)).chain(values.iter().map(|(name, _)| name.clone())).collect();
    let is_alone = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    let longer = |(at, name): (usize, &String)| match axes.get(at).and_then(|path| path.rsplit_once('.')) {
        Some((before, last)) if !is_alone(name) => {
            words(&format!("{} {last}", before.rsplit('.').next().unwrap_or(before)))
        }
        _ => name.clone(),
    };
    let mut names = distinct(short.iter().enumerate().map(longer).collect(), &exact);
    let values = names.split_off(axes.len());
    (names, values)
}

/// The reader's name of an axis: the last part of its path, as words.
pub fn axis(name: &str) -> String {
    let known = match name {
        "prune.metric" => "Pruning",
        "prune.allocation.method" => "Allocation",
        "restore.method" => "Restoration",
        "prune.pattern" => "Pattern",
        "model.channel-spread" => "Planted channel spread",
        "model.preset" => "Model",
        "prune.vision.sparsity" => "Vision sparsity",
        "prune.connector.sparsity" => "Connector sparsity",
        "prune.language.sparsity" => "Language sparsity",
        other => return words(other.rsplit('.').next().unwrap_or(other)),
    };
    known.to_owned()
}

/// A key as words with a capital: `micro-batch` is `Micro batch`.
fn words(key: &str) -> String {
    let words = key.replace(['-', '_'], " ");
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
        Value::Revived | Value::GroupViolations | Value::Parameters => 0,
        Value::Task(Task::Perplexity) => 2,
        // Nats.
        Value::Part(Task::Perplexity, _) => 4,
        _ => 1,
    };
    (value.title(), decimals)
}

/// The reader's name of a column of losses.
pub fn loss(column: &str) -> String {
    if let Some(domain) = column.strip_prefix("weight-") {
        return format!("Weight of {domain}");
    }
    let known = match column {
        "total" => "Loss",
        "questions" => "Loss of answers",
        "captions" => "Loss of captions",
        "contrastive" => "Contrastive loss",
        "distillation" => "Distillation loss",
        other => return words(other),
    };
    known.to_owned()
}

/// What a value cannot exceed: shares of right answers and recalls end at 100 points, fractions at 1; captions' scores and counts have no end, nor
/// have means with a caption's score among them.
pub fn ceiling(name: &str) -> Option<f64> {
    let value = name.parse::<Value>().ok()?;
    match value {
        Value::Sparsity(_) | Value::Density(_) | Value::TargetSparsity(_) => Some(1.0),
        Value::Revived | Value::GroupViolations | Value::Seconds | Value::Parameters => None,
        // Parts of MME's sum have ends of their own.
        Value::Part(Task::Mme, _) => None,
        Value::Task(task) => task.facts().ceiling,
        scores => scores.tasks().iter().all(|task| task.facts().ceiling == Some(100.0)).then_some(100.0),
    }
}

/// A number of a scale in little room: `0.5`, `500`, `20k`, `1.5M`.
pub fn short(number: f64) -> String {
    let (divided, unit) = match number.abs() {
        size if size >= 1e9 => (number / 1e9, "G"),
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e4 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = fixed(divided, 2);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
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
    fn numbers_of_a_scale_are_short() {
        assert_eq!(
            [0.0, 0.25, 500.0, 2000.0, 20_000.0, 1.5e6, 2e9].map(short),
            ["0", "0.25", "500", "2000", "20k", "1.5M", "2G"]
        );
    }

    #[test]
    fn labels_read_like_the_paper() {
        assert_eq!(label("restoration", "lora-remasked"), "LoRA (re-masked)");
        assert_eq!(label("prune.vision.sparsity", "0.7"), "70 %");
        assert_eq!(label("split", "30:70"), "30:70");
        assert_eq!(label("prune.language.sparsity", "0.995"), "99.5 %");
        assert_eq!(axis("calibration.images"), "Images");
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(fixed(-0.06, 1), "-0.1");
    }

    fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(str::to_owned).to_vec()
    }

    #[test]
    fn labels_that_differ_never_share_a_name() {
        assert_eq!(labels("restoration", &texts(["none", "ressa"])), ["Pruned", "RESSA"]);
        assert_eq!(labels("restoration", &texts(["none", "pruned", "ressa"])), ["none", "pruned", "RESSA"]);
        assert_eq!(labels("sparsity", &texts(["0.5", "0.50", "0.6"])), ["0.5", "0.50", "60 %"]);
        assert_eq!(labels("sparsity", &texts(["0.5", "50 %"])), ["0.5", "50 %"]);
        // `Both` keeps a text that another would fall back to.
        assert_eq!(labels("x", &texts(["both", "vision+language", "V + L"])), ["both", "vision+language", "V + L"]);
    }

    #[test]
    fn axes_that_end_alike_have_heads_that_differ() {
        let axes = |names: &[String]| heads(names, &[]).0;
        assert_eq!(axes(&texts(["restore.vision.rank", "restore.language.rank"])), ["Vision rank", "Language rank"]);
        assert_eq!(axes(&texts(["restore.rank", "prune.metric"])), ["Rank", "Pruning"]);
        assert_eq!(axes(&texts(["pruning", "prune.metric"])), ["Pruning", "Prune metric"]);
        assert_eq!(axes(&texts(["a.b.rank", "c.b.rank"])), ["a.b.rank", "c.b.rank"]);
        let (stub, columns) = heads(&texts(["average"]), &[("Average".to_owned(), "average/value".to_owned())]);
        assert_ne!(stub, columns);
    }
}
