//! What an experiment asks to be shown: tables, figures, claims. Written in YAML under `report:` and `claims:`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Tables and figures of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Report {
    /// Tables in order.
    pub tables: Vec<Table>,
    /// Figures in order.
    pub figures: Vec<Figure>,
}

/// Restricts cells by axis labels: `{ pattern: "2:4" }` or `{ pattern: ["2:4", "4:8"] }`.
pub type Where = BTreeMap<String, OneOrMany>;

/// A label or a list of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// Any of several labels. Stands first: a list would also read as one joined label.
    Many(Vec<Label>),
    /// One label.
    One(Label),
}

impl OneOrMany {
    /// Whether a label is named.
    pub fn contains(&self, label: &str) -> bool {
        match self {
            OneOrMany::One(one) => one.0 == label,
            OneOrMany::Many(many) => many.iter().any(|l| l.0 == label),
        }
    }
}

/// A label written in YAML as text, number or boolean; compared as text. `0.50`, `0.5` and `"0.5"` are one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Label(pub String);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = serde_yaml::Value::deserialize(d)?;
        Label::of(&value).ok_or_else(|| serde::de::Error::custom("a label is text, a number or a boolean"))
    }
}

impl Label {
    /// The label of a plain value; `None` for null and mappings. Items of a list are joined by `+`.
    pub fn of(value: &serde_yaml::Value) -> Option<Label> {
        use serde_yaml::Value;
        Some(Label(match value {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => whole.to_string(),
                (None, Some(real)) => real.to_string(),
                (None, None) => number.to_string(),
            },
            Value::Sequence(items) => {
                let labels: Option<Vec<String>> = items.iter().map(|item| Some(Label::of(item)?.0)).collect();
                labels?.join("+")
            }
            Value::Null | Value::Mapping(_) | Value::Tagged(_) => return None,
        }))
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table: rows and columns are axes, cells are `mean ± interval` over replicates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    /// File name stem.
    pub id: String,
    /// Caption.
    #[serde(default)]
    pub caption: Option<String>,
    /// Axes whose labels name the rows.
    pub rows: Vec<String>,
    /// Axis whose labels name the columns; `metric` puts every value of `values` in a column.
    pub columns: String,
    /// Values shown, names of [`crate::value`]. One value unless `columns: metric`.
    pub values: Vec<String>,
    /// Cells shown.
    #[serde(default, rename = "where")]
    pub only: Where,
    /// Name of an `include` point that is shown as a first row of its own, such as `dense`.
    #[serde(default)]
    pub baseline: Option<String>,
    /// Which published numbers stand beside: ids of `experiments/paper/expected.csv`. A published number belongs to the cell that shows its
    /// `metric` and among whose row and column labels are its `x` and its `series` (what is empty fits any).
    #[serde(default)]
    pub published: Vec<String>,
}

/// Kinds of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FigureKind {
    /// Grouped bars with intervals and printed values.
    Bars,
    /// Lines with markers and intervals.
    Lines,
    /// Colours by block: a row for each label of `x`, a column for each block that was pruned, `y` being `sparsity` or `density`.
    HeatMap,
    /// Losses of trainings by step: for each label of `series`, the mean over its trainings.
    Losses,
    /// One value over another, such as quality over seconds: a marker for each label of `series`, and a line through those that none beats in both.
    Scatter,
}

/// What a figure of losses can show of a training's `losses.csv`; the first where nothing is chosen. Weights are those of domains that batches are drawn from,
/// which trainings with `restore.loading.method: dynamic` have.
pub const LOSSES: [&str; 14] = [
    "total",
    "questions",
    "captions",
    "contrastive",
    "distillation",
    "gradient-norm",
    "weight-vqav2",
    "weight-gqa",
    "weight-okvqa",
    "weight-coco",
    "weight-vg",
    "weight-cc3m",
    "weight-easy-vqa",
    "weight-shapes",
];

/// A figure: `y` over `x`, one colour per `series`, one panel per `panels` label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Figure {
    /// File name stem.
    pub id: String,
    /// Title above the figure.
    #[serde(default)]
    pub title: Option<String>,
    /// What is drawn.
    pub kind: FigureKind,
    /// Axis along x; of losses, always the step; of a scatter, a value.
    #[serde(default = "step")]
    pub x: String,
    /// Value along y; of losses, one of [`LOSSES`].
    #[serde(default = "total")]
    pub y: String,
    /// Axis behind the colours.
    #[serde(default)]
    pub series: Option<String>,
    /// Axis behind the panels, side by side.
    #[serde(default)]
    pub panels: Option<String>,
    /// Cells shown.
    #[serde(default, rename = "where")]
    pub only: Where,
    /// Text of the x axis.
    #[serde(default)]
    pub x_label: Option<String>,
    /// Text of the y axis.
    #[serde(default)]
    pub y_label: Option<String>,
    /// Column width in the paper: `single` (3.3 in) or `double` (6.9 in).
    #[serde(default)]
    pub width: Width,
    /// Which published numbers stand beside: ids of `experiments/paper/expected.csv`. A published number belongs to the mark that shows
    /// its `metric` and whose x and series labels are its `x` and its `series` (what is empty fits any); others are not shown.
    #[serde(default)]
    pub published: Vec<String>,
    /// Name of an `include` point drawn as a dashed line across all panels, such as `dense`.
    #[serde(default)]
    pub baseline: Option<String>,
}

fn step() -> String {
    "step".to_owned()
}

fn total() -> String {
    LOSSES[0].to_owned()
}

impl Figure {
    /// Axes that its keys name, without those of `where`.
    pub fn axes(&self) -> impl Iterator<Item = &str> {
        let x = (!matches!(self.kind, FigureKind::Losses | FigureKind::Scatter)).then_some(&self.x);
        x.into_iter().chain(&self.series).chain(&self.panels).map(String::as_str)
    }
}

/// Figure widths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Width {
    /// One text column, 3.3 inches.
    #[default]
    Single,
    /// Both text columns, 6.9 inches.
    Double,
}

/// A sentence of the paper as a test over results. Verdict: holds, does not hold, undecided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// Short name.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// Where the paper says it, such as `section 5, finding 1`; `None` for our own.
    #[serde(default)]
    pub source: Option<String>,
    /// The test.
    #[serde(flatten)]
    pub test: ClaimTest,
}

/// Tests over results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ClaimTest {
    /// `a` scores above `b`, paired by seed, at every label of `over` (or overall).
    Greater(Comparison),
    /// `a` and `b` have the same value, seed by seed, at every label of `over` (or overall).
    Same(Comparison),
    /// Among the labels of `x`, the best is within `tolerance` points of the label `at`.
    Peak(Peak),
    /// A certificate value equals a constant at every selected cell.
    Equals(Equals),
}

/// Two groups of cells compared seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Comparison {
    /// Cells on the left: those expected above.
    pub a: Where,
    /// Cells on the right: those expected below.
    pub b: Where,
    /// Axis at whose every label the comparison must hold; none compares the means over everything selected.
    #[serde(default)]
    pub over: Option<String>,
    /// Value compared.
    pub metric: String,
    /// Cells looked at.
    #[serde(default, rename = "where")]
    pub only: Where,
}

/// The best label of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peak {
    /// Axis.
    pub x: String,
    /// Label expected at the top.
    pub at: Label,
    /// Points below the best that still count as near.
    pub tolerance: f64,
    /// Value looked at.
    pub metric: String,
    /// Cells looked at.
    #[serde(default, rename = "where")]
    pub only: Where,
}

/// A value that must be what it is said to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Equals {
    /// Value looked at, such as `revived` or `sparsity-language`.
    pub metric: String,
    /// What it must be: a number, or the name of another value such as `target-sparsity-language`.
    pub to: Label,
    /// Allowed distance.
    #[serde(default)]
    pub tolerance: f64,
    /// Cells looked at.
    #[serde(default, rename = "where")]
    pub only: Where,
}
