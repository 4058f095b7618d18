//! `ressa`: arguments in, exit code out. No tensor library is linked, so it starts at once; what needs one runs in `ressa-worker`.

mod arguments;
mod commands;
mod exit;
mod hub;
mod job;
mod missing;
mod progress;
mod reuse;
mod study;
mod text;
mod workspace;

use clap::Parser;

use crate::{
    arguments::{Arguments, Command},
    exit::{Exit, Outcome},
    workspace::named,
};

/// Planning a large grid is mostly small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    match named(std::env::args_os().map(Into::into)).and_then(|()| dispatch(&arguments)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(arguments.global.json);
            failure.exit().into()
        }
    }
}

fn dispatch(arguments: &Arguments) -> Outcome {
    let global = &arguments.global;
    match &arguments.command {
        Command::Plan(options) => commands::plan::run(global, options),
        Command::Sweep(options) => commands::sweep::run(global, options),
        Command::Status(options) => commands::status::run(global, options),
        Command::Explain(options) => commands::explain::run(global, options),
        Command::Report(options) => commands::report::run(global, options),
        Command::Fetch(options) => commands::fetch::run(global, options),
        Command::Data(options) => commands::data::run(global, options),
        Command::Pretrain(options) => commands::pretrain::run(global, options),
        Command::Verify(options) => commands::verify::run(global, options),
        Command::Export(options) => commands::export::run(global, options),
        Command::Inspect(options) => commands::inspect::run(global, options),
        Command::Retry(options) => commands::retry::run(global, options),
        Command::Logs(options) => commands::logs::run(global, options),
        Command::Gc(options) => commands::gc::run(global, options),
        Command::Generate(options) => commands::generate::run(global, options),
        Command::Prune(options) => commands::prune::run(global, options),
        Command::Score(options) => commands::score::run(global, options),
        Command::Lab(lab) => commands::lab::run(global, lab),
        Command::Schema => commands::schema::run(),
        Command::Doctor(options) => commands::doctor::run(global, options),
    }
}
