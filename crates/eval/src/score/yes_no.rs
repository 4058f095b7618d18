//! POPE and MME: answers that are yes or no; and VizWiz' second task, to say what cannot be answered.

use std::collections::{BTreeMap, btree_map::Entry};

use ressa_experiment::{
    Task,
    record::{Score, TaskScore},
};

use super::average;
use crate::{
    EvalError, Prediction,
    metrics::{statistics, vqa},
};

/// MME's subtasks that ask what is known or worked out; the others ask what is seen.
const COGNITION: [&str; 4] = ["commonsense-reasoning", "numerical-calculation", "text-translation", "code-reasoning"];
/// Questions about an image of MME.
const PAIR: usize = 2;

/// An item as these benchmarks see it.
struct YesNoItem<'a> {
    id: &'a str,
    said: &'a str,
    /// Whether `yes` is right.
    yes: bool,
    /// POPE's split or MME's subtask.
    kind: &'a str,
}

fn yes_no_items<'a>(task: Task, predictions: &'a [Prediction]) -> Result<Vec<YesNoItem<'a>>, EvalError> {
    let kinds = if task == Task::Mme { "its subtask" } else { "its split" };
    let of = |item: &'a Prediction| match item {
        Prediction::Answer { id, prediction, answers, template, .. } => {
            let wrong = |reason: String| EvalError::Unfit { id: id.clone(), reason };
            let yes = match answers.as_slice() {
                [answer] if answer == "yes" => true,
                [answer] if answer == "no" => false,
                _ => return Err(wrong(format!("its answers are {answers:?}; `{task}` has one, `yes` or `no`"))),
            };
            let kind = template.as_deref().ok_or_else(|| wrong(format!("`template`, {kinds}, is missing")))?;
            Ok(YesNoItem { id, said: prediction, yes, kind })
        }
        other => Err(EvalError::WrongKind { task, id: other.id().to_owned() }),
    };
    predictions.iter().map(of).collect()
}

/// Whether an answer is a yes, by POPE's own rule: of the first sentence, unless one of its words is `No`, `no` or `not`.
///
/// Reference: `evaluate.py` of POPE.
pub(super) fn says_yes(text: &str) -> bool {
    let sentence = text.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| ["No", "not", "no"].contains(&word))
}

/// What an answer says, by MME's own rule: what its first four letters have in them, `yes` before `no`; `None` for neither.
///
/// Reference: `parse_pred_ans` of MME's `calculation.py`.
pub(super) fn beginning(text: &str) -> Option<bool> {
    let start: String = text.trim().to_lowercase().chars().take(4).collect();
    match (start.contains("yes"), start.contains("no")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// 100 for a right answer.
pub(super) fn pope_points(predictions: &[Prediction]) -> Result<Vec<f64>, EvalError> {
    let asked = yes_no_items(Task::Pope, predictions)?;
    Ok(asked.iter().map(|item| if says_yes(item.said) == item.yes { 100.0 } else { 0.0 }).collect())
}

/// Accuracy over all splits, and the numbers of each.
pub(super) fn pope(predictions: &[Prediction]) -> Result<TaskScore, EvalError> {
    let points = pope_points(predictions)?;
    let mut splits: BTreeMap<&str, Vec<(bool, bool)>> = BTreeMap::new();
    for item in yes_no_items(Task::Pope, predictions)? {
        splits.entry(item.kind).or_default().push((says_yes(item.said), item.yes));
    }
    let mut parts = BTreeMap::new();
    let (mut sum, mut variance) = (0.0, 0.0);
    for (split, answers) in &splits {
        let right: Vec<f64> = answers.iter().map(|(said, yes)| 100.0 * number(said == yes)).collect();
        parts.insert((*split).to_owned(), average("accuracy", &right));
        let yes: Vec<f64> = answers.iter().map(|(said, _)| 100.0 * number(*said)).collect();
        parts.insert(format!("{split}-yes"), average("yes", &yes));
        for (name, of) in [("precision", precision as Share), ("recall", recall)] {
            parts.insert(format!("{split}-{name}"), ratio(name, answers, of));
        }
        let f1 = ratio("f1", answers, f1);
        sum += f1.value;
        variance += f1.standard_error.powi(2);
        parts.insert(format!("{split}-f1"), f1);
    }
    let (count, items) = (splits.len() as f64, predictions.len() as u64);
    let (value, standard_error) = (sum / count, variance.sqrt() / count);
    parts.insert("f1".to_owned(), Score { metric: "f1".to_owned(), value, standard_error, items });
    Ok(TaskScore { task: Task::Pope, score: Some(average("accuracy", &points)), parts })
}

/// What an item adds to the two sides of a fraction, given what was said and what is right.
type Share = fn(bool, bool) -> (f64, f64);

fn precision(said: bool, right: bool) -> (f64, f64) {
    (number(said && right), number(said))
}

fn recall(said: bool, right: bool) -> (f64, f64) {
    (number(said && right), number(right))
}

fn f1(said: bool, right: bool) -> (f64, f64) {
    (2.0 * number(said && right), number(said) + number(right))
}

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// A fraction of sums over items, in points; 0 where there is nothing below. Its standard error is that of its linear approximation.
fn ratio(metric: &str, answers: &[(bool, bool)], share: Share) -> Score {
    let shares: Vec<(f64, f64)> = answers.iter().map(|(said, right)| share(*said, *right)).collect();
    let (above, below) = shares.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let value = if below > 0.0 { above / below } else { 0.0 };
    let mean = below / shares.len().max(1) as f64;
    let rests: Vec<f64> = shares.iter().map(|(x, y)| if mean > 0.0 { (x - value * y) / mean } else { 0.0 }).collect();
    let (_, error) = statistics::mean_and_error(&rests);
    let items = shares.len() as u64;
    Score { metric: metric.to_owned(), value: 100.0 * value, standard_error: 100.0 * error, items }
}

/// How well `unanswerable` is said of what cannot be answered: F1, as the evaluation tools of VizWiz compute it.
pub(super) fn unanswerable(predictions: &[Prediction]) -> Score {
    const SAID: &str = "unanswerable";
    let of = |item: &Prediction| match item {
        Prediction::Answer { prediction, template, .. } => {
            (vqa::normalize(prediction) == SAID, template.as_deref() == Some(SAID))
        }
        _ => (false, false),
    };
    ratio("f1", &predictions.iter().map(of).collect::<Vec<_>>(), f1)
}

/// An image of MME: its subtask, and which of its questions are answered right.
struct Image<'a> {
    subtask: &'a str,
    right: Vec<bool>,
}

impl Image<'_> {
    fn both(&self) -> f64 {
        number(self.right.iter().all(|right| *right))
    }

    /// Points of the image: its share of right answers, and as many again where both are right, each of 100.
    fn points(&self) -> f64 {
        let right = self.right.iter().filter(|right| **right).count();
        100.0 * right as f64 / self.right.len() as f64 + 100.0 * self.both()
    }
}

/// Images in the order of their first items, and of each item its image and which of the image's it is.
type Paired<'a> = (Vec<Image<'a>>, Vec<(usize, usize)>);

fn paired(predictions: &[Prediction]) -> Result<Paired<'_>, EvalError> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut images: Vec<Image<'_>> = Vec::new();
    let mut items = Vec::with_capacity(predictions.len());
    for item in yes_no_items(Task::Mme, predictions)? {
        let name = item.id.rsplit_once('-').map_or(item.id, |(image, _)| image);
        let place = match places.entry(name) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                images.push(Image { subtask: item.kind, right: Vec::new() });
                *new.insert(images.len() - 1)
            }
        };
        let image = &mut images[place];
        if image.subtask != item.kind {
            let reason = format!("its subtask is `{}`, and that of its image is `{}`", item.kind, image.subtask);
            return Err(EvalError::Unfit { id: item.id.to_owned(), reason });
        }
        items.push((place, image.right.len()));
        image.right.push(beginning(item.said) == Some(item.yes));
    }
    if let Some((name, place)) = places.iter().find(|(_, place)| images[**place].right.len() != PAIR) {
        let count = images[*place].right.len();
        let reason =
            format!("of its image there are {count} items; MME scores pairs, alike up to the last `-` of their ids");
        return Err(EvalError::Unfit { id: (*name).to_owned(), reason });
    }
    Ok((images, items))
}

/// Points whose mean over items is the sum over subtasks of the means over their images.
pub(super) fn mme_points(predictions: &[Prediction]) -> Result<Vec<f64>, EvalError> {
    let (images, items) = paired(predictions)?;
    let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
    for image in &images {
        *sizes.entry(image.subtask).or_default() += 1.0;
    }
    let of = |&(place, which): &(usize, usize)| {
        let image = &images[place];
        // Its own accuracy, and half of what both bring together.
        let points = 50.0 * number(image.right[which]) + 50.0 * image.both();
        points * items.len() as f64 / sizes[image.subtask]
    };
    Ok(items.iter().map(of).collect())
}

/// The sum of accuracies and of accuracies of pairs, over all subtasks that are there.
pub(super) fn mme(predictions: &[Prediction]) -> Result<TaskScore, EvalError> {
    let (images, _) = paired(predictions)?;
    let mut subtasks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for image in &images {
        subtasks.entry(image.subtask).or_default().push(image.points());
    }
    let mut parts: BTreeMap<String, Score> = BTreeMap::new();
    let mut sums: [(f64, f64, u64); 2] = Default::default();
    for (subtask, points) in &subtasks {
        let score = average("mme-subtask", points);
        let sum = &mut sums[usize::from(COGNITION.contains(subtask))];
        *sum = (sum.0 + score.value, sum.1 + score.standard_error.powi(2), sum.2 + (PAIR * points.len()) as u64);
        parts.insert((*subtask).to_owned(), score);
    }
    let score = |metric: &str, (value, variance, items): (f64, f64, u64)| {
        let standard_error = variance.sqrt();
        Score { metric: metric.to_owned(), value, standard_error, items }
    };
    for (name, sum) in [("perception", sums[0]), ("cognition", sums[1])] {
        if sum.2 > 0 {
            parts.insert(name.to_owned(), score(&format!("mme-{name}"), sum));
        }
    }
    let whole = (sums[0].0 + sums[1].0, sums[0].1 + sums[1].1, sums[0].2 + sums[1].2);
    Ok(TaskScore { task: Task::Mme, score: Some(score("mme", whole)), parts })
}
