//! The rules of the tokenizer. Each says how far it reaches from a place of a text; the longest reach wins.

use super::tables::{
    abbreviation as known_abbreviation, begins_sentence, is_apostrophe, is_dash, is_inner_apostrophe, is_letter,
    is_quote, is_sign, replaced,
};

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
        program,
        joined,
        tag,
        entity,
        before_clitic,
        before_not,
        word,
        clipped,
        address,
        mail,
        name,
        clitic,
        not,
        quotes,
        clinging,
        date,
        number,
        fraction,
        slashed,
        abbreviation,
        stopped,
        year,
        telephone,
        hyphenated,
        capitals,
        face,
        marks,
        single,
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

/// `c#`, `c++`.
fn program(text: Text<'_>, from: usize) -> Option<Match> {
    Match::to(text.literal(from, "c#").or_else(|| text.literal(from, "c++")).or_else(|| text.literal(from, "f#"))?)
}

/// `cannot`, `gonna`: two words in one; the second is what is left.
fn joined(text: Text<'_>, from: usize) -> Option<Match> {
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

/// `<b>`, `<img src="x">`, `<!-- x -->`: tags are words; their blanks do not divide them.
fn tag(text: Text<'_>, from: usize) -> Option<Match> {
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
fn entity(text: Text<'_>, from: usize) -> Option<Match> {
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

fn word(text: Text<'_>, from: usize) -> Option<Match> {
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

fn before_clitic(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_word(text, from)?;
    Match::looking(end, end_of_clitic(text, end)?)
}

fn before_not(text: Text<'_>, from: usize) -> Option<Match> {
    let letters = text.run(from, |c| is_latin(c) || c == '\u{ad}');
    let end = letters.checked_sub(1).filter(|end| *end > from && !matches!(text.at(end - 1), 'n' | 'N'))?;
    Match::looking(end, end_of_not(text, end)?)
}

fn clitic(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_clitic(text, from)?;
    if is_latin(text.at(end)) {
        return None;
    }
    Some(Match { reach: end + 1, end, word: Some(straight(&text.between(from, end))) })
}

/// The same before a letter, where no quotation begins.
fn clinging(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_clitic(text, from)?;
    Match::as_word(end, &straight(&text.between(from, end)))
}

fn not(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_not(text, from)?;
    let word = Some(straight(&text.between(from, end)));
    if is_latin(text.at(end)) { None } else { Some(Match { reach: end + 1, end, word }) }
}

/// Words with an apostrophe that is theirs: `'n'`, `'em`, `o'clock`, `ma'am`, `y'` before a word.
fn clipped(text: Text<'_>, from: usize) -> Option<Match> {
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

/// `http://a.b/c`, `www.a.com`, `a.org`.
fn address(text: Text<'_>, from: usize) -> Option<Match> {
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
fn mail(text: Text<'_>, from: usize) -> Option<Match> {
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
fn name(text: Text<'_>, from: usize) -> Option<Match> {
    match text.at(from) {
        '@' if is_latin(text.at(from + 1)) || text.at(from + 1) == '_' => {
            Match::to(text.run(from + 1, |c| c.is_ascii_alphanumeric() || c == '_'))
        }
        '#' => Match::to(text.some(from + 1, 1, usize::MAX >> 1, is_letter)?),
        _ => None,
    }
}

/// `5/6/2014`.
fn date(text: Text<'_>, from: usize) -> Option<Match> {
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

fn number(text: Text<'_>, from: usize) -> Option<Match> {
    let start = from + usize::from(matches!(text.at(from), '-' | '+'));
    Match::to(end_of_number(text, start)?)
}

/// `1/2`, `3 1/2`.
fn fraction(text: Text<'_>, from: usize) -> Option<Match> {
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

/// `and/or`, `black-white/red`: at most three parts.
fn slashed(text: Text<'_>, from: usize) -> Option<Match> {
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
fn abbreviation(text: Text<'_>, from: usize) -> Option<Match> {
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
fn stopped(text: Text<'_>, from: usize) -> Option<Match> {
    let end = end_of_word(text, from).max(hyphenated(text, from).map(|found| found.end))?;
    let fits = text.at(end) == '.' && matches!(text.at(end + 1), ',' | ';' | ':');
    if fits { Match::looking(end + 1, end + 2) } else { None }
}

/// `'95`.
fn year(text: Text<'_>, from: usize) -> Option<Match> {
    let end = from + 3;
    let fits = is_apostrophe(text.at(from)) && is_digit(text.at(from + 1)) && is_digit(text.at(from + 2));
    if fits && is_blank(text.at(end)) { Match::looking(end, end + 1) } else { None }
}

/// `555-1234`, `(555) 123-4567`, `800.555.1234`.
fn telephone(text: Text<'_>, from: usize) -> Option<Match> {
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

/// Behind the apostrophe of `d'artagnan` and `o'clock`.
fn after_elision(text: Text<'_>, from: usize) -> Option<usize> {
    let elided =
        matches!(text.at(from).to_ascii_lowercase(), 'd' | 'o' | 'l') && is_inner_apostrophe(text.at(from + 1));
    (elided && is_word(text.at(from + 2))).then_some(from + 2)
}

/// `t-shirt`, `10-15`, `u.s.-based`, `a_b`, `o'clock`; digits and letters mixed.
fn hyphenated(text: Text<'_>, from: usize) -> Option<Match> {
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
fn capitals(text: Text<'_>, from: usize) -> Option<Match> {
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

/// `:-)`, `^_^`, and their kin.
fn face(text: Text<'_>, from: usize) -> Option<Match> {
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
fn marks(text: Text<'_>, from: usize) -> Option<Match> {
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
fn quotes(text: Text<'_>, from: usize) -> Option<Match> {
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
fn single(text: Text<'_>, from: usize) -> Option<Match> {
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
