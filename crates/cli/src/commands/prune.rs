//! `ressa prune`: a model folder pruned in bounded memory.

use std::path::Path;

use ressa_experiment::{
    RunConfig,
    allocation::{AllocationConfig, AllocationMethod},
    config::{CorporaConfig, Corpus},
    job::{CalibrationRequest, CalibrationSource, Job, Prune, settable},
    model::ModelConfig,
    overrides, rounded_percent,
};

use crate::{
    arguments::{Global, prune::PruneOptions},
    commands::{export::say_left_out, model_at, read_requests},
    exit::{Exit, Failure, Outcome},
    job,
    text::{say, say_json, size},
};

/// Seconds of work that a killed run may lose.
const CHECKPOINT_AFTER: f64 = 5.0;

/// Has the worker prune, and says what came out.
pub fn run(global: &Global, options: &PruneOptions) -> Outcome {
    let run = settings(options)?;
    let calibration = calibration(options, &run)?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let work = Prune {
        model: model_at(&options.model)?,
        prune: run.prune.into_inner(),
        calibration,
        samples: options.samples,
        seed: options.seed,
        memory_limit: options.memory_limit,
        spill: options.spill,
        device_activations: options.device_activations,
        checkpoint_after: CHECKPOINT_AFTER,
        output: absolute(&options.output),
    };
    let summary = job::run(global, &options.machine, &Job::Prune(Box::new(work)))?;
    if global.json {
        say_json(&summary);
        return Ok(Exit::Done);
    }
    let number = |field: &str| summary[field].as_u64().unwrap_or_default();
    if number("resumed_at") > 0 {
        say(format_args!("resumed after {} of {} steps", number("resumed_at"), number("steps")));
    }
    for (tower, sums) in summary["towers"].as_object().into_iter().flatten() {
        let share = rounded_percent(sums["sparsity"].as_f64().unwrap_or_default());
        say(format_args!("  {tower:<9} {share} zero"));
    }
    say(format_args!("masks {}", summary["mask_hash"].as_str().unwrap_or_default()));
    say(format_args!(
        "{:.0} s, read {}, wrote {}, at most {} resident",
        summary["seconds"].as_f64().unwrap_or_default(),
        size(number("bytes_read")),
        size(number("bytes_written")),
        size(number("peak_memory_bytes"))
    ));
    say_left_out(&summary);
    say(format_args!("wrote {}", options.output.display()));
    Ok(Exit::Done)
}

/// The options as settings of an experiment.
fn settings(options: &PruneOptions) -> Result<RunConfig, Failure> {
    let mut run = RunConfig::of(ModelConfig::default());
    let prune = &mut *run.prune;
    (prune.metric, prune.pattern) = (options.metric, options.pattern);
    prune.calibration.propagate = options.propagate.into();
    for (tower, sparsity) in [
        (&mut prune.vision, options.vision),
        (&mut prune.connector, options.connector),
        (&mut prune.language, options.language),
    ] {
        (tower.sparsity, tower.group) = (sparsity, options.group.map(Into::into));
    }
    let rule = &mut prune.allocation;
    match options.allocation.as_str() {
        "uniform" => {}
        "owl" => rule.method = AllocationMethod::Owl,
        "ecoflap" => {
            let message = "--allocation ecoflap needs gradients through the whole model, not a block at a time: run an experiment \
                           with `prune.allocation.method: ecoflap`, then `ressa export` the run";
            return Err(Failure::new(Exit::Usage, message));
        }
        file if Path::new(file).exists() => {
            (rule.method, rule.table) = (AllocationMethod::Table, AllocationConfig::read_table(Path::new(file))?);
        }
        other => {
            let message =
                format!("--allocation `{other}` is neither `uniform`, `owl` nor a file of sparsities by layer");
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    overrides::assign(&mut run, &options.set, &settable)?;
    Ok(run)
}

/// Where samples come from; none where nothing looks at activations.
fn calibration(options: &PruneOptions, run: &RunConfig) -> Result<CalibrationSource, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let Some(named) = &options.calibration else {
        return match (run.prune.metric, run.prune.allocation.method) {
            (metric, _) if metric.needs_calibration() => {
                Err(usage(format!("--metric {} needs --calibration", metric.name())))
            }
            (_, AllocationMethod::Owl) => Err(usage("--allocation owl needs --calibration".to_owned())),
            _ => Ok(CalibrationSource::Listed(Vec::new())),
        };
    };
    if options.data_root.is_none() && run.data.calibration != CorporaConfig::default() {
        return Err(usage(
            "--set data.calibration... is about corpora: name them with --calibration and --data-root".to_owned(),
        ));
    }
    let corpora: Result<Vec<Corpus>, String> = named.split(',').map(|name| name.trim().parse()).collect();
    match (&options.data_root, corpora) {
        (Some(_), Ok(corpora)) if corpora.iter().enumerate().any(|(at, corpus)| corpora[..at].contains(corpus)) => {
            Err(usage(format!("--calibration {named} names a corpus twice: name each once")))
        }
        (Some(root), Ok(corpora)) => {
            let corpora = CorporaConfig { corpora, ..run.data.calibration.clone() };
            Ok(CalibrationSource::Corpora { corpora, root: root.clone() })
        }
        (Some(_), Err(unknown)) => Err(usage(format!("--calibration with --data-root names corpora: {unknown}"))),
        (None, Ok(_)) if !Path::new(named).exists() => {
            Err(usage(format!("--calibration {named} is a corpus: say with --data-root where it is, and --samples")))
        }
        (None, _) => Ok(CalibrationSource::Listed(read_requests::<CalibrationRequest>(Path::new(named))?)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ressa_experiment::{
        Tower,
        allocation::AllocationGroup,
        config::{BlockThreshold, Damping, Group, Propagate, TokenSelection},
    };

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: PruneOptions,
    }

    fn line(arguments: &str) -> PruneOptions {
        let fixed = "prune --model m --output o --metric sparsegpt --vision 0.5 --language 0.6 ";
        Line::try_parse_from(format!("{fixed}{arguments}").split_whitespace()).unwrap().options
    }

    #[test]
    fn options_are_the_settings_of_an_experiment() {
        let arguments = "--group row --propagate dense --allocation owl --set prune.sparsegpt.damping=on-failure \
                         --set prune.sparsegpt.threshold=inclusive --set prune.sparsegpt.block=64 \
                         --set prune.vision.group=matrix --set prune.allocation.group=layer \
                         --set prune.calibration.tokens.select=atv";
        let prune = settings(&line(arguments)).unwrap().prune;
        assert_eq!((prune.vision.sparsity, prune.connector.sparsity, prune.language.sparsity), (0.5, 0.0, 0.6));
        assert_eq!(Tower::ALL.map(|tower| prune.tower(tower).group), [Group::Matrix, Group::Row, Group::Row].map(Some));
        assert_eq!((prune.sparsegpt.damping, prune.sparsegpt.block), (Damping::OnFailure, 64));
        assert_eq!(prune.sparsegpt.threshold, BlockThreshold::Inclusive);
        assert_eq!(
            (prune.calibration.propagate, prune.calibration.tokens.select),
            (Propagate::Dense, TokenSelection::Atv)
        );
        let rule = &prune.allocation;
        assert_eq!((rule.method, rule.group), (AllocationMethod::Owl, AllocationGroup::Layer));
        // Nothing asked for is nothing but the default.
        let plain = settings(&line("")).unwrap().prune;
        assert_eq!(plain.chosen().len(), 3, "{:?}", plain.chosen());
    }

    #[test]
    fn every_setting_that_can_be_given_is_one_of_experiments() {
        for open in ressa_experiment::job::SETTABLE {
            let is_it = |path: &str| path == open || (open.ends_with('.') && path.starts_with(open));
            assert!(ressa_experiment::settings::SETTINGS.iter().any(|setting| is_it(setting.path)), "{open}");
        }
    }
}
