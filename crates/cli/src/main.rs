//! `ressa`: arguments in, exit code out. No tensor library is linked, so it starts at once; what needs one runs in `ressa-worker`.

mod arguments;
mod build_id;
mod chosen;
mod cluster;
mod commands;
mod exit;
mod hub;
mod job;
mod memory;
mod missing;
mod outlines;
mod preflight;
mod progress;
mod reuse;
mod signals;
mod study;
mod text;
mod workspace;

use clap::Parser;

use crate::{
    arguments::{Arguments, Command},
    exit::{Exit, Failure, Outcome},
    workspace::named,
};

/// Planning a large grid is mostly small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error).into(),
    };
    let json = arguments.global.json;
    if json {
        text::answer_in_json();
    }
    let exit = named(std::env::args_os().map(Into::into))
        .and_then(|()| signals::listen())
        .and_then(|()| dispatch(&arguments))
        .unwrap_or_else(|failure| {
            failure.print(json);
            failure.exit()
        });
    if text::is_answer_due() {
        text::say_json(&serde_json::json!({ "exit": exit as u8 }));
    }
    close(exit, text::output_error()).into()
}

/// Shows what is wrong with a command line, or the help or version that it asks for.
fn refuse(error: &clap::Error) -> Exit {
    // Help and version go to standard output and are no failure.
    if !error.use_stderr() {
        let shown = error.print();
        return close(Exit::Done, shown.err().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe));
    }
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json {
        Failure::new(Exit::Usage, error.to_string().trim()).print(json);
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

/// The exit code, once it is known whether the answer arrived: half an answer is none, whatever else happened.
fn close(exit: Exit, unwritten: Option<std::io::Error>) -> Exit {
    let Some(error) = unwritten else { return exit };
    text::note(format_args!("error: cannot write to standard output: {error}"));
    if matches!(exit, Exit::Interrupted | Exit::Terminated) { exit } else { Exit::CannotWrite }
}

fn dispatch(arguments: &Arguments) -> Outcome {
    let global = &arguments.global;
    match &arguments.command {
        Command::Plan(options) => commands::plan::run(global, options),
        Command::Sweep(options) => commands::sweep::run(global, options),
        Command::Status(options) => commands::status::run(global, options),
        Command::Show(options) => commands::show::run(global, options),
        Command::Diff(options) => commands::diff::run(global, options),
        Command::Explain(options) => commands::explain::run(global, options),
        Command::Report(options) => commands::report::run(global, options),
        Command::Fetch(options) => commands::fetch::run(global, options),
        Command::Data(options) => commands::data::run(global, options),
        Command::Pretrain(options) => commands::pretrain::run(global, options),
        Command::Verify(options) => commands::verify::run(global, options),
        Command::Export(options) => commands::export::run(global, options),
        Command::Inspect(options) => commands::inspect::run(global, options),
        Command::Results(what) => commands::results::run(global, what),
        Command::Retry(options) => commands::retry::run(global, options),
        Command::Work(options) => commands::work::run(global, options),
        Command::Logs(options) => commands::logs::run(global, options),
        Command::Gc(options) => commands::gc::run(global, options),
        Command::Generate(options) => commands::generate::run(global, options),
        Command::Prune(options) => commands::prune::run(global, options),
        Command::Score(options) => commands::score::run(global, options),
        Command::Lab(lab) => commands::lab::run(global, lab),
        Command::Schema => commands::schema::run(),
        Command::BenchKernels(options) => commands::bench_kernels::run(global, options),
        Command::Doctor(options) => commands::doctor::run(global, options),
        Command::Completions(options) => commands::manual::completions(global, options),
        Command::Man(options) => commands::manual::man(global, options),
    }
}
