//! VQAv2, OK-VQA and GQA, in the form of the LAVIS distribution or as their authors publish them.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use ressa_experiment::Task;

use super::{
    GQA_IMAGES, GQA_QUESTIONS, Images, OKVQA_ANNOTATIONS, OKVQA_QUESTIONS, VQAV2_ANNOTATIONS, VQAV2_QUESTIONS,
    not_empty,
};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Next, Place, each},
    json::Top,
};

/// Questions in one file, ten answers each in the official annotations. The kind of a question is its official answer type.
pub(super) fn vqa(root: &Path, task: Task, items: usize) -> Result<Benchmark, DataError> {
    let (questions, answers) = match task {
        Task::Okvqa => (OKVQA_QUESTIONS, OKVQA_ANNOTATIONS),
        _ => (VQAV2_QUESTIONS, VQAV2_ANNOTATIONS),
    };
    let (questions, annotations) = (root.join(questions), root.join(answers));
    let (images, mut entries) = asked(&questions, &root.join("coco/images"), items)?;
    let places: HashMap<&str, usize> = entries.iter().enumerate().map(|(at, item)| (item.id.as_str(), at)).collect();
    let mut found: Vec<Option<(Vec<String>, Option<String>)>> = vec![None; entries.len()];
    each(&annotations, Place::Under("annotations"), &|_| true, &mut |entry| {
        let id = entry.id("question_id")?;
        let Some(&at) = places.get(id.as_str()) else { return Ok(Next::More) };
        let given = entry.texts_within("answers", "answer")?;
        let kind = match entry.get("answer_type") {
            Some(_) => Some(part_name(entry.text("answer_type")?)),
            None => None,
        };
        let before = found[at].get_or_insert_with(|| (given.clone(), kind.clone()));
        if *before != (given, kind) {
            return Err(entry.error(format!("question `{id}` was there before, with other answers")));
        }
        Ok(Next::More)
    })?;
    for (item, found) in entries.iter_mut().zip(found) {
        let Some((given, kind)) = found else {
            let reason = format!(
                "it has no answers to question `{}` of `{}`; both files must be of one split, in LAVIS' or in the official form",
                item.id,
                questions.display()
            );
            return Err(DataError::Unfit { path: annotations, reason });
        };
        if let Content::Question { answers, template, .. } = &mut item.content {
            (*answers, *template) = (given, kind);
        }
    }
    Ok(Benchmark::on_disk(task, images.paths, entries))
}

/// The first `items` questions, still without answers.
fn asked(path: &Path, folder: &Path, items: usize) -> Result<(Images, Vec<Item>), DataError> {
    let top = Top::of(path)?;
    let official = top.has_list("questions");
    let place = match (&top, official) {
        (Top::List, _) => Place::Whole,
        (_, true) => Place::Under("questions"),
        _ => {
            let expected = "LAVIS' list of questions (`image`, `question`, `question_id`), or the official object with a list `questions`";
            return Err(DataError::Form { path: path.to_owned(), found: top.to_string(), expected });
        }
    };
    // The official files name images by number; the split says the folder and the rest of the name.
    let split = match (official, top.text("data_subtype")) {
        (true, None) => {
            let reason = "it has a list `questions`, as in the official form, but no text `data_subtype`, the folder of its images";
            return Err(DataError::Unfit { path: path.to_owned(), reason: reason.to_owned() });
        }
        (_, split) => split.unwrap_or_default(),
    };
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    each(path, place, &|_| true, &mut |entry| {
        let id = entry.id("question_id")?;
        if !seen.insert(id.clone()) {
            return Err(entry.error(format!("question `{id}` was there before")));
        }
        let image = if official {
            let number = entry.id("image_id")?;
            entry.file("image_id", folder, &format!("{split}/COCO_{split}_{number:0>12}.jpg"))?
        } else {
            entry.image(folder)?
        };
        entries.push(Item {
            id,
            image: images.index(image),
            content: Content::Question {
                text: entry.text("question")?.to_owned(),
                answers: Vec::new(),
                template: None,
            },
        });
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(path, &entries)?;
    if official {
        images.expect_first(path, "`data_subtype` and `image_id`")?;
    }
    Ok((images, entries))
}

/// A kind of question as a part's name: `yes/no` becomes `yes-no`.
pub(super) fn part_name(text: &str) -> String {
    text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// The balanced test-dev questions, one answer each: LAVIS' list, or the official object whose names are the questions' ids.
pub(super) fn gqa(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(GQA_QUESTIONS);
    let folder = root.join(GQA_IMAGES);
    let top = Top::of(&path)?;
    let official = top.maps_to("question");
    let place = match (&top, official) {
        (Top::List, _) => Place::Whole,
        (_, true) => Place::Named("question_id"),
        _ => {
            let expected = "LAVIS' list of questions (`image`, `question`, `answer`, `question_id`), or the official object from ids to questions (`imageId`, `question`, `answer`)";
            return Err(DataError::Form { path, found: top.to_string(), expected });
        }
    };
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    each(&path, place, &|_| true, &mut |entry| {
        let id = entry.id("question_id")?;
        if !seen.insert(id.clone()) {
            return Err(entry.error(format!("question `{id}` was there before")));
        }
        let image = if official {
            entry.file("imageId", &folder, &format!("{}.jpg", entry.id("imageId")?))?
        } else {
            entry.image(&folder)?
        };
        entries.push(Item {
            id,
            image: images.index(image),
            content: Content::Question {
                text: entry.text("question")?.to_owned(),
                answers: vec![entry.text("answer")?.to_owned()],
                template: None,
            },
        });
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&path, &entries)?;
    if official {
        images.expect_first(&path, "`imageId`")?;
    }
    Ok(Benchmark::on_disk(Task::Gqa, images.paths, entries))
}
