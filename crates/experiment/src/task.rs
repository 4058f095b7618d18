//! The benchmarks, one row of a table each.

use serde::{Deserialize, Serialize};

/// A benchmark: one of the paper's or its miniature in the embedded world, one of today's, or a text whose perplexity is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Open questions about an image; VQA accuracy.
    Vqav2,
    /// Compositional questions with positions and relations; exact match.
    Gqa,
    /// Questions that need knowledge from outside the image; VQA accuracy.
    Okvqa,
    /// Captions, in-domain and with attribute pairs never seen in training; CIDEr (see `record::Score` for its unit).
    Nocaps,
    /// Retrieval both ways; mean of text and image recall at 1.
    Flickr30k,
    /// Questions about text in an image; VQA accuracy.
    Textvqa,
    /// Questions of blind people about their photographs; VQA accuracy.
    Vizwiz,
    /// Whether an object is in an image, in three splits; accuracy, and F1 per split.
    Pope,
    /// School questions with an image, multiple choice; accuracy of the letter, and of the likeliest option.
    Scienceqa,
    /// Multiple choice under every rotation of the options; a question counts where all of its rotations are right.
    Mmbench,
    /// Pairs of yes-or-no questions in 14 subtasks; the sum of accuracies.
    Mme,
    /// easy-VQA: what shape, which colour, is there one, about one shape on a plain ground; exact match.
    EasyVqa,
    /// Perplexity of a text file: the language model alone.
    Perplexity,
}

/// What the items of a task ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// An answer to a question about an image.
    Answer,
    /// One of a few options.
    Choice,
    /// A caption.
    Caption,
    /// Images and captions that belong together.
    Match,
    /// The tokens of a text, each from those before it.
    Text,
}

/// What the program knows about a task beside how its files are read and its predictions are scored.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The task.
    pub task: Task,
    /// The name in YAML, records and file names.
    pub name: &'static str,
    /// The name for readers.
    pub title: &'static str,
    /// What its items ask for.
    pub asks: Asks,
    /// Images and items of the published benchmark, whole.
    pub published: (u32, u32),
    /// The best score that there can be; `None` where there is no end.
    pub ceiling: Option<f64>,
    /// Whether less is better.
    pub lower_is_better: bool,
    /// Prompt where the experiment says none, `{}` for the question; `None` is the question alone.
    pub prompt: Option<&'static str>,
    /// Whether that prompt has the question with a capital and the rest in lower case.
    pub capitalized: bool,
    /// Maximum number of new tokens where the experiment says none, for published benchmarks.
    pub tokens: u32,
}

/// How short answers are asked for by lmms-eval.
const SHORT: &str = "{}\nAnswer the question using a single word or phrase.";

/// How letters of options are asked for by lmms-eval.
const LETTER: &str = "{}\nAnswer with the option's letter from the given choices directly.";

const fn paper(task: Task, name: &'static str, title: &'static str, asks: Asks, published: (u32, u32)) -> Facts {
    let ceiling = if matches!(asks, Asks::Caption) { None } else { Some(100.0) };
    let tokens = if matches!(asks, Asks::Caption) { 30 } else { 10 };
    Facts {
        task,
        name,
        title,
        asks,
        published,
        ceiling,
        lower_is_better: false,
        prompt: None,
        capitalized: false,
        tokens,
    }
}

const fn asked(facts: Facts, prompt: &'static str) -> Facts {
    Facts { prompt: Some(prompt), tokens: 16, ..facts }
}

/// Every task, in the order of tables. Prompts are those of lmms-eval's task files (`default`).
const TASKS: [Facts; Task::ALL.len()] = [
    paper(Task::Vqav2, "vqav2", "VQAv2", Asks::Answer, (40_504, 214_354)),
    paper(Task::Gqa, "gqa", "GQA", Asks::Answer, (398, 12_578)),
    paper(Task::Okvqa, "okvqa", "OK-VQA", Asks::Answer, (5_046, 5_046)),
    paper(Task::Nocaps, "nocaps", "NoCaps", Asks::Caption, (4_500, 4_500)),
    paper(Task::Flickr30k, "flickr30k", "Flickr30k", Asks::Match, (1_000, 5_000)),
    Facts {
        capitalized: true,
        ..asked(paper(Task::Textvqa, "textvqa", "TextVQA", Asks::Answer, (3_166, 5_000)), SHORT)
    },
    Facts {
        capitalized: true,
        ..asked(
            paper(Task::Vizwiz, "vizwiz", "VizWiz", Asks::Answer, (4_319, 4_319)),
            "{}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the question using a single word or phrase.",
        )
    },
    asked(paper(Task::Pope, "pope", "POPE", Asks::Answer, (500, 9_000)), SHORT),
    asked(paper(Task::Scienceqa, "scienceqa", "ScienceQA", Asks::Choice, (2_017, 2_017)), LETTER),
    asked(
        paper(Task::Mmbench, "mmbench", "MMBench", Asks::Choice, (1_164, 4_329)),
        "{}\n\nAnswer with the option's letter from the given choices directly.",
    ),
    Facts { ceiling: Some(2_800.0), ..asked(paper(Task::Mme, "mme", "MME", Asks::Answer, (1_187, 2_374)), SHORT) },
    paper(Task::EasyVqa, "easy-vqa", "easy-VQA", Asks::Answer, (1_000, 9_673)),
    Facts {
        ceiling: None,
        lower_is_better: true,
        ..paper(Task::Perplexity, "perplexity", "Perplexity", Asks::Text, (0, 166))
    },
];

impl Task {
    /// All tasks in the order of tables.
    pub const ALL: [Task; 13] = [
        Task::Vqav2,
        Task::Gqa,
        Task::Okvqa,
        Task::Nocaps,
        Task::Flickr30k,
        Task::Textvqa,
        Task::Vizwiz,
        Task::Pope,
        Task::Scienceqa,
        Task::Mmbench,
        Task::Mme,
        Task::EasyVqa,
        Task::Perplexity,
    ];

    /// The names of all tasks.
    pub const NAMES: [&'static str; Task::ALL.len()] = {
        let mut names = [""; Task::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = TASKS[at].name;
            at += 1;
        }
        names
    };

    /// The five columns of the paper's tables, which the embedded world has in miniature: what `average` is the mean of.
    pub const PAPER: [Task; 5] = [Task::Vqav2, Task::Gqa, Task::Okvqa, Task::Nocaps, Task::Flickr30k];

    /// The paper's three question-answering columns, whose mean is `vqa-mean`.
    pub const QUESTIONS: [Task; 3] = [Task::Vqav2, Task::Gqa, Task::Okvqa];

    /// What the program knows about it.
    pub fn facts(self) -> &'static Facts {
        // The table has the order of the variants, which a test sees to.
        &TASKS[self as usize]
    }

    /// The task of a name.
    pub fn named(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.name() == name)
    }

    /// The name used in YAML, records and file names.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The name for readers.
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// What its items ask for.
    pub fn asks(self) -> Asks {
        self.facts().asks
    }

    /// Whether its items are questions, so that `evaluate.questions` says how many there are.
    pub fn has_questions(self) -> bool {
        matches!(self.asks(), Asks::Answer | Asks::Choice)
    }

    /// Whether it is about images, of which `evaluate.images` says how many there are.
    pub fn has_images_only(self) -> bool {
        matches!(self.asks(), Asks::Caption | Asks::Match)
    }

    /// Whether the embedded world has it.
    pub fn has_miniature(self) -> bool {
        Task::PAPER.contains(&self)
    }

    /// Whether answers need the language model. Retrieval does not, so language sparsity cannot move it.
    pub fn uses_language(self) -> bool {
        self.asks() != Asks::Match
    }

    /// Whether the model writes something that is searched for.
    pub fn writes(self) -> bool {
        !matches!(self.asks(), Asks::Match | Asks::Text)
    }

    /// Whether it looks at images; without, what is done to the image encoder cannot move it.
    pub fn uses_vision(self) -> bool {
        self.asks() != Asks::Text
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_task_in_order() {
        for (task, facts) in Task::ALL.into_iter().zip(&TASKS) {
            assert_eq!((task, task.facts().task), (facts.task, task));
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
            assert_eq!(Task::named(task.name()), Some(task));
            assert!(facts.prompt.is_none_or(|prompt| prompt.contains("{}")));
        }
    }
}
