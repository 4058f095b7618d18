//! The evaluated tasks: the five of the paper, and easy-VQA.

use serde::{Deserialize, Serialize};

/// A benchmark of the paper, or its miniature in the embedded world.
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
    /// easy-VQA: what shape, which colour, is there one, about one shape on a plain ground; exact match. Published only.
    EasyVqa,
}

impl Task {
    /// All tasks, those of the paper first.
    pub const ALL: [Task; 6] =
        [Task::Vqav2, Task::Gqa, Task::Okvqa, Task::Nocaps, Task::Flickr30k, Task::EasyVqa];

    /// The paper's tasks in the order of its tables: what the embedded world has, and what `average` is the mean of.
    pub const PAPER: [Task; 5] = [Task::Vqav2, Task::Gqa, Task::Okvqa, Task::Nocaps, Task::Flickr30k];

    /// The three question-answering columns, whose mean is `vqa-mean`.
    pub const QUESTIONS: [Task; 3] = [Task::Vqav2, Task::Gqa, Task::Okvqa];

    /// The name used in YAML, records and file names.
    pub fn name(self) -> &'static str {
        match self {
            Task::Vqav2 => "vqav2",
            Task::Gqa => "gqa",
            Task::Okvqa => "okvqa",
            Task::Nocaps => "nocaps",
            Task::Flickr30k => "flickr30k",
            Task::EasyVqa => "easy-vqa",
        }
    }

    /// Whether its items are questions, counted by `evaluate.questions`; else they are images, counted by `evaluate.images`.
    pub fn has_questions(self) -> bool {
        matches!(self, Task::Vqav2 | Task::Gqa | Task::Okvqa | Task::EasyVqa)
    }

    /// Whether the embedded world has it.
    pub fn has_miniature(self) -> bool {
        Task::PAPER.contains(&self)
    }

    /// Whether answers need the language model. Retrieval does not, so language sparsity cannot move it.
    pub fn uses_language(self) -> bool {
        self != Task::Flickr30k
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
