//! Text for people: lines, durations, sizes, aligned columns.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The one writer of standard output, where a command's answer goes.
struct Answer {
    /// Whether the answer is one JSON value, and lines for people go to standard error.
    json: bool,
    /// Whether that value was written.
    given: bool,
    /// Why something could not be written.
    error: Option<io::Error>,
}

static ANSWER: Mutex<Answer> = Mutex::new(Answer { json: false, given: false, error: None });

impl Answer {
    fn write(&mut self, line: impl Display) {
        match writeln!(io::stdout().lock(), "{line}") {
            Ok(()) => {}
            // A reader that has gone away has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }
}

fn answer() -> MutexGuard<'static, Answer> {
    ANSWER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a machine reads standard output: it gets one JSON value there and nothing else.
pub fn answer_in_json() {
    answer().json = true;
}

/// Writes a line of the answer to standard output; to standard error where the answer is JSON.
pub fn say(line: impl Display) {
    let mut answer = answer();
    if answer.json {
        drop(answer);
        note(line);
    } else {
        answer.write(line);
    }
}

/// Writes a line to standard error.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes the JSON value that is the answer.
pub fn say_json(value: &serde_json::Value) {
    give(answer(), format_args!("{value:#}"));
}

/// Writes one of several answers, each a line: what is watched gives a value for each look.
pub fn say_json_line(value: &serde_json::Value) {
    let mut answer = answer();
    answer.given = true;
    answer.write(value);
}

/// The same in one line: lists of numbers are for machines.
pub fn say_compact_json(value: &serde_json::Value) {
    give(answer(), value);
}

fn give(mut answer: MutexGuard<'_, Answer>, value: impl Display) {
    if !(answer.json && answer.given) {
        answer.given = true;
        answer.write(value);
    }
}

/// Says that standard output stays empty: the answer is on standard error.
pub fn answer_elsewhere() {
    answer().given = true;
}

/// Whether a machine waits for an answer that was not given.
pub fn is_answer_due() -> bool {
    let answer = answer();
    answer.json && !answer.given
}

/// Gives an answer that is due, unless somebody is about to: for a process that a signal ends while another thread may be writing.
pub fn answer_at_the_end(value: &serde_json::Value) {
    if let Ok(answer) = ANSWER.try_lock()
        && answer.json
    {
        give(answer, format_args!("{value:#}"));
    }
}

/// What kept the answer from being written, if anything did.
pub fn output_error() -> Option<io::Error> {
    let mut answer = answer();
    if let Err(error) = io::stdout().lock().flush()
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        answer.error.get_or_insert(error);
    }
    answer.error.take()
}

/// Whether colours may be used on a stream.
pub fn colours(stream: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !no_color && !dumb
}

/// A duration in the unit that suits it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{:.1} s", seconds.max(0.0)),
        0..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A size in the unit that suits it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Two numbers with as many decimals, one at least, as tell them apart where they differ.
pub fn apart(a: f64, b: f64) -> (String, String) {
    let with = |decimals: usize| (format!("{a:.decimals$}"), format!("{b:.decimals$}"));
    (1..=15).map(with).find(|(x, y)| x != y || a == b).unwrap_or_else(|| (a.to_string(), b.to_string()))
}

/// A whole number with its digits in threes: `4 154 565`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `2 runs`.
pub fn count(number: usize, singular: &str) -> String {
    format!("{number} {singular}{}", if number == 1 { "" } else { "s" })
}

/// Rows as columns two spaces apart, indented by two; numbers to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let wide = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..wide).map(|column| width(column).unwrap_or(0)).collect();
    let is_number =
        |cell: &str| cell.is_empty() || cell.trim_start_matches(['<', '>']).starts_with(|c: char| c.is_ascii_digit());
    let numeric: Vec<bool> =
        (0..wide).map(|column| rows.iter().skip(1).all(|row| row.get(column).is_none_or(|c| is_number(c)))).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str("  ");
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if numeric[column] {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_suits_them() {
        let shown: Vec<String> = [0.04, 9.94, 9.96, 59.4, 59.6, 3599.4, 3600.0, 7500.0].map(duration).into();
        assert_eq!(shown, ["0.0 s", "9.9 s", "10 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "2 h 05 min"]);
    }

    #[test]
    fn counts_have_their_digits_in_threes() {
        let shown: Vec<String> = [0, 999, 1000, 4154565376].map(thousands).into();
        assert_eq!(shown, ["0", "999", "1 000", "4 154 565 376"]);
    }

    #[test]
    fn numbers_that_differ_look_different() {
        assert_eq!(apart(90.0, 89.96), ("90.00".to_owned(), "89.96".to_owned()));
        assert_eq!(apart(90.0, 72.3), ("90.0".to_owned(), "72.3".to_owned()));
        assert_eq!(apart(90.0, 90.0), ("90.0".to_owned(), "90.0".to_owned()));
    }

    #[test]
    fn columns_align_numbers_to_the_right() {
        let rows = [vec!["kind", "stages"], vec!["dense", "1"], vec!["evaluate", "120"]]
            .map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(columns(&rows), "  kind      stages\n  dense          1\n  evaluate     120\n");
    }
}
