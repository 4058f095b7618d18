//! `ressa-worker`: the process that holds a device and executes stages, one at a time, or does a single job.
//!
//! It reads one JSON request per line from standard input and answers with events on standard output (`ressa_experiment::protocol`);
//! standard error is its log. A crash here ends one stage, never the sweep. It dies with its coordinator, and ends when its input ends.

mod exhausted;
mod job;
mod loading;
mod serve;
mod signals;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ressa_runtime::{DeviceChoice, RuntimeOptions};

use crate::loading::LoadingArguments;

/// Executes the stages of a sweep on one device. Started by `ressa`; started by hand only to find out what goes wrong.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read requests from standard input, answer on standard output.
    Serve {
        /// Writable store of stage outputs.
        #[arg(long)]
        store: PathBuf,
        /// Read-only stores looked at after it.
        #[arg(long)]
        shipped: Vec<PathBuf>,
        /// `auto`, `cpu` or `cuda:N`.
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
        /// Threads of one tensor operation.
        #[arg(long, default_value_t = 1)]
        threads: u32,
        /// Train with deterministic algorithms.
        #[arg(long)]
        deterministic: bool,
        #[command(flatten)]
        loading: LoadingArguments,
    },
    /// Do the one job that standard input holds.
    Job {
        /// `auto`, `cpu` or `cuda:N`.
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
        /// Threads of one tensor operation.
        #[arg(long, default_value_t = 1)]
        threads: u32,
    },
    /// Print what libtorch and device this worker would run on, as JSON.
    Probe {
        /// `auto`, `cpu` or `cuda:N`.
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    signals::follow_the_coordinator();
    let outcome = match arguments.command {
        Command::Serve { store, shipped, device, threads, deterministic, loading } => {
            serve::serve(store, shipped, RuntimeOptions { device, threads }, deterministic, loading.into())
        }
        Command::Job { device, threads } => job::run(RuntimeOptions { device, threads }),
        Command::Probe { device } => serve::probe(RuntimeOptions { device, threads: 1 }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            serve::log(&message);
            ExitCode::FAILURE
        }
    }
}
