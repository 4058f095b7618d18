//! The values that tables, figures and claims can ask for, by name.
//!
//! | name | meaning |
//! | --- | --- |
//! | `average` | mean of the five task columns of the paper |
//! | `paper-average` | the paper's mean of seven: VQAv2, OK-VQA, GQA, NoCaps CIDEr and SPICE, Flickr30k text and image recall at 1 |
//! | `vqa-mean` | mean of the three question-answering columns |
//! | `vqav2`, `gqa`, ..., `mme`, `perplexity` | the column of one task |
//! | `gqa/where-row`, ... | a part of a task's score: a question template, a caption set, a direction of retrieval |
//! | `sparsity`, `sparsity-vision`, ... | certified fraction of zeros, over all pruned towers or in one tower |
//! | `density`, `density-vision`, ... | 1 minus sparsity |
//! | `target-sparsity`, `target-sparsity-vision`, ... | the fraction that was asked for |
//! | `revived` | certified number of pruned positions that hold a value again |
//! | `group-violations` | certified number of N:M groups that keep more than the pattern allows |
//! | `seconds` | wall seconds of the stages that made the model from the dense one, as they were when they ran; what stages share counts fully |
//! | `parameters` | parameters of the last training |
//!
//! This module names and checks; the report computes.

use std::{fmt, str::FromStr};

use crate::{Task, Tower};

/// A value of a cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Mean of the five task columns of the paper, in points.
    Average,
    /// Mean of the seven numbers of the tables that the paper's averages follow (ECoFLaP's): it needs SPICE, which an external scorer computes.
    PaperAverage,
    /// Mean of the three question-answering columns, in points: what the paper's allocation and tower figures fit.
    VqaMean,
    /// The column of one task, in points.
    Task(Task),
    /// A part of a task's score, in points.
    Part(Task, String),
    /// Certified fraction of zeros: of one tower, or of all towers with a budget together.
    Sparsity(Option<Tower>),
    /// 1 minus [`Value::Sparsity`].
    Density(Option<Tower>),
    /// The sparsity that was asked for: of one tower, or the mean of towers with a budget weighted by their weights.
    TargetSparsity(Option<Tower>),
    /// Pruned positions that hold a value again, summed over the certificate.
    Revived,
    /// N:M groups that keep more than the pattern allows, summed over the certificate.
    GroupViolations,
    /// Wall seconds of the stages that made the model from the dense one, as they were when they ran. Not the same on every machine: only in records that
    /// ask for it.
    Seconds,
    /// Parameters of the last training; 0 without one.
    Parameters,
}

/// Parts of the embedded world's task scores; published benchmarks may bring others.
pub const PARTS: [(Task, &[&str]); 5] = [
    (Task::Vqav2, &["color", "shape", "count", "count-color", "exists", "size", "texture"]),
    (Task::Gqa, &["where-row", "where-column", "relation", "object-color", "object-shape"]),
    (Task::Okvqa, &["maker", "food", "home", "mood", "name"]),
    (Task::Nocaps, &["in-domain", "held-out"]),
    (
        Task::Flickr30k,
        &["text-recall@1", "text-recall@5", "text-recall@10", "image-recall@1", "image-recall@5", "image-recall@10"],
    ),
];

impl Value {
    /// What a model took.
    pub const COSTS: [Value; 2] = [Value::Seconds, Value::Parameters];

    /// Every name without costs and parts, in the order they are listed to people: what every record has.
    pub fn names() -> Vec<String> {
        let towers = || Tower::ALL.into_iter().map(Some);
        let mut values = vec![Value::Average, Value::PaperAverage, Value::VqaMean];
        values.extend(Task::ALL.map(Value::Task));
        for family in [Value::Sparsity, Value::Density, Value::TargetSparsity] {
            values.push(family(None));
            values.extend(towers().map(family));
        }
        values.extend([Value::Revived, Value::GroupViolations]);
        values.iter().map(Value::to_string).collect()
    }

    /// Every name with costs and the parts that the embedded world has.
    pub fn names_with_parts() -> Vec<String> {
        let parts = PARTS.iter().flat_map(|(task, parts)| parts.iter().map(move |part| format!("{task}/{part}")));
        let costs = Value::COSTS.map(|cost| cost.to_string());
        Value::names().into_iter().chain(costs).chain(parts).collect()
    }

    /// Tasks that must be evaluated for the value to exist.
    pub fn tasks(&self) -> &[Task] {
        match self {
            Value::Average | Value::PaperAverage => &Task::PAPER,
            Value::VqaMean => &Task::QUESTIONS,
            Value::Task(task) | Value::Part(task, _) => std::slice::from_ref(task),
            _ => &[],
        }
    }

    /// Scores whose mean the value is: columns of tasks, or parts of them. None for what is certified.
    pub fn members(&self) -> Vec<Value> {
        let part = |task, part: &str| Value::Part(task, part.to_owned());
        match self {
            Value::Average => Task::PAPER.map(Value::Task).to_vec(),
            Value::VqaMean => Task::QUESTIONS.map(Value::Task).to_vec(),
            Value::PaperAverage => vec![
                Value::Task(Task::Vqav2),
                Value::Task(Task::Okvqa),
                Value::Task(Task::Gqa),
                Value::Task(Task::Nocaps),
                part(Task::Nocaps, "spice"),
                part(Task::Flickr30k, "text-recall@1"),
                part(Task::Flickr30k, "image-recall@1"),
            ],
            Value::Task(_) | Value::Part(..) => vec![self.clone()],
            _ => Vec::new(),
        }
    }

    /// Whether the value says what a model took rather than what it is.
    pub fn is_cost(&self) -> bool {
        Value::COSTS.contains(self)
    }

    /// Whether the value comes from a certificate, or another record of how a model was made, rather than from an evaluation.
    pub fn is_certified(&self) -> bool {
        self.tasks().is_empty()
    }

    /// Whether less is better.
    pub fn lower_is_better(&self) -> bool {
        match self {
            Value::Task(task) | Value::Part(task, _) => task.facts().lower_is_better,
            Value::Density(_) | Value::Revived | Value::GroupViolations => true,
            _ => self.is_cost(),
        }
    }

    /// Text for an axis or a column head.
    pub fn title(&self) -> String {
        let of = |name: &str, tower: &Option<Tower>| match tower {
            Some(tower) => format!("{name} ({tower})"),
            None => name.to_owned(),
        };
        match self {
            Value::Average => "Average".to_owned(),
            Value::PaperAverage => "Average of 7".to_owned(),
            Value::VqaMean => "VQA mean".to_owned(),
            Value::Task(task) => task.title().to_owned(),
            Value::Part(task, part) => format!("{}: {}", task.title(), part.replace('-', " ")),
            Value::Sparsity(tower) => of("Sparsity", tower),
            Value::Density(tower) => of("Density", tower),
            Value::TargetSparsity(tower) => of("Target sparsity", tower),
            Value::Revived => "Revived weights".to_owned(),
            Value::GroupViolations => "N:M violations".to_owned(),
            Value::Seconds => "Seconds".to_owned(),
            Value::Parameters => "Trained parameters".to_owned(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, name: &str, tower: &Option<Tower>| match tower {
            Some(tower) => write!(f, "{name}-{tower}"),
            None => f.write_str(name),
        };
        match self {
            Value::Average => f.write_str("average"),
            Value::PaperAverage => f.write_str("paper-average"),
            Value::VqaMean => f.write_str("vqa-mean"),
            Value::Task(task) => write!(f, "{task}"),
            Value::Part(task, part) => write!(f, "{task}/{part}"),
            Value::Sparsity(tower) => of(f, "sparsity", tower),
            Value::Density(tower) => of(f, "density", tower),
            Value::TargetSparsity(tower) => of(f, "target-sparsity", tower),
            Value::Revived => f.write_str("revived"),
            Value::GroupViolations => f.write_str("group-violations"),
            Value::Seconds => f.write_str("seconds"),
            Value::Parameters => f.write_str("parameters"),
        }
    }
}

/// A name that is not a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a value that can be shown{}", .near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
pub struct ValueError {
    /// The name.
    pub name: String,
    /// The nearest valid name.
    pub near: Option<String>,
}

impl FromStr for Value {
    type Err = ValueError;

    fn from_str(name: &str) -> Result<Self, ValueError> {
        let wrong = || {
            let names = Value::names_with_parts();
            let near = crate::suggest::nearest(name, names.iter().map(String::as_str)).map(str::to_owned);
            ValueError { name: name.to_owned(), near }
        };
        if let Some(task) = Task::named(name) {
            return Ok(Value::Task(task));
        }
        if let Some((head, part)) = name.split_once('/') {
            let task = Task::named(head).ok_or_else(wrong)?;
            let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '@';
            let near = PARTS.iter().find(|(other, _)| *other == task).and_then(|(_, parts)| {
                let known = parts.contains(&part);
                (!known).then(|| crate::suggest::nearest(part, parts.iter().copied())).flatten()
            });
            // A part close to a known one is a typo; any other may belong to a published benchmark.
            return if part.is_empty() || !part.chars().all(letter) || near.is_some() {
                Err(wrong())
            } else {
                Ok(Value::Part(task, part.to_owned()))
            };
        }
        let tower = |suffix: &str| match suffix.strip_prefix('-') {
            None if suffix.is_empty() => Some(None),
            None => None,
            Some(name) => Tower::named(name).map(Some),
        };
        match name {
            "average" => return Ok(Value::Average),
            "paper-average" => return Ok(Value::PaperAverage),
            "vqa-mean" => return Ok(Value::VqaMean),
            "revived" => return Ok(Value::Revived),
            "group-violations" => return Ok(Value::GroupViolations),
            "seconds" => return Ok(Value::Seconds),
            "parameters" => return Ok(Value::Parameters),
            _ => {}
        }
        type Family = fn(Option<Tower>) -> Value;
        let families: [(&str, Family); 3] =
            [("target-sparsity", Value::TargetSparsity), ("sparsity", Value::Sparsity), ("density", Value::Density)];
        families.iter().find_map(|(head, family)| name.strip_prefix(head).and_then(tower).map(family)).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_itself() {
        for name in Value::names_with_parts() {
            assert_eq!(name.parse::<Value>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn wrong_names_come_with_the_nearest() {
        for (wrong, near) in [
            ("averge", Some("average")),
            ("gqa/where-rows", Some("gqa/where-row")),
            ("sparsity-langauge", Some("sparsity-language")),
            ("happiness", None),
        ] {
            assert_eq!(wrong.parse::<Value>().unwrap_err().near.as_deref(), near, "{wrong}");
        }
        assert!("nocaps/near-domain".parse::<Value>().is_ok(), "published benchmarks have other parts");
    }
}
