//! LaTeX with booktabs: a `tabular` with its notes below for `\input` into a `table`, nothing but `\usepackage{booktabs}` needed.
//!
//! Many columns stand closer, and published numbers get a line of their own there, so that ten fit the width of a page.

use std::{collections::BTreeSet, fmt::Write};

use super::{Entry, Table};

/// The table as a LaTeX fragment.
pub fn render(table: &Table) -> String {
    let mut out = String::new();
    let one_line = |text: &str| text.replace(char::is_control, " ");
    let _ = writeln!(out, "% {}", one_line(&table.made));
    let _ = writeln!(out, "% \\caption{{{}}}", escape(&table.caption));
    let foreign = foreign(table);
    if !foreign.is_empty() {
        let list: Vec<String> = foreign.iter().map(|c| format!("{c} (U+{:04X})", u32::from(*c))).collect();
        let _ = writeln!(
            out,
            "% pdfLaTeX names these by their codes; LuaLaTeX and XeLaTeX show them in a font that has them: {}",
            list.join(", ")
        );
    }
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

/// Text with every character that LaTeX would take as a command, an option or a ligature made harmless. What Computer Modern has no sign for is
/// passed to LuaLaTeX and XeLaTeX as it is and named by its code to pdfLaTeX, so that every engine compiles it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut foreign = String::new();
    let mut previous = ' ';
    for c in text.chars() {
        if is_foreign(c) {
            foreign.push(c);
            previous = c;
            continue;
        }
        flush(&mut foreign, &mut out);
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            // At the beginning of a row these would belong to the end of the row above.
            '[' | ']' | '*' => {
                out.push('{');
                out.push(c);
                out.push('}');
            }
            // Two of one kind would become one sign.
            '-' | ',' | '\'' if previous == c => {
                out.push_str("{}");
                out.push(c);
            }
            c => match command(c) {
                Some(command) => out.push_str(command),
                None if c.is_control() => out.push(' '),
                None => out.push(c),
            },
        }
        previous = c;
    }
    flush(&mut foreign, &mut out);
    out
}

/// How a character is written that is a command, or a sign of its own.
fn command(c: char) -> Option<&'static str> {
    Some(match c {
        '~' => "\\textasciitilde{}",
        '^' => "\\textasciicircum{}",
        '\\' => "\\textbackslash{}",
        '<' => "\\textless{}",
        '>' => "\\textgreater{}",
        '|' => "\\textbar{}",
        '"' => "\\texttt{\\char34}",
        '`' => "\\textasciigrave{}",
        '\u{a0}' => "~",
        '–' => "{--}",
        '—' => "{---}",
        '‘' => "{`}",
        '’' => "{'}",
        '“' => "{``}",
        '”' => "{''}",
        '…' => "\\dots{}",
        '•' => "\\textbullet{}",
        '§' => "\\S{}",
        '¶' => "\\P{}",
        '©' => "\\copyright{}",
        '®' => "\\textregistered{}",
        '™' => "\\texttrademark{}",
        '£' => "\\pounds{}",
        '†' => "$^\\dagger$",
        '‡' => "$^\\ddagger$",
        '±' => "$\\pm$",
        '×' => "$\\times$",
        '÷' => "$\\div$",
        '·' => "$\\cdot$",
        '−' => "$-$",
        '°' => "$^\\circ$",
        '²' => "$^2$",
        '³' => "$^3$",
        '¹' => "$^1$",
        '½' => "$\\frac12$",
        '¼' => "$\\frac14$",
        '¾' => "$\\frac34$",
        '«' => "$\\ll$",
        '»' => "$\\gg$",
        '¬' => "$\\neg$",
        '≤' => "$\\leq$",
        '≥' => "$\\geq$",
        '≠' => "$\\neq$",
        '≈' => "$\\approx$",
        '∞' => "$\\infty$",
        '√' => "$\\surd$",
        '∈' => "$\\in$",
        '∑' => "$\\sum$",
        '∏' => "$\\prod$",
        '∂' => "$\\partial$",
        '∆' | 'Δ' => "$\\Delta$",
        '→' => "$\\rightarrow$",
        '←' => "$\\leftarrow$",
        '↑' => "$\\uparrow$",
        '↓' => "$\\downarrow$",
        '↔' => "$\\leftrightarrow$",
        '⇒' => "$\\Rightarrow$",
        'α' => "$\\alpha$",
        'β' => "$\\beta$",
        'γ' => "$\\gamma$",
        'δ' => "$\\delta$",
        'ε' => "$\\varepsilon$",
        'ζ' => "$\\zeta$",
        'η' => "$\\eta$",
        'θ' => "$\\theta$",
        'κ' => "$\\kappa$",
        'λ' => "$\\lambda$",
        'µ' | 'μ' => "$\\mu$",
        'ν' => "$\\nu$",
        'ξ' => "$\\xi$",
        'π' => "$\\pi$",
        'ρ' => "$\\rho$",
        'σ' => "$\\sigma$",
        'τ' => "$\\tau$",
        'φ' => "$\\varphi$",
        'χ' => "$\\chi$",
        'ψ' => "$\\psi$",
        'ω' => "$\\omega$",
        'Γ' => "$\\Gamma$",
        'Θ' => "$\\Theta$",
        'Λ' => "$\\Lambda$",
        'Σ' => "$\\Sigma$",
        'Φ' => "$\\Phi$",
        'Ψ' => "$\\Psi$",
        'Ω' => "$\\Omega$",
        _ => return None,
    })
}

/// Whether pdfLaTeX with its first font has neither the character nor a command for it.
fn is_foreign(c: char) -> bool {
    let latin = ('\u{c0}'..='\u{17f}').contains(&c) && !"ÐðÞþ×÷ĄąĐđĘęĦħĮįĸŊŋŦŧŲųĿŀŉſ".contains(c);
    !(c.is_ascii() || c.is_control() || latin || "¡¿".contains(c) || command(c).is_some())
}

fn flush(foreign: &mut String, out: &mut String) {
    if foreign.is_empty() {
        return;
    }
    let codes: Vec<String> = foreign.chars().map(|c| format!("U+{:04X}", u32::from(c))).collect();
    let _ = write!(out, "\\ifdefined\\Umathchar {foreign}\\else {}\\fi{{}}", codes.join(" "));
    foreign.clear();
}

/// Every character of a table that pdfLaTeX can only name.
pub(crate) fn foreign(table: &Table) -> BTreeSet<char> {
    let heads = table.stub.iter().chain(&table.columns);
    let labels = table.rows.iter().flat_map(|row| &row.labels);
    heads.chain(labels).chain(&table.notes).flat_map(|text| text.chars()).filter(|&c| is_foreign(c)).collect()
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
        assert_eq!(escape("[50, 50]"), "{[}50, 50{]}");
        assert_eq!(escape("*best*"), "{*}best{*}");
        assert_eq!(escape("a|b \"q\" x--y z---"), r#"a\textbar{}b \texttt{\char34}q\texttt{\char34} x-{}-y z-{}-{}-"#);
        assert_eq!(escape("naïve α ≤ ½"), "naïve $\\alpha$ $\\leq$ $\\frac12$");
        assert_eq!(escape("中文!"), "\\ifdefined\\Umathchar 中文\\else U+4E2D U+6587\\fi{}!");
        assert_eq!(escape("\u{1}\u{7f}x"), "  x");
    }
}
