//! The page of a run: everything that is shown of it, with the images of its predictions.

use std::fmt::Write;

use ressa_experiment::rounded_percent;
use ressa_report::page::escape;

use super::{Shown, predictions::Predicted, written};
use crate::text::{duration, thousands};

const STYLE: &str = include_str!("page.css");

/// The page; it needs no other file and names no place of this machine beyond what is shown on the terminal.
pub fn page(shown: &Shown) -> String {
    let mut out = String::new();
    let title = escape(&shown.label);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p class=\"id\">{}</p>\n",
        escape(&shown.id)
    );
    let scores: Vec<Vec<String>> = (shown.numbers.scores.iter())
        .map(|score| vec![score.name.clone(), score.metric.clone(), written(score), score.items.to_string()])
        .collect();
    table(&mut out, "Scores", &["task", "metric", "score ± standard error", "items"], &scores);
    let certificate: Vec<Vec<String>> = (shown.numbers.certificate.iter())
        .map(|tower| {
            vec![
                tower.tower.to_string(),
                thousands(tower.weights),
                rounded_percent(tower.zeros as f64 / tower.weights as f64),
                tower.revived.to_string(),
                tower.group_violations.to_string(),
            ]
        })
        .collect();
    table(&mut out, "Certificate", &["tower", "weights", "sparsity", "revived", "N:M violations"], &certificate);
    for evaluated in &shown.predictions {
        let (task, shown, items) = (evaluated.task, evaluated.predictions.len(), evaluated.items);
        let _ = writeln!(out, "<h2>{task}: {shown} of {items} predictions</h2>\n<div class=\"cards\">");
        evaluated.predictions.iter().for_each(|one| card(&mut out, one));
        out.push_str("</div>\n");
        if let Some(note) = &evaluated.note {
            let _ = writeln!(out, "<p>{}</p>", escape(note));
        }
    }
    let steps: Vec<Vec<String>> =
        (shown.steps.iter()).map(|step| vec![step.name.clone(), step.step.to_owned(), step.what.clone()]).collect();
    table(&mut out, "Steps", &["step", "kind", "what"], &steps);
    let stages: Vec<Vec<String>> = (shown.stages.iter())
        .map(|stage| {
            let took = stage.seconds.map(duration).unwrap_or_default();
            vec![stage.key[..12].to_owned(), stage.what.clone(), stage.state.to_owned(), took, stage.maker()]
        })
        .collect();
    table(&mut out, "Stages", &["key", "stage", "state", "took", "made by"], &stages);
    let settings: Vec<Vec<String>> = (shown.settings.iter())
        .filter(|setting| !setting.is_default())
        .map(|setting| vec![setting.path().to_owned(), setting.value(), setting.source()])
        .collect();
    table(&mut out, "Settings", &["setting", "value", "from"], &settings);
    out.push_str("</body></html>\n");
    out
}

fn table(out: &mut String, title: &str, head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>{title}</h2>\n<table><thead><tr>");
    for name in head {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    out.push_str("</tbody></table>\n");
}

fn card(out: &mut String, one: &Predicted) {
    let name = one.image.as_deref().unwrap_or(&one.id);
    let class = if one.points > 0.0 { "card" } else { "card wrong" };
    let _ = write!(out, "<figure class=\"{class}\">");
    match one.picture.as_ref().and_then(|picture| picture.address()) {
        Some((address, size)) => {
            // Drawings are small; their pixels are shown as squares.
            let drawn = if size.is_some_and(|(width, _)| width < 128) { " class=\"drawn\"" } else { "" };
            let _ = write!(out, "<img{drawn} src=\"{address}\" alt=\"{}\">", escape(name));
        }
        None => out.push_str("<div class=\"none\">image not found</div>"),
    }
    let _ = write!(out, "<figcaption><span class=\"name\">{}</span>", escape(name));
    for caption in &one.retrieved {
        let _ = write!(out, "<span class=\"prompt\">{}</span>", escape(caption));
    }
    if let Some(prompt) = &one.prompt {
        let _ = write!(out, "<span class=\"prompt\">{}</span>", escape(prompt));
    }
    let _ = write!(out, "<strong>{}</strong>", escape(&one.prediction));
    let mut right = one.right.clone();
    right.dedup();
    if !right.is_empty() {
        let _ = write!(out, "<span class=\"right\">{}</span>", escape(&right.join(" · ")));
    }
    let _ = writeln!(out, "<span class=\"points\">{:.1} points</span></figcaption></figure>", one.points);
}
