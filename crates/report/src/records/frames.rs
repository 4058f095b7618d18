//! What is aggregated as data frames, which are written as CSV.

use std::io::Write;

use polars::prelude::*;

use super::{Records, Summary};

/// Rows that are turned into text at once.
const PIECE: usize = 1 << 15;

impl Records {
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
