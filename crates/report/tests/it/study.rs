//! Every experiment of the embedded world renders: no table or figure hides an axis, names an unknown one, or asks for published numbers
//! that find no place in it.

use std::path::Path;

use ressa_experiment::{Cell, Experiment, Task, config::Metric};

use crate::{names::SHAPES, world};

/// Falls with sparsity, rises with restoration, varies a little with everything.
fn score(cell: &Cell, task: Task) -> Option<f64> {
    let prune = &cell.run.prune;
    let removed = match prune.metric {
        Metric::None => 0.0,
        _ => prune.vision.sparsity.max(prune.language.sparsity),
    };
    let noise = world::noise(&format!("{}{task}", cell.run_id));
    Some(95.0 - 60.0 * removed * removed + if removed > 0.0 { noise } else { 0.0 })
}

#[test]
fn every_experiment_renders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let folder = tempfile::tempdir().unwrap();
    let store = world::store(folder.path());
    for name in SHAPES {
        let file = root.join("shapes").join(format!("{name}.yaml"));
        let mut experiment = Experiment::load(&file, &root, &[]).unwrap();
        // One seed says as much here as three.
        let first = experiment.seeds[0];
        experiment.cells.retain(|cell| cell.seed == first);
        world::fill_with(&store, &experiment.cells, score, false);
        let options = ressa_report::Options {
            results: folder.path().to_owned(),
            published: Some(root.join("paper/expected.csv")),
            strict: true,
        };
        let name = &experiment.name;
        let rendered = ressa_report::render(&experiment, &store, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (spec, table) in experiment.report.tables.iter().zip(&rendered.tables) {
            assert!(table.entries().count() > 0, "{name}: table `{}` is empty", table.id);
            assert_eq!(
                table.has_published(),
                !spec.published.is_empty(),
                "{name}: published numbers of `{}`",
                table.id
            );
        }
        for (spec, figure) in experiment.report.figures.iter().zip(&rendered.figures) {
            let model = &figure.model;
            assert!(model.summaries().count() > 0, "{name}: figure `{}` is empty", model.id);
            assert_eq!(
                model.has_published(),
                !spec.published.is_empty(),
                "{name}: published numbers of `{}`",
                model.id
            );
        }
        for claim in &rendered.claims {
            assert!(!claim.reason.starts_with("no "), "{name}: claim `{}`: {}", claim.id, claim.reason);
        }
    }
}
