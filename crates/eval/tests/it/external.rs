//! External scorers, played by shell scripts that answer as METEOR's and SPICE's jars do.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ressa_eval::{
    Aided, Prediction,
    external::{meteor::meteor, spice::spice},
};

fn captions() -> Vec<Prediction> {
    let caption = |id: usize, prediction: &str, references: &[&str]| Prediction::Caption {
        id: id.to_string(),
        prompt: String::new(),
        prediction: prediction.into(),
        references: references.iter().map(|&text| text.into()).collect(),
        set: None,
        aided: Aided::default(),
    };
    vec![caption(0, "A dog,  sitting.", &["a dog", "Two dogs!"]), caption(1, "a |||cat", &["a cat"])]
}

/// A folder with a program `java` and an empty jar.
fn played(script: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (java, jar) = (folder.path().join("java"), folder.path().join("scorer.jar"));
    fs::write(&java, format!("#!/bin/sh\n{script}")).expect("written");
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).expect("a program");
    fs::write(&jar, "").expect("written");
    (folder, java, jar)
}

const METEOR: &str = r#"
echo "$@" > arguments
while IFS= read -r line; do
  echo "$line" >> heard
  case $line in
    SCORE*) n=$((n + 1)); echo "$n.0 0.5";;
    EVAL*) i=0; while [ $i -lt $n ]; do echo 0.$((2 * i + 3)); i=$((i + 1)); done; echo 0.375;;
  esac
done"#;

#[test]
fn meteor_is_asked_as_pycocoevalcap_asks_it() {
    let (folder, java, jar) = played(METEOR);
    let score = meteor(Some(&java), &jar, &captions()).expect("a score");
    assert_eq!((score.metric.as_str(), score.value, score.items), ("meteor", 37.5, 2));
    // 30 and 50 points: standard deviation 10 sqrt 2, over sqrt 2.
    assert!((score.standard_error - 10.0).abs() < 1e-9);
    let said = |name: &str| fs::read_to_string(folder.path().join(name)).expect("what it heard");
    assert_eq!(said("arguments"), "-Dfile.encoding=UTF-8 -Xmx2G -jar scorer.jar - - -stdio -l en -norm\n");
    assert_eq!(
        said("heard"),
        "SCORE ||| a dog ||| two dogs ||| a dog sitting\nSCORE ||| a cat ||| a | | | cat\nEVAL ||| 1.0 0.5 ||| 2.0 0.5\n"
    );
}

#[test]
fn a_scorer_that_fails_says_what_it_said() {
    let message = |script: &str| {
        let (folder, java, jar) = played(script);
        let error = meteor(Some(&java), &jar, &captions()).expect_err("no score").to_string();
        error.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let early = message("echo 'Error: no paraphrase table' >&2; read line; exit 1");
    assert!(early.starts_with("METEOR: it") && early.ends_with("it said: Error: no paraphrase table"), "{early}");
    let words = message("while read line; do echo what; done");
    assert_eq!(words, "METEOR: its answer is no number: `what`; it said nothing");
    let missing =
        meteor(Some(Path::new("/nowhere/java")), Path::new("x.jar"), &captions()).expect_err("no program").to_string();
    assert!(missing.starts_with("METEOR: `/nowhere/java` cannot be started: "), "{missing}");
}

const SPICE: &str = r#"
while [ $# -gt 0 ]; do case $1 in -jar) asked=$3;; -out) out=$2;; esac; shift; done
cp "$asked" heard
echo '[{"image_id": 1, "scores": {"All": {"f": 0.5}}}, {"image_id": 0, "scores": {"All": {"f": null}}}]' > "$out""#;

#[test]
fn spice_is_the_mean_of_its_f_scores() {
    let (folder, java, jar) = played(SPICE);
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).expect("created");
    let score = spice(&java, &jar, &scratch, &captions()).expect("a score");
    assert_eq!((score.metric.as_str(), score.value, score.items), ("spice", 25.0, 2));
    let heard = fs::read(folder.path().join("heard")).expect("what it heard");
    let heard: serde_json::Value = serde_json::from_slice(&heard).expect("JSON");
    let expected = serde_json::json!([
        { "image_id": 0, "test": "a dog sitting", "refs": ["a dog", "two dogs"] },
        { "image_id": 1, "test": "a | | | cat", "refs": ["a cat"] },
    ]);
    assert_eq!(heard, expected);
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 1, "what it parsed is kept, nothing else");

    let (folder, java, jar) = played("echo 'Could not find models' >&2; exit 3");
    let error = spice(&java, &jar, folder.path(), &captions()).expect_err("no score").to_string();
    assert_eq!(error, "SPICE: it ended with exit status: 3; it said: Could not find models");
}
