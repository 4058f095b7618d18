//! CPU seconds of one evaluation of all tasks with a random model of the shapes presets:
//! `cargo run --release -p ressa-eval --example evaluation_speed`.

use std::{error::Error, path::PathBuf};

use ressa_data::{Family, Processor, World, tokenizer::VOCABULARY_SIZE, write_processor_files};
use ressa_eval::{PredictOptions, Prepared, ScoreOptions, predict, score};
use ressa_experiment::{Task, config::DataConfig};
use ressa_models::presets;
use ressa_runtime::{DeviceChoice, RuntimeOptions, cpu_seconds, init};

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let device = init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 })?;
    let folder: PathBuf = std::env::temp_dir().join(format!("ressa-evaluation-speed-{}", std::process::id()));
    let world = World::new(&DataConfig::default())?;
    let vocabulary = VOCABULARY_SIZE as i64;
    for (name, family, config) in [
        ("shapes-flant5", Family::T5, presets::shapes_flant5(vocabulary)),
        ("shapes-vicuna", Family::Llama, presets::shapes_vicuna(vocabulary)),
    ] {
        write_processor_files(&folder, family, 10)?;
        let processor = Processor::load(&folder)?;
        let model = presets::random(&config, 1)?;
        println!("{name}");
        for task in Task::PAPER {
            let started = cpu_seconds();
            let items = if Task::QUESTIONS.contains(&task) { 1000 } else { 300 };
            let prepared = Prepared::new(&processor, &world.benchmark(task, items), device)?;
            let ready = cpu_seconds();
            let predictions = predict(&model, &prepared, &PredictOptions::default(), &mut |_| ())?;
            let predicted = cpu_seconds();
            let scored = score(task, &predictions, &ScoreOptions::default())?.score.ok_or("no score")?;
            println!(
                "  {task:<10} prepare {:.2} s, predict {:.2} s, score {:.2} s ({:.1} {})",
                ready - started,
                predicted - ready,
                cpu_seconds() - predicted,
                scored.value,
                scored.metric
            );
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
