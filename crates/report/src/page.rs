//! HTML pages: one per experiment and the index, each a single file without scripts, readable in the light and in the dark.

use std::fmt::Write;

use crate::{
    claim::{Claim, Verdict},
    figure::output,
    saved::Saved,
};

const STYLE: &str = include_str!("../assets/page.css");

/// Text that can stand in HTML and in XML, attributes included.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            // XML has no place for these, however they are written.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A folder's name as part of a link or as an anchor: everything but letters, digits and `-._~` in per cent.
fn link(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The page of one experiment.
pub(crate) fn report(saved: &Saved, drawings: &[String]) -> String {
    let body = format!(
        "<header><p class=\"crumb\"><a href=\"../index.html\">all experiments</a></p><h1>{}</h1></header>\n<main>{}</main>",
        escape(&saved.name),
        section(saved, drawings, "")
    );
    page(&saved.name, &body)
}

/// The page that leads to everything: reports with their drawings, and folders of versions that recorded nothing.
pub(crate) fn index(all: &[(Saved, Vec<String>)], others: &[String]) -> String {
    let mut body = String::from(
        "<header><h1>Pruning vision-language models</h1><p class=\"lead\">Tables, figures and claims, made by ressa from \
         the runs in <code>store/</code>.</p></header>\n<main>",
    );
    body.push_str(
        "<nav><table class=\"overview\"><thead><tr><th class=\"stub\">Experiment</th><th class=\"stub\">Question</th>\
                   <th class=\"stub\">Runs</th><th class=\"stub\">Claims</th></tr></thead><tbody>\n",
    );
    for (one, _) in all {
        let (id, name) = (link(&one.name), escape(&one.name));
        let question = escape(&one.question);
        let runs = status(one);
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\" class=\"stub\"><a href=\"#{id}\">{name}</a></th><td class=\"text\">{question}</td><td class=\"text\">{runs}</td>\
             <td class=\"text\">{}</td></tr>",
            tally(one)
        );
    }
    body.push_str("</tbody></table></nav>\n");
    for (one, drawings) in all {
        let (id, name) = (link(&one.name), escape(&one.name));
        let _ = write!(
            body,
            "<article id=\"{id}\"><h2><a href=\"{id}/report.html\">{name}</a></h2>\n{}</article>\n",
            section(one, drawings, &format!("{id}/"))
        );
    }
    if !others.is_empty() {
        body.push_str("<article><h2>Earlier results</h2><ul class=\"files\">");
        for other in others {
            let _ = write!(body, "<li><a href=\"{}/report.html\">{}</a></li>", link(other), escape(other));
        }
        body.push_str("</ul></article>\n");
    }
    body.push_str("</main>");
    page("ressa: results", &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
        escape(title),
        output::font_face(),
    )
}

fn status(one: &Saved) -> String {
    if one.done == one.expected {
        format!("{} complete", one.expected)
    } else {
        format!("<span class=\"missing\">{}/{}†</span>", one.done, one.expected)
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "fails",
        Verdict::Undecided => "undecided",
    }
}

fn tally(one: &Saved) -> String {
    let word = |(verdict, count, provisional): (Verdict, usize, usize)| {
        let note = if provisional > 0 { format!(" ({provisional} provisional)") } else { String::new() };
        format!("<span class=\"verdict {}\">{count} {verdict}{note}</span>", class(verdict))
    };
    one.tally().into_iter().map(word).collect::<Vec<_>>().join(" ")
}

fn section(one: &Saved, drawings: &[String], base: &str) -> String {
    let mut out = String::new();
    if !one.question.is_empty() {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(&one.question));
    }
    if !one.origin.is_whole() {
        let _ = writeln!(
            out,
            "<p class=\"provisional\">A selection, not the whole experiment: <code>{}</code></p>",
            escape(&one.origin.to_string())
        );
    }
    if one.done < one.expected {
        let _ = writeln!(
            out,
            "<p class=\"provisional\">Provisional: {} of {} runs have all their results. Places with a missing measurement carry †.</p>",
            one.done, one.expected
        );
    }
    out.push_str("<div class=\"figures\">\n");
    for (figure, drawing) in one.figures.iter().zip(drawings) {
        let class = if figure.wide { "plot wide" } else { "plot" };
        let id = link(&figure.id);
        let _ = writeln!(
            out,
            "<figure class=\"{class}\">{}<figcaption>{} <span class=\"links\"><a href=\"{base}{id}.pdf\">PDF</a> <a href=\"{base}{id}.svg\">SVG</a> \
             <a href=\"{base}{id}.png\">PNG</a> <a href=\"{base}{id}.csv\">data</a></span></figcaption></figure>",
            output::inline(drawing),
            escape(&figure.caption),
        );
    }
    out.push_str("</div>\n");
    for table in &one.tables {
        out.push_str(&table.html);
        let id = link(&table.id);
        let _ = writeln!(
            out,
            "<p class=\"links\"><a href=\"{base}{id}.tex\">LaTeX</a> <a href=\"{base}{id}.md\">Markdown</a> <a href=\"{base}{id}.csv\">CSV</a></p>"
        );
    }
    if !one.claims.is_empty() {
        out.push_str("<h3>Claims</h3>\n<div class=\"claims\">\n");
        for claim in &one.claims {
            out.push_str(&claim.html);
        }
        let _ = writeln!(
            out,
            "</div>\n<p class=\"links\"><a href=\"{base}claims.md\">Markdown</a> <a href=\"{base}claims.csv\">CSV</a></p>"
        );
    }
    out.push_str("<details><summary>Where the numbers come from</summary>\n<dl>\n");
    for (name, text) in &one.provenance {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(text));
    }
    let _ = writeln!(
        out,
        "</dl>\n<p class=\"links\"><a href=\"{base}records.csv\">records.csv</a> every value of every cell, with the stages it was \
         computed from; <a href=\"{base}summary.csv\">summary.csv</a> means over seeds; <a href=\"{base}report.md\">report.md</a> this page as text.</p></details>"
    );
    out
}

/// A claim with its numbers.
pub(crate) fn claim_html(claim: &Claim) -> String {
    let class = class(claim.verdict);
    let mut out = format!(
        "<div class=\"claim\"><p><span class=\"verdict {class}\">{}</span> {}</p><p class=\"note\">{}</p>",
        claim.outcome(),
        escape(&claim.text),
        escape(&claim.reason)
    );
    if claim.evidence.len() > 1 {
        let _ = write!(
            out,
            "<details><summary>numbers</summary><table class=\"evidence\"><thead><tr><th class=\"stub\">at</th><th>{}</th><th>{}</th>\
             <th>difference, 95 % interval of each</th></tr></thead><tbody>",
            escape(&claim.sides.0),
            escape(&claim.sides.1)
        );
        for evidence in &claim.evidence {
            let number = |value: f64| {
                if value.is_finite() { crate::names::fixed(value, evidence.decimals) } else { "–".to_owned() }
            };
            let _ = write!(
                out,
                "<tr><th class=\"stub\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&evidence.place),
                number(evidence.a),
                number(evidence.b),
                escape(&evidence.text())
            );
        }
        out.push_str("</tbody></table></details>");
    }
    out.push_str("</div>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup_or_leads_elsewhere() {
        assert_eq!(escape("a\"b<c>&'\u{1}"), "a&quot;b&lt;c&gt;&amp;&#39;\u{fffd}");
        assert_eq!(link("Mein Versuch (1)@0a"), "Mein%20Versuch%20%281%29%400a");
        assert_eq!(link("naïve#?"), "na%C3%AFve%23%3F");
    }
}
