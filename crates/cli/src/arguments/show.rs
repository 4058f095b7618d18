//! Options of `show` and `diff`.

use std::path::PathBuf;

use clap::Args;

use super::{Selection, path};

/// Options of `show`.
#[derive(Args, Debug)]
pub struct ShowOptions {
    /// Run or stage: first digits of its key, or words of a run's label
    #[arg(value_name = "RUN|KEY")]
    pub which: String,
    #[command(flatten)]
    pub selection: Selection,
    /// Also show the first N predictions of each evaluation, beside the names of their images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub predictions: Option<u32>,
    /// Write a page with the predictions and their images; the page needs no other file [default: 12 predictions of each evaluation]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub html: Option<PathBuf>,
}

/// Options of `diff`.
#[derive(Args, Debug)]
pub struct DiffOptions {
    /// A run (first digits of its identity, or words of its label), a results folder, or a report (its folder, `report.json` or `claims.json`)
    #[arg(value_name = "RUN|RESULTS|REPORT")]
    pub a: String,
    /// Another of the same sort
    #[arg(value_name = "RUN|RESULTS|REPORT")]
    pub b: String,
    #[command(flatten)]
    pub selection: Selection,
}
