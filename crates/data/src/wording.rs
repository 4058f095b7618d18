//! Texts as the paper's evaluation words them: LAVIS' text processors, and prompts with a place for the question.

use ressa_experiment::config::{AskingConfig, TextRule};

/// Words after which a text is cut.
const MOST_WORDS: usize = 50;

fn is_mark(c: char) -> bool {
    matches!(c, '.' | '!' | '"' | '(' | ')' | '*' | '#' | ':' | ';' | '~')
}

/// LAVIS' `blip_question`: lower case, marks deleted, at most 50 words. Question marks and commas stay.
pub fn blip_question(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|c| !is_mark(*c)).collect();
    first_words(kept.trim_end_matches(' '))
}

/// LAVIS' `blip_caption`: lower case, marks replaced by blanks, runs of whitespace by one, at most 50 words.
pub fn blip_caption(text: &str) -> String {
    let blanked: String = text.to_lowercase().chars().map(|c| if is_mark(c) { ' ' } else { c }).collect();
    let mut collapsed = String::with_capacity(blanked.len());
    let mut run = String::new();
    for c in blanked.chars().chain(['\0']) {
        if c.is_whitespace() {
            run.push(c);
            continue;
        }
        // A single whitespace character stays what it is.
        collapsed.push_str(if run.chars().count() > 1 { " " } else { &run });
        run.clear();
        if c != '\0' {
            collapsed.push(c);
        }
    }
    first_words(collapsed.trim_end_matches('\n').trim_matches(' '))
}

/// The first words of a text as split at single blanks; a shorter text unchanged.
fn first_words(text: &str) -> String {
    match text.match_indices(' ').nth(MOST_WORDS - 1) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}

/// A question as the model reads it.
pub fn question(asking: &AskingConfig, text: &str) -> String {
    let text = match asking.text {
        TextRule::Verbatim => text.to_owned(),
        TextRule::BlipQuestion => blip_question(text),
        TextRule::BlipCaption => blip_caption(text),
    };
    match &asking.prompt {
        // Only the place in the template counts; braces in the question stay what they are.
        Some(prompt) => prompt.replacen("{}", &text, 1),
        None => text,
    }
}
