//! How METEOR writes a line before it compares words: punctuation apart, quotation marks and dashes of one kind, contractions divided, dots of abbreviations kept.
//!
//! - Reference: the option `-norm` of METEOR 1.5, for English

use std::collections::HashMap;

use regex::Regex;

/// Letters of the alphabets that METEOR counts as western, as the inside of a character class.
const LETTERS: &str = concat!(
    r"A-Za-z\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{17e}\x{400}-\x{527}",
    r"\x{a640}-\x{a66e}\x{a67e}-\x{a697}\x{1d00}-\x{1d7f}"
);

/// Stands for each dot of several in a row while single ones are looked at: no character, so that no text has it.
const DOT: char = '\u{fdd0}';

/// What a dot behind a word of METEOR's list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abbreviation {
    /// It belongs to the word.
    Always,
    /// It belongs to the word where a number follows.
    BeforeNumbers,
}

/// Divides lines into words.
pub(super) struct Normalizer {
    marks: Regex,
    dots: Regex,
    steps: Vec<(Regex, &'static str)>,
    letter: Regex,
    abbreviations: HashMap<String, Abbreviation>,
}

impl Normalizer {
    /// `abbreviations` are words before a dot that belongs to them, one a line; lines that start with `#` say nothing.
    pub(super) fn new(abbreviations: &str) -> Self {
        let regex = |pattern: &str| Regex::new(pattern).expect("a pattern of this file");
        let steps = [
            (r"([^0-9]),([^0-9])".to_owned(), "$1 , $2"),
            (r"([0-9]),([^0-9])".to_owned(), "$1 , $2"),
            (r"([^0-9]),([0-9])".to_owned(), "$1 , $2"),
            (r"[`\x{2018}\x{2019}]".to_owned(), "'"),
            (r"[\x{201c}\x{201d}]|''".to_owned(), " \" "),
            (r"\x{2013}".to_owned(), "-"),
            (r"--".to_owned(), "-"),
            (format!("([0-9{LETTERS}.])-([0-9{LETTERS}])"), "$1 $2"),
            (format!("([^{LETTERS}])'([^{LETTERS}])"), "$1 ' $2"),
            (format!("([^{LETTERS}0-9])'([{LETTERS}])"), "$1 ' $2"),
            (format!("([{LETTERS}])'([^{LETTERS}])"), "$1 ' $2"),
            (format!("([{LETTERS}])'([{LETTERS}])"), "$1 '$2"),
            (r"([0-9])'(s)".to_owned(), "$1 '$2"),
        ];
        let mut known = HashMap::new();
        for line in abbreviations.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(word) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let kind = match words.next() {
                Some("#NUMERIC_ONLY#") => Abbreviation::BeforeNumbers,
                _ => Abbreviation::Always,
            };
            known.insert(word.to_owned(), kind);
        }
        Self {
            marks: regex(&format!(r"[^0-9{LETTERS}\s.'`,\-\x{{2018}}\x{{2019}}]")),
            dots: regex(r"\.{2,}"),
            steps: steps.iter().map(|(pattern, by)| (regex(pattern), *by)).collect(),
            letter: regex(&format!("[{LETTERS}]")),
            abbreviations: known,
        }
    }

    /// The words of a line, in lower case.
    pub(super) fn words(&self, line: &str) -> Vec<String> {
        let line = format!(" {line} ");
        let line = self.marks.replace_all(&line, " $0 ");
        let mut line = self
            .dots
            .replace_all(&line, |dots: &regex::Captures<'_>| {
                let run: String = dots[0].chars().map(|_| DOT).collect();
                format!(" {run} ")
            })
            .into_owned();
        for (pattern, by) in &self.steps {
            line = pattern.replace_all(&line, *by).into_owned();
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let mut found = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let (word, dot) = self.undotted(word, words.get(at + 1).copied());
            let word = word.replace(DOT, ".").to_lowercase();
            found.extend(word.split(|c: char| c.is_whitespace()).filter(|part| !part.is_empty()).map(str::to_owned));
            if dot {
                found.push(".".to_owned());
            }
        }
        found
    }

    /// A word without a dot that ends a sentence, and whether it had one. An acronym loses its dots.
    fn undotted(&self, word: &str, next: Option<&str>) -> (String, bool) {
        let Some(stem) = word.strip_suffix('.').filter(|stem| !stem.is_empty()) else {
            return (word.to_owned(), false);
        };
        if stem.contains('.') && self.letter.is_match(stem) {
            return (word.replace('.', ""), false);
        }
        let starts = |is: fn(&char) -> bool| next.and_then(|next| next.chars().next()).is_some_and(|first| is(&first));
        let belongs = match self.abbreviations.get(stem) {
            Some(Abbreviation::Always) => true,
            Some(Abbreviation::BeforeNumbers) if starts(char::is_ascii_digit) => true,
            _ => starts(char::is_ascii_lowercase),
        };
        if belongs { (word.to_owned(), false) } else { (stem.to_owned(), true) }
    }
}
