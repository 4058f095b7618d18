//! Rules for numbers.

use super::super::tables::is_apostrophe;
use super::{Match, Text, is_blank, is_digit};

/// `5/6/2014`.
pub(super) fn date(text: Text<'_>, from: usize) -> Option<Match> {
    let separator = |at: usize| matches!(text.at(at), '-' | '/').then_some(at + 1);
    let day = separator(text.some(from, 1, 2, is_digit)?)?;
    let month = separator(text.some(day, 1, 2, is_digit)?)?;
    Match::to(text.some(month, 2, 4, is_digit)?)
}

/// The end of a number without its sign: `1,000.5`, `12:30`, `.5`.
fn end_of_number(text: Text<'_>, from: usize) -> Option<usize> {
    let mut end = text.run(from, is_digit);
    while matches!(text.at(end), '.' | ':' | ',' | '\u{ad}' | '\u{66b}' | '\u{66c}') && is_digit(text.at(end + 1)) {
        end = text.run(end + 1, is_digit);
    }
    (end > from).then_some(end)
}

pub(super) fn number(text: Text<'_>, from: usize) -> Option<Match> {
    let start = from + usize::from(matches!(text.at(from), '-' | '+'));
    Match::to(end_of_number(text, start)?)
}

/// `1/2`, `3 1/2`.
pub(super) fn fraction(text: Text<'_>, from: usize) -> Option<Match> {
    let simple = |from: usize| {
        let above = text.some(from, 1, 4, is_digit)?;
        let slash = if text.at(above) == '\\' { above + 1 } else { above };
        if text.at(slash) == '/' || (slash == above && text.at(slash) == '\u{2044}') {
            return text.some(slash + 1, 1, 4, is_digit);
        }
        None
    };
    let whole = text.some(from, 1, 4, is_digit)?;
    let mixed = matches!(text.at(whole), '-' | ' ' | '\u{a0}').then(|| simple(whole + 1)).flatten();
    let end = mixed.or_else(|| simple(from))?;
    Match::as_word(end, &text.between(from, end).replace(' ', "\u{a0}"))
}

/// `'95`.
pub(super) fn year(text: Text<'_>, from: usize) -> Option<Match> {
    let end = from + 3;
    let fits = is_apostrophe(text.at(from)) && is_digit(text.at(from + 1)) && is_digit(text.at(from + 2));
    if fits && is_blank(text.at(end)) { Match::looking(end, end + 1) } else { None }
}

/// `555-1234`, `(555) 123-4567`, `800.555.1234`.
pub(super) fn telephone(text: Text<'_>, from: usize) -> Option<Match> {
    let gap = |at: usize| matches!(text.at(at), '-' | ' ' | '\u{a0}').then_some(at + 1);
    let tail = |from: usize| {
        // Both groups are digits, with or without a gap: the first takes three or four.
        let mut best = None;
        for first in 3..=4 {
            let Some(middle) = text.some(from, first, first, is_digit) else { continue };
            let start = gap(middle).unwrap_or(middle);
            best = best.max(text.some(start, 3, 5, is_digit));
        }
        best
    };
    let mut best = None;
    if text.at(from) == '(' {
        let area = text.some(from + 1, 2, 3, is_digit)?;
        if text.at(area) == ')' {
            let start = gap(area + 1).filter(|_| text.at(area + 1) != '-').unwrap_or(area + 1);
            best = tail(start);
        }
    } else {
        let plus = text.some(from, 0, 2, |c| c == '+')?;
        let direct = |start: usize| (2..=4).filter_map(|n| tail(gap(text.some(start, n, n, is_digit)?)?)).max();
        let country = (2..=4).filter_map(|n| direct(gap(text.some(plus, n, n, is_digit)?)?)).max();
        best = best.max(direct(plus)).max(country);
        let dot = |at: usize| (text.at(at) == '.').then_some(at + 1);
        let dotted = |start: usize| {
            let second = dot(text.some(start, 2, 4, is_digit)?)?;
            text.some(dot(text.some(second, 3, 4, is_digit)?)?, 3, 5, is_digit)
        };
        best = best.max(dotted(plus));
        if let Some(second) = text.some(plus, 2, 4, is_digit).and_then(dot) {
            best = best.max(dotted(second));
        }
    }
    let end = best?;
    let word = text.between(from, end).replace(' ', "\u{a0}").replace('(', "-lrb-").replace(')', "-rrb-");
    Match::as_word(end, &word)
}
