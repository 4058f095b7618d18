//! CSV, one line per cell: the numbers behind a table, unrounded enough to be used again, with the experiment's own names of axes and labels.

use super::Table;
use crate::names;

/// The table in long form.
pub fn render(table: &Table) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let values =
        ["column", "mean", "half_width_95", "n", "expected", "standard_error", "not_below_best", table.scale.column()];
    let head: Vec<&str> = table.keys.0.iter().map(String::as_str).chain(values).collect();
    // Writing to memory cannot fail, and every record has the head's length.
    let _ = writer.write_record(&head);
    for row in &table.rows {
        for (column, entry) in table.keys.1.iter().zip(&row.entries) {
            let Some(entry) = entry else { continue };
            let summary = &entry.summary;
            let there = summary.n > 0;
            let number = |value: f64| if there { names::fixed(value, 6) } else { String::new() };
            let mut record = row.keys.clone();
            record.extend([
                column.clone(),
                number(summary.mean),
                summary.half_width.map(|h| names::fixed(h, 6)).unwrap_or_default(),
                summary.n.to_string(),
                summary.expected.to_string(),
                number(summary.standard_error),
                entry.bold.to_string(),
                entry.published.map(|p| names::fixed(p, 1)).unwrap_or_default(),
            ]);
            let _ = writer.write_record(&record);
        }
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}
