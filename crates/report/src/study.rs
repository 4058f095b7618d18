//! What is rendered: the parts of an experiment that the report looks at.

use std::collections::BTreeSet;

use ressa_experiment::{
    Cell,
    output::{Claim, ClaimTest, FigureKind, Report, Where},
    value::Value,
};

use crate::ReportError;

/// An experiment as the report sees it.
#[derive(Clone, Copy, Debug)]
pub struct Study<'a> {
    /// Name; also the folder under `results/`.
    pub name: &'a str,
    /// The question, in the file's own words.
    pub description: &'a str,
    /// Tables and figures.
    pub report: &'a Report,
    /// Sentences to test.
    pub claims: &'a [Claim],
    /// The expanded grid.
    pub cells: &'a [Cell],
}

impl Study<'_> {
    /// Every axis that labels the cells or that a table, figure or claim names, grid axes first in file order.
    pub fn axes(&self) -> Result<Vec<String>, ReportError> {
        let mut axes: Vec<String> = Vec::new();
        for (axis, _) in self.cells.iter().flat_map(|cell| cell.coordinates.iter()) {
            if !axes.contains(axis) {
                axes.push(axis.clone());
            }
        }
        let known = axes.clone();
        for (item, axis) in self.named_axes() {
            if axes.contains(&axis) {
                continue;
            }
            if self.cells.iter().all(|cell| cell.label(&axis).is_none()) {
                return Err(ReportError::UnknownColumn { item, axis, known });
            }
            axes.push(axis);
        }
        Ok(axes)
    }

    fn named_axes(&self) -> BTreeSet<(String, String)> {
        let mut named = BTreeSet::new();
        let mut add = |item: &str, axis: &str| {
            named.insert((item.to_owned(), axis.to_owned()));
        };
        for table in &self.report.tables {
            table.rows.iter().chain(table.only.keys()).for_each(|axis| add(&table.id, axis));
            if table.columns != "metric" {
                add(&table.id, &table.columns);
            }
        }
        for figure in &self.report.figures {
            let filter = figure.only.keys().map(String::as_str);
            figure.axes().chain(filter).for_each(|axis| add(&figure.id, axis));
        }
        for claim in self.claims {
            let mut all = |filter: &Where| filter.keys().for_each(|axis| add(&claim.id, axis));
            match &claim.test {
                ClaimTest::Greater(c) | ClaimTest::Same(c) => {
                    [&c.a, &c.b, &c.only].into_iter().for_each(&mut all);
                    c.over.iter().for_each(|axis| add(&claim.id, axis));
                }
                ClaimTest::Peak(p) => {
                    all(&p.only);
                    add(&claim.id, &p.x);
                }
                ClaimTest::Equals(e) => all(&e.only),
            }
        }
        named
    }

    /// Every value that a table, figure or claim names.
    pub fn values(&self) -> Result<Vec<Value>, ReportError> {
        let mut names: Vec<(&str, &str)> = Vec::new();
        for table in &self.report.tables {
            names.extend(table.values.iter().map(|value| (table.id.as_str(), value.as_str())));
        }
        let of_results = self.report.figures.iter().filter(|figure| figure.kind != FigureKind::Losses);
        names.extend(of_results.map(|figure| (figure.id.as_str(), figure.y.as_str())));
        let scattered = self.report.figures.iter().filter(|figure| figure.kind == FigureKind::Scatter);
        names.extend(scattered.map(|figure| (figure.id.as_str(), figure.x.as_str())));
        for claim in self.claims {
            match &claim.test {
                ClaimTest::Greater(c) | ClaimTest::Same(c) => names.push((&claim.id, &c.metric)),
                ClaimTest::Peak(p) => names.push((&claim.id, &p.metric)),
                ClaimTest::Equals(e) => {
                    names.push((&claim.id, &e.metric));
                    if e.to.0.parse::<f64>().is_err() {
                        names.push((&claim.id, &e.to.0));
                    }
                }
            }
        }
        names
            .into_iter()
            .map(|(item, name)| {
                name.parse().map_err(|source| ReportError::UnknownValue { item: item.to_owned(), source })
            })
            .collect()
    }
}
