//! `ressa completions` and `ressa man`: what shells and `man` read, made from the command line itself.

use std::{fs, io};

use clap::{Command, CommandFactory};
use serde_json::json;

use crate::{
    arguments::{
        Arguments, Global,
        results::{CompletionsOptions, ManOptions},
    },
    exit::{Exit, Failure, Outcome},
    text::{say, say_json},
};

/// Name of the program.
const NAME: &str = "ressa";

/// Prints the completions of a shell.
pub fn completions(global: &Global, options: &CompletionsOptions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    match global.json {
        true => say_json(&json!({ "shell": options.shell.to_string(), "script": script })),
        false => say(script.trim_end()),
    }
    Ok(Exit::Done)
}

/// Writes the page of every command into a folder, or prints the first.
pub fn man(global: &Global, options: &ManOptions) -> Outcome {
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Pages of commands know their full names, and the options that hold for all.
    command.build();
    let Some(folder) = &options.folder else {
        let page = page(&command).map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
        match global.json {
            true => say_json(&json!({ "page": page })),
            false => say(page.trim_end()),
        }
        return Ok(Exit::Done);
    };
    let mut written = Vec::new();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let path = folder.join(format!("{}.1", command.get_display_name().unwrap_or(NAME)));
        let made = fs::create_dir_all(folder).and_then(|()| page(&command));
        let text =
            made.map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot write `{}`: {e}", path.display())))?;
        ressa_store::replace(&path, text.as_bytes())?;
        written.push(path);
        open.extend(command.get_subcommands().cloned());
    }
    written.sort();
    match global.json {
        true => say_json(&json!({ "pages": written })),
        false => say(format_args!(
            "{} pages in `{}`; read one with `man -l {}`",
            written.len(),
            folder.display(),
            folder.join("ressa.1").display()
        )),
    }
    Ok(Exit::Done)
}

fn page(command: &Command) -> io::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
