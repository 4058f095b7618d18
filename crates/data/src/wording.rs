//! Texts as the paper's evaluation words them: LAVIS' text processors, and prompts with a place for the question.

use ressa_experiment::{
    Task,
    config::{AskingConfig, TextRule},
    task::Facts,
};

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

/// What MME's questions end with; lmms-eval's prompt stands in its place.
const YES_OR_NO: &str = " Please answer yes or no.";

/// A question without the instruction that MME has behind it, and that instruction; empty where there is none.
pub(crate) fn without_instruction(text: &str) -> (&str, &str) {
    text.strip_suffix(YES_OR_NO).map_or((text, ""), |question| (question, YES_OR_NO))
}

/// A question as the model reads it: as the experiment words it, or else as the task does.
pub fn asked(asking: &AskingConfig, facts: &Facts, text: &str) -> String {
    match facts.prompt {
        Some(prompt) if asking.prompt.is_none() => {
            let text = if facts.capitalized { capitalized(text) } else { text.replace(YES_OR_NO, "") };
            prompt.replacen("{}", &question(asking, &text), 1)
        }
        _ => question(asking, text),
    }
}

/// The first character as a capital, all others in lower case, as Python's `capitalize`.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters.as_str().to_lowercase().chars()).collect())
}

/// Letters of options.
pub const LETTERS: [char; 26] = [
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W',
    'X', 'Y', 'Z',
];

/// A question with options.
pub(crate) struct Choice<'a> {
    pub question: &'a str,
    pub context: Option<&'a str>,
    pub options: &'a [String],
}

impl Choice<'_> {
    /// The prompt that asks for a letter, and the one that an option's own text follows.
    ///
    /// The first is put together as lmms-eval does for the task, with the experiment's prompt around it where there is one; the second is the
    /// same without options and instruction, and `Answer:` behind it.
    pub fn prompts(&self, asking: &AskingConfig, facts: &Facts) -> (String, String) {
        let bare = AskingConfig { prompt: None, ..asking.clone() };
        let asked = question(&bare, self.question);
        let options: Vec<String> =
            LETTERS.iter().zip(self.options).map(|(letter, option)| format!("{letter}. {option}")).collect();
        let options = options.join("\n");
        let (context, list) = match (facts.task, self.context) {
            (Task::Mmbench, context) => {
                (context.map(|context| format!("{context} ")), format!(" There are several options:\n{options}"))
            }
            (_, context) => (context.map(|context| format!("Context: {context}\n")), format!("\n{options}")),
        };
        let context = context.unwrap_or_default();
        let prompt = asking.prompt.as_deref().or(facts.prompt).unwrap_or("{}");
        let text = prompt.replacen("{}", &format!("{context}{asked}{list}"), 1);
        (text, format!("{context}{asked}\nAnswer:"))
    }
}
