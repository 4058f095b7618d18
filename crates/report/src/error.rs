//! What can go wrong while rendering, with what to do next.

use std::{io, path::PathBuf};

use ressa_store::StoreError;

/// A report error.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A table, figure or claim names an axis that no cell has.
    #[error("`{item}` names `{axis}`, which is no axis of this experiment; axes: {}", known.join(", "))]
    UnknownColumn {
        /// The table, figure or claim.
        item: String,
        /// The axis.
        axis: String,
        /// Axes there are.
        known: Vec<String>,
    },
    /// A table, figure or claim names a value that does not exist.
    #[error("`{item}`: {source}")]
    UnknownValue {
        /// The table, figure or claim.
        item: String,
        /// The name and the nearest valid one.
        source: ressa_experiment::value::ValueError,
    },
    /// One place of a table or figure would average over an axis that it does not show.
    #[error("`{item}` would average over `{axis}` ({}) at {place}; add it to the table or figure, or choose with `where`", labels.join(", "))]
    Mixed {
        /// The table or figure.
        item: String,
        /// Axis that differs.
        axis: String,
        /// Its labels there.
        labels: Vec<String>,
        /// The row and column, or the x label and series.
        place: String,
    },
    /// A heat map that cannot be drawn as asked.
    #[error("heat map `{item}` {what}")]
    HeatMap {
        /// The figure.
        item: String,
        /// Why, and what to do.
        what: String,
    },
    /// A table or figure that no cell belongs to.
    #[error("`{item}` shows nothing: no cell has the labels that its `where` asks for; correct them")]
    Empty {
        /// The table or figure.
        item: String,
    },
    /// A figure of losses of cells that train nothing.
    #[error(
        "figure `{item}` shows losses, and no cell that it selects trains anything; add a `restore.method` other than `none`, or choose other \
         cells with `where`"
    )]
    Untrained {
        /// The figure.
        item: String,
    },
    /// A figure of the weight of a domain that no training changes.
    #[error(
        "figure `{item}` shows the weight of `{domain}`, and no cell that it selects trains with `restore.loading.method: dynamic` on it; choose another `y`, \
         or other cells with `where`"
    )]
    Unweighed {
        /// The figure.
        item: String,
        /// The domain.
        domain: String,
    },
    /// More series in one figure than there are styles.
    #[error(
        "figure `{item}` has {series} series, and no more than {} can be told apart by colour, marker and dash; choose some with `where`, or \
         divide them among figures",
        crate::figure::palette::MOST
    )]
    TooMany {
        /// The figure.
        item: String,
        /// Its series.
        series: usize,
    },
    /// More panels side by side than there is room for.
    #[error(
        "figure `{item}` has {panels} panels, and one of its width has room for {most}; choose some with `where`, or divide them among figures"
    )]
    Crowded {
        /// The figure.
        item: String,
        /// Its panels.
        panels: usize,
        /// Panels there is room for.
        most: usize,
    },
    /// No cell of the experiment has a result yet.
    #[error("nothing to show yet for `{0}`: no run has a result; start with `ressa sweep`")]
    Nothing(String),
    /// Strict rendering of a sweep that is not complete.
    #[error(
        "`{name}` is incomplete: {done} of {expected} runs have all their results; finish with `ressa sweep`, or render without --strict"
    )]
    Incomplete {
        /// The experiment.
        name: String,
        /// Runs with every result.
        done: usize,
        /// Distinct runs.
        expected: usize,
    },
    /// The table of published numbers cannot be understood.
    #[error("cannot read published numbers from `{}`: {what}", path.display())]
    Published {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A report that was written earlier cannot be understood.
    #[error("cannot read a report from `{}`: {what}", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file of the report cannot be written.
    #[error("cannot write `{}`: {source}; make the folder writable, free some space, or choose another with --results", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data frame library refused.
    #[error("cannot aggregate the records: {0}")]
    Frame(#[from] polars::prelude::PolarsError),
    /// A figure cannot be converted.
    #[error("cannot draw `{figure}`: {what}")]
    Draw {
        /// The figure.
        figure: String,
        /// What it said.
        what: String,
    },
}

impl ReportError {
    /// The table, figure or claim that is at fault, where one is.
    pub fn item(&self) -> Option<&str> {
        match self {
            ReportError::UnknownColumn { item, .. }
            | ReportError::UnknownValue { item, .. }
            | ReportError::Mixed { item, .. }
            | ReportError::HeatMap { item, .. }
            | ReportError::Empty { item }
            | ReportError::Untrained { item }
            | ReportError::Unweighed { item, .. }
            | ReportError::TooMany { item, .. }
            | ReportError::Crowded { item, .. } => Some(item),
            _ => None,
        }
    }

    /// Whether the disk or its permissions are the cause.
    pub fn is_storage(&self) -> bool {
        match self {
            ReportError::Write { .. } => true,
            ReportError::Store(e) => e.is_storage(),
            _ => false,
        }
    }
}
