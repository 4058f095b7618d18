//! Errors of experiment files: what is wrong, where exactly, and what to do next.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, SourceCode};
use serde::Serialize;

use crate::source::{EXPERIMENT, Location, Sort};

/// Kinds of mistakes; the text of [`ErrorKind::code`] is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The file does not exist.
    Missing,
    /// The file exists and cannot be read as one.
    Unreadable,
    /// The file is larger than [`crate::source::MAX_FILE_BYTES`].
    TooLarge,
    /// A path leads out of the experiments folder.
    Outside,
    /// Files extend each other in a circle, or too deep.
    Cycle,
    /// Not YAML, or a YAML feature that the format refuses.
    Syntax,
    /// Nested deeper than [`crate::yaml::MAX_DEPTH`].
    TooDeep,
    /// A key that does not exist.
    UnknownKey,
    /// A key written twice.
    DuplicateKey,
    /// A required key is missing.
    MissingKey,
    /// A value of the wrong type.
    WrongType,
    /// A value outside its range, or a word that is not one of the choices.
    BadValue,
    /// Settings that contradict each other.
    Conflict,
    /// An axis without values, columns of unequal length, labels that are not unique.
    BadAxis,
    /// Nothing varies.
    NoGrid,
    /// More cells than [`crate::expand::MAX_CELLS`].
    TooManyCells,
    /// An `exclude` that matches nothing, or that leaves nothing.
    Exclude,
    /// A table, figure or claim names something that does not exist.
    UnknownName,
    /// A command-line override that cannot apply.
    Override,
    /// A table or figure that cannot be made of the grid.
    Report,
    /// A filter that cannot be read, or that nothing can match.
    Filter,
}

impl ErrorKind {
    /// Stable word for machines, such as `unknown-key`.
    pub fn code(self) -> &'static str {
        match self {
            ErrorKind::Missing => "missing",
            ErrorKind::Unreadable => "unreadable",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::Outside => "outside",
            ErrorKind::Cycle => "cycle",
            ErrorKind::Syntax => "syntax",
            ErrorKind::TooDeep => "too-deep",
            ErrorKind::UnknownKey => "unknown-key",
            ErrorKind::DuplicateKey => "duplicate-key",
            ErrorKind::MissingKey => "missing-key",
            ErrorKind::WrongType => "wrong-type",
            ErrorKind::BadValue => "bad-value",
            ErrorKind::Conflict => "conflict",
            ErrorKind::BadAxis => "bad-axis",
            ErrorKind::NoGrid => "no-grid",
            ErrorKind::TooManyCells => "too-many-cells",
            ErrorKind::Exclude => "exclude",
            ErrorKind::UnknownName => "unknown-name",
            ErrorKind::Override => "override",
            ErrorKind::Report => "report",
            ErrorKind::Filter => "filter",
        }
    }
}

/// Characters of a message.
const LONGEST_MESSAGE: usize = 400;

/// Bytes of a line that is shown as an excerpt; of a longer one the place is said in words.
const LONGEST_LINE: usize = 2000;

/// A mistake in an experiment file or in an override, with the place it was made.
///
/// It is a [`miette::Diagnostic`]: the binaries render the excerpt. `Display` is the message alone; [`ExperimentError::position`]
/// gives file, line and column to machines.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct ExperimentError(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    at: Option<Location>,
    /// What the file is, where there is no place in it.
    sort: Option<Sort>,
    label: Option<String>,
    also: Option<(Location, String)>,
}

/// File (or argument), line and column of a mistake, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The file as it was named, or `command line`.
    pub file: String,
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl ExperimentError {
    pub(crate) fn file(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        // A value of any length may be quoted in it.
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message.push_str(" ...");
        }
        Self(Box::new(Details { kind, message, help: None, at: None, sort: None, label: None, also: None }))
    }

    pub(crate) fn at(kind: ErrorKind, message: impl Into<String>, at: Location) -> Self {
        let mut error = Self::file(kind, message);
        error.0.at = Some(at);
        error
    }

    pub(crate) fn sort(mut self, sort: Sort) -> Self {
        self.0.sort = Some(sort);
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(crate) fn help_opt(self, help: Option<String>) -> Self {
        match help {
            Some(help) => self.help(help),
            None => self,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = Some(label.into());
        self
    }

    /// A second place; in another file it is named in words, because one excerpt shows one file.
    pub(crate) fn also(mut self, at: &Location, label: impl Into<String>) -> Self {
        self.0.also = Some((at.clone(), label.into()));
        self
    }

    /// What sort of mistake it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, where there is advice.
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// Where the mistake is; `None` when a file as a whole is at fault (it is then named in the message).
    pub fn position(&self) -> Option<Position> {
        self.0.at.as_ref().map(Location::position)
    }
}

impl Diagnostic for ExperimentError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let sort = self.0.sort.or(self.0.at.as_ref().map(|at| at.source.sort)).unwrap_or(EXPERIMENT);
        Some(Box::new(format!("{}::{}", sort.word, self.0.kind.code())))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let place = |at: &Location, label: &str| {
            let (line, column) = at.line_column();
            format!("{label}: {}:{line}:{column}", at.source.name())
        };
        let here = self.0.at.as_ref().filter(|_| self.source_code().is_none()).map(|at| place(at, "place"));
        let elsewhere = self.0.also.as_ref().filter(|(at, _)| !self.same_source(at));
        let elsewhere = elsewhere.map(|(at, label)| place(at, label)).or(here);
        match (&self.0.help, elsewhere) {
            (Some(help), Some(place)) => Some(Box::new(format!("{help}\n{place}"))),
            (Some(help), None) => Some(Box::new(help)),
            (None, Some(place)) => Some(Box::new(place)),
            (None, None) => None,
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        let at = self.0.at.as_ref().filter(|at| at.line_length() <= LONGEST_LINE)?;
        Some(&at.source.code as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let at = self.0.at.as_ref()?;
        let span = |at: &Location| (at.span.start, at.span.len());
        let label = self.0.label.clone().unwrap_or_else(|| "here".to_owned());
        let first = LabeledSpan::new_primary_with_span(Some(label), span(at));
        let second = self.0.also.as_ref().filter(|(other, _)| self.same_source(other));
        let second = second.map(|(other, label)| LabeledSpan::new_with_span(Some(label.clone()), span(other)));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}

impl ExperimentError {
    fn same_source(&self, other: &Location) -> bool {
        self.0.at.as_ref().is_some_and(|at| std::sync::Arc::ptr_eq(&at.source, &other.source))
    }
}
