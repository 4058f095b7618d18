//! Records as data frames: what is aggregated, and what is written as CSV.

use std::{collections::HashMap, io::Write};

use polars::prelude::*;

use super::{Measured, Recorded, Records, Sample, Summary};
use crate::statistics;

/// Rows that are turned into text at once.
const PIECE: usize = 1 << 15;

/// Samples in the order of cells, and of values within a cell, with position of cell and value.
fn rows<'a>(
    cells: &'a [Recorded],
    values: usize,
    measured: &'a [Measured],
) -> impl Iterator<Item = (usize, usize, &'a Sample)> {
    let mut next = vec![0_u32; measured.len()];
    (0..cells.len() * values).filter_map(move |at| {
        let (cell, value) = (at / values, at % values);
        let slot = cells[cell].point as usize * values + value;
        let sample = measured[slot].samples.get(next[slot] as usize).filter(|sample| sample.cell as usize == cell)?;
        next[slot] += 1;
        Some((cell, value, sample))
    })
}

/// Puts mean, deviation and counts of the distinct measurements beside them.
#[expect(deprecated, reason = "eager aggregation; the lazy engine would double the cold build for one group-by")]
pub(super) fn aggregate(cells: &[Recorded], values: usize, measured: &mut [Measured]) -> PolarsResult<()> {
    let (mut slot, mut number, mut error, mut there) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (cell, value, sample) in rows(cells, values, measured).filter(|(.., sample)| sample.distinct) {
        slot.push(u64::from(cells[cell].point) * values as u64 + value as u64);
        number.push(sample.number.map(|number| number.value));
        error.push(sample.number.map(|number| number.standard_error));
        there.push(u32::from(sample.number.is_some()));
    }
    let distinct = DataFrame::new_infer_height(vec![
        Column::new("slot".into(), slot),
        Column::new("number".into(), number),
        Column::new("standard_error".into(), error),
        Column::new("there".into(), there),
    ])?;
    let by = distinct.group_by_stable(["slot"])?.select(["number", "standard_error"]);
    let mean = by.mean()?;
    let by = by.select(["number"]);
    let std = by.std(1)?;
    let by = by.select(["there"]);
    let (sum, count) = (by.sum()?, by.count()?);

    let slots = mean.column("slot")?.u64()?;
    let (means, errors) = (mean.columns()[1].f64()?, mean.columns()[2].f64()?);
    let (stds, counts, planned) = (std.columns()[1].f64()?, sum.columns()[1].u32()?, count.columns()[1].u32()?);
    let mut quantiles: HashMap<usize, f64> = HashMap::new();
    for row in 0..mean.height() {
        let n = counts.get(row).unwrap_or(0) as usize;
        let std = stds.get(row).unwrap_or(0.0);
        let half_width = (n >= 2).then(|| {
            let unit = *quantiles.entry(n).or_insert_with(|| statistics::half_width(1.0, n).unwrap_or(0.0));
            unit * std
        });
        measured[slots.get(row).unwrap_or(0) as usize].summary = Some(Summary {
            mean: means.get(row).unwrap_or(f64::NAN),
            std,
            half_width,
            standard_error: errors.get(row).unwrap_or(0.0),
            n,
            expected: planned.get(row).unwrap_or(0) as usize,
        });
    }
    Ok(())
}

impl Records {
    /// Writes one row per cell and value as CSV with a fixed number of decimals.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_records(&self, out: &mut dyn Write) -> PolarsResult<()> {
        let rows = rows(&self.cells, self.values.len(), &self.measured);
        self.in_pieces(rows, out, |rows| {
            let cells = || rows.iter().map(|(cell, ..)| &self.cells[*cell]);
            let samples = || rows.iter().map(|(.., sample)| *sample);
            let mut columns = self.label_columns(cells().map(|cell| cell.point as usize));
            columns.extend([
                Column::new("run".into(), cells().map(|cell| &*cell.run).collect::<Vec<&str>>()),
                Column::new("seed".into(), cells().map(|cell| cell.seed).collect::<Vec<u64>>()),
                Column::new(
                    "value".into(),
                    rows.iter().map(|(_, value, _)| self.values[*value].as_str()).collect::<Vec<&str>>(),
                ),
                Column::new(
                    "number".into(),
                    samples().map(|sample| sample.number.map(|n| n.value)).collect::<Vec<_>>(),
                ),
                Column::new(
                    "standard_error".into(),
                    samples().map(|sample| sample.number.map(|n| n.standard_error)).collect::<Vec<_>>(),
                ),
                Column::new("distinct".into(), samples().map(|sample| sample.distinct).collect::<Vec<bool>>()),
                Column::new("stages".into(), samples().map(|sample| &*sample.source).collect::<Vec<&str>>()),
            ]);
            columns
        })
    }

    /// Writes one row per point and value, in order of first appearance, as CSV with a fixed number of decimals.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_summary(&self, out: &mut dyn Write) -> PolarsResult<()> {
        let values = self.values.len();
        let first = |slot: usize| Some((self.measured[slot].samples.first()?.cell, slot % values, slot));
        let mut order: Vec<(u32, usize, usize)> = (0..self.measured.len()).filter_map(first).collect();
        order.sort_unstable();
        let rows = order.into_iter().filter_map(|(.., slot)| Some((slot, self.measured[slot].summary?)));
        self.in_pieces(rows, out, |rows| {
            let summaries = || rows.iter().map(|(_, summary)| summary);
            let mut columns = self.label_columns(rows.iter().map(|(slot, _)| slot / values));
            let names: Vec<&str> = rows.iter().map(|(slot, _)| self.values[slot % values].as_str()).collect();
            let from = |least: usize, of: fn(&Summary) -> f64| -> Vec<Option<f64>> {
                summaries().map(|summary| (summary.n >= least).then(|| of(summary))).collect()
            };
            columns.extend([
                Column::new("value".into(), names),
                Column::new("mean".into(), from(1, |summary| summary.mean)),
                Column::new("half_width_95".into(), summaries().map(|summary| summary.half_width).collect::<Vec<_>>()),
                Column::new("std".into(), from(2, |summary| summary.std)),
                Column::new("n".into(), summaries().map(|summary| summary.n as u32).collect::<Vec<u32>>()),
                Column::new(
                    "expected".into(),
                    summaries().map(|summary| summary.expected as u32).collect::<Vec<u32>>(),
                ),
                Column::new("standard_error".into(), from(1, |summary| summary.standard_error)),
            ]);
            columns
        })
    }

    /// A column of labels per axis.
    fn label_columns(&self, points: impl Iterator<Item = usize> + Clone) -> Vec<Column> {
        let column = |(position, axis): (usize, &String)| {
            let labels = points.clone().map(|point| self.points[point].labels[position].as_deref());
            Column::new(axis.as_str().into(), labels.collect::<Vec<Option<&str>>>())
        };
        self.axes.iter().enumerate().map(column).collect()
    }

    /// Writes rows as CSV, some at a time; without any, the header alone.
    fn in_pieces<R>(
        &self,
        mut rows: impl Iterator<Item = R>,
        out: &mut dyn Write,
        columns: impl Fn(&[R]) -> Vec<Column>,
    ) -> PolarsResult<()> {
        let mut is_first = true;
        loop {
            let piece: Vec<R> = rows.by_ref().take(PIECE).collect();
            if piece.is_empty() && !is_first {
                return Ok(());
            }
            let mut frame = DataFrame::new_infer_height(columns(&piece))?;
            CsvWriter::new(&mut *out).include_header(is_first).with_float_precision(Some(6)).finish(&mut frame)?;
            is_first = false;
        }
    }
}
