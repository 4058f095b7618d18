//! HTML: a `<figure>` with the table, its caption and notes, styled by the page it stands in.

use std::fmt::Write;

use super::{Entry, Table};
use crate::{page::escape, published::Scale};

/// The table as an HTML fragment.
pub fn render(table: &Table) -> String {
    let mut out = format!("<figure class=\"table\"><figcaption>{}</figcaption>\n", escape(&table.caption));
    out.push_str("<div class=\"scroll\">");
    out.push_str(if table.is_stacked() { "<table class=\"stacked\">" } else { "<table>" });
    out.push_str("\n<thead><tr>");
    for head in &table.stub {
        let _ = write!(out, "<th scope=\"col\" class=\"stub\">{}</th>", escape(head));
    }
    for head in &table.columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(head));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let mut previous: Option<&super::Row> = None;
    for row in &table.rows {
        let group = previous.is_some_and(|p| table.stub.len() > 1 && !p.baseline && p.labels[0] != row.labels[0]);
        let class = match (row.baseline, group) {
            (true, _) => " class=\"baseline\"",
            (false, true) => " class=\"group\"",
            (false, false) => "",
        };
        let _ = write!(out, "<tr{class}>");
        for (position, label) in row.labels.iter().enumerate() {
            let repeats = position + 1 < row.labels.len()
                && previous.is_some_and(|p| !p.baseline && p.labels[..=position] == row.labels[..=position]);
            let class = if repeats { "stub again" } else { "stub" };
            let _ = write!(out, "<th scope=\"row\" class=\"{class}\">{}</th>", escape(label));
        }
        for entry in &row.entries {
            let _ = write!(out, "<td>{}</td>", entry.as_ref().map_or_else(String::new, |e| text(e, table.scale)));
        }
        out.push_str("</tr>\n");
        previous = Some(row);
    }
    out.push_str("</tbody></table></div>\n");
    if !table.notes.is_empty() {
        let notes: Vec<String> = table.notes.iter().map(|note| escape(note)).collect();
        let _ = writeln!(out, "<p class=\"note\">{}</p>", notes.join(" "));
    }
    out.push_str("</figure>\n");
    out
}

fn text(entry: &Entry, scale: Scale) -> String {
    let mut text = match entry.mean() {
        Some(mean) if entry.bold => format!("<b>{mean}</b>"),
        Some(mean) => mean,
        None => "–".to_owned(),
    };
    if let Some(half_width) = entry.half_width() {
        let _ = write!(text, " <small>± {half_width}</small>");
    }
    if let Some(missing) = entry.missing() {
        let _ = write!(text, " <small class=\"missing\">{missing}†</small>");
    }
    if let Some(published) = entry.published {
        let title = escape(scale.mark());
        let number = crate::names::fixed(published, 1);
        let _ = write!(text, " <small class=\"published\" title=\"{title}\">[{number}]</small>");
    }
    text
}
