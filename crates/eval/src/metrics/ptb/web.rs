//! Rules for what the web writes: tags, entities, addresses, names.

use super::super::tables::is_letter;
use super::{Match, Text, is_blank, is_digit, is_latin};

/// `<b>`, `<img src="x">`, `<!-- x -->`: tags are words; their blanks do not divide them.
pub(super) fn tag(text: Text<'_>, from: usize) -> Option<Match> {
    if text.at(from) != '<' {
        return None;
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    let mut at = from + 1;
    if matches!(text.at(at), '!' | '?') {
        if !is_latin(text.at(at + 1)) && text.at(at + 1) != '-' {
            return None;
        }
        at = text.run(at + 1, |c| !matches!(c, '>' | '\r' | '\n'));
    } else {
        at += usize::from(text.at(at) == '/');
        if !is_latin(text.at(at)) {
            return None;
        }
        at = text.run(at, is_name);
        loop {
            let next = text.run(at, |c| c == ' ');
            let quote = |at: usize| {
                let end = text.run(at + 1, |c| !matches!(c, '"' | '\'' | '\r' | '\n'));
                (matches!(text.at(at), '"' | '\'') && matches!(text.at(end), '"' | '\'')).then_some(end + 1)
            };
            if text.at(next) == '/' {
                at = next + 1;
            } else if next > at && is_latin(text.at(next)) {
                at = text.run(next, is_name);
                let equals = text.run(at, |c| c == ' ');
                if text.at(equals) == '=' {
                    at = quote(text.run(equals + 1, |c| c == ' '))?;
                }
            } else if let Some(end) = (next > at).then(|| quote(next)).flatten() {
                at = end;
            } else {
                at = next;
                break;
            }
        }
    }
    if text.at(at) != '>' {
        return None;
    }
    let word = text.between(from, at + 1).replace(' ', "\u{a0}");
    Match::as_word(at + 1, &word)
}

/// `&amp;` and its like.
pub(super) fn entity(text: Text<'_>, from: usize) -> Option<Match> {
    let known = [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&nbsp;", "'"),
        ("&mdash;", "--"),
        ("&ndash;", "--"),
        ("&md;", "--"),
    ];
    if let Some((end, word)) = known.iter().find_map(|(name, word)| Some((text.literal(from, name)?, word))) {
        return Match::as_word(end, if *word == "\"" { "''" } else { word });
    }
    if text.at(from) == '&' && text.at(from + 1) == '#' {
        let end = text.some(from + 2, 1, usize::MAX >> 1, is_digit)?;
        return if text.at(end) == ';' { Match::to(end + 1) } else { None };
    }
    None
}

/// `http://a.b/c`, `www.a.com`, `a.org`.
pub(super) fn address(text: Text<'_>, from: usize) -> Option<Match> {
    let inside = |c: char| !is_blank(c) && !matches!(c, '"' | '<' | '>' | '|' | '(' | ')');
    let last = |c: char| inside(c) && !matches!(c, '.' | '!' | '?' | '{' | '}' | ',' | '-');
    let trimmed = |start: usize, least: usize| {
        let mut end = text.run(start, inside);
        while end > start && !last(text.at(end - 1)) {
            end -= 1;
        }
        (end >= start + least).then_some(end)
    };
    if let Some(start) = text.literal(from, "http://").or_else(|| text.literal(from, "https://")) {
        return Match::to(trimmed(start, 2)?);
    }
    let part = |c: char| inside(c) && !matches!(c, ','..='_' | '!' | '{' | '}' | '`' | '\'' | '$');
    let loose = |c: char| inside(c) && !matches!(c, '.' | '!' | '?' | '{' | '}' | ',');
    let path = |end: usize| match text.at(end) {
        '/' => trimmed(end + 1, 2).unwrap_or(end),
        _ => end,
    };
    // The ends of all parts that are followed by a period.
    let parts = |start: usize, fits: &dyn Fn(char) -> bool| {
        let (mut at, mut ends) = (start, Vec::new());
        loop {
            let end = text.run(at, fits);
            if end == at || text.at(end) != '.' {
                return ends;
            }
            at = end + 1;
            ends.push(at);
        }
    };
    let mut best = None;
    if let Some(start) = text.literal(from, "www.") {
        for end in parts(start, &loose) {
            if let Some(end) = text.some(end, 2, 4, is_latin) {
                best = best.max(Some(path(end)));
            }
        }
    }
    for end in parts(from, &part) {
        if let Some(end) = ["com", "net", "org", "edu"].iter().find_map(|name| text.literal(end, name)) {
            best = best.max(Some(path(end)));
        }
    }
    let end = best?;
    if is_latin(text.at(end)) { None } else { Match::looking(end, end + 1) }
}

/// `a.b@c.d`, also in angle brackets.
pub(super) fn mail(text: Text<'_>, from: usize) -> Option<Match> {
    let start = from + usize::from(text.at(from) == '<');
    let inside = |c: char| !is_blank(c) && !matches!(c, '"' | '<' | '>' | '|' | '(' | ')');
    if !text.at(start).is_ascii_alphanumeric() {
        return None;
    }
    let local = text.run(start, inside);
    let part = |c: char| inside(c) && c != '.';
    let at = (start + 1..local).rev().find(|at| text.at(*at) == '@' && part(text.at(at + 1)))?;
    let mut end = text.run(at + 1, part);
    while text.at(end) == '.' && part(text.at(end + 1)) {
        end = text.run(end + 1, part);
    }
    Match::to(end + usize::from(text.at(end) == '>'))
}

/// `@name`, `#tag`.
pub(super) fn name(text: Text<'_>, from: usize) -> Option<Match> {
    match text.at(from) {
        '@' if is_latin(text.at(from + 1)) || text.at(from + 1) == '_' => {
            Match::to(text.run(from + 1, |c| c.is_ascii_alphanumeric() || c == '_'))
        }
        '#' => Match::to(text.some(from + 1, 1, usize::MAX >> 1, is_letter)?),
        _ => None,
    }
}
