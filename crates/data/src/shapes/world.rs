//! The world itself: its splits and its benchmarks.

use std::collections::HashSet;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use ressa_experiment::{
    Task,
    config::{DataConfig, DataSource},
};

use super::{
    caption,
    draw::{Purpose, stream},
    facts::Facts,
    question,
    render::render,
    scene::{Scene, Side},
};
use crate::{Benchmark, Content, DataError, Image, Item, Question};

/// Questions per image in a question-answering benchmark.
const QUESTIONS_PER_IMAGE: usize = 2;
/// References per caption image.
const REFERENCES: usize = 5;
/// Draws after which a repeated question is accepted.
const ATTEMPTS: usize = 50;

/// Name of the caption set whose scenes are like the training images.
pub const IN_DOMAIN: &str = "in-domain";
/// Name of the caption set in which every scene has a pair of colour and shape that training never shows.
pub const HELD_OUT: &str = "held-out";

/// A picture and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImage {
    /// What was painted.
    pub scene: Scene,
    /// The picture.
    pub image: Image,
}

/// The embedded world under one seed.
#[derive(Clone, Debug)]
pub struct World {
    seed: u64,
    facts: Facts,
}

impl World {
    /// The world of a data configuration.
    ///
    /// # Errors
    /// [`DataError::NotShapes`] when the configuration points at published benchmarks.
    pub fn new(config: &DataConfig) -> Result<Self, DataError> {
        match config.source {
            DataSource::Shapes => Ok(Self { seed: config.seed, facts: Facts::new(config.seed) }),
            DataSource::Folder => Err(DataError::NotShapes),
        }
    }

    /// The seed that everything follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What shapes and colours stand for.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Draws a scene of the training side with at least `least` objects: for training without pictures.
    pub fn training_scene(&self, rng: &mut (impl Rng + ?Sized), least: usize) -> Scene {
        Scene::draw(rng, Side::Train, least)
    }

    /// The training image of an index, the same whatever else is made.
    pub fn training_image(&self, index: usize) -> LabelledImage {
        self.paint(Purpose::TrainImages, index, |rng| Scene::draw(rng, Side::Train, 1))
    }

    /// A caption of the training image of an index, as one person might write it. Nothing is painted.
    pub fn training_caption(&self, index: usize) -> String {
        let scene = Scene::draw(&mut stream(self.seed, Purpose::TrainImages, index), Side::Train, 1);
        caption::draw(&scene, &mut stream(self.seed, Purpose::PoolCaptions, index))
    }

    /// The first `images` training images, made on `threads` threads with the same bytes on any number.
    pub fn training_images(&self, images: usize, threads: usize) -> Vec<LabelledImage> {
        let share = images.div_ceil(threads.max(1)).max(1);
        let mut parts: Vec<Vec<LabelledImage>> = Vec::new();
        std::thread::scope(|scope| {
            let range = |first: usize| first..(first + share).min(images);
            let workers: Vec<_> = (0..images)
                .step_by(share)
                .map(|first| scope.spawn(move || range(first).map(|i| self.training_image(i)).collect::<Vec<_>>()))
                .collect();
            parts = workers.into_iter().map(|worker| worker.join().expect("painting does not panic")).collect();
        });
        parts.into_iter().flatten().collect()
    }

    /// Draws a question of a question-answering task. `None` where the scene admits none, or for the other tasks.
    pub fn question(&self, task: Task, scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Option<Question> {
        match task {
            Task::Vqav2 => Some(question::vqav2(scene, rng)),
            Task::Gqa => question::gqa(scene, rng),
            Task::Okvqa => question::okvqa(scene, &self.facts, rng),
            _ => None,
        }
    }

    /// Draws a fact as a question without an image.
    pub fn fact(&self, rng: &mut (impl Rng + ?Sized)) -> Question {
        self.facts.draw(rng)
    }

    /// The test items of a task: `items` questions, or `items` images for retrieval and for each of the two caption sets.
    ///
    /// The items asked for are always the first of one endless list, so a smaller benchmark is a prefix of a larger one
    /// (in captions: of each set). Nothing for a task that this world does not have.
    pub fn benchmark(&self, task: Task, items: usize) -> Benchmark {
        match task {
            Task::Vqav2 => self.questions(task, Purpose::Vqav2, items),
            Task::Gqa => self.questions(task, Purpose::Gqa, items),
            Task::Okvqa => self.questions(task, Purpose::Okvqa, items),
            Task::Nocaps => self.captions(items),
            Task::Flickr30k => self.retrieval(items),
            // What the world has no miniature of.
            _ => Benchmark::new(task, Vec::new(), Vec::new()),
        }
    }

    /// The test image behind an index of the question-answering columns. GQA images have at least two objects, one of them
    /// identified by colour and shape; the other two columns share theirs, each with an object that a fact can be asked about.
    pub fn question_image(&self, task: Task, index: usize) -> LabelledImage {
        let (purpose, least) =
            if task == Task::Gqa { (Purpose::RelationImages, 2) } else { (Purpose::QuestionImages, 1) };
        self.paint(purpose, index, |rng| {
            loop {
                let scene = Scene::draw(rng, Side::Test, least);
                let admits = match task {
                    Task::Gqa => !scene.unique_by(|o| (o.color, o.shape)).is_empty(),
                    _ => !scene.unique_by(|o| o.color).is_empty() || !scene.unique_by(|o| o.shape).is_empty(),
                };
                if admits {
                    return scene;
                }
            }
        })
    }

    /// The test image behind an index of a caption set.
    pub fn caption_image(&self, held_out: bool, index: usize) -> LabelledImage {
        if held_out {
            self.paint(Purpose::HeldOutImages, index, Scene::draw_held_out)
        } else {
            self.paint(Purpose::CaptionImages, index, |rng| Scene::draw(rng, Side::Test, 1))
        }
    }

    fn paint(&self, purpose: Purpose, index: usize, draw: impl FnOnce(&mut ChaCha8Rng) -> Scene) -> LabelledImage {
        let mut rng = stream(self.seed, purpose, index);
        let scene = draw(&mut rng);
        let image = render(&scene, &mut rng);
        LabelledImage { scene, image }
    }

    fn questions(&self, task: Task, purpose: Purpose, items: usize) -> Benchmark {
        let mut images = Vec::new();
        let mut entries = Vec::new();
        for index in 0..items.div_ceil(QUESTIONS_PER_IMAGE) {
            let LabelledImage { scene, image } = self.question_image(task, index);
            let mut rng = stream(self.seed, purpose, index);
            let mut asked = HashSet::new();
            for number in 0..QUESTIONS_PER_IMAGE.min(items - entries.len()) {
                let mut question = self.question(task, &scene, &mut rng);
                for _ in 0..ATTEMPTS {
                    if question.as_ref().is_some_and(|q| !asked.contains(&q.text)) {
                        break;
                    }
                    question = self.question(task, &scene, &mut rng);
                }
                let Some(Question { text, answer, template }) = question else { continue };
                asked.insert(text.clone());
                entries.push(Item {
                    id: format!("{index:05}-{number}"),
                    image: index,
                    content: Content::Question { text, answers: vec![answer], template: Some(template.to_owned()) },
                });
            }
            images.push(image);
        }
        Benchmark::new(task, images, entries)
    }

    fn captions(&self, items: usize) -> Benchmark {
        let mut images = Vec::new();
        let mut entries = Vec::new();
        for (set, held_out, purpose) in
            [(IN_DOMAIN, false, Purpose::Captions), (HELD_OUT, true, Purpose::HeldOutCaptions)]
        {
            for index in 0..items {
                let LabelledImage { scene, image } = self.caption_image(held_out, index);
                let mut rng = stream(self.seed, purpose, index);
                entries.push(Item {
                    id: format!("{set}-{index:05}"),
                    image: images.len(),
                    content: Content::Caption {
                        instruction: caption::DESCRIBE.to_owned(),
                        references: (0..REFERENCES).map(|_| caption::draw(&scene, &mut rng)).collect(),
                        set: Some(set.to_owned()),
                    },
                });
                images.push(image);
            }
        }
        Benchmark::new(Task::Nocaps, images, entries)
    }

    /// Images whose canonical captions differ pairwise, so that every text has exactly one right image.
    fn retrieval(&self, items: usize) -> Benchmark {
        let mut images = Vec::new();
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        for index in 0.. {
            if entries.len() == items {
                break;
            }
            let LabelledImage { scene, image } =
                self.paint(Purpose::RetrievalImages, index, |rng| Scene::draw(rng, Side::Test, 1));
            let caption = caption::canonical(&scene);
            if seen.insert(caption.clone()) {
                entries.push(Item {
                    id: format!("{:05}", entries.len()),
                    image: images.len(),
                    content: Content::Retrieval { caption },
                });
                images.push(image);
            }
        }
        Benchmark::new(Task::Flickr30k, images, entries)
    }
}
