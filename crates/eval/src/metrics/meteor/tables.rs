//! What METEOR knows of English: function words, abbreviations, WordNet's synonym sets and paraphrases, read from its jar and the file of paraphrases beside it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::read::GzDecoder;
use zip::ZipArchive;

/// Largest table of a jar, in bytes: several times what METEOR 1.5 has.
const LIMIT: u64 = 1 << 26;
/// Endings of words and what stands for them in a base form, in the order in which WordNet tries them: nouns, verbs, adjectives.
const ENDINGS: [(&str, &str); 18] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

/// Tables of a language.
pub(super) struct Tables {
    pub(super) function_words: HashSet<String>,
    pub(super) abbreviations: String,
    pub(super) synonyms: Synonyms,
}

impl Tables {
    pub(super) fn read(jar: &Path) -> Result<Self, String> {
        let file = File::open(jar).map_err(|e| format!("`{}` cannot be read: {e}", jar.display()))?;
        let mut archive =
            ZipArchive::new(BufReader::new(file)).map_err(|e| format!("`{}` is no jar: {e}", jar.display()))?;
        let mut table = |name: &str| -> Result<String, String> {
            let entry = archive.by_name(name).map_err(|e| format!("it has no table `{name}`: {e}"))?;
            if entry.size() > LIMIT {
                return Err(format!("its table `{name}` has {} bytes; at most {LIMIT} are read", entry.size()));
            }
            let mut text = String::new();
            let read = entry.take(LIMIT).read_to_string(&mut text);
            read.map(|_| text).map_err(|e| format!("its table `{name}` cannot be read: {e}"))
        };
        let function_words = table("function/english.words")?.lines().map(|word| word.trim().to_owned()).collect();
        Ok(Self {
            function_words,
            abbreviations: table("nonbreaking/english.prefixes")?,
            synonyms: Synonyms::new(&table("synonym/english.exceptions")?, &table("synonym/english.synsets")?)?,
        })
    }
}

/// Words by sets of synonyms, as WordNet has them.
pub(super) struct Synonyms {
    bases: HashMap<String, Vec<String>>,
    sets: HashMap<String, Vec<u32>>,
}

impl Synonyms {
    fn new(exceptions: &str, sets: &str) -> Result<Self, String> {
        let mut bases: HashMap<String, Vec<String>> = HashMap::new();
        for (base, forms) in pairs(exceptions) {
            for form in forms.split_ascii_whitespace() {
                bases.entry(form.to_owned()).or_default().push(base.to_owned());
            }
        }
        let mut found = HashMap::new();
        for (word, numbers) in pairs(sets) {
            let numbers: Result<Vec<u32>, _> = numbers.split_ascii_whitespace().map(str::parse).collect();
            found.insert(
                word.to_owned(),
                numbers.map_err(|e| {
                    format!("its table `synonym/english.synsets`: the sets of `{word}` are no numbers: {e}")
                })?,
            );
        }
        Ok(Self { bases, sets: found })
    }

    /// The sets of a word and of its base forms.
    pub(super) fn of(&self, word: &str) -> BTreeSet<u32> {
        let own = |word: &str| self.sets.get(word).into_iter().flatten().copied();
        let mut found: BTreeSet<u32> = own(word).collect();
        match self.bases.get(word) {
            Some(bases) => found.extend(bases.iter().flat_map(|base| own(base))),
            None => found.extend(self.base(word).iter().flat_map(|base| own(base))),
        }
        found
    }

    /// The base form of a regular word: the first that is known.
    fn base(&self, word: &str) -> Option<String> {
        if word.ends_with("ss") || word.chars().count() <= 2 {
            return None;
        }
        let mut tried = ENDINGS.iter().filter_map(|(ending, by)| Some(format!("{}{by}", word.strip_suffix(ending)?)));
        tried.find(|base| self.sets.contains_key(base))
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut lines = text.lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next().unwrap_or_default())))
}

/// Words in a row.
type Phrase = Vec<String>;

/// Phrases that say the same, of the words that are asked for.
#[derive(Default)]
pub(super) struct Paraphrases {
    by_first: HashMap<String, Vec<(Phrase, Phrase)>>,
}

impl Paraphrases {
    /// Reads those whose words are all among `vocabulary`, from a compressed file of three lines each: how likely, phrase, phrase.
    pub(super) fn read(path: &Path, vocabulary: &HashSet<&str>) -> Result<Self, String> {
        let wrong = |e: io::Error| format!("`{}` cannot be read: {e}", path.display());
        let file = File::open(path).map_err(wrong)?;
        let mut lines = BufReader::with_capacity(1 << 18, GzDecoder::new(BufReader::new(file)));
        let (mut likely, mut one, mut other) = (String::new(), String::new(), String::new());
        let mut found = Self::default();
        loop {
            for line in [&mut likely, &mut one, &mut other] {
                line.clear();
                lines.read_line(line).map_err(wrong)?;
            }
            if likely.is_empty() {
                return Ok(found);
            }
            if other.is_empty() {
                return Err(format!("`{}` ends within a pair of phrases; fetch it again", path.display()));
            }
            let known = |line: &str| line.split_ascii_whitespace().all(|word| vocabulary.contains(word));
            if known(&one) && known(&other) {
                let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Phrase>();
                let (one, other) = (words(&one), words(&other));
                if let Some(first) = one.first() {
                    found.by_first.entry(first.clone()).or_default().push((one, other));
                }
            }
        }
    }

    /// How many words from `at` on are a phrase, and another phrase for them; shorter ones first.
    pub(super) fn at<'a>(&'a self, words: &'a [String], at: usize) -> Vec<(usize, &'a [String])> {
        let phrases = self.by_first.get(&words[at]).into_iter().flatten();
        let mut found: Vec<(usize, &[String])> = phrases
            .filter(|(one, _)| words[at..].starts_with(one))
            .map(|(one, other)| (one.len(), other.as_slice()))
            .collect();
        found.sort_by_key(|(length, _)| *length);
        found
    }
}
