//! Rules for marks: faces, runs, quotation marks, single characters.

use super::super::tables::{is_dash, is_quote, is_sign, replaced};
use super::{Match, Text, is_blank, is_latin};

/// `:-)`, `^_^`, and their kin.
pub(super) fn face(text: Text<'_>, from: usize) -> Option<Match> {
    let eye = |c: char| matches!(c, '-' | '^' | 'x' | '=' | '~' | '<' | '>' | '\'');
    let written =
        |end: usize| Match::as_word(end, &text.between(from, end).replace('(', "-lrb-").replace(')', "-rrb-"));
    if eye(text.at(from)) && text.at(from + 1) == '_' && eye(text.at(from + 2)) {
        return written(from + 3);
    }
    if text.at(from) == '(' && eye(text.at(from + 1)) {
        let mouth = usize::from(matches!(text.at(from + 2), '_' | '.' | '-'));
        for second in [from + 2 + mouth, from + 2] {
            if eye(text.at(second)) && text.at(second + 1) == ')' {
                return written(second + 2);
            }
        }
    }
    let eyes = from + usize::from(matches!(text.at(from), '<' | '>'));
    if !matches!(text.at(eyes), ':' | ';' | '=') {
        return None;
    }
    let nose = eyes + 1 + usize::from(matches!(text.at(eyes + 1), '-' | 'o' | '*' | '\''));
    let mouth = |at: usize| {
        matches!(text.at(at), '(' | ')' | 'D' | 'P' | 'd' | 'p' | 'O' | '\\' | '{' | '@' | '|' | '[' | ']')
            .then_some(at + 1)
    };
    let end = mouth(nose).or_else(|| mouth(eyes + 1))?;
    if text.at(end).is_ascii_alphanumeric() { None } else { written(end) }
}

/// Runs of marks that are one token.
pub(super) fn marks(text: Text<'_>, from: usize) -> Option<Match> {
    let same = |mark: char| text.run(from, |c| c == mark);
    match text.at(from) {
        '.' if same('.') >= from + 3 => Match::as_word(same('.'), "..."),
        '\u{2026}' => Match::as_word(from + 1, "..."),
        '-' => {
            for bracket in ["-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-"] {
                if let Some(end) = text.literal(from, bracket) {
                    return Match::to(end);
                }
            }
            let end = same('-');
            Match::as_word(
                end,
                match end - from {
                    1 => "-",
                    2..=4 => "--",
                    _ => return Match::to(end),
                },
            )
        }
        '?' | '!' => Match::to(text.run(from, |c| matches!(c, '?' | '!'))),
        mark @ ('*' | '_' | '@' | '#') => Match::to(same(mark)),
        '<' if text.at(from + 1) == '<' => Match::to(from + 2),
        '>' if text.at(from + 1) == '>' => Match::to(from + 2),
        _ => None,
    }
}

/// Quotation marks: some pairs are one token, and a straight one before a word opens a quotation.
pub(super) fn quotes(text: Text<'_>, from: usize) -> Option<Match> {
    let (first, second) = (text.at(from), text.at(from + 1));
    if first == '\'' && second == '\'' {
        return Match::as_word(from + 2, "''");
    }
    if first == '\'' && is_latin(second) && !is_blank(text.at(from + 2)) {
        return Some(Match { reach: from + 3, end: from + 1, word: Some("`".to_owned()) });
    }
    let curly = |c: char| is_quote(c) && !matches!(c, '\'' | '"');
    let plain = |c: char| match c {
        '\u{93}' | '\u{201c}' | '\u{ab}' => "``",
        '\u{94}' | '\u{201d}' | '\u{bb}' => "''",
        '`' | '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => "`",
        _ => "'",
    };
    if curly(first) && curly(second) {
        return Match::as_word(from + 2, &format!("{}{}", plain(first), plain(second)));
    }
    None
}

/// One character.
pub(super) fn single(text: Text<'_>, from: usize) -> Option<Match> {
    let c = text.at(from);
    if let Some(word) = replaced(c) {
        return Match::as_word(from + 1, word);
    }
    match c {
        c if is_quote(c) => Match::as_word(from + 1, "'"),
        c if is_dash(c) => Match::as_word(from + 1, "--"),
        '.' | ',' | ';' | ':' => Match::to(from + 1),
        c if is_sign(c) => Match::to(from + 1),
        _ => None,
    }
}
