//! Points of single items, read from stored predictions.
//!
//! Every evaluation stores a line per prediction with the points it contributes (`predictions.jsonl`), so no tensor library is needed to
//! pair two runs item by item. A unit of resampling is an image: questions about one image, and the two directions of its retrieval, are
//! not independent.
//!
//! - Question answering: a unit's contribution is the sum of its questions' points, scaled so that the mean over units is the score.
//! - Captions: CIDEr-D is a mean over images of similarities, with document frequencies from the references alone. References are the
//!   same for every run, so a caption's points are its contribution and no other caption's change with it.
//! - Retrieval: each image contributes half of its own text recall and half of its captions' image recall. Its rank depends on the
//!   gallery, which is fixed, as in the benchmark.
//!
//! Parts that are no mean over items (BLEU, ROUGE and others that the file does not hold) have no contributions here; such values fall
//! back on the standard error of their score.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use arrayvec::ArrayString;
use ressa_experiment::{Asks, Cell, KeyMap, Stage, StageKey, Task, value::Value};
use ressa_store::Store;
use serde::Deserialize;

use crate::results::{PREDICTIONS, Predictions, Scored};

/// The part of a perplexity that is a mean over windows.
const NLL: &str = "nll";

/// Relative distance up to which the mean of contributions is the score that was published.
const SAME: f64 = 1e-6;

/// Contributions of the units of one test set to one score, in points.
#[derive(Debug)]
pub struct ItemScores {
    /// Identifies the units and their order: two runs with equal lists are compared unit by unit.
    pub list: u64,
    /// Contributions; their mean is the score.
    pub values: Vec<f64>,
    /// Size of each unit, 1 on average: what it would contribute if each of its items gave one point.
    pub weights: Vec<f64>,
    /// The most by which one item can move one unit's contribution; `None` where the metric has no practical bound.
    pub reach: Option<f64>,
    /// Items behind the score.
    pub items: usize,
}

/// What is read of a line; the rest is skipped.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    points: f64,
    #[serde(borrow, default)]
    template: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    set: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kinds: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    direction: Option<Cow<'a, str>>,
    #[serde(default)]
    image: Option<u64>,
    #[serde(default)]
    rank: Option<u64>,
}

/// Reads predictions when a comparison first needs them, each file once per value.
#[derive(Debug)]
pub struct Items {
    store: Store,
    /// Evaluations that stored predictions, by their short keys.
    stages: HashMap<ArrayString<12>, (Task, StageKey)>,
    scores: KeyMap<Scored>,
    read: Mutex<HashMap<Wanted, Option<Arc<ItemScores>>>>,
}

/// An evaluation and the part of its score.
type Wanted = (StageKey, Option<String>);

impl Items {
    /// A reader for the evaluations of some cells, with their scores as far as they are there.
    pub(crate) fn new(store: &Store, cells: &[Cell], scores: KeyMap<Scored>) -> Self {
        let has_items = |key| scores.get(key).is_some_and(|found| found.predictions != Predictions::Absent);
        let mut stages = HashMap::new();
        for node in cells.iter().flat_map(|cell| &cell.stages) {
            match *node.stage {
                Stage::Evaluate { task, .. } if has_items(&node.key) => {
                    stages.entry(node.key.short()).or_insert((task, node.key));
                }
                _ => {}
            }
        }
        Self { store: store.clone(), stages, scores, read: Mutex::default() }
    }

    /// Contributions to a value, one list per evaluation behind it, in the order of its source (short keys joined by `+`). `None` where
    /// any of them has none: not published, damaged, or no mean over items.
    pub fn of(&self, source: &str, value: &Value) -> Option<Vec<Arc<ItemScores>>> {
        if value.is_certified() {
            return None;
        }
        let part = match value {
            Value::Part(_, part) => Some(part.as_str()),
            _ => None,
        };
        source.split('+').map(|key| self.scores(key, part)).collect()
    }

    fn scores(&self, key: &str, part: Option<&str>) -> Option<Arc<ItemScores>> {
        let &(task, key) = self.stages.get(key)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = read.entry((key, part.map(str::to_owned)));
        slot.or_insert_with(|| self.load(task, &key, part).map(Arc::new)).clone()
    }

    fn load(&self, task: Task, key: &StageKey, part: Option<&str>) -> Option<ItemScores> {
        let published = self.scores.get(key)?;
        let score = match part {
            None => published.score.score.as_ref()?,
            Some(part) => published.score.parts.get(part)?,
        };
        let text = match published.predictions {
            Predictions::Absent => return None,
            Predictions::Untouched => fs::read(self.store.folder(&key.hex()).join(PREDICTIONS)).ok()?,
            Predictions::Unproven => {
                let entry = self.store.entry(&key.hex()).ok()??;
                let text = fs::read(entry.file(PREDICTIONS).ok()?).ok()?;
                (text.len() as u64 == entry.manifest.files.get(PREDICTIONS)?.bytes).then_some(text)?
            }
        };
        let scores = contributions(task, part, &text)?;
        let mean = mean(&scores.values);
        ((mean - score.value).abs() <= SAME * score.value.abs().max(1.0)).then_some(scores)
    }
}

/// What each unit contributes to a task's score or to a part of it; `None` where the lines do not say.
pub fn contributions(task: Task, part: Option<&str>, lines: &[u8]) -> Option<ItemScores> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    match task.asks() {
        Asks::Match => retrieval(part, lines),
        Asks::Answer | Asks::Choice | Asks::Caption => means(task, part, lines),
        // Of a text, the mean over windows is that of the part `nll`; the perplexity is none.
        Asks::Text => means(task, part.filter(|part| *part != NLL), lines),
    }
}

/// Id and points of a line as [`Line`] reads them, where it has the form that evaluations write: `{"kind":…,"id":…` first, `,"points":…}`
/// last. A report of a study reads half a gigabyte of lines, and of most of them no more than this.
fn id_and_points(line: &[u8]) -> Option<(&str, f64)> {
    let ascii = |bytes| std::str::from_utf8(bytes).ok();
    let inner = line.strip_suffix(b"}")?;
    let (head, points) = inner.split_at(inner.iter().rposition(|byte| *byte == b':')? + 1);
    // Within text a quote is escaped, so a comma before a quote ends a field.
    head.strip_suffix(b",\"points\":")?;
    let kind = line.strip_prefix(b"{\"kind\":\"")?;
    let rest = kind[kind.iter().position(|byte| *byte == b'"')?..].strip_prefix(b"\",\"id\":\"")?;
    let id = &rest[..rest.iter().position(|byte| *byte == b'"')?];
    if id.contains(&b'\\') {
        return None;
    }
    Some((ascii(id)?, ascii(points)?.parse().ok()?))
}

/// Sums of points and counts per unit, in order of first appearance.
#[derive(Default)]
struct Units {
    places: HashMap<String, usize>,
    sums: Vec<f64>,
    counts: Vec<f64>,
    total: f64,
    last: (String, usize),
}

impl Units {
    fn add(&mut self, unit: &str, points: f64) {
        // Items about one image mostly follow each other.
        if self.sums.is_empty() || self.last.0 != unit {
            let next = self.sums.len();
            let place = *self.places.entry(unit.to_owned()).or_insert(next);
            if place == next {
                self.sums.push(0.0);
                self.counts.push(0.0);
            }
            self.last = (unit.to_owned(), place);
        }
        let place = self.last.1;
        self.sums[place] += points;
        self.counts[place] += 1.0;
        self.total += 1.0;
    }

    /// Identity of the units: names, order and sizes.
    fn list(&self) -> u64 {
        let mut names: Vec<(&usize, &str)> = self.places.iter().map(|(name, place)| (place, name.as_str())).collect();
        names.sort_unstable();
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        self.counts.iter().for_each(|count| count.to_bits().hash(&mut hasher));
        hasher.finish()
    }
}

fn means<'a>(task: Task, part: Option<&str>, lines: impl Iterator<Item = &'a [u8]>) -> Option<ItemScores> {
    let mut units = Units::default();
    // Ids of several questions about one image are the image's and a number.
    let unit = |id: &str| match task {
        Task::Nocaps | Task::Perplexity => id.len(),
        _ => id.rfind('-').unwrap_or(id.len()),
    };
    let mut lines = lines.peekable();
    // An `image` is in every line or in none.
    let first: Line<'_> = serde_json::from_slice(lines.peek()?).ok()?;
    let plain = part.is_none() && first.image.is_none();
    for line in lines {
        if let Some((id, points)) = plain.then(|| id_and_points(line)).flatten() {
            units.add(&id[..unit(id)], points);
            continue;
        }
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let mut groups = line.template.iter().chain(&line.set).chain(&line.kinds);
        if part.is_some_and(|part| !groups.any(|group| group.as_ref() == part)) {
            continue;
        }
        match line.image {
            Some(image) => units.add(&image.to_string(), line.points),
            None => units.add(&line.id[..unit(&line.id)], line.points),
        }
    }
    let scale = units.sums.len() as f64 / units.total;
    (!units.sums.is_empty()).then(|| ItemScores {
        list: units.list(),
        values: units.sums.iter().map(|sum| sum * scale).collect(),
        weights: units.counts.iter().map(|count| count * scale).collect(),
        // Points of MME's and MMBench's items are weighted, so one may count for more.
        reach: matches!(task.asks(), Asks::Answer).then_some(100.0 * scale).filter(|_| task != Task::Mme),
        items: units.total as usize,
    })
}

fn retrieval<'a>(part: Option<&str>, lines: impl Iterator<Item = &'a [u8]>) -> Option<ItemScores> {
    // Which directions count, each with its share, and up to which place.
    let (wanted, at): (&[&str], u64) = match part {
        None => (&["image-to-text", "text-to-image"], 1),
        Some(part) => {
            let (name, at) = part.split_once("-recall@")?;
            let direction: &[&str] = match name {
                "text" => &["image-to-text"],
                "image" => &["text-to-image"],
                _ => return None,
            };
            (direction, at.parse().ok()?)
        }
    };
    let mut found: Vec<(usize, u64, bool)> = Vec::new();
    let mut totals = [0.0; 2];
    for line in lines {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let (direction, rank) = (line.direction?, line.rank?);
        if let Some(place) = wanted.iter().position(|one| *one == direction) {
            found.push((place, line.image?, rank <= at));
            totals[place] += 1.0;
        }
    }
    let mut units = Units::default();
    for (_, image, _) in &found {
        units.add(&image.to_string(), 0.0);
    }
    let there = totals.iter().filter(|total| **total > 0.0);
    let scale = |place: usize| units.sums.len() as f64 / totals[place] / wanted.len() as f64;
    let (mut values, mut weights) = (vec![0.0; units.sums.len()], vec![0.0; units.sums.len()]);
    for &(place, image, hit) in &found {
        let unit = units.places[&image.to_string()];
        values[unit] += if hit { 100.0 * scale(place) } else { 0.0 };
        weights[unit] += scale(place);
    }
    (there.count() == wanted.len()).then(|| ItemScores {
        list: units.list(),
        values,
        weights,
        reach: Some(100.0 * (0..wanted.len()).map(scale).sum::<f64>()),
        items: units.sums.len(),
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read at a glance is what the parser reads, or is left to it.
    #[test]
    fn a_line_at_a_glance_is_the_line() {
        for (line, at_a_glance) in [
            (r#"{"kind":"answer","id":"00001-0","prompt":"a","points":100.0}"#, true),
            (r#"{"kind":"caption","id":"in-domain-00001","prompt":"say \",\"points\":7}","points":12.5}"#, true),
            (r#"{"kind":"answer","id":"7","prompt":"x","answers":[",\"points\":3"],"points":1e2}"#, true),
            (r#"{"kind":"answer","id":"a\"b","prompt":"a","points":0.0}"#, false),
            (r#"{"kind":"answer","prompt":"a","id":"5","points":0.0}"#, false),
            (r#"{"kind":"answer","id":"5","points":30.0,"template":"color"}"#, false),
            (r#"{ "kind": "answer", "id": "5", "points": 30.0 }"#, false),
        ] {
            let parsed: Line<'_> = serde_json::from_str(line).unwrap();
            let found = id_and_points(line.as_bytes());
            assert_eq!(found.is_some(), at_a_glance, "{line}");
            assert!(found.is_none_or(|found| found == (&*parsed.id, parsed.points)), "{line}");
        }
    }
}
