//! LaTeX with booktabs: a `tabular` with its notes below for `\input` into a `table`, nothing but `\usepackage{booktabs}` needed.
//!
//! Many columns stand closer, and published numbers get a line of their own there, so that ten fit the width of a page.

use std::fmt::Write;

use super::{Entry, Table};

/// The table as a LaTeX fragment.
pub fn render(table: &Table) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "% {}", table.made.replace('\n', " "));
    let _ = writeln!(out, "% \\caption{{{}}}", escape(&table.caption));
    let close = table.stub.len() + table.columns.len() > 5;
    if close {
        out.push_str("\\begingroup\\setlength{\\tabcolsep}{3pt}%\n");
    }
    let _ = writeln!(out, "\\begin{{tabular}}{{{}{}}}", "l".repeat(table.stub.len()), "r".repeat(table.columns.len()));
    out.push_str("\\toprule\n");
    let heads: Vec<String> = table.stub.iter().chain(&table.columns).map(|head| escape(head)).collect();
    let _ = writeln!(out, "{} \\\\\n\\midrule", heads.join(" & "));
    let mut previous: Option<&super::Row> = None;
    for row in &table.rows {
        if let Some(previous) = previous {
            let new_group = table.stub.len() > 1 && previous.labels[0] != row.labels[0];
            if previous.baseline || new_group {
                out.push_str("\\midrule\n");
            }
        }
        let mut cells: Vec<String> = Vec::new();
        for (position, label) in row.labels.iter().enumerate() {
            let repeats = position + 1 < row.labels.len()
                && previous.is_some_and(|p| !p.baseline && p.labels[..=position] == row.labels[..=position]);
            cells.push(if repeats { String::new() } else { escape(label) });
        }
        let stacked = table.is_stacked();
        cells.extend(row.entries.iter().map(|entry| entry.as_ref().map_or_else(String::new, |e| text(e, !stacked))));
        let _ = writeln!(out, "{} \\\\", cells.join(" & "));
        if stacked && row.entries.iter().flatten().any(|entry| entry.published.is_some()) {
            let mut cells = vec![String::new(); row.labels.len()];
            cells.extend(row.entries.iter().map(|entry| {
                let number = entry.as_ref().and_then(|entry| entry.published);
                number.map_or_else(String::new, published)
            }));
            let _ = writeln!(out, "{} \\\\", cells.join(" & "));
        }
        previous = Some(row);
    }
    out.push_str("\\bottomrule\n\\end{tabular}");
    out.push_str(if close { "\\endgroup\n" } else { "\n" });
    if !table.notes.is_empty() {
        let notes: Vec<String> = table.notes.iter().map(|note| escape(note)).collect();
        let _ = writeln!(out, "\\par\\smallskip{{\\footnotesize {}\\par}}", notes.join(" "));
    }
    out
}

fn text(entry: &Entry, beside: bool) -> String {
    let mut text = match entry.mean() {
        Some(mean) if entry.bold => format!("\\textbf{{{}}}", minus(&mean)),
        Some(mean) => minus(&mean),
        None => "--".to_owned(),
    };
    if let Some(half_width) = entry.half_width() {
        let _ = write!(text, "\\,{{\\scriptsize$\\pm$\\,{half_width}}}");
    }
    if let Some(missing) = entry.missing() {
        let _ = write!(text, "\\,{{\\scriptsize{missing}$^\\dagger$}}");
    }
    if let Some(number) = entry.published.filter(|_| beside) {
        let _ = write!(text, "\\,{}", published(number));
    }
    text
}

fn published(number: f64) -> String {
    format!("{{\\scriptsize[{}]}}", minus(&crate::names::fixed(number, 1)))
}

fn minus(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(rest) => format!("$-${rest}"),
        None => number.to_owned(),
    }
}

/// Text with every character that LaTeX would take as a command made harmless.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '\\' => out.push_str("\\textbackslash{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '†' => out.push_str("$^\\dagger$"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_label_is_a_command() {
        assert_eq!(
            escape(r"50 % & #1_a {x} $y^2$ ~ \input"),
            r"50 \% \& \#1\_a \{x\} \$y\textasciicircum{}2\$ \textasciitilde{} \textbackslash{}input"
        );
        assert_eq!(escape("a\nb < ±†"), "a b \\textless{} $\\pm$$^\\dagger$");
    }
}
