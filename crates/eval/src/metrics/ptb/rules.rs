//! The rules of the tokenizer. Each says how far it reaches from a place of a text; the longest reach wins.

mod marks;
mod numbers;
mod web;
mod words;

use super::tables::{is_apostrophe, is_letter};

/// A token, and where the next one begins.
pub struct Token {
    pub end: usize,
    pub word: String,
}

/// What a rule found: how far it looked, where its token ends, and the token where it is not the text itself.
struct Match {
    reach: usize,
    end: usize,
    word: Option<String>,
}

impl Match {
    fn to(end: usize) -> Option<Self> {
        Some(Self { reach: end, end, word: None })
    }

    fn looking(end: usize, reach: usize) -> Option<Self> {
        Some(Self { reach, end, word: None })
    }

    fn as_word(end: usize, word: &str) -> Option<Self> {
        Some(Self { reach: end, end, word: Some(word.to_owned()) })
    }
}

/// The text from a place on. Where it ends, everything is the end of the line.
#[derive(Clone, Copy)]
struct Text<'a> {
    chars: &'a [char],
}

impl Text<'_> {
    fn at(self, at: usize) -> char {
        self.chars.get(at).copied().unwrap_or('\n')
    }

    /// The end of the run of characters that fit.
    fn run(self, from: usize, fits: impl Fn(char) -> bool) -> usize {
        let mut at = from;
        while at < self.chars.len() && fits(self.chars[at]) {
            at += 1;
        }
        at
    }

    /// The end of at least so many and at most so many that fit, as many as there are.
    fn some(self, from: usize, least: usize, most: usize, fits: impl Fn(char) -> bool) -> Option<usize> {
        let end = self.run(from, fits).min(from + most);
        (end >= from + least).then_some(end)
    }

    /// The end of a word in small letters, whatever its case here; `'` stands for any apostrophe.
    fn literal(self, from: usize, word: &str) -> Option<usize> {
        let same = |(at, c): (usize, char)| match c {
            '\'' => is_apostrophe(self.at(from + at)),
            c => self.at(from + at).to_lowercase().eq([c]),
        };
        let length = word.chars().count();
        word.chars().enumerate().all(same).then_some(from + length)
    }

    fn between(self, from: usize, to: usize) -> String {
        self.chars[from..to].iter().collect()
    }
}

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_word(c: char) -> bool {
    is_letter(c) || is_digit(c)
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}')
}

fn is_blank(c: char) -> bool {
    is_space(c) || matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The longest token at a place; none at blanks and at what no rule knows.
pub fn longest(chars: &[char], from: usize) -> Option<Token> {
    let text = Text { chars };
    let rules = [
        words::program,
        words::joined,
        web::tag,
        web::entity,
        words::before_clitic,
        words::before_not,
        words::word,
        words::clipped,
        web::address,
        web::mail,
        web::name,
        words::clitic,
        words::not,
        marks::quotes,
        words::clinging,
        numbers::date,
        numbers::number,
        numbers::fraction,
        words::slashed,
        words::abbreviation,
        words::stopped,
        numbers::year,
        numbers::telephone,
        words::hyphenated,
        words::capitals,
        marks::face,
        marks::marks,
        marks::single,
    ];
    let mut best: Option<Match> = None;
    for rule in rules {
        if let Some(found) = rule(text, from)
            && best.as_ref().is_none_or(|best| found.reach > best.reach)
        {
            best = Some(found);
        }
    }
    let Match { end, word, .. } = best?;
    // A soft hyphen says only where a word may be divided.
    let word: String = word.unwrap_or_else(|| text.between(from, end)).chars().filter(|c| *c != '\u{ad}').collect();
    Some(Token { end, word: if word.is_empty() { "-".to_owned() } else { word } })
}

/// Curly apostrophes as straight ones.
fn straight(word: &str) -> String {
    word.replace(['\u{92}', '\u{2019}'], "'").replace(['\u{91}', '\u{2018}', '\u{201b}'], "`")
}
