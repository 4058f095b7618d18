//! HTML pages: one per experiment and the index, each a single file without scripts, readable in the light and in the dark.

use std::fmt::Write;

use crate::{
    claim::{Claim, Verdict},
    figure::output,
    rendered::Rendered,
    table,
};

const STYLE: &str = include_str!("../assets/page.css");

/// Text that can stand in HTML, attributes included.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page of one experiment.
pub fn report(rendered: &Rendered) -> String {
    let body = format!(
        "<header><p class=\"crumb\"><a href=\"../index.html\">all experiments</a></p><h1>{}</h1></header>\n<main>{}</main>",
        escape(&rendered.name),
        section(rendered, "")
    );
    page(&rendered.name, &body)
}

/// The page that leads to everything; `others` are folders of earlier renderings.
pub fn index(all: &[Rendered], others: &[String]) -> String {
    let mut body = String::from(
        "<header><h1>Pruning vision-language models</h1><p class=\"lead\">Tables, figures and claims, made by ressa from \
         the runs in <code>store/</code>.</p></header>\n<main>",
    );
    body.push_str(
        "<nav><table class=\"overview\"><thead><tr><th class=\"stub\">Experiment</th><th class=\"stub\">Question</th>\
                   <th class=\"stub\">Runs</th><th class=\"stub\">Claims</th></tr></thead><tbody>\n",
    );
    for one in all {
        let (id, name) = (escape(&one.name), escape(&one.name));
        let question = escape(&one.question);
        let runs = status(one);
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\" class=\"stub\"><a href=\"#{id}\">{name}</a></th><td class=\"text\">{question}</td><td class=\"text\">{runs}</td>\
             <td class=\"text\">{}</td></tr>",
            tally(&one.claims)
        );
    }
    body.push_str("</tbody></table></nav>\n");
    for one in all {
        let id = escape(&one.name);
        let _ = write!(
            body,
            "<article id=\"{id}\"><h2><a href=\"{id}/report.html\">{id}</a></h2>\n{}</article>\n",
            section(one, &format!("{}/", one.name))
        );
    }
    if !others.is_empty() {
        body.push_str("<article><h2>Earlier results</h2><ul class=\"files\">");
        for other in others {
            let other = escape(other);
            let _ = write!(body, "<li><a href=\"{other}/report.html\">{other}</a></li>");
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

fn status(one: &Rendered) -> String {
    if one.done == one.expected {
        format!("{} complete", one.expected)
    } else {
        format!("<span class=\"missing\">{}/{}†</span>", one.done, one.expected)
    }
}

fn tally(claims: &[Claim]) -> String {
    let mut words = Vec::new();
    for (verdict, class) in
        [(Verdict::Holds, "holds"), (Verdict::DoesNotHold, "fails"), (Verdict::Undecided, "undecided")]
    {
        let these = || claims.iter().filter(|claim| claim.verdict == verdict);
        let (count, provisional) = (these().count(), these().filter(|claim| claim.provisional.is_some()).count());
        if count > 0 {
            let note = if provisional > 0 { format!(" ({provisional} provisional)") } else { String::new() };
            words.push(format!("<span class=\"verdict {class}\">{count} {verdict}{note}</span>"));
        }
    }
    words.join(" ")
}

fn section(one: &Rendered, base: &str) -> String {
    let mut out = String::new();
    if !one.question.is_empty() {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(&one.question));
    }
    if one.done < one.expected {
        let _ = writeln!(
            out,
            "<p class=\"provisional\">Provisional: {} of {} runs have all their results. Places with a missing measurement carry †.</p>",
            one.done, one.expected
        );
    }
    out.push_str("<div class=\"figures\">\n");
    for figure in &one.figures {
        let class = if figure.model.width > 5.0 { "plot wide" } else { "plot" };
        let id = escape(&figure.model.id);
        let _ = writeln!(
            out,
            "<figure class=\"{class}\">{}<figcaption>{} <span class=\"links\"><a href=\"{base}{id}.svg\">SVG</a> \
             <a href=\"{base}{id}.png\">PNG</a> <a href=\"{base}{id}.csv\">data</a></span></figcaption></figure>",
            output::inline(&figure.svg),
            escape(&figure.model.caption),
        );
    }
    out.push_str("</div>\n");
    for table in &one.tables {
        out.push_str(&table::html::render(table));
        let id = escape(&table.id);
        let _ = writeln!(
            out,
            "<p class=\"links\"><a href=\"{base}{id}.tex\">LaTeX</a> <a href=\"{base}{id}.md\">Markdown</a> <a href=\"{base}{id}.csv\">CSV</a></p>"
        );
    }
    if !one.claims.is_empty() {
        out.push_str("<h3>Claims</h3>\n<div class=\"claims\">\n");
        for claim in &one.claims {
            out.push_str(&claim_html(claim));
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

fn claim_html(claim: &Claim) -> String {
    let class = match claim.verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "fails",
        Verdict::Undecided => "undecided",
    };
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
