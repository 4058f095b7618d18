//! Benchmarks: the images and items that one task is scored on.

use ressa_experiment::{
    Task,
    config::{DataConfig, DataSource},
};

use crate::{DataError, Image, World, published};

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
    /// A caption to be matched with its image, and the image with it.
    Retrieval {
        /// The caption.
        caption: String,
    },
}

/// The test set of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmark {
    task: Task,
    images: Vec<Image>,
    items: Vec<Item>,
}

impl Benchmark {
    /// A benchmark of the given parts.
    ///
    /// # Panics
    /// If an item points at an image that is not there.
    pub fn new(task: Task, images: Vec<Image>, items: Vec<Item>) -> Self {
        assert!(items.iter().all(|item| item.image < images.len()), "every item has its image");
        Self { task, images, items }
    }

    /// Loads the test set of a task: `items` questions, or images (per caption set).
    ///
    /// # Errors
    /// For published benchmarks: what is missing under `data.root`, by name.
    pub fn load(config: &DataConfig, task: Task, items: usize) -> Result<Self, DataError> {
        match config.source {
            DataSource::Shapes => Ok(World::new(config)?.benchmark(task, items)),
            DataSource::Folder => {
                let root = config.root.as_deref().ok_or(DataError::NoRoot)?;
                published::check(root, task)?;
                Err(DataError::UnsupportedBenchmark { task: task.to_string(), root: root.to_owned() })
            }
        }
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The images, each once.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The entries.
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}
