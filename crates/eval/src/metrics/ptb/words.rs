//! Rules for words: letters, with what apostrophes, periods, hyphens and slashes make of them.

use super::super::tables::{
    abbreviation as known_abbreviation, begins_sentence, is_apostrophe, is_inner_apostrophe, is_letter,
};
use super::{Match, Text, is_blank, is_digit, is_latin, is_word, straight};

/// `c#`, `c++`.
pub(super) fn program(text: Text<'_>, from: usize) -> Option<Match> {
    Match::to(text.literal(from, "c#").or_else(|| text.literal(from, "c++")).or_else(|| text.literal(from, "f#"))?)
}

/// `cannot`, `gonna`: two words in one; the second is what is left.
pub(super) fn joined(text: Text<'_>, from: usize) -> Option<Match> {
    // Curly apostrophes are not known here.
    if text.at(from) != '\'' && is_apostrophe(text.at(from)) {
        return None;
    }
    for word in ["cannot", "'twas"] {
        if let Some(end) = text.literal(from, word) {
            return Match::looking(end - 3, end);
        }
    }
    let words = ["'tis", "gonna", "gotta", "lemme", "gimme", "wanna"];
    let end = words.iter().find_map(|word| text.literal(from, word))?;
    Match::looking(end - 2, end)
}

/// The end of a word: letters and digits that begin with a letter, also several joined by single marks (`blue.green!`).
fn end_of_word(text: Text<'_>, from: usize) -> Option<usize> {
    if !is_letter(text.at(from)) {
        return None;
    }
    let mut end = text.run(from, is_word);
    while matches!(text.at(end), '.' | '!' | '?') && is_letter(text.at(end + 1)) {
        end = text.run(end + 1, is_word);
    }
    Some(end)
}

pub(super) fn word(text: Text<'_>, from: usize) -> Option<Match> {
    Match::to(end_of_word(text, from)?)
}

/// `'s`, `'ll`: the end of one.
fn end_of_clitic(text: Text<'_>, from: usize) -> Option<usize> {
    if !is_apostrophe(text.at(from)) {
        return None;
    }
    let two = ["re", "ve", "ll"].iter().find_map(|two| text.literal(from + 1, two));
    two.or_else(|| ["m", "s", "d"].iter().find_map(|one| text.literal(from + 1, one)))
}

/// `n't`.
fn end_of_not(text: Text<'_>, from: usize) -> Option<usize> {
    let apostrophe = text.literal(from, "n")?;
    if is_inner_apostrophe(text.at(apostrophe)) { text.literal(apostrophe + 1, "t") } else { None }
}

pub(super) fn before_clitic(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_word(text, from)?;
    Match::looking(end, end_of_clitic(text, end)?)
}

pub(super) fn before_not(text: Text<'_>, from: usize) -> Option<Match> {
    let letters = text.run(from, |c| is_latin(c) || c == '\u{ad}');
    let end = letters.checked_sub(1).filter(|end| *end > from && !matches!(text.at(end - 1), 'n' | 'N'))?;
    Match::looking(end, end_of_not(text, end)?)
}

pub(super) fn clitic(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_clitic(text, from)?;
    if is_latin(text.at(end)) {
        return None;
    }
    Some(Match { reach: end + 1, end, word: Some(straight(&text.between(from, end))) })
}

/// The same before a letter, where no quotation begins.
pub(super) fn clinging(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_clitic(text, from)?;
    Match::as_word(end, &straight(&text.between(from, end)))
}

pub(super) fn not(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_not(text, from)?;
    let word = Some(straight(&text.between(from, end)));
    if is_latin(text.at(end)) { None } else { Some(Match { reach: end + 1, end, word }) }
}

/// Words with an apostrophe that is theirs: `'n'`, `'em`, `o'clock`, `ma'am`, `y'` before a word.
pub(super) fn clipped(text: Text<'_>, from: usize) -> Option<Match> {
    let mut best = None;
    let mut offer = |end: Option<usize>| best = best.max(end);
    let first = text.at(from);
    for word in ["dunkin'", "somethin'", "ol'", "'em", "'til", "'till", "'cause", "cap'n", "c'est"] {
        offer(text.literal(from, word));
    }
    offer(text.literal(from, "'n"));
    offer(text.literal(from, "'n'"));
    // These know the straight apostrophe only.
    for word in ["cont'd", "cont'd.", "nor'easter", "c'mon", "e'er", "s'mores", "ev'ry", "li'l", "nat'l"] {
        let straight = word.chars().position(|c| c == '\'').is_some_and(|at| text.at(from + at) == '\'');
        offer(text.literal(from, word).filter(|_| straight));
    }
    if matches!(first, 'l' | 'L' | 'd' | 'D' | 'j' | 'J') && is_apostrophe(text.at(from + 1)) {
        offer(Some(from + 2));
    }
    if is_apostrophe(first) && matches!(text.at(from + 1), '2'..='9') && text.at(from + 2) == '0' {
        offer(text.literal(from + 3, "s"));
    }
    if matches!(first, 'A'..='H' | 'J'..='X' | 'Z' | 'n') && is_inner_apostrophe(text.at(from + 1)) {
        offer(text.some(from + 2, 2, usize::MAX >> 1, is_letter));
    }
    let letters = text.run(from, is_letter);
    if letters >= from + 2
        && matches!(text.at(letters - 1).to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
        && is_inner_apostrophe(text.at(letters))
        && matches!(text.at(letters + 1), 'a' | 'e' | 'i' | 'o' | 'u' | 'A'..='Z')
    {
        offer(Some(text.run(letters + 1, is_letter)));
    }
    if let Some(end) = text.literal(from, "y'").filter(|end| is_letter(text.at(*end)))
        && best.is_none_or(|best| best < end + 1)
    {
        return Match::looking(end, end + 1);
    }
    Match::to(best?)
}

/// `and/or`, `black-white/red`: at most three parts.
pub(super) fn slashed(text: Text<'_>, from: usize) -> Option<Match> {
    let part = |from: usize| {
        let mut end = text.some(from, 1, usize::MAX >> 1, |c| c.is_ascii_alphanumeric())?;
        for _ in 0..2 {
            if text.at(end) == '-' && is_latin(text.at(end + 1)) {
                end = text.run(end + 1, is_latin);
            }
        }
        Some(end)
    };
    let after_slash = |end: usize| {
        let slash = if text.at(end) == '\\' { end + 1 } else { end };
        if text.at(slash) == '/' { part(slash + 1) } else { None }
    };
    let two = after_slash(part(from)?)?;
    Match::to(after_slash(two).unwrap_or(two))
}

/// Abbreviations with their period: `mr.`, `u.s.`, `a.`.
pub(super) fn abbreviation(text: Text<'_>, from: usize) -> Option<Match> {
    let mut best = None;
    let letters = text.run(from, is_latin);
    if letters == from {
        return None;
    }
    // Single letters, each with a period.
    let mut end = from + 1;
    while text.at(end) == '.' && is_latin(text.at(end + 1)) {
        end += 2;
    }
    if text.at(end) == '.' {
        let after = text.run(end + 1, is_blank);
        let following = text.between(after, text.run(after, |c| is_latin(c) || c == '.').max(after));
        let behind = text.at(after + following.chars().count());
        let sentence =
            after > end + 1 && begins_sentence(&following) && (is_blank(behind) || matches!(behind, '?' | '!'));
        if end > from + 1 || !sentence {
            best = best.max(Some(end + 1));
        }
    }
    let known = |end: usize| {
        let number = is_digit(text.at(end + 1)) || (is_blank(text.at(end + 1)) && is_digit(text.at(end + 2)));
        let looks = known_abbreviation(&text.between(from, end), number)?;
        (text.at(end) == '.').then_some(Match { reach: end + 1 + looks, end: end + 1, word: None })
    };
    let dotted = if text.at(letters) == '.' { known(text.run(letters + 1, is_latin)) } else { None };
    let longest = |a: Option<Match>, b: Option<Match>| match (a, b) {
        (Some(a), Some(b)) => Some(if b.reach > a.reach { b } else { a }),
        (a, b) => a.or(b),
    };
    longest(longest(best.and_then(Match::to), known(letters)), dotted)
}

/// A word with its period before a mark inside a sentence: `feet.,`.
pub(super) fn stopped(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_word(text, from).max(hyphenated(text, from).map(|found| found.end))?;
    let fits = text.at(end) == '.' && matches!(text.at(end + 1), ',' | ';' | ':');
    if fits { Match::looking(end + 1, end + 2) } else { None }
}

/// Behind the apostrophe of `d'artagnan` and `o'clock`.
fn after_elision(text: Text<'_>, from: usize) -> Option<usize> {
    let elided =
        matches!(text.at(from).to_ascii_lowercase(), 'd' | 'o' | 'l') && is_inner_apostrophe(text.at(from + 1));
    (elided && is_word(text.at(from + 2))).then_some(from + 2)
}

/// `t-shirt`, `10-15`, `u.s.-based`, `a_b`, `o'clock`; digits and letters mixed.
pub(super) fn hyphenated(text: Text<'_>, from: usize) -> Option<Match> {
    let start = after_elision(text, from).unwrap_or(from);
    if !is_word(text.at(start)) {
        return None;
    }
    let plain = text.run(start, is_word);
    let mut end = plain;
    if start == from {
        end = end.max(text.run(start, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | ',')));
    }
    let mut joined = None;
    // An underscore joins no part with a period or a comma.
    let separates = |at: usize, first: bool| match text.at(at) {
        '-' | '\u{2010}' | '\u{2011}' => true,
        '_' => at == plain || !first,
        _ => false,
    };
    while separates(end, joined.is_none()) && is_word(text.at(end + 1)) {
        let elided = if end == plain || joined.is_some() { after_elision(text, end + 1) } else { None };
        let part = text.run(elided.unwrap_or(end + 1), is_word);
        // Letters with periods, the last one too.
        let mut letters = end + 2;
        while is_latin(text.at(letters - 1)) && text.at(letters) == '.' && is_latin(text.at(letters + 1)) {
            letters += 2;
        }
        let dotted = letters > end + 2 && text.at(letters) == '.' && start == from && text.at(end) != '_';
        end = if dotted { part.max(letters + 1) } else { part };
        joined = Some(end);
    }
    Match::to(joined.unwrap_or(plain))
}

/// `AT&T`, `A+B`, in capitals.
pub(super) fn capitals(text: Text<'_>, from: usize) -> Option<Match> {
    let mut end = text.some(from, 1, usize::MAX >> 1, |c| c.is_ascii_uppercase())?;
    let mut joined = None;
    while matches!(text.at(end), '&' | '+') && text.at(end + 1).is_ascii_uppercase() {
        end = text.run(end + 1, |c| c.is_ascii_uppercase());
        joined = Some(end);
    }
    // `US$`: the sign belongs to the capitals before it.
    let dollars = text.run(from, |c| c.is_ascii_uppercase());
    let dollars = (text.at(dollars) == '$').then_some(dollars + 1);
    Match::to(joined.max(dollars)?)
}
