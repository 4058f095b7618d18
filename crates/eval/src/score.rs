//! From stored predictions to the score of a task: pure functions, no model in sight.

mod choice;
mod text;
mod yes_no;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ressa_data::wording::LETTERS;
use ressa_experiment::{
    Task,
    record::{Score, TaskScore},
};

use crate::{
    CopyAnswer, Direction, EvalError, Prediction,
    metrics::{
        bleu::{self, Zero},
        cider::CiderD,
        lemma,
        ptb::tokenize,
        rouge, statistics, vqa,
    },
};

/// Recall is reported among this many first places.
const RECALL_AT: [usize; 3] = [1, 5, 10];
/// Images that document frequencies need: with one, every n-gram is in all documents and weighs nothing.
const FEWEST_IMAGES: usize = 2;

/// What scoring depends on besides task and predictions.
#[derive(Clone, Debug, Default)]
pub struct ScoreOptions {
    /// Whether the benchmark is a published one, whose captions are scored in the literature's unit and with its BLEU.
    pub published: bool,
    /// Base forms of OK-VQA's answers.
    pub lemmas: Lemmas,
}

/// What answers to OK-VQA become before they are compared.
#[derive(Clone, Debug, Default)]
pub enum Lemmas {
    /// They stay as they are.
    #[default]
    None,
    /// Base forms by rules.
    Rules,
    /// What a table has for a whole answer.
    Table(Arc<HashMap<String, String>>),
}

impl Lemmas {
    fn of<'a>(&'a self, answer: &'a str) -> Cow<'a, str> {
        match self {
            Lemmas::None => Cow::Borrowed(answer),
            Lemmas::Rules => Cow::Owned(lemma::by_rules(answer)),
            Lemmas::Table(table) => Cow::Borrowed(lemma::by_table(answer, table)),
        }
    }
}

impl ScoreOptions {
    /// The name of the captions' score, and what one of its units is of `pycocoevalcap`'s.
    fn cider(&self) -> (&'static str, f64) {
        if self.published { ("cider", 100.0) } else { ("cider-d", 10.0) }
    }
}

/// The score of a task with its parts.
///
/// - question answering: VQA accuracy or, for GQA and easy-VQA, exact match; parts per template, and `unlemmatized`, the score without the lemmatiser,
///   where OK-VQA has one;
/// - captions: CIDEr-D over all sets together, for published benchmarks times 100 as the literature prints it, in the embedded world
///   times 10; undefined for a single image. Parts per set, with document frequencies from all references, `bleu-4` (published:
///   `bleu-1` to `bleu-4`) and `rouge-l`;
/// - yes or no: POPE's accuracy over all splits; parts `f1`, its mean over splits, and per split accuracy (its name), `-precision`, `-recall`,
///   `-f1` and `-yes` (share of yes). MME's sum of accuracies; parts `perception`, `cognition`, and each subtask;
/// - multiple choice: accuracy of the letter (MMBench: of questions with all rotations right); parts `likelihood` and
///   `likelihood-per-token`, the same of the likeliest option, and the kinds of questions;
/// - VizWiz also `unanswerable-f1`, how well it says what cannot be answered;
/// - a text: its perplexity; part `nll`, the mean negative log-likelihood of a token;
/// - retrieval: mean of text and image recall at 1; parts `text-recall@k` and `image-recall@k`.
///
/// # Errors
/// No predictions, or predictions of another task.
pub fn score(task: Task, predictions: &[Prediction], options: &ScoreOptions) -> Result<TaskScore, EvalError> {
    let mut scored = scored(task, predictions, options)?;
    scored.parts.extend(vote_parts(task, predictions));
    Ok(scored)
}

/// An answer as the scorer of its task reads it, for comparison with other answers to the item: normalised, as yes or no, or as the letter of one of the
/// options. What the scorer reads nothing in is the text without regard to case and blanks. OK-VQA's base forms, which follow from the settings of
/// scoring, are left out.
pub(crate) fn answer_read(task: Task, text: &str, options: &[String]) -> String {
    let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let read = match task {
        Task::Pope => Some(yes_or_no(yes_no::says_yes(text))),
        Task::Mme => yes_no::beginning(text).map(yes_or_no),
        Task::Scienceqa | Task::Mmbench => {
            choice::read(task, text, options).and_then(|at| LETTERS.get(at)).map(char::to_string)
        }
        Task::Textvqa => Some(vqa::normalize_text(text)),
        Task::Gqa | Task::EasyVqa => Some(vqa::normalize_words(text)),
        Task::Vqav2 | Task::Okvqa | Task::Vizwiz => Some(vqa::normalize(text)),
        Task::Nocaps | Task::Flickr30k | Task::Perplexity => None,
    };
    let plain = || text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    read.filter(|read| !read.is_empty()).unwrap_or_else(plain)
}

/// Of answers that were voted on: `agreement`, how many of an item's copies say what was decided, and `filled`, how many copies the model filled in
/// wholly; both in per cent. Nothing of others.
fn vote_parts(task: Task, predictions: &[Prediction]) -> Vec<(String, Score)> {
    let voted = || {
        let found = predictions.iter().filter_map(|one| match one {
            Prediction::Answer { prediction, aided, .. } => Some((prediction, [].as_slice(), &aided.copies)),
            Prediction::Choice { prediction, options, aided, .. } => {
                Some((prediction, options.as_slice(), &aided.copies))
            }
            _ => None,
        });
        found.filter(|(_, _, copies)| !copies.is_empty())
    };
    let share = |copies: &[CopyAnswer], counts: &dyn Fn(&CopyAnswer) -> bool| {
        100.0 * copies.iter().filter(|copy| counts(copy)).count() as f64 / copies.len() as f64
    };
    let agreement = voted().map(|(decided, options, copies)| {
        let decided = answer_read(task, decided, options);
        share(copies, &|copy| answer_read(task, &copy.prediction, options) == decided)
    });
    let asked = voted().filter(|(_, _, copies)| copies.iter().all(|copy| copy.filled.is_some()));
    let filled = asked.map(|(_, _, copies)| share(copies, &|copy| copy.filled == Some(true)));
    let parts: [(&str, Vec<f64>); 2] = [("agreement", agreement.collect()), ("filled", filled.collect())];
    let parts = parts.into_iter().filter(|(_, shares)| !shares.is_empty());
    parts.map(|(name, shares)| (name.to_owned(), average(name, &shares))).collect()
}

fn scored(task: Task, predictions: &[Prediction], options: &ScoreOptions) -> Result<TaskScore, EvalError> {
    if predictions.is_empty() {
        return Err(EvalError::Empty(task));
    }
    match task {
        Task::Pope => return yes_no::pope(predictions),
        Task::Mme => return yes_no::mme(predictions),
        Task::Scienceqa | Task::Mmbench => return choice::score(task, predictions),
        Task::Perplexity => return text::score(predictions),
        _ => {}
    }
    let points = item_points(task, predictions, options)?;
    let (score, mut parts) = match task {
        Task::Nocaps => (options.cider().0, caption_parts(predictions, options)),
        Task::Flickr30k => return retrieval(task, predictions, &points),
        _ => ("accuracy", BTreeMap::new()),
    };
    if task == Task::Vizwiz {
        parts.insert("unanswerable-f1".to_owned(), yes_no::unanswerable(predictions));
    }
    if task == Task::Nocaps && predictions.len() < FEWEST_IMAGES {
        return Ok(TaskScore { task, score: None, parts });
    }
    if task == Task::Okvqa && !matches!(options.lemmas, Lemmas::None) {
        let plain = item_points(task, predictions, &ScoreOptions { lemmas: Lemmas::None, ..options.clone() })?;
        parts.insert("unlemmatized".to_owned(), average(score, &plain));
    }
    let mut scored = TaskScore { task, score: Some(average(score, &points)), parts };
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (prediction, points) in predictions.iter().zip(&points) {
        if let Prediction::Answer { template: Some(name), .. } | Prediction::Caption { set: Some(name), .. } =
            prediction
        {
            groups.entry(name).or_default().push(*points);
        }
    }
    scored.parts.extend(groups.into_iter().map(|(name, points)| (name.to_owned(), average(score, &points))));
    Ok(scored)
}

/// What each prediction contributes, in the score's unit: the mean over items is the score (for retrieval, over each direction). Of MME and
/// MMBench, points are weighted for that; of a text, they are the negative log-likelihood of a token.
///
/// # Errors
/// [`EvalError::WrongKind`] for predictions of another task.
pub fn item_points(task: Task, predictions: &[Prediction], options: &ScoreOptions) -> Result<Vec<f64>, EvalError> {
    let wrong = |prediction: &Prediction| EvalError::WrongKind { task, id: prediction.id().to_owned() };
    match task {
        Task::Nocaps => {
            let captions = predictions.iter().map(|item| tokenized(item).ok_or_else(|| wrong(item)));
            let captions = captions.collect::<Result<Vec<_>, _>>()?;
            let cider = CiderD::new(&captions.iter().map(|(_, references)| references.as_slice()).collect::<Vec<_>>());
            let (_, unit) = options.cider();
            Ok(captions.iter().enumerate().map(|(i, (caption, _))| unit * cider.score(i, caption)).collect())
        }
        Task::Flickr30k => predictions
            .iter()
            .map(|item| match item {
                Prediction::Rank { rank, .. } => Ok(if *rank == 1 { 100.0 } else { 0.0 }),
                other => Err(wrong(other)),
            })
            .collect(),
        Task::Pope => yes_no::pope_points(predictions),
        Task::Mme => yes_no::mme_points(predictions),
        Task::Scienceqa | Task::Mmbench => choice::points(task, predictions),
        Task::Perplexity => text::points(predictions),
        Task::Vqav2 | Task::Gqa | Task::Okvqa | Task::Textvqa | Task::Vizwiz | Task::EasyVqa => predictions
            .iter()
            .map(|item| match item {
                Prediction::Answer { prediction, answers, .. } if task == Task::Textvqa => {
                    Ok(100.0 * vqa::accuracy_of_text(prediction, answers))
                }
                Prediction::Answer { prediction, answers, .. } if task == Task::Vizwiz => {
                    Ok(100.0 * vqa::accuracy_as_written(prediction, answers))
                }
                Prediction::Answer { prediction, answers, .. } if matches!(task, Task::Gqa | Task::EasyVqa) => {
                    let said = vqa::normalize_words(prediction);
                    Ok(if answers.contains(&said) { 100.0 } else { 0.0 })
                }
                Prediction::Answer { prediction, answers, .. } if task == Task::Okvqa => {
                    Ok(100.0 * vqa::accuracy(&options.lemmas.of(prediction), answers))
                }
                Prediction::Answer { prediction, answers, .. } => Ok(100.0 * vqa::accuracy(prediction, answers)),
                other => Err(wrong(other)),
            })
            .collect(),
    }
}

fn average(metric: &str, points: &[f64]) -> Score {
    let (value, standard_error) = statistics::mean_and_error(points);
    Score { metric: metric.to_owned(), value, standard_error, items: points.len() as u64 }
}

fn caption_parts(predictions: &[Prediction], options: &ScoreOptions) -> BTreeMap<String, Score> {
    let captions: Vec<(String, Vec<String>)> = predictions.iter().filter_map(tokenized).collect();
    let rouge: Vec<f64> =
        captions.iter().map(|(caption, references)| 100.0 * rouge::rouge_l(caption, references)).collect();
    let mut parts = BTreeMap::from([("rouge-l".to_owned(), average("rouge-l", &rouge))]);
    let (shortest, zero) = if options.published { (1, Zero::AsTheReference) } else { (bleu::LONGEST, Zero::Is) };
    for (n, (value, standard_error)) in (1..).zip(bleu::corpus(&captions, zero)) {
        if n >= shortest {
            let metric = format!("bleu-{n}");
            let (value, standard_error) = (100.0 * value, 100.0 * standard_error);
            let score = Score { metric: metric.clone(), value, standard_error, items: captions.len() as u64 };
            parts.insert(metric, score);
        }
    }
    parts
}

/// A caption and its references as the scorers' words; `None` for other predictions.
pub(crate) fn tokenized(item: &Prediction) -> Option<(String, Vec<String>)> {
    match item {
        Prediction::Caption { prediction, references, .. } => {
            Some((tokenize(prediction), references.iter().map(|reference| tokenize(reference)).collect()))
        }
        _ => None,
    }
}

fn retrieval(task: Task, predictions: &[Prediction], points: &[f64]) -> Result<TaskScore, EvalError> {
    let mut parts = BTreeMap::new();
    let mut ranks: BTreeMap<bool, Vec<usize>> = BTreeMap::new();
    // Points per image and direction: the two directions of one image are not independent, so the error is taken over images.
    let mut by_image: BTreeMap<usize, [Vec<f64>; 2]> = BTreeMap::new();
    for (prediction, points) in predictions.iter().zip(points) {
        if let Prediction::Rank { direction, image, rank, .. } = prediction {
            let text_to_image = *direction == Direction::TextToImage;
            ranks.entry(text_to_image).or_default().push(*rank);
            by_image.entry(*image).or_default()[usize::from(text_to_image)].push(*points);
        }
    }
    let mut value = 0.0;
    for (text_to_image, ranks) in &ranks {
        let name = if *text_to_image { "image" } else { "text" };
        for k in RECALL_AT {
            let hits: Vec<f64> = ranks.iter().map(|rank| if *rank <= k { 100.0 } else { 0.0 }).collect();
            let recall = average(&format!("recall@{k}"), &hits);
            if k == 1 {
                value += recall.value / 2.0;
            }
            parts.insert(format!("{name}-recall@{k}"), recall);
        }
    }
    let per_image: Vec<f64> = by_image
        .values()
        .map(|directions| {
            directions.iter().map(|points| points.iter().sum::<f64>() / points.len().max(1) as f64).sum::<f64>() / 2.0
        })
        .collect();
    let (_, standard_error) = statistics::mean_and_error(&per_image);
    let score = Score { metric: "recall@1".to_owned(), value, standard_error, items: per_image.len() as u64 };
    Ok(TaskScore { task, score: Some(score), parts })
}
