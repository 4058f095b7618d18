//! Benchmarks: the images and items that one task is scored on.

use std::{borrow::Cow, path::PathBuf};

use ressa_experiment::{
    Task,
    config::{AskingConfig, DataConfig, DataSource, PerturbConfig},
};

use crate::{Cell, DataError, Image, World, file_identity, perturb, published, wording};

/// One test entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Identity within the benchmark, kept in stored predictions.
    pub id: String,
    /// The image it is about, as an index into the benchmark's images.
    pub image: usize,
    /// What is asked.
    pub content: Content,
}

/// What an entry asks for, with what is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A question about the image.
    Question {
        /// The prompt as the model reads it.
        text: String,
        /// Answers of all annotators; a single one where the truth is known.
        answers: Vec<String>,
        /// Kind of question, where the benchmark knows kinds.
        template: Option<String>,
    },
    /// A caption to be written.
    Caption {
        /// The prompt as the model reads it.
        instruction: String,
        /// Captions written by people.
        references: Vec<String>,
        /// Part of the benchmark, such as `in-domain`.
        set: Option<String>,
    },
    /// A question with options, one of which is right.
    Choice {
        /// The prompt as the model reads it, with the options and their letters.
        text: String,
        /// The prompt that an option's own text follows, where options are compared by their likelihood.
        stem: String,
        /// The question alone.
        question: String,
        /// What is to be known before, where there is anything.
        context: Option<String>,
        /// The options, `A` first; at most 26.
        options: Vec<String>,
        /// Index of the right one.
        answer: usize,
        /// Kinds of question that it belongs to, as parts of the score are called.
        kinds: Vec<String>,
    },
    /// A caption to be matched with its image, and the image with it.
    Retrieval {
        /// The caption.
        caption: String,
    },
}

/// An image of a benchmark: painted ones are held, files are opened when they are needed.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// In memory.
    Held(Image),
    /// On disk.
    File(PathBuf),
    /// In a table on disk, written in base64.
    Cell(Cell),
}

impl Picture {
    /// The image itself.
    ///
    /// # Errors
    /// A file that is missing or no image, by its path.
    pub fn image(&self) -> Result<Cow<'_, Image>, DataError> {
        match self {
            Picture::Held(image) => Ok(Cow::Borrowed(image)),
            Picture::File(path) => Image::open(path).map(Cow::Owned),
            Picture::Cell(cell) => cell.image().map(Cow::Owned),
        }
    }

    /// What its file is called, without folder and ending, in lower case, and without what COCO has had before the number of an image (`COCO_val2014_`) in
    /// some years; `None` where it has no file of its own.
    pub fn name(&self) -> Option<String> {
        /// Digits of an image's number in COCO.
        const DIGITS: usize = 12;
        match self {
            Picture::File(path) => {
                let name = path.file_stem()?.to_string_lossy().to_lowercase();
                let number =
                    name.strip_prefix("coco_").and_then(|rest| rest.rsplit_once('_')).map(|(_, number)| number);
                let is_number =
                    |number: &&str| number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
                Some(number.filter(is_number).map(str::to_owned).unwrap_or(name))
            }
            Picture::Held(_) | Picture::Cell(_) => None,
        }
    }

    /// What the image is known by without reading it (see [`file_identity`]); `None` where it is in memory or not there.
    pub fn identity(&self) -> Option<Vec<u8>> {
        match self {
            Picture::Held(_) => None,
            Picture::File(path) => file_identity(path),
            Picture::Cell(cell) => {
                let mut identity = file_identity(cell.path())?;
                identity.extend(cell.offset().to_le_bytes());
                Some(identity)
            }
        }
    }
}

/// The test set of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmark {
    task: Task,
    images: Vec<Picture>,
    items: Vec<Item>,
}

impl Benchmark {
    /// A benchmark of the given parts.
    ///
    /// # Panics
    /// If an item points at an image that is not there.
    pub fn new(task: Task, images: Vec<Image>, items: Vec<Item>) -> Self {
        Self::of(task, images.into_iter().map(Picture::Held).collect(), items)
    }

    /// A benchmark whose images are files.
    ///
    /// # Panics
    /// If an item points at an image that is not there.
    pub fn on_disk(task: Task, images: Vec<PathBuf>, items: Vec<Item>) -> Self {
        Self::of(task, images.into_iter().map(Picture::File).collect(), items)
    }

    /// A benchmark of pictures of any kind.
    ///
    /// # Panics
    /// If an item points at an image that is not there.
    pub fn of(task: Task, images: Vec<Picture>, items: Vec<Item>) -> Self {
        assert!(items.iter().all(|item| item.image < images.len()), "every item has its image");
        Self { task, images, items }
    }

    /// Loads the test set of a task: `items` questions, or images (in the embedded world: per caption set), the first so many.
    ///
    /// # Errors
    /// For published benchmarks: what is missing under `data.root`, by name, or the entry that cannot be used.
    pub fn load(config: &DataConfig, task: Task, items: usize) -> Result<Self, DataError> {
        match config.source {
            DataSource::Shapes if !task.has_miniature() => Err(DataError::NoMiniature(task)),
            DataSource::Shapes => Ok(World::new(config)?.benchmark(task, items)),
            DataSource::Folder => {
                let root = config.root.as_deref().ok_or(DataError::NoRoot)?;
                published::read(root, task, items)
            }
        }
    }

    /// The same benchmark with its questions and instructions worded as an experiment says, or else as the task has it.
    pub fn asked(mut self, asking: &AskingConfig) -> Self {
        let facts = self.task.facts();
        for item in &mut self.items {
            match &mut item.content {
                Content::Question { text, .. } => *text = wording::asked(asking, facts, text),
                Content::Choice { text, stem, question, context, options, .. } => {
                    let form = wording::Choice { question, context: context.as_deref(), options };
                    (*text, *stem) = form.prompts(asking, facts);
                }
                Content::Caption { instruction, .. } => {
                    if let Some(prompt) = &asking.prompt {
                        instruction.clone_from(prompt);
                    }
                }
                Content::Retrieval { .. } => {}
            }
        }
        self
    }

    /// The same benchmark with other questions, each made of its place among the items and the question as the benchmark has it; to be done before it is
    /// worded ([`Benchmark::asked`]). MME's instruction to answer yes or no is no part of a question and stays. Captions and retrieval have none.
    #[must_use]
    pub fn with_questions(mut self, question: impl Fn(usize, &str) -> String) -> Self {
        for (at, item) in self.items.iter_mut().enumerate() {
            match &mut item.content {
                Content::Question { text: own, .. } => {
                    let (asked, instruction) = wording::without_instruction(own);
                    *own = question(at, asked) + instruction;
                }
                Content::Choice { question: own, .. } => *own = question(at, own),
                Content::Caption { .. } | Content::Retrieval { .. } => {}
            }
        }
        self
    }

    /// The questions without MME's instruction, by the places of their items; empty where an item has none.
    pub fn questions(&self) -> Vec<String> {
        let question = |item: &Item| match &item.content {
            Content::Question { text, .. } => wording::without_instruction(text).0.to_owned(),
            Content::Choice { question, .. } => question.clone(),
            Content::Caption { .. } | Content::Retrieval { .. } => String::new(),
        };
        self.items.iter().map(question).collect()
    }

    /// Questions without answers in the places of all items, about the same images.
    #[must_use]
    pub fn as_questions(mut self, question: impl Fn(usize) -> String) -> Self {
        for (at, item) in self.items.iter_mut().enumerate() {
            item.content = Content::Question { text: question(at), answers: Vec::new(), template: None };
        }
        self
    }

    /// The same benchmark with its questions perturbed, before they are worded.
    #[must_use]
    pub fn perturbed(self, config: &PerturbConfig) -> Self {
        let questions = self.questions();
        self.with_questions(|at, _| perturb::perturbed(&questions, at, config))
    }

    /// Every item so many times, copies of one item behind each other. Copies of questions have no answers and no template, which may be large and are the
    /// item's.
    #[must_use]
    pub fn copied(mut self, copies: usize) -> Self {
        for item in &mut self.items {
            if let Content::Question { answers, template, .. } = &mut item.content {
                (*answers, *template) = (Vec::new(), None);
            }
        }
        self.items = self.items.into_iter().flat_map(|item| std::iter::repeat_n(item, copies)).collect();
        self
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The images, each once.
    pub fn images(&self) -> &[Picture] {
        &self.images
    }

    /// The entries.
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}
