//! Checks the metrics against goldens of the authors' programs: `cargo run --release -p ressa-eval --example check_metrics FOLDER`,
//! where the folder holds `vqa.json`, `gqa.json`, `cider.json` and `retrieval.json`.

use std::{error::Error, path::Path};

use ressa_eval::metrics::{cider::CiderD, ptb::tokenize, retrieval::rank, vqa};
use serde_json::Value;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: check_metrics FOLDER")?;
    let read = |name: &str| -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&std::fs::read_to_string(Path::new(&folder).join(name))?)?)
    };
    println!("vqa        {}", vqa_accuracy(&read("vqa.json")?)?);
    println!("gqa        {}", gqa_accuracy(&read("gqa.json")?)?);
    println!("cider      {}", cider(&read("cider.json")?["pretokenised"], str::to_owned)?);
    println!("  raw      {}", cider(&read("cider.json")?["raw"], tokenize)?);
    println!("retrieval  {}", retrieval(&read("retrieval.json")?)?);
    Ok(())
}

fn list<T>(value: &Value, convert: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Box<dyn Error>> {
    let items = value.as_array().ok_or("expected a list")?;
    items.iter().map(|item| convert(item).ok_or_else(|| format!("unexpected value {item}").into())).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn vqa_accuracy(golden: &Value) -> Result<String, Box<dyn Error>> {
    let mut wrong = Vec::new();
    for case in golden["normalisation"].as_array().ok_or("no normalisation cases")? {
        let said = text(&case["text"]).ok_or("no text")?;
        if Some(vqa::normalize(&said).as_str()) != case["normalised"].as_str() {
            wrong.push(said);
        }
    }
    let questions = golden["questions"].as_array().ok_or("no questions")?;
    for question in questions {
        let answers = list(&question["answers"], |a| text(a).or_else(|| text(&a["answer"])))?;
        let said = text(&question["prediction"]).ok_or("no prediction")?;
        let expected = question["accuracy_lavis"].as_f64().ok_or("no accuracy")?;
        let scale = if expected > 1.0 { 100.0 } else { 1.0 };
        if (vqa::accuracy(&said, &answers) * scale - expected).abs() > 0.005 {
            wrong.push(format!("{said} {answers:?} {expected}"));
        }
    }
    Ok(verdict(questions.len(), &wrong))
}

fn gqa_accuracy(golden: &Value) -> Result<String, Box<dyn Error>> {
    let rows = golden["rows"].as_array().ok_or("no rows")?;
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let said = vqa::normalize_words(row["prediction"].as_str()?);
            let correct = Some(said.as_str()) == row["answer"].as_str();
            (correct != (row["correct"] == 1)).then_some(said)
        })
        .collect();
    Ok(verdict(rows.len(), &wrong))
}

fn cider(golden: &Value, words: impl Fn(&str) -> String) -> Result<String, Box<dyn Error>> {
    let text = |value: &Value| value.as_str().map(&words);
    let candidates = list(&golden["candidates"], text)?;
    let references = list(&golden["references"], |captions| list(captions, text).ok())?;
    let expected = list(&golden["per_image"], Value::as_f64)?;
    let borrowed: Vec<&[String]> = references.iter().map(Vec::as_slice).collect();
    let scorer = CiderD::new(&borrowed);
    let wrong: Vec<String> = candidates
        .iter()
        .enumerate()
        .map(|(i, candidate)| (scorer.score(i, candidate), expected[i]))
        .filter(|(ours, theirs)| (ours - theirs).abs() > 1e-9)
        .map(|(ours, theirs)| format!("{ours} instead of {theirs}"))
        .collect();
    Ok(verdict(candidates.len(), &wrong))
}

fn retrieval(golden: &Value) -> Result<String, Box<dyn Error>> {
    let matrix = |name: &str| list(&golden[name], |row| list(row, |v| v.as_f64().map(|v| v as f32)).ok());
    let right = list(&golden["img2txt"], |own| list(own, |v| v.as_u64().map(|v| v as usize)).ok())?;
    let image_of = list(&golden["txt2img"], |v| v.as_u64().or_else(|| v[0].as_u64()).map(|v| v as usize))?;
    let text_ranks: Vec<usize> = matrix("scores_i2t")?
        .iter()
        .zip(&right)
        .filter_map(|(scores, own)| own.iter().map(|text| rank(scores, *text)).min())
        .collect();
    let image_ranks: Vec<usize> =
        matrix("scores_t2i")?.iter().zip(&image_of).map(|(scores, image)| rank(scores, *image)).collect();
    let mut wrong = Vec::new();
    for (name, ranks) in [("txt", &text_ranks), ("img", &image_ranks)] {
        for k in [1, 5, 10] {
            let recall = 100.0 * ranks.iter().filter(|rank| **rank <= k).count() as f64 / ranks.len() as f64;
            let key = format!("{name}_r{k}");
            if golden[&key].as_f64().is_none_or(|expected| (recall - expected).abs() > 1e-9) {
                wrong.push(format!("{key}: {recall} instead of {}", golden[&key]));
            }
        }
    }
    Ok(verdict(text_ranks.len() + image_ranks.len(), &wrong))
}

fn verdict(cases: usize, wrong: &[String]) -> String {
    format!("{} of {cases} cases differ {wrong:?}", wrong.len())
}
