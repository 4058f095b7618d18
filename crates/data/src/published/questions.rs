//! VQAv2, OK-VQA and GQA.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    path::Path,
};

use ressa_experiment::Task;

use super::{
    GQA_IMAGES, GQA_QUESTIONS, Images, OKVQA_ANNOTATIONS, OKVQA_QUESTIONS, VQAV2_ANNOTATIONS, VQAV2_QUESTIONS,
    not_empty,
};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Next, each},
};

/// Questions in one file, ten answers each in the official annotations. The kind of a question is its official answer type.
pub(super) fn vqa(root: &Path, task: Task, items: usize) -> Result<Benchmark, DataError> {
    let (questions, answers) = match task {
        Task::Okvqa => (OKVQA_QUESTIONS, OKVQA_ANNOTATIONS),
        _ => (VQAV2_QUESTIONS, VQAV2_ANNOTATIONS),
    };
    let (questions, annotations) = (root.join(questions), root.join(answers));
    let folder = root.join("coco/images");
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    each(&questions, None, &|_| true, &mut |entry| {
        let id = entry.id("question_id")?;
        match open.entry(id.clone()) {
            Slot::Occupied(_) => return Err(entry.error(format!("question `{id}` was there before"))),
            Slot::Vacant(slot) => slot.insert(entries.len()),
        };
        entries.push(Item {
            id,
            image: images.index(entry.image(&folder)?),
            content: Content::Question {
                text: entry.text("question")?.to_owned(),
                answers: Vec::new(),
                template: None,
            },
        });
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&questions, &entries)?;
    each(&annotations, Some("annotations"), &|_| true, &mut |entry| {
        let Some(at) = open.remove(&entry.id("question_id")?) else { return Ok(Next::More) };
        let given = entry.texts_within("answers", "answer")?;
        let kind = match entry.get("answer_type") {
            Some(_) => Some(part_name(entry.text("answer_type")?)),
            None => None,
        };
        if let Content::Question { answers, template, .. } = &mut entries[at].content {
            (*answers, *template) = (given, kind);
        }
        Ok(if open.is_empty() { Next::Enough } else { Next::More })
    })?;
    if let Some(id) = open.keys().min() {
        let reason = format!("it has no answers to question `{id}` of `{}`", questions.display());
        return Err(DataError::Unfit { path: annotations, reason });
    }
    Ok(Benchmark::on_disk(task, images.paths, entries))
}

/// A kind of question as a part's name: `yes/no` becomes `yes-no`.
fn part_name(text: &str) -> String {
    text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// LAVIS' list form of the balanced test-dev questions: one answer each.
pub(super) fn gqa(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(GQA_QUESTIONS);
    let folder = root.join(GQA_IMAGES);
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut seen = HashMap::new();
    each(&path, None, &|_| true, &mut |entry| {
        let id = entry.id("question_id")?;
        if seen.insert(id.clone(), ()).is_some() {
            return Err(entry.error(format!("question `{id}` was there before")));
        }
        entries.push(Item {
            id,
            image: images.index(entry.image(&folder)?),
            content: Content::Question {
                text: entry.text("question")?.to_owned(),
                answers: vec![entry.text("answer")?.to_owned()],
                template: None,
            },
        });
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&path, &entries)?;
    Ok(Benchmark::on_disk(Task::Gqa, images.paths, entries))
}
