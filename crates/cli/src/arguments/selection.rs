//! Which experiments, and which of their runs, a command is about.

use clap::Args;
use ressa_experiment::Partition;

/// Heading of the options that choose among the runs of experiments.
pub const HEADING: &str = "Selection";

/// Experiments, overrides, and a selection of runs.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Experiment files (or names in experiments/shapes), and overrides such as `prune.metric=wanda,magnitude` or
    /// `'evaluate.caption.prompt="A photo, in detail"'`, written as in YAML; without a file: the default study
    #[arg(value_name = "FILE|KEY=VALUE")]
    pub what: Vec<String>,
    #[command(flatten)]
    pub filters: Filters,
    /// Only one of several equal shares of the runs, such as 2/8; a run stays in its share when the grid grows
    #[arg(long, value_name = "PART/PARTS", help_heading = HEADING)]
    pub partition: Option<Partition>,
}

/// Filters over runs and stages.
#[derive(Args, Clone, Debug, Default)]
pub struct Filters {
    /// Only runs for which this holds, such as `metric = wanda and seed in (0, 1)`. Names: axes, settings or the unique end of their path, `seed`,
    /// `run`, `experiment`, `point`; `kind` and `task` take single stages. Operators: = != < <= > >= in, ~ with * and ?, and, or, not. Several -E
    /// are alternatives
    #[arg(short = 'E', long = "filter", value_name = "EXPR", help_heading = HEADING)]
    pub filter: Vec<String>,
}
