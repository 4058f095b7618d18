//! Markdown pipes, readable as plain text.

use std::fmt::Write;

use super::{Entry, Table};

/// The table with its caption and notes.
pub fn render(table: &Table) -> String {
    let mut out = format!("**{}**\n\n", escape(&table.caption));
    let heads: Vec<String> = table.stub.iter().chain(&table.columns).map(|head| escape(head)).collect();
    let _ = writeln!(out, "| {} |", heads.join(" | "));
    let rules = std::iter::repeat_n("---", table.stub.len()).chain(std::iter::repeat_n("---:", table.columns.len()));
    let _ = writeln!(out, "| {} |", rules.collect::<Vec<_>>().join(" | "));
    for row in &table.rows {
        let labels = row.labels.iter().map(|label| escape(label));
        let entries = row.entries.iter().map(|entry| entry.as_ref().map_or_else(String::new, text));
        let _ = writeln!(out, "| {} |", labels.chain(entries).collect::<Vec<_>>().join(" | "));
    }
    if !table.notes.is_empty() {
        let _ = writeln!(out, "\n{}", table.notes.iter().map(|note| escape(note)).collect::<Vec<_>>().join(" "));
    }
    out
}

fn text(entry: &Entry) -> String {
    let mut text = match entry.mean() {
        Some(mean) if entry.bold => format!("**{mean}**"),
        Some(mean) => mean,
        None => "–".to_owned(),
    };
    if let Some(half_width) = entry.half_width() {
        let _ = write!(text, " ± {half_width}");
    }
    if let Some(missing) = entry.missing() {
        let _ = write!(text, " {missing}†");
    }
    if let Some(published) = entry.published {
        let _ = write!(text, " \\[{}\\]", crate::names::fixed(published, 1));
    }
    text
}

/// Text that can stand in a cell or a paragraph.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
