//! Options of `results`, `completions` and `man`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::{Selection, path};

/// Parts of a results folder as files.
#[derive(Debug, Subcommand)]
pub enum Results {
    /// Write finished stages into one archive, with a digest of every file; no path, user or machine is named in it
    Export(ExportOptions),
    /// Check an archive and take the stages that are not there yet; what is there is never changed
    Import(ImportOptions),
}

/// Options of `results export`.
#[derive(Args, Debug)]
pub struct ExportOptions {
    /// File to write, such as `part.tar`; compressed if it ends in .gz or .tgz
    #[arg(value_name = "ARCHIVE", value_parser = path())]
    pub archive: PathBuf,
    #[command(flatten)]
    pub selection: Selection,
}

/// Options of `results import`.
#[derive(Args, Debug)]
pub struct ImportOptions {
    /// File that `results export` wrote, here or elsewhere
    #[arg(value_name = "ARCHIVE", value_parser = path())]
    pub archive: PathBuf,
}

/// Options of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Args, Debug)]
pub struct ManOptions {
    /// Write a page for each command into this folder; without it, the page of `ressa` goes to standard output
    #[arg(value_name = "DIR", value_parser = path())]
    pub folder: Option<PathBuf>,
}
