//! `ressa lab`: single steps for those who compare ressa with another implementation.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Written, write};
use ressa_data::{Image, Processor, mosaic};
use ressa_experiment::{
    config::{BlockThreshold, Damping, Rounding, SignRule},
    job::{self, CalibrationRequest, Job, LayerOptions},
    json::without_mark,
    prompt::Mosaic,
};
use serde_json::json;

use crate::{
    arguments::{
        Global,
        model::{
            DampingName, ForwardOptions, JobMachine, Lab, ModelOptions, PerplexityOptions, PreprocessOptions,
            PruneLayerOptions, RandomOptions, SparseLoraOptions, StatsOptions, TokenizeOptions,
        },
    },
    commands::{model_at, model_folder, read_requests},
    exit::{Exit, Failure, Outcome},
    job::run as work,
    text::{say, say_compact_json, say_json, size},
};

/// Does the step.
pub fn run(global: &Global, lab: &Lab) -> Outcome {
    match lab {
        Lab::Preprocess(options) => preprocess(global, options),
        Lab::Tokenize(options) => tokenize(options),
        Lab::Forward(options) => forward(global, options),
        Lab::Stats(options) => stats(global, options),
        Lab::Perplexity(options) => perplexity(global, options),
        Lab::RandomCheckpoint(options) => random(global, options),
        Lab::PruneLayer(options) => prune_layer(global, options),
        Lab::SparseLora(options) => sparse_lora(global, options),
    }
}

fn preprocess(global: &Global, options: &PreprocessOptions) -> Outcome {
    let processor = Processor::load(&model_folder(&options.model)?)?;
    let images = options.images.iter().map(|path| Image::open(path)).collect::<Result<Vec<_>, _>>()?;
    let summary = match (processor.images().cells(), processor.images().tiles()) {
        (None, Some(tiles)) => {
            let sizes = images.iter().map(|image| processor.size_of(image)).collect::<Result<Vec<_>, _>>()?;
            let most = sizes.iter().map(|&size| tiles.count(size)).max().unwrap_or_default();
            let side = tiles.side as usize;
            // One image in a row, filled up with tiles of zeros.
            let (mut pixels, mut mask) = (Vec::new(), Vec::new());
            for (row, (image, &size)) in images.iter().zip(&sizes).enumerate() {
                pixels.extend(tiles.cut(&processor.pixels([image])?, size));
                pixels.resize((row + 1) * most * 3 * side * side, 0.0);
                mask.resize(mask.len() + tiles.count(size) * side * side, 1);
                mask.resize((row + 1) * most * side * side, 0);
            }
            let grids: Vec<[u32; 2]> = sizes.iter().map(|&size| tiles.grid(size)).collect();
            let shape = vec![images.len(), most, 3, side, side];
            let summary = json!({ "output": options.output, "pixel_values": shape, "rows_and_columns": grids });
            let mask = Written::whole(vec![images.len(), most, side, side], &mask);
            let named = [("pixel_attention_mask", &mask), ("pixel_values", &Written::floats(shape, &pixels))];
            write(&options.output, named, ("format", "pt"))?;
            summary
        }
        (Some(cells), _) => {
            let (mut patches, mut grids) = (Vec::new(), Vec::new());
            for image in &images {
                let size = processor.size_of(image)?;
                patches.extend(cells.cut(&processor.pixels([image])?, size));
                let [frames, rows, columns] = cells.grid(size);
                grids.extend([frames, rows * cells.merge, columns * cells.merge].map(i64::from));
            }
            let values = (3 * cells.frames * cells.patch * cells.patch) as usize;
            let shape = vec![patches.len() / values.max(1), values];
            let summary = json!({ "output": options.output, "pixel_values": shape, "image_grid_thw": grids });
            let (patches, grids) = (Written::floats(shape, &patches), Written::whole(vec![images.len(), 3], &grids));
            let named = [("image_grid_thw", &grids), ("pixel_values", &patches)];
            write(&options.output, named, ("format", "pt"))?;
            summary
        }
        (None, None) if let Some(pinpoints) = processor.images().pinpoints() => {
            let sizes = images.iter().map(|image| processor.size_of(image)).collect::<Result<Vec<_>, _>>()?;
            let mosaics: Vec<Mosaic> =
                sizes.iter().map(|&size| Mosaic::on(size, pinpoints.pixels, pinpoints.side)).collect();
            let most = mosaics.iter().map(Mosaic::count).max().unwrap_or_default();
            let side = pinpoints.pixels as usize;
            // Of each image the whole and its tiles, filled up with tiles of zeros.
            let mut pixels = Vec::new();
            for (row, ((image, &size), &mosaic)) in images.iter().zip(&sizes).zip(&mosaics).enumerate() {
                pixels.extend(mosaic::cut(&processor.pixels([image])?, size, mosaic, pinpoints.pixels));
                pixels.resize((row + 1) * most * 3 * side * side, 0.0);
            }
            let own: Vec<i64> =
                images.iter().flat_map(|image| [image.height(), image.width()]).map(i64::from).collect();
            let shape = vec![images.len(), most, 3, side, side];
            let summary = json!({ "output": options.output, "pixel_values": shape, "image_sizes": own });
            let (own, pixels) = (Written::whole(vec![images.len(), 2], &own), Written::floats(shape, &pixels));
            write(&options.output, [("image_sizes", &own), ("pixel_values", &pixels)], ("format", "pt"))?;
            summary
        }
        (None, None) => {
            let pixels = processor.pixels(&images)?;
            let (height, width) = processor.image_size();
            let shape = vec![images.len(), 3, height as usize, width as usize];
            let summary = json!({ "output": options.output, "pixel_values": shape });
            write(&options.output, [("pixel_values", &Written::floats(shape, &pixels))], ("format", "pt"))?;
            summary
        }
    };
    if global.json {
        say_json(&summary);
    } else {
        wrote(&options.output);
    }
    Ok(Exit::Done)
}

/// Limit of standard input, in bytes.
const TEXTS_LIMIT: u64 = 1 << 30;

fn tokenize(options: &TokenizeOptions) -> Outcome {
    let processor = Processor::load(&model_folder(&options.model)?)?;
    let mut input = String::new();
    let read = std::io::stdin().take(TEXTS_LIMIT).read_to_string(&mut input);
    read.map_err(|e| Failure::new(Exit::Unusable, format!("standard input cannot be read: {e}")))?;
    let texts: Vec<String> = serde_json::from_slice(without_mark(input.as_bytes()))
        .map_err(|e| Failure::new(Exit::Unusable, format!("standard input is not a JSON list of texts: {e}")))?;
    let ids = texts
        .iter()
        .map(|text| match options.qformer {
            true => processor.tokenize_qformer(text, !options.no_special),
            false => processor.tokenize(text, !options.no_special),
        })
        .collect::<Result<Vec<Vec<u32>>, _>>()?;
    say_compact_json(&json!(ids));
    Ok(Exit::Done)
}

fn forward(global: &Global, options: &ForwardOptions) -> Outcome {
    let (inputs, output) = (options.inputs.clone(), options.output.clone());
    let job = Job::Forward(job::Forward { model: model_at(&options.model)?, inputs, output });
    let summary = work(global, &options.machine, &job)?;
    if global.json {
        say_json(&summary);
        return Ok(Exit::Done);
    }
    if let Some(loss) = summary["loss"].as_f64() {
        say(format_args!("loss {loss:.6}"));
    }
    let (seconds, load) = (summary["seconds"].as_f64(), summary["load_seconds"].as_f64());
    if let (Some(seconds), Some(load), Some(peak)) = (seconds, load, summary["peak_memory_bytes"].as_u64()) {
        say(format_args!("loaded in {load:.2} s, computed in {seconds:.2} s, at most {} resident", size(peak)));
    }
    wrote(&options.output);
    Ok(Exit::Done)
}

fn stats(global: &Global, options: &StatsOptions) -> Outcome {
    let requests = read_requests::<CalibrationRequest>(&options.requests)?;
    if requests.is_empty() {
        let message = format!("`{}`: the list is empty; statistics need a sample", options.requests.display());
        return Err(Failure::new(Exit::Unusable, message));
    }
    let job = Job::Stats(job::Stats {
        model: model_at(&options.model)?,
        requests,
        end_token: options.end_token,
        output: options.output.clone(),
    });
    let summary = work(global, &options.machine, &job)?;
    if global.json {
        say_json(&summary);
    } else {
        let linears = summary["linears"].as_u64().unwrap_or_default();
        say(format_args!("inputs of {linears} linears over {} samples", summary["samples"]));
        wrote(&options.output);
    }
    Ok(Exit::Done)
}

fn random(global: &Global, options: &RandomOptions) -> Outcome {
    let RandomOptions { like, output, seed, dtype } = options;
    let job = job::RandomCheckpoint { like: like.clone(), output: output.clone(), seed: *seed, dtype: *dtype };
    let summary = work(global, &JobMachine::host(), &Job::RandomCheckpoint(job))?;
    if global.json {
        say_json(&summary);
    } else {
        let bytes = summary["bytes"].as_u64().unwrap_or_default();
        say(format_args!("{} parameters, {}", summary["parameters"], size(bytes)));
        wrote(output);
    }
    Ok(Exit::Done)
}

fn prune_layer(global: &Global, options: &PruneLayerOptions) -> Outcome {
    let mut asked = LayerOptions {
        sparsity: options.sparsity,
        pattern: options.pattern,
        group: options.group.map(Into::into),
        ..LayerOptions::published(options.method)
    };
    let method = &mut asked.method;
    if options.damping == DampingName::OnFailure {
        method.sparsegpt.damping = Damping::OnFailure;
    }
    // A group of its own is counted exactly, as those do who compare groups.
    if options.group.is_some() {
        method.sparsegpt.threshold = BlockThreshold::Exact;
    }
    method.dsnot.cycles = options.max_cycle.unwrap_or(method.dsnot.cycles);
    method.dsnot.threshold = options.threshold.unwrap_or(method.dsnot.threshold);
    if options.same_sign {
        method.dsnot.sign = SignRule::Always;
    }
    if options.decimal {
        method.rounding = Rounding::Decimal;
    }
    let job = job::PruneLayer { input: options.input.clone(), options: asked, output: options.output.clone() };
    let summary = work(global, &options.machine, &Job::PruneLayer(job))?;
    if global.json {
        say_json(&summary);
    } else {
        say(format_args!("{} of {} weights pruned", summary["pruned"], summary["weights"]));
        wrote(&options.output);
    }
    Ok(Exit::Done)
}

fn sparse_lora(global: &Global, options: &SparseLoraOptions) -> Outcome {
    let SparseLoraOptions { input, scaling, output, machine } = options;
    let job = job::SparseLora { input: input.clone(), scaling: *scaling, output: output.clone() };
    let summary = work(global, machine, &Job::SparseLora(job))?;
    if global.json {
        say_json(&summary);
    } else {
        wrote(output);
    }
    Ok(Exit::Done)
}

fn perplexity(global: &Global, options: &PerplexityOptions) -> Outcome {
    let PerplexityOptions { folder, text, window, windows, dtype, machine } = options;
    if !text.is_file() {
        return Err(Failure::new(Exit::MissingInput, format!("there is no file `{}`", text.display())));
    }
    let model = model_at(&ModelOptions { model: folder.clone(), dtype: *dtype })?;
    let (text, window, windows) = (text.clone(), *window, *windows);
    let job = job::Perplexity { model, text, window, windows, list: global.json };
    let answer = work(global, machine, &Job::Perplexity(job))?;
    if global.json {
        say_json(&answer);
        return Ok(Exit::Done);
    }
    let score = &answer["scores"]["score"];
    if let (Some(value), Some(error)) = (score["value"].as_f64(), score["standard_error"].as_f64()) {
        let (windows, tokens) = (&score["items"], &answer["tokens"]);
        say(format_args!(
            "perplexity {value:.3} +- {error:.3} (1 se; {windows} windows of {window} of the text's {tokens} tokens)"
        ));
    }
    Ok(Exit::Done)
}

fn wrote(path: &Path) {
    say(format_args!("wrote {}", PathBuf::from(path).display()));
}
