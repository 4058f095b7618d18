//! Which runs, and which of their stages, a command is about: `-E 'metric = wanda and seed = 0'`.
//!
//! A filter looks at what runs are and changes nothing about them: the grid, its keys and what stages share stay as the file says. Names are
//! axes, settings by their path or the unique end of it, and `seed`, `run`, `experiment`, `point`; `kind` and `task` are of stages, so that a
//! filter with them takes single stages of the runs. Texts are compared exactly, numbers as numbers, `null` is a setting without a value,
//! `~` takes `*` and `?`, and a run's identity may be cut short.

mod subject;
mod syntax;

use std::{collections::HashSet, fmt};

use crate::{
    Cell, Experiment, StageNode,
    error::{ErrorKind, ExperimentError},
    shape::{Names, Shape},
    suggest,
    yaml::{Node, Tree, plain_scalar},
};
use subject::Subject;
use syntax::{Expr, Relation, Test, Word};

/// A filter as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Expr<Test>);

/// A filter whose names are those of some experiments.
#[derive(Debug)]
pub struct Bound {
    whole: Expr<(Test, Vec<Option<Subject>>)>,
    names: Vec<String>,
    of_stages: bool,
}

impl Filter {
    /// Reads expressions; what any of them selects is selected. `None` where there are none.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse(texts: &[String]) -> Result<Option<Self>, ExperimentError> {
        let mut parts = texts.iter().map(|text| syntax::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(match parts.len() {
            0 | 1 => parts.pop().map(Self),
            _ => Some(Self(Expr::Any(parts))),
        })
    }

    /// Finds its names in experiments. A name or label that only some of them have selects nothing of the others.
    ///
    /// # Errors
    /// A name that none of them has or that can mean several settings; a label that no axis has; a comparison of what is no number.
    pub fn bind(&self, experiments: &[Experiment]) -> Result<Bound, ExperimentError> {
        let mut of_stages = false;
        let whole = self.0.map(&mut |test: &Test| {
            let subjects = subject::resolve(&test.name, experiments)?;
            check(test, &subjects, experiments)?;
            of_stages |= subjects.iter().flatten().any(|subject| subject.is_of_stages());
            Ok::<_, ExperimentError>((test.clone(), subjects))
        })?;
        let names = experiments.iter().map(|experiment| experiment.name.clone()).collect();
        Ok(Bound { whole, names, of_stages })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Bound {
    /// Whether it tells stages of one run apart.
    pub fn is_of_stages(&self) -> bool {
        self.of_stages
    }

    /// Whether a cell of the experiment at `position` is selected: the cell itself, or any of its stages.
    pub fn selects(&self, position: usize, cell: &Cell) -> bool {
        match self.of_stages {
            true => cell.stages.iter().any(|node| self.holds(position, cell, Some(node))),
            false => self.holds(position, cell, None),
        }
    }

    /// Whether a stage of a cell is selected.
    pub fn selects_stage(&self, position: usize, cell: &Cell, node: &StageNode) -> bool {
        self.holds(position, cell, Some(node))
    }

    fn holds(&self, position: usize, cell: &Cell, stage: Option<&StageNode>) -> bool {
        self.whole.holds(&|(test, subjects)| {
            let Some(subject) = &subjects[position] else { return false };
            let fits =
                |value: Option<&str>| test.values.iter().any(|word| fits(test.relation, subject, value, &word.text));
            subject.any(&self.names[position], cell, stage, &fits) != test.negated
        })
    }
}

/// Digits of a run's identity that are enough to name it.
const FEWEST_DIGITS: usize = 4;

fn fits(relation: Relation, subject: &Subject, value: Option<&str>, wanted: &str) -> bool {
    let Some(value) = value else { return relation == Relation::Is && wanted == "null" };
    let ordered = |test: fn(f64, f64) -> bool| number(value).zip(number(wanted)).is_some_and(|(a, b)| test(a, b));
    match relation {
        Relation::Is => {
            let is_cut = matches!(subject, Subject::Run) && wanted.len() >= FEWEST_DIGITS;
            value == wanted || (is_cut && value.starts_with(wanted)) || ordered(|a, b| a == b)
        }
        Relation::Like => is_like(value, wanted),
        Relation::Below => ordered(|a, b| a < b),
        Relation::AtMost => ordered(|a, b| a <= b),
        Relation::Above => ordered(|a, b| a > b),
        Relation::AtLeast => ordered(|a, b| a >= b),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether a text follows a pattern in which `*` stands for any text and `?` for one character.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the last `*` stands, and where the text began that it stands for.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&c) if c == '?' || c == text[at] => (at, of) = (at + 1, of + 1),
            _ => {
                let Some((position, taken)) = star else { return false };
                star = Some((position, taken + 1));
                (at, of) = (taken + 1, position + 1);
            }
        }
    }
    pattern[of..].iter().all(|&c| c == '*')
}

/// Refuses values that cannot be there: in the experiments that know the name, no axis has the label, or the setting takes no such value.
fn check(test: &Test, subjects: &[Option<Subject>], experiments: &[Experiment]) -> Result<(), ExperimentError> {
    let known =
        || subjects.iter().zip(experiments).filter_map(|(subject, experiment)| Some((subject.as_ref()?, experiment)));
    match test.relation {
        Relation::Like => Ok(()),
        Relation::Is => test.values.iter().try_for_each(|word| {
            let mut labels: Vec<String> = Vec::new();
            for (subject, experiment) in known() {
                match subject.labels(experiment) {
                    // A setting that is no axis here may be one elsewhere.
                    None => return check_setting(word, subject),
                    Some(more) => labels.extend(more),
                }
            }
            let there = labels.iter().any(|label| fits(Relation::Is, &Subject::Seed, Some(label), &word.text));
            if there || word.text == "null" {
                return Ok(());
            }
            let whose = if known().all(|(subject, _)| subject.is_of_stages()) { "stage" } else { "run" };
            let message = format!("no {whose} has `{} = {}`", test.name, word);
            let error = word.at.error(ErrorKind::Filter, message).label("matches nothing");
            let labels = distinct(&labels);
            // Every number is near some other.
            let help = match number(&word.text) {
                Some(_) => format!("possible: {}", suggest::list(labels)),
                None => suggest::hint(&word.text, "possible", labels),
            };
            Err(error.help(help))
        }),
        Relation::Below | Relation::AtMost | Relation::Above | Relation::AtLeast => {
            let is_ordered =
                |(subject, experiment): (&Subject, &Experiment)| match (subject.labels(experiment), subject) {
                    (Some(labels), _) => labels.iter().any(|label| number(label).is_some()),
                    (None, Subject::Setting(address)) => address.setting.is_number(),
                    (None, _) => false,
                };
            if !known().any(is_ordered) {
                let message =
                    format!("`{}` is no number, so it cannot be compared with `{}`", test.name.text, test.relation);
                return Err(test.name.at.error(ErrorKind::Filter, message).help("use `=`, `!=`, `in` or `~`"));
            }
            let wrong = test.values.iter().find(|word| number(&word.text).is_none());
            wrong.map_or(Ok(()), |word| {
                let message = format!("`{}` is no number", word.text);
                Err(word.at.error(ErrorKind::Filter, message).label("expected a number"))
            })
        }
    }
}

fn distinct(labels: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    labels.iter().map(String::as_str).filter(|label| seen.insert(*label)).collect()
}

/// Refuses what a setting cannot be. Texts, paths and lists can be much, and are looked for as they stand.
fn check_setting(word: &Word, subject: &Subject) -> Result<(), ExperimentError> {
    let Some(address) = subject.setting() else { return Ok(()) };
    let setting = address.setting;
    let is_free = |shape: &Shape| {
        matches!(shape, Shape::Text | Shape::Path | Shape::Set { .. } | Shape::List(_) | Shape::Floors | Shape::Shares)
    };
    let shape = match setting.shape {
        Shape::OrNull(inner) => inner,
        ref shape => shape,
    };
    if word.text == "null" || is_free(shape) {
        return Ok(());
    }
    let node = Node { tree: Tree::Scalar(plain_scalar(&word.text)), at: word.at.clone() };
    // Patterns and words of a choice are texts, whatever YAML makes of them.
    let text = || Node { tree: Tree::Scalar(serde_yaml::Value::String(word.text.clone())), at: word.at.clone() };
    let node = if matches!(shape, Shape::Choice(_) | Shape::Pattern) { text() } else { node };
    shape.check(&address.path, &node, &Names::default())
}
