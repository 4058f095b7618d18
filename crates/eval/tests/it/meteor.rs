//! METEOR without Java, against what its own program found (`scripts/export_meteor_goldens.py`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use ressa_eval::metrics::meteor::meteor;
use serde::Deserialize;
use zip::{ZipWriter, write::FileOptions};

#[derive(Deserialize)]
struct Golden {
    tables: BTreeMap<String, String>,
    paraphrases: Vec<(String, String)>,
    cases: Vec<Case>,
    total: f64,
}

#[derive(Deserialize)]
struct Case {
    caption: String,
    references: Vec<String>,
    score: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../fixtures/meteor.json")).expect("the golden")
}

/// A jar with tables, and paraphrases beside it.
fn jar(folder: &Path, tables: &BTreeMap<String, String>, paraphrases: &[(String, String)]) -> PathBuf {
    let path = folder.join("meteor.jar");
    let mut jar = ZipWriter::new(File::create(&path).expect("a file"));
    for (name, table) in tables {
        jar.start_file(name, FileOptions::default()).expect("an entry");
        jar.write_all(table.as_bytes()).expect("written");
    }
    jar.finish().expect("a jar");
    fs::create_dir_all(folder.join("data")).expect("a folder");
    let file = File::create(folder.join("data/paraphrase-en.gz")).expect("a file");
    let mut table = GzEncoder::new(file, Compression::fast());
    for (one, other) in paraphrases {
        writeln!(table, "0.5\n{one}\n{other}").expect("written");
    }
    table.finish().expect("a table");
    path
}

#[test]
fn captions_are_scored_as_by_the_original() {
    let Golden { tables, paraphrases, cases, total } = golden();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let jar = jar(folder.path(), &tables, &paraphrases);
    let captions: Vec<_> = cases.iter().map(|case| (case.caption.clone(), case.references.clone())).collect();
    let (all, scores) = meteor(&jar, &captions).expect("scores");
    for (case, score) in cases.iter().zip(scores) {
        assert!((score - case.score).abs() < 1e-12, "{score}, not {}: {}", case.score, case.caption);
    }
    assert!((all - total).abs() < 1e-12, "{all}, not {total}");
}

/// A caption of nothing, and one without references, have no match.
#[test]
fn nothing_scores_nothing() {
    let Golden { tables, paraphrases, .. } = golden();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let jar = jar(folder.path(), &tables, &paraphrases);
    let captions = [(String::new(), vec!["a dog".to_owned()]), ("a dog".to_owned(), Vec::new())];
    assert_eq!(meteor(&jar, &captions), Ok((0.0, vec![0.0, 0.0])));
}

#[test]
fn tables_that_are_missing_are_named() {
    let Golden { mut tables, paraphrases, .. } = golden();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = |jar: &Path| {
        let said = meteor(jar, &[("a dog".to_owned(), vec!["a dog".to_owned()])]).expect_err("no tables");
        said.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let missing = error(&folder.path().join("none.jar"));
    assert!(missing.starts_with("`FOLDER/none.jar` cannot be read: "), "{missing}");
    let text = folder.path().join("text.jar");
    fs::write(&text, "no jar").expect("written");
    assert!(error(&text).starts_with("`FOLDER/text.jar` is no jar: "), "{}", error(&text));
    let whole = jar(folder.path(), &tables, &paraphrases);
    fs::write(folder.path().join("data/paraphrase-en.gz"), "no table").expect("written");
    assert!(error(&whole).starts_with("`FOLDER/data/paraphrase-en.gz` cannot be read: "), "{}", error(&whole));
    let file = File::create(folder.path().join("data/paraphrase-en.gz")).expect("a file");
    let mut table = GzEncoder::new(file, Compression::fast());
    writeln!(table, "0.5\na dog").expect("written");
    table.finish().expect("a table");
    assert_eq!(error(&whole), "`FOLDER/data/paraphrase-en.gz` ends within a pair of phrases; fetch it again");
    tables.insert("synonym/english.synsets".to_owned(), "dog\none two\n".to_owned());
    let numbers = error(&jar(folder.path(), &tables, &paraphrases));
    assert_eq!(
        numbers,
        "its table `synonym/english.synsets`: the sets of `dog` are no numbers: invalid digit found in string"
    );
    tables.remove("function/english.words");
    let words = error(&jar(folder.path(), &tables, &paraphrases));
    assert!(words.starts_with("it has no table `function/english.words`: "), "{words}");
}
