//! The keys of an experiment file besides settings, as data: the validator walks it, the JSON Schema is made from it.

use crate::{
    output::LOSSES,
    shape::{Bounds, Field, Need, Shape},
};

const fn must(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { key, need: Need::Must, shape, doc }
}

const fn may(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { key, need: Need::May, shape, doc }
}

/// A key of the top level.
pub(crate) struct Section {
    pub key: &'static str,
    pub doc: &'static str,
}

/// Keys of the top level that are not settings, in the order a file usually has them.
pub(crate) const SECTIONS: [Section; 11] = [
    Section {
        key: "extends",
        doc: "A file, or a list of files, whose contents come first; later ones win. Paths are relative to this file.",
    },
    Section { key: "name", doc: "Name of the results folder; the file's own name where absent. Not inherited." },
    Section { key: "description", doc: "The question this experiment answers, in a sentence." },
    Section {
        key: "replicate",
        doc: "Seeds over which results are aggregated: `{ seed: 0..2 }` (both ends included) or a list.",
    },
    Section { key: "axes", doc: "Cartesian product: a settings path and its values each." },
    Section { key: "zip", doc: "Named blocks of columns of equal length; each block is one axis of the product." },
    Section { key: "variants", doc: "Named axes of named overrides; the names become labels." },
    Section { key: "include", doc: "Named points outside the product." },
    Section { key: "exclude", doc: "Points taken out of the product, by axis labels or settings." },
    Section { key: "report", doc: "Tables and figures." },
    Section { key: "claims", doc: "Sentences as tests over results." },
];

const WHERE: Field = may("where", Shape::Where, "Cells looked at, by axis labels: `{ pattern: \"2:4\" }`.");
const METRIC: Field = must("metric", Shape::Value, "Value compared, such as `vqa-mean`.");
const PUBLISHED: Field =
    may("published", Shape::Set { of: &Shape::Published, min: 0 }, "Ids of paper/expected.csv that stand beside.");

/// Keys of `report`.
pub(crate) const REPORT: &[Field] = &[
    may("tables", Shape::List(&Shape::Object(TABLE)), "Tables in order."),
    may(
        "figures",
        Shape::List(&Shape::ByKind(&[
            (&["bars", "lines", "heat-map"], FIGURE),
            (&["losses"], FIGURE_OF_LOSSES),
            (&["scatter"], SCATTER),
        ])),
        "Figures in order.",
    ),
];

/// Keys of a table.
pub(crate) const TABLE: &[Field] = &[
    must("id", Shape::Id, "File name stem."),
    may("caption", Shape::Text, "Caption."),
    must("rows", Shape::Set { of: &Shape::Axis, min: 1 }, "Axes whose labels name the rows."),
    must("columns", Shape::Columns, "Axis whose labels name the columns; `metric` puts every value in a column."),
    must("values", Shape::Set { of: &Shape::Value, min: 1 }, "Values shown; one unless `columns: metric`."),
    WHERE,
    may("baseline", Shape::Point, "An `include` point shown as a first row of its own."),
    PUBLISHED,
];

const ID: Field = must("id", Shape::Id, "File name stem.");
const TITLE: Field = may("title", Shape::Text, "Title above the figure.");
const KIND: Field = must(
    "kind",
    Shape::Choice(&["bars", "lines", "heat-map", "losses", "scatter"]),
    "Grouped bars, lines with markers, colours by block, losses of trainings by step, or one value over another.",
);
const SERIES: Field = may("series", Shape::Axis, "Axis behind the colours.");
const PANELS: Field = may("panels", Shape::Axis, "Axis behind the panels, side by side.");
const X_LABEL: Field = may("x-label", Shape::Text, "Text of the x axis.");
const Y_LABEL: Field = may("y-label", Shape::Text, "Text of the y axis.");
const WIDTH: Field = may("width", Shape::Choice(&["single", "double"]), "One text column (3.3 in) or both (6.9 in).");

/// Keys of a figure of results.
pub(crate) const FIGURE: &[Field] = &[
    ID,
    TITLE,
    KIND,
    must("x", Shape::Axis, "Axis along x; the rows of a heat map, whose columns are the pruned blocks."),
    must("y", Shape::Value, "Value along y; of a heat map's blocks, `sparsity` or `density`."),
    SERIES,
    PANELS,
    WHERE,
    X_LABEL,
    Y_LABEL,
    WIDTH,
    PUBLISHED,
    may("baseline", Shape::Point, "An `include` point drawn as a dashed line across all panels."),
];

/// Keys of a figure of losses.
pub(crate) const FIGURE_OF_LOSSES: &[Field] = &[
    ID,
    TITLE,
    KIND,
    may("y", Shape::Choice(&LOSSES), "Column of the trainings' `losses.csv`; `total` where absent."),
    SERIES,
    PANELS,
    WHERE,
    X_LABEL,
    Y_LABEL,
    WIDTH,
];

/// Keys of a figure of one value over another.
pub(crate) const SCATTER: &[Field] = &[
    ID,
    TITLE,
    KIND,
    must("x", Shape::Value, "Value along x, such as `seconds` or `parameters`."),
    must("y", Shape::Value, "Value along y."),
    must("series", Shape::Axis, "Axis whose labels are the markers."),
    PANELS,
    WHERE,
    X_LABEL,
    Y_LABEL,
    WIDTH,
    may("baseline", Shape::Point, "An `include` point drawn as a dashed line across all panels."),
];

/// Keys of a claim.
pub(crate) const CLAIM: &[Field] = &[
    must("id", Shape::Id, "Short name."),
    must("text", Shape::Text, "The sentence."),
    may("source", Shape::Text, "Where the paper says it."),
    Field {
        key: "greater",
        need: Need::OneOf,
        shape: Shape::Object(&[
            must("a", Shape::Where, "Cells expected above."),
            must("b", Shape::Where, "Cells expected below."),
            may("over", Shape::Axis, "Axis at whose every label the comparison must hold."),
            METRIC,
            WHERE,
        ]),
        doc: "One group of cells is above another, paired by seed.",
    },
    Field {
        key: "same",
        need: Need::OneOf,
        shape: Shape::Object(&[
            must("a", Shape::Where, "Cells on one side."),
            must("b", Shape::Where, "Cells on the other side."),
            may("over", Shape::Axis, "Axis at whose every label the two must be equal."),
            METRIC,
            WHERE,
        ]),
        doc: "Two groups of cells have the same value, seed by seed.",
    },
    Field {
        key: "peak",
        need: Need::OneOf,
        shape: Shape::Object(&[
            must("x", Shape::Axis, "Axis."),
            must("at", Shape::LabelOf("x"), "Label expected at the top."),
            must(
                "tolerance",
                Shape::Number(Bounds { at_least: Some(0.0), ..Bounds::ANY }),
                "Points below the best that still count as near.",
            ),
            METRIC,
            WHERE,
        ]),
        doc: "The best label of an axis is near the one named.",
    },
    Field {
        key: "equals",
        need: Need::OneOf,
        shape: Shape::Object(&[
            METRIC,
            must("to", Shape::NumberOrValue, "A number, or another value such as `target-sparsity-vision`."),
            may("tolerance", Shape::Number(Bounds { at_least: Some(0.0), ..Bounds::ANY }), "Allowed distance."),
            WHERE,
        ]),
        doc: "A value is what it is said to be at every selected cell.",
    },
];
