//! Base forms of the nouns and verbs of an answer, for OK-VQA: `surfing` is `surf`, `dogs` is `dog`.
//!
//! LAVIS has spaCy (`en_core_web_sm`) tag each word of an answer and puts its lemma for nouns and verbs. A tagger is a network of its own;
//! here the ending and lists of exceptions decide, so words that are nouns in `-ing` or adjectives in `-ed` may differ. The exact lemmas of
//! a set of predictions come from a table (`scripts/lemmatize_answers.py` writes it where spaCy is installed).

use std::collections::HashMap;

/// Forms that no rule finds.
const IRREGULAR: [(&str, &str); 56] = [
    ("men", "man"),
    ("women", "woman"),
    ("firemen", "fireman"),
    ("policemen", "policeman"),
    ("children", "child"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("geese", "goose"),
    ("mice", "mouse"),
    ("oxen", "ox"),
    ("knives", "knife"),
    ("wives", "wife"),
    ("lives", "life"),
    ("leaves", "leaf"),
    ("loaves", "loaf"),
    ("shelves", "shelf"),
    ("wolves", "wolf"),
    ("calves", "calf"),
    ("halves", "half"),
    ("scarves", "scarf"),
    ("hooves", "hoof"),
    ("shoes", "shoe"),
    ("toes", "toe"),
    ("canoes", "canoe"),
    ("horseshoes", "horseshoe"),
    ("pies", "pie"),
    ("ties", "tie"),
    ("movies", "movie"),
    ("cookies", "cookie"),
    ("smoothies", "smoothie"),
    ("zombies", "zombie"),
    ("ate", "eat"),
    ("eaten", "eat"),
    ("ran", "run"),
    ("sat", "sit"),
    ("stood", "stand"),
    ("flew", "fly"),
    ("flown", "fly"),
    ("broken", "break"),
    ("broke", "break"),
    ("made", "make"),
    ("held", "hold"),
    ("wore", "wear"),
    ("worn", "wear"),
    ("caught", "catch"),
    ("threw", "throw"),
    ("thrown", "throw"),
    ("bought", "buy"),
    ("rode", "ride"),
    ("ridden", "ride"),
    ("drove", "drive"),
    ("driven", "drive"),
    ("written", "write"),
    ("lying", "lie"),
    ("dying", "die"),
    ("tying", "tie"),
];

/// Words that look inflected and are not.
const UNINFLECTED: &str = " building buildings wedding painting clothing ceiling evening morning spring string ring king wing thing something \
    nothing anything everything sling swing bring sing pudding stuffing icing frosting lightning earring sibling railing awning \
    bus gas lens tennis grass glass class dress bass boss chess moss cross christmas texas paris this always yes plus is was has as us its \
    series species news mathematics physics gymnastics athletics politics citrus cactus campus circus octopus virus hibiscus focus \
    asparagus hummus walrus canvas atlas iris pancreas dais red bed shed sled weed seed feed speed need hundred naked sacred crooked \
    hotbed bobsled thoroughbred united kindred reed deed breed steed hybrid ";

/// The answer with every word in its base form.
pub fn by_rules(answer: &str) -> String {
    answer.split_whitespace().map(base).collect::<Vec<_>>().join(" ")
}

/// The answer's own lemmas in a table; an answer that it does not have stays as it is.
pub fn by_table<'a>(answer: &'a str, table: &'a HashMap<String, String>) -> &'a str {
    table.get(answer).map_or(answer, String::as_str)
}

/// The base form of one word, in small letters where it changes.
fn base(word: &str) -> String {
    let small = word.to_lowercase();
    if !small.chars().all(|c| c.is_ascii_lowercase()) || UNINFLECTED.contains(&format!(" {small} ")) {
        return word.to_owned();
    }
    if let Some((_, base)) = IRREGULAR.iter().find(|(form, _)| *form == small) {
        return (*base).to_owned();
    }
    let found = [("ing", true), ("ed", true), ("s", false)].iter().find_map(|(ending, verb)| {
        let stem = small.strip_suffix(ending)?;
        if *verb { verb_of(stem, ending) } else { singular_of(stem) }
    });
    found.unwrap_or_else(|| word.to_owned())
}

fn is_vowel(c: u8) -> bool {
    matches!(c, b'a' | b'e' | b'i' | b'o' | b'u')
}

/// `runn` is `run`, `skat` is `skate`, `surf` is `surf`.
fn verb_of(stem: &str, ending: &str) -> Option<String> {
    let letters = stem.as_bytes();
    let vowels = letters.iter().filter(|c| is_vowel(**c) || **c == b'y').count();
    if letters.len() < 2 || vowels == 0 {
        return None;
    }
    let at = |back: usize| letters.len().checked_sub(back).map_or(b' ', |at| letters[at]);
    let (last, before, third) = (at(1), at(2), at(3));
    // carri(ed) -> carry
    if ending == "ed" && last == b'i' {
        return Some(format!("{}y", &stem[..stem.len() - 1]));
    }
    if last == before && !is_vowel(last) {
        // runn(ing) -> run, but fall(ing), dress(ed), stuff(ed)
        let kept = matches!(last, b'l' | b's' | b'f' | b'z');
        return Some(if kept { stem.to_owned() } else { stem[..stem.len() - 1].to_owned() });
    }
    // freez(ing), danc(ing), driv(ing), us(ing), argu(ing); juggl(ing); charg(ed)
    let silent = matches!(last, b'c' | b'z' | b'v' | b'u')
        || (last == b's' && is_vowel(before))
        || (last == b'l' && matches!(before, b'b' | b'd' | b'g' | b'k' | b'p' | b't' | b'z'))
        || (last == b'g' && matches!(before, b'r' | b'd' | b'a'))
        // rotat(ing), decorat(ed)
        || (vowels > 1 && last == b't' && before == b'a' && third != b'e')
        // skat(ing), rid(ing), mak(ing): one short syllable would have doubled its consonant
        || (vowels == 1 && is_vowel(before) && !is_vowel(last) && !is_vowel(third) && !matches!(last, b'w' | b'x' | b'y' | b'h'));
    Some(if silent { format!("{stem}e") } else { stem.to_owned() })
}

/// `potatoe` is `potato`, `berrie` is `berry`, `dog` is `dog`.
fn singular_of(stem: &str) -> Option<String> {
    let last = *stem.as_bytes().last()?;
    if stem.len() < 2 || matches!(last, b's' | b'u' | b'i') {
        return None;
    }
    if let Some(root) = stem.strip_suffix("ie").filter(|root| root.len() > 1) {
        return Some(format!("{root}y"));
    }
    let drops_e = ["sse", "she", "che", "xe", "zze", "oe"].iter().any(|ending| stem.ends_with(ending));
    Some(if drops_e { stem[..stem.len() - 1].to_owned() } else { stem.to_owned() })
}
