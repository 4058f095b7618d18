//! METEOR 1.5 (Denkowski and Lavie, 2014) of the tables in its jar, or by the jar itself, as pycocoevalcap 1.2 calls it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ressa_experiment::record::Score;

use super::{Captions, captions, last_words, place, points};
use crate::{EvalError, Prediction, metrics};

const PROGRAM: &str = "METEOR";

/// METEOR of captions in points, from all counts together, with the standard error over captions.
///
/// `jar` is `meteor-1.5.jar`, with `data/paraphrase-en.gz` in the folder beside it. With `java`, that program runs it; without, its tables are read and the score is
/// computed here, which gives the same.
///
/// # Errors
/// Tables that cannot be read; a program that cannot be started, ends early or answers with something else than numbers.
pub fn meteor(java: Option<&Path>, jar: &Path, predictions: &[Prediction]) -> Result<Score, EvalError> {
    let mut captions = captions(predictions, PROGRAM)?;
    // As pycocoevalcap cleans them, for both: the jar reads parts of a line between these marks.
    for (caption, _) in &mut captions {
        *caption = caption.replace("|||", "").replace("  ", " ");
    }
    let (value, items) = match java {
        Some(java) => run(java, jar, &captions)?,
        None => metrics::meteor::meteor(jar, &captions)
            .map_err(|reason| EvalError::External { program: PROGRAM, reason })?,
    };
    Ok(points("meteor", value, &items))
}

fn run(java: &Path, jar: &Path, captions: &Captions) -> Result<(f64, Vec<f64>), EvalError> {
    let failed = |reason: String| EvalError::External { program: PROGRAM, reason };
    let (folder, name) = place(jar).ok_or_else(|| failed(format!("`{}` is no file", jar.display())))?;
    let mut command = Command::new(java);
    command.args(["-Dfile.encoding=UTF-8", "-Xmx2G", "-jar"]).arg(name).args(["-", "-", "-stdio", "-l", "en", "-norm"]);
    if !folder.as_os_str().is_empty() {
        command.current_dir(folder);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| failed(format!("`{}` cannot be started: {e}", java.display())))?;
    let mut talk = Talk::with(child).ok_or_else(|| failed("it has no standard input or output".to_owned()))?;
    let scored = (|| -> Result<(f64, Vec<f64>), String> {
        let mut counts = String::from("EVAL");
        for (caption, references) in captions {
            let answer = talk.ask(&format!("SCORE ||| {} ||| {caption}", references.join(" ||| ")))?;
            counts += " ||| ";
            counts += answer.trim();
        }
        talk.say(&counts)?;
        let items = captions.iter().map(|_| talk.number()).collect::<Result<Vec<f64>, String>>()?;
        Ok((talk.number()?, items))
    })();
    match scored {
        Ok(scores) => {
            talk.end();
            Ok(scores)
        }
        Err(reason) => Err(failed(format!("{reason}; {}", talk.last_words()))),
    }
}

/// A program that answers each line with a line.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn with(mut child: Child) -> Option<Self> {
        let (input, output) = (child.stdin.take()?, child.stdout.take()?);
        Some(Self { child, input: Some(input), output: BufReader::new(output) })
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("it was told to end")?;
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(|e| format!("it takes no line: {e}"))
    }

    fn hear(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("it ended early".to_owned()),
            Ok(_) => Ok(line),
            Err(e) => Err(format!("its answer cannot be read: {e}")),
        }
    }

    fn ask(&mut self, line: &str) -> Result<String, String> {
        self.say(line)?;
        self.hear()
    }

    fn number(&mut self) -> Result<f64, String> {
        let line = self.hear()?;
        line.trim().parse().map_err(|_| format!("its answer is no number: `{}`", line.trim()))
    }

    /// Ends it by the end of its input.
    fn end(mut self) {
        self.input = None;
        let _ = self.child.wait();
    }

    fn last_words(mut self) -> String {
        self.input = None;
        let _ = self.child.kill();
        let mut said = Vec::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_end(&mut said);
        }
        let _ = self.child.wait();
        last_words(&said)
    }
}
