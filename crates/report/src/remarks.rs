//! What a reader of numbers must know about them beyond their labels: the members of a mean, the unit of captions, what is undefined, what
//! was smaller than asked for.

use std::collections::BTreeSet;

use ressa_experiment::{Task, value::Value};

use crate::measure::Provenance;

/// Remarks on values, by name, of which each is made once.
pub fn on<'a>(values: impl Iterator<Item = &'a str>, found: &Provenance) -> Vec<String> {
    let values: Vec<Value> = values.filter_map(|value| value.parse().ok()).collect();
    let mut remarks = Vec::new();
    let mut seen = BTreeSet::new();
    for value in &values {
        let members = value.members();
        if members.len() > 1 && seen.insert(value) {
            let names: Vec<String> = members.iter().map(|member| name(member, found)).collect();
            remarks.push(format!("{}: mean of {}.", value.title(), names.join(", ")));
        }
    }
    let scores: BTreeSet<Task> = values.iter().flat_map(Value::tasks).copied().collect();
    let evaluated = |task| found.metrics.get(&task).into_iter().flatten();
    if scores.contains(&Task::Nocaps) {
        remarks
            .extend(evaluated(Task::Nocaps).filter_map(|metric| unit(metric)).map(|unit| format!("NoCaps: {unit}.")));
    }
    for task in &scores {
        let (facts, title) = (task.facts(), task.title());
        if facts.lower_is_better {
            remarks.push(format!("{title}: less is better."));
        }
        remarks.extend(facts.ceiling.filter(|most| *most > 100.0).map(|most| format!("{title}: at most {most}.")));
    }
    for (task, why) in found.undefined.iter().filter(|(task, _)| scores.contains(task)) {
        let title = Value::Task(*task).title();
        remarks.push(format!("{title}: not defined where it is missing, and so are means with it: {why}."));
    }
    let fewer = found.fewer.iter().filter(|(task, ..)| scores.contains(task));
    let fewer: Vec<String> =
        fewer.map(|(task, items, asked)| format!("{} {items} of {asked}", Value::Task(*task).title())).collect();
    if !fewer.is_empty() {
        remarks
            .push(format!("Benchmarks with fewer items than asked for, of which all were used: {}.", fewer.join(", ")));
    }
    remarks.extend(found.calibrations.iter().map(|short| format!("Calibrated on {short}.")));
    remarks
}

/// A member of a mean; captions by what is computed of them.
fn name(member: &Value, found: &Provenance) -> String {
    let is = |metric: &str| found.metrics.get(&Task::Nocaps).is_some_and(|metrics| metrics.contains(metric));
    match member {
        Value::Task(Task::Nocaps) if is("cider") => "NoCaps CIDEr".to_owned(),
        Value::Task(Task::Nocaps) if is("cider-d") => "NoCaps CIDEr-D".to_owned(),
        Value::Part(Task::Nocaps, part) if part == "spice" => "NoCaps SPICE".to_owned(),
        other => other.title(),
    }
}

/// The unit of a score of captions.
fn unit(metric: &str) -> Option<&'static str> {
    match metric {
        "cider" => Some("CIDEr as the literature prints it, 100 times what pycocoevalcap returns"),
        "cider-d" => Some("CIDEr-D times 10, at most 100"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ressa_experiment::record::Shortfall;

    use super::*;

    #[test]
    fn means_are_named_by_their_members_and_captions_by_their_unit() {
        let mut found = Provenance::default();
        found.metrics.insert(Task::Nocaps, BTreeSet::from(["cider".to_owned()]));
        found.calibrations.extend(Shortfall::of(12, 128));
        found.fewer.extend([(Task::Gqa, 6, 100), (Task::Nocaps, 12, 5000)]);
        let values = ["average", "vqa-mean", "paper-average", "average"];
        insta::assert_snapshot!(on(values.into_iter(), &found).join("\n"), @r"
        Average: mean of VQAv2, GQA, OK-VQA, NoCaps CIDEr, Flickr30k.
        VQA mean: mean of VQAv2, GQA, OK-VQA.
        Average of 7: mean of VQAv2, OK-VQA, GQA, NoCaps CIDEr, NoCaps SPICE, Flickr30k: text recall@1, Flickr30k: image recall@1.
        NoCaps: CIDEr as the literature prints it, 100 times what pycocoevalcap returns.
        Benchmarks with fewer items than asked for, of which all were used: GQA 6 of 100, NoCaps 12 of 5000.
        Calibrated on 12 images (128 asked for).
        ");
        assert!(on(["gqa", "sparsity"].into_iter(), &Provenance::default()).is_empty());
        found.undefined.insert((Task::Nocaps, "a reason"));
        assert!(on(["nocaps"].into_iter(), &found)[1].ends_with("means with it: a reason."));
    }
}
