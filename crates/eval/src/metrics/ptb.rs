//! Words of a caption as captioning benchmarks count them: what pycocoevalcap 1.2 does with the Stanford tokenizer (CoreNLP 3.4.1,
//! `PTBTokenizer -preserveLines -lowerCase`), whose marks it then drops.
//!
//! At each place the longest of all rules wins, of equal ones the first (`rules`). The rules are ours, found by asking the original about
//! every character, abbreviation and kind of word; `tests/fixtures/ptb.tsv` holds what it answered, `scripts/compare_metrics.py` asks it
//! again. Not there: telephone numbers with blanks, program names such as `c++` beyond `c#`, and obscured swear words.

#[path = "ptb/rules.rs"]
mod rules;
#[path = "ptb/tables.rs"]
mod tables;

/// Tokens that pycocoevalcap drops. It lists brackets too, but in capitals, which tokens in lower case never are.
const DROPPED: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// The caption's words separated by single blanks.
pub fn tokenize(caption: &str) -> String {
    // A rule may look at what follows; a caption is always followed by the end of its line.
    let text: Vec<char> = caption.chars().map(|c| if c == '\n' { ' ' } else { c }).chain(['\n']).collect();
    let mut words: Vec<String> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some(token) = rules::longest(&text, at) else {
            at += 1;
            continue;
        };
        let word = token.word.to_lowercase();
        if !DROPPED.contains(&word.as_str()) {
            words.push(word);
        }
        at = token.end;
    }
    words.join(" ")
}
