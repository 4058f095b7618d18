//! TextVQA, VizWiz and POPE from the files of their authors.

use std::{collections::HashSet, path::Path};

use ressa_experiment::Task;

use super::{
    COCO_VAL, Images, POPE_SPLITS, TEXTVQA_IMAGES, TEXTVQA_QUESTIONS, VIZWIZ_IMAGES, VIZWIZ_QUESTIONS, not_empty,
    questions::part_name,
};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Entry, Next, Place, each},
};

/// Questions with their answers, as they are collected.
#[derive(Default)]
struct Questions {
    images: Images,
    items: Vec<Item>,
    seen: HashSet<String>,
}

impl Questions {
    fn add(
        &mut self,
        entry: &Entry<'_>,
        id: String,
        image: std::path::PathBuf,
        (text, answers, template): (String, Vec<String>, Option<String>),
    ) -> Result<(), DataError> {
        if !self.seen.insert(id.clone()) {
            return Err(entry.error(format!("question `{id}` was there before")));
        }
        let image = self.images.index(image);
        self.items.push(Item { id, image, content: Content::Question { text, answers, template } });
        Ok(())
    }

    fn benchmark(self, task: Task, path: &Path, fields: &str) -> Result<Benchmark, DataError> {
        not_empty(path, &self.items)?;
        self.images.expect_first(path, fields)?;
        Ok(Benchmark::on_disk(task, self.images.paths, self.items))
    }
}

/// Questions of the validation part, whose list is called `data`; images are files named by `image_id`.
pub(super) fn textvqa(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let (path, folder) = (root.join(TEXTVQA_QUESTIONS), root.join(TEXTVQA_IMAGES));
    let mut asked = Questions::default();
    each(&path, Place::Under("data"), &|_| true, &mut |entry| {
        let image = entry.file("image_id", &folder, &format!("{}.jpg", entry.id("image_id")?))?;
        let question = (entry.text("question")?.to_owned(), entry.texts("answers")?, None);
        asked.add(&entry, entry.id("question_id")?, image, question)?;
        Ok(if asked.items.len() < items { Next::More } else { Next::Enough })
    })?;
    asked.benchmark(Task::Textvqa, &path, "`image_id`")
}

/// Questions of the validation part; an image has one, so its name is the question's. The kind of a question is its answer type, and
/// `unanswerable` where `answerable` says so.
pub(super) fn vizwiz(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let (path, folder) = (root.join(VIZWIZ_QUESTIONS), root.join(VIZWIZ_IMAGES));
    let mut asked = Questions::default();
    each(&path, Place::Whole, &|_| true, &mut |entry| {
        let kind = match entry.number("answerable")? {
            0 => "unanswerable".to_owned(),
            1 => part_name(entry.text("answer_type")?),
            other => return Err(entry.error(format!("`answerable` is {other}, neither 0 nor 1"))),
        };
        let image = entry.image(&folder)?;
        let question = (entry.text("question")?.to_owned(), entry.texts_within("answers", "answer")?, Some(kind));
        asked.add(&entry, entry.text("image")?.to_owned(), image, question)?;
        Ok(if asked.items.len() < items { Next::More } else { Next::Enough })
    })?;
    asked.benchmark(Task::Vizwiz, &path, "`image`")
}

/// Questions whether something is there, of the three splits in turn, so that the first so many are of all three.
pub(super) fn pope(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let folder = root.join(COCO_VAL);
    let mut asked = Questions::default();
    let mut splits = Vec::new();
    for (number, (split, file)) in POPE_SPLITS.into_iter().enumerate() {
        let path = root.join(file);
        let most = items.saturating_sub(number).div_ceil(POPE_SPLITS.len());
        let mut found = Questions::default();
        if most > 0 {
            each(&path, Place::Lines, &|_| true, &mut |entry| {
                let label = entry.text("label")?;
                if !["yes", "no"].contains(&label) {
                    return Err(entry.error(format!("`label` is `{label}`, neither `yes` nor `no`")));
                }
                // What stands before the last `-` is the image, which all splits ask about.
                let id = format!("{}-{split}{}", entry.text("image")?, entry.id("question_id")?);
                let question = (entry.text("text")?.to_owned(), vec![label.to_owned()], Some(split.to_owned()));
                found.add(&entry, id, entry.image(&folder)?, question)?;
                Ok(if found.items.len() < most { Next::More } else { Next::Enough })
            })?;
            not_empty(&path, &found.items)?;
            found.images.expect_first(&path, "`image`")?;
        }
        splits.push(found);
    }
    let longest = splits.iter().map(|split| split.items.len()).max().unwrap_or_default();
    for at in 0..longest {
        for split in &splits {
            if let Some(item) = split.items.get(at).cloned() {
                let image = asked.images.index(split.images.paths[item.image].clone());
                asked.items.push(Item { image, ..item });
            }
        }
    }
    Ok(Benchmark::on_disk(Task::Pope, asked.images.paths, asked.items))
}
