//! ScienceQA and MMBench from the files of their authors.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
    str,
    sync::Arc,
};

use csv::ByteRecord;
use ressa_experiment::Task;
use serde_json::Value;

use super::{Images, MMBENCH_TABLE, SCIENCEQA_IMAGES, SCIENCEQA_PROBLEMS, SCIENCEQA_SPLITS, not_empty};
use crate::{
    Benchmark, Cell, Content, DataError, Item, Picture,
    annotations::{Entry, Next, Place, each},
    cell::{Rows, is_base64},
    json,
    wording::LETTERS,
};

/// The part that is scored.
const SPLIT: &str = "test";
/// Largest file of splits that is read, in bytes.
const SPLITS_LIMIT: u64 = 1 << 28;
/// Rotations of a question have its index and a multiple of this.
const ROTATION: u64 = 1_000_000;
/// Longest text of an image's cell that is the index of another row instead.
const REFERENCE: usize = 64;

/// Options that a question may have.
fn check_options(options: &[String]) -> Result<(), String> {
    let count = options.len();
    if !(2..=LETTERS.len()).contains(&count) {
        return Err(format!("it has {count} options; there must be 2 to {}", LETTERS.len()));
    }
    match options.iter().position(|option| option.trim().is_empty()) {
        Some(at) => Err(format!("its option {} is empty", LETTERS[at])),
        None => Ok(()),
    }
}

/// A text as a part's name: lower-case letters and digits with single dashes between.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

/// The first `items` problems of the test part that have an image, in the order of the split. Kinds are the subject and the grades, as the
/// benchmark reports them.
pub(super) fn scienceqa(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let (problems, splits) = (root.join(SCIENCEQA_PROBLEMS), root.join(SCIENCEQA_SPLITS));
    let order = split(&splits)?;
    let wanted: HashSet<&str> = order.iter().map(String::as_str).collect();
    let mut known: HashSet<String> = HashSet::new();
    let mut found: HashMap<String, (PathBuf, Content)> = HashMap::new();
    each(&problems, Place::Named("pid"), &|_| true, &mut |entry| {
        let id = entry.id("pid")?;
        if !wanted.contains(id.as_str()) {
            return Ok(Next::More);
        }
        if !known.insert(id.clone()) {
            return Err(entry.error(format!("problem `{id}` was there before")));
        }
        if entry.get("image").is_some() {
            let name = format!("{SPLIT}/{id}/{}", entry.text("image")?);
            let image = entry.file("image", &root.join(SCIENCEQA_IMAGES), &name)?;
            found.insert(id, (image, problem(&entry)?));
        }
        Ok(Next::More)
    })?;
    let mut images = Images::default();
    let mut entries = Vec::new();
    for id in order {
        if !known.contains(&id) {
            let reason = format!("its part `{SPLIT}` names problem `{id}`, which `{}` has not", problems.display());
            return Err(DataError::Unfit { path: splits, reason });
        }
        if let Some((image, content)) = found.remove(&id)
            && entries.len() < items
        {
            entries.push(Item { id, image: images.index(image), content });
        }
    }
    not_empty(&problems, &entries)?;
    images.expect_first(&problems, "`image` and its id")?;
    Ok(Benchmark::on_disk(Task::Scienceqa, images.paths, entries))
}

/// Ids of the problems of the test part.
fn split(path: &Path) -> Result<Vec<String>, DataError> {
    let wrong = |reason: String| DataError::Unfit { path: path.to_owned(), reason };
    let all: BTreeMap<String, Value> =
        serde_json::from_reader(json::open(path)?.take(SPLITS_LIMIT)).map_err(|error| wrong(error.to_string()))?;
    let list = all.get(SPLIT).ok_or_else(|| wrong(format!("it has no list `{SPLIT}`")))?;
    let ids = list.as_array().ok_or_else(|| wrong(format!("`{SPLIT}` is no list")))?;
    let id = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    };
    let ids: Option<Vec<String>> = ids.iter().map(id).collect();
    ids.ok_or_else(|| wrong(format!("`{SPLIT}` holds something that is no id of a problem")))
}

fn problem(entry: &Entry<'_>) -> Result<Content, DataError> {
    let options = entry.texts("choices")?;
    check_options(&options).map_err(|reason| entry.error(reason))?;
    let answer = entry.number("answer")?;
    let answer = usize::try_from(answer)
        .ok()
        .filter(|answer| *answer < options.len())
        .ok_or_else(|| entry.error(format!("`answer` is {answer}, and there are {} choices", options.len())))?;
    let context = match entry.get("hint") {
        Some(_) => Some(entry.text("hint")?.to_owned()).filter(|hint| !hint.is_empty()),
        None => None,
    };
    let mut kinds = Vec::new();
    if entry.get("subject").is_some() {
        kinds.push(slug(entry.text("subject")?));
    }
    if entry.get("grade").is_some() {
        let text = entry.text("grade")?;
        let grade: u32 = text
            .strip_prefix("grade")
            .and_then(|grade| grade.parse().ok())
            .ok_or_else(|| entry.error(format!("`grade` is `{text}`, not as `grade7`")))?;
        kinds.push(if grade <= 6 { "grades-1-6" } else { "grades-7-12" }.to_owned());
    }
    Ok(choice(entry.text("question")?.to_owned(), context, options, answer, kinds))
}

/// A question with options, not yet worded.
fn choice(
    question: String,
    context: Option<String>,
    options: Vec<String>,
    answer: usize,
    kinds: Vec<String>,
) -> Content {
    Content::Choice { text: String::new(), stem: String::new(), question, context, options, answer, kinds }
}

/// A row of the table.
struct Row {
    number: usize,
    index: u64,
    image: usize,
    content: Content,
}

/// The first `items` questions of the development part, each with all rotations of its options: those of the table (rows whose index is the
/// question's and a multiple of a million), or, where it has none, made here in the same order.
pub(super) fn mmbench(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(MMBENCH_TABLE);
    let mut table = Table::open(&path)?;
    let mut rotations: HashMap<u64, Vec<Row>> = HashMap::new();
    let mut questions: Vec<Row> = Vec::new();
    let mut seen = HashSet::new();
    let rows = table.rows()?;
    for row in rows {
        if !seen.insert(row.index) {
            return Err(entry(&path, row.number, format!("index {} was there before", row.index)));
        }
        match row.index < ROTATION {
            true => questions.push(row),
            false => rotations.entry(row.index % ROTATION).or_default().push(row),
        }
    }
    if let Some((base, rows)) = rotations.iter().find(|(base, _)| !seen.contains(base)) {
        let reason = format!("index {} is a rotation of {base}, which is not there", rows[0].index);
        return Err(entry(&path, rows[0].number, reason));
    }
    let mut entries = Vec::new();
    for row in questions.into_iter().take(items) {
        let mut turned = rotations.remove(&row.index).unwrap_or_else(|| made(&row));
        turned.sort_by_key(|row| row.index);
        for one in std::iter::once(row).chain(turned) {
            let id = format!("{}-{}", one.index % ROTATION, one.index / ROTATION);
            entries.push(Item { id, image: one.image, content: one.content });
        }
    }
    not_empty(&path, &entries)?;
    Ok(Benchmark::of(Task::Mmbench, table.pictures, entries))
}

/// The other rotations of a question's options.
fn made(row: &Row) -> Vec<Row> {
    let Content::Choice { question, context, options, answer, kinds, .. } = &row.content else { return Vec::new() };
    let count = options.len();
    let turned = |by: usize| {
        let mut options = options.clone();
        options.rotate_left(by);
        let answer = (answer + count - by) % count;
        let content = choice(question.clone(), context.clone(), options, answer, kinds.clone());
        Row { index: row.index + by as u64 * ROTATION, content, ..*row }
    };
    (1..count).map(turned).collect()
}

fn entry(path: &Path, number: usize, reason: String) -> DataError {
    DataError::Entry { path: path.to_owned(), number, reason }
}

/// The table as it is read.
struct Table {
    path: Arc<PathBuf>,
    columns: HashMap<String, usize>,
    pictures: Vec<Picture>,
    /// Pictures by what is in their cells, so that rotations share one.
    known: HashMap<(usize, u64), usize>,
}

/// Where a row's image is.
enum Shown {
    Own(usize),
    /// That of the row with this index.
    Of(u64),
}

impl Table {
    fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self {
            path: Arc::new(path.to_owned()),
            columns: HashMap::new(),
            pictures: Vec::new(),
            known: HashMap::new(),
        })
    }

    fn wrong(&self, number: usize, reason: impl Into<String>) -> DataError {
        entry(&self.path, number, reason.into())
    }

    /// All rows, with their images looked up.
    fn rows(&mut self) -> Result<Vec<Row>, DataError> {
        let path = Arc::clone(&self.path);
        let unread = |source| DataError::Read { path: path.to_path_buf(), source };
        if !path.metadata().map_err(unread)?.is_file() {
            return Err(unread(std::io::Error::other("it is not a regular file")));
        }
        let mut table = Rows::new(std::fs::File::open(&*path).map_err(unread)?);
        let mut found = Vec::new();
        let mut number = 0;
        while let Some((offset, record)) = table.next().map_err(|reason| self.wrong(number, reason))? {
            if number == 0 {
                self.head(record)?;
            } else {
                found.push(self.row(record, offset, number)?);
            }
            number += 1;
        }
        if number == 0 {
            let reason = "it is empty; its first line must name the columns".to_owned();
            return Err(DataError::Unfit { path: path.to_path_buf(), reason });
        }
        let own: HashMap<u64, usize> = found
            .iter()
            .filter_map(|(row, shown)| match shown {
                Shown::Own(image) => Some((row.index, *image)),
                Shown::Of(_) => None,
            })
            .collect();
        let looked_up = |(mut row, shown): (Row, Shown)| {
            row.image = match shown {
                Shown::Own(image) => image,
                Shown::Of(index) => *own.get(&index).ok_or_else(|| {
                    self.wrong(
                        row.number,
                        format!("`image` is the index {index}, and there is no image in a row of it"),
                    )
                })?,
            };
            Ok(row)
        };
        found.into_iter().map(looked_up).collect()
    }

    fn head(&mut self, record: &ByteRecord) -> Result<(), DataError> {
        for (at, name) in record.iter().enumerate() {
            let name = String::from_utf8_lossy(name);
            let name = name.trim_start_matches('\u{feff}').trim();
            let name = if name.len() == 1 { name.to_owned() } else { name.to_lowercase() };
            self.columns.entry(name).or_insert(at);
        }
        for needed in ["index", "question", "A", "B", "answer", "image"] {
            if !self.columns.contains_key(needed) {
                let reason = format!(
                    "it has no column `{needed}`; expected a table with tabs between the columns `index`, `question`, `A`, `B`, ..., \
                     `answer` and `image`"
                );
                return Err(DataError::Unfit { path: self.path.to_path_buf(), reason });
            }
        }
        Ok(())
    }

    /// A cell; `None` where it is empty or a missing number.
    fn cell<'r>(&self, record: &'r ByteRecord, column: &str) -> Option<&'r [u8]> {
        let cell = record.get(*self.columns.get(column)?)?;
        (!cell.trim_ascii().is_empty() && cell != b"nan").then_some(cell)
    }

    fn text(&self, record: &ByteRecord, number: usize, column: &str) -> Result<Option<String>, DataError> {
        let Some(cell) = self.cell(record, column) else { return Ok(None) };
        let text = str::from_utf8(cell).map_err(|_| self.wrong(number, format!("`{column}` is not UTF-8")))?;
        Ok(Some(text.to_owned()))
    }

    fn need(&self, record: &ByteRecord, number: usize, column: &str) -> Result<String, DataError> {
        self.text(record, number, column)?.ok_or_else(|| self.wrong(number, format!("`{column}` is empty")))
    }

    fn row(&mut self, record: &ByteRecord, offset: u64, number: usize) -> Result<(Row, Shown), DataError> {
        let index = self.need(record, number, "index")?;
        let index = whole(&index)
            .ok_or_else(|| self.wrong(number, format!("`index` is `{}`, not a whole number", brief(&index))))?;
        let mut options = Vec::new();
        let mut gap = None;
        for letter in LETTERS.iter().map(char::to_string).take_while(|letter| self.columns.contains_key(letter)) {
            match (self.text(record, number, &letter)?, &gap) {
                (Some(_), Some(missing)) => {
                    return Err(self.wrong(number, format!("option `{letter}` is there and `{missing}` is not")));
                }
                (Some(option), None) => options.push(option),
                (None, _) => gap = gap.or(Some(letter)),
            }
        }
        check_options(&options).map_err(|reason| self.wrong(number, reason))?;
        let letter = self.need(record, number, "answer")?;
        let answer = LETTERS[..options.len()].iter().position(|known| letter.trim() == known.to_string());
        let answer = answer.ok_or_else(|| {
            let last = LETTERS[options.len() - 1];
            self.wrong(number, format!("`answer` is `{}`, and the options are A to {last}", brief(&letter)))
        })?;
        let mut kinds: Vec<String> = Vec::new();
        for column in ["category", "l2-category"] {
            let kind = self.text(record, number, column)?.map(|text| slug(&text));
            kinds.extend(kind.filter(|kind| !kind.is_empty() && !kinds.contains(kind)));
        }
        let context = self.text(record, number, "hint")?;
        let content = choice(self.need(record, number, "question")?, context, options, answer, kinds);
        let shown = self.image(record, offset, number)?;
        Ok((Row { number, index, image: 0, content }, shown))
    }

    fn image(&mut self, record: &ByteRecord, offset: u64, number: usize) -> Result<Shown, DataError> {
        let cell = self.cell(record, "image").ok_or_else(|| self.wrong(number, "`image` is empty"))?;
        if let Some(index) = str::from_utf8(cell).ok().filter(|cell| cell.len() <= REFERENCE).and_then(whole) {
            return Ok(Shown::Of(index));
        }
        if !is_base64(cell) {
            return Err(self.wrong(number, "`image` is neither an image in base64 nor the index of a row with one"));
        }
        let mut hasher = DefaultHasher::new();
        cell.hash(&mut hasher);
        let column = self.columns.get("image").copied().unwrap_or_default();
        let next = self.pictures.len();
        let image = *self.known.entry((cell.len(), hasher.finish())).or_insert(next);
        if image == next {
            self.pictures.push(Picture::Cell(Cell::new(&self.path, offset, column, number)));
        }
        Ok(Shown::Own(image))
    }
}

/// A whole number, also as pandas writes it among missing ones.
fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}
