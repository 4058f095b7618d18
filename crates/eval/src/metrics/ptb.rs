//! Words of a caption as captioning benchmarks count them: Penn Treebank tokens in lower case without punctuation.
//!
//! Follows what pycocoevalcap does with the Stanford tokenizer, for the text that occurs in captions. Differs: no list of
//! abbreviations (`mr.` loses its period; `u.s.` keeps its periods), and fractions and dates are not joined.

/// Endings that are words of their own.
const CLITICS: [&str; 7] = ["n't", "'s", "'m", "'d", "'re", "'ve", "'ll"];
/// Words that are two.
const PAIRS: [(&str, [&str; 2]); 6] = [
    ("cannot", ["can", "not"]),
    ("gonna", ["gon", "na"]),
    ("gotta", ["got", "ta"]),
    ("wanna", ["wan", "na"]),
    ("lemme", ["lem", "me"]),
    ("gimme", ["gim", "me"]),
];

/// The caption's words separated by single blanks; captions already in that form come back unchanged.
pub fn tokenize(caption: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for piece in caption.to_lowercase().replace("--", " ").split_whitespace() {
        let characters: Vec<char> = piece.chars().collect();
        let mut word = String::new();
        for (i, c) in characters.iter().enumerate() {
            let digit = |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_digit);
            let in_number = digit(i.checked_sub(1)) && digit(Some(i + 1));
            match c {
                ',' | ':' if in_number => word.push(*c),
                '(' | ')' | '[' | ']' | '{' | '}' => {
                    end(&mut words, &mut word);
                    words.push(bracket(*c).to_owned());
                }
                '$' | '%' | '#' => {
                    end(&mut words, &mut word);
                    words.push(c.to_string());
                }
                ',' | ':' | ';' | '!' | '?' | '"' | '`' | '\u{201c}' | '\u{201d}' => end(&mut words, &mut word),
                '\u{2019}' => word.push('\''),
                _ => word.push(*c),
            }
        }
        end(&mut words, &mut word);
    }
    words.join(" ")
}

fn bracket(c: char) -> &'static str {
    match c {
        '(' => "-lrb-",
        ')' => "-rrb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '{' => "-lcb-",
        _ => "-rcb-",
    }
}

/// Closes a word: drops quotes, dashes and periods around it, and splits off what is a word of its own.
fn end(words: &mut Vec<String>, word: &mut String) {
    let taken = std::mem::take(word);
    let mut rest = taken.trim_matches(|c| c == '-').trim_end_matches('\'');
    if !is_acronym(rest) {
        rest = rest.trim_end_matches('.');
    }
    if !CLITICS.contains(&rest) {
        rest = rest.trim_start_matches('\'');
    }
    if let Some((_, pair)) = PAIRS.iter().find(|(joined, _)| *joined == rest) {
        words.extend(pair.map(str::to_owned));
        return;
    }
    match CLITICS.iter().find_map(|clitic| rest.strip_suffix(clitic).map(|stem| (stem, *clitic))) {
        Some((stem, clitic)) => words.extend([stem, clitic].iter().filter(|w| !w.is_empty()).map(|w| (*w).to_owned())),
        None if rest.is_empty() => {}
        None => words.push(rest.to_owned()),
    }
}

/// Single letters, each with its period: `u.s.`.
fn is_acronym(word: &str) -> bool {
    let characters: Vec<char> = word.chars().collect();
    characters.len() >= 4 && characters.chunks(2).all(|pair| matches!(pair, [letter, '.'] if letter.is_alphabetic()))
}
