//! Writes a folder of a published shape whose weights are zeros that take no room on the disk, with as many blocks as are asked for. Used by
//! `make simulate`, which looks at shapes only.
//!
//! Usage: `hollow_checkpoint NAME OUTPUT VISION-BLOCKS LANGUAGE-BLOCKS` (an encoder-decoder has so many blocks in either half)

#![allow(clippy::print_stderr)]

use std::{env, fs, process::ExitCode};

use ressa_experiment::job::{Compute, RandomCheckpoint};
use ressa_lab::random::hollow_checkpoint;
use ressa_models::{config::TextConfig, published::published_config};

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hollow_checkpoint: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [name, output, vision, language] = arguments else {
        return Err("expected NAME OUTPUT VISION-BLOCKS LANGUAGE-BLOCKS".to_owned());
    };
    let blocks = |text: &str| text.parse::<usize>().map_err(|e| format!("`{text}` is not a number of blocks: {e}"));
    let mut config = published_config(name).ok_or_else(|| format!("`{name}` is not a published shape"))?;
    config.vision_config.num_hidden_layers = blocks(vision)?;
    let language = blocks(language)?;
    match &mut config.text_config {
        TextConfig::T5(text) => (text.num_layers, text.num_decoder_layers) = (language, Some(language)),
        TextConfig::Llama(text) | TextConfig::Qwen2(text) | TextConfig::Mistral(text) => {
            text.num_hidden_layers = language
        }
        TextConfig::Opt(text) => text.num_hidden_layers = language,
    }
    let like = format!("{output}.config.json");
    let text = serde_json::to_string(&config).map_err(|e| e.to_string())?;
    fs::write(&like, text).map_err(|e| format!("`{like}` cannot be written: {e}"))?;
    let job = RandomCheckpoint { like, output: output.into(), seed: 0, dtype: Compute::Bfloat16 };
    hollow_checkpoint(&job, &mut |_, _| ()).map_err(|e| e.to_string())?;
    Ok(())
}
