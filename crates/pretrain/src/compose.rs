//! Questions and captions as the model's inputs, and the labels of the auxiliary losses.

use std::borrow::Cow;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Processor, Question, World,
    shapes::{
        Grounding, Scene, Side,
        attributes::{COLUMN_WORDS, Color, ROW_WORDS, Shape, Size, Texture},
        caption, question,
    },
};
use ressa_models::{Prompts, TextBatch};
use tch::{Device, Tensor};

use crate::TrainError;

/// Kind of the extra share of yes-no relation questions.
const RELATION: usize = 3;
/// Draws after which another question about places is asked instead.
const RELATION_DRAWS: usize = 12;

/// A question with the scene it is about and its kind (0 VQAv2-, 1 GQA-, 2 OK-VQA-like).
pub struct Asked<'a> {
    /// The question.
    pub question: Question,
    /// Its scene.
    pub scene: Cow<'a, Scene>,
    /// Kind.
    pub kind: usize,
}

/// Texts as token ids.
pub struct Composer<'a> {
    /// The world that asks.
    pub world: &'a World,
    processor: &'a Processor,
    pad: u32,
    qformer_pad: u32,
    /// Special tokens before the first word of a prompt.
    pub leading: usize,
    /// Special tokens after the last word of a prompt.
    pub trailing: usize,
    attribute_words: [Vec<i64>; 4],
    row_words: Vec<i64>,
    column_words: Vec<i64>,
}

impl<'a> Composer<'a> {
    /// A composer for a world and the tokenizers of a preset.
    pub fn new(world: &'a World, processor: &'a Processor) -> Result<Self, TrainError> {
        let word = |word: &str| -> Result<i64, TrainError> {
            match processor.encode_answer(word)?[..] {
                [id] => Ok(i64::from(id)),
                _ => Err(TrainError::Vocabulary(word.to_owned())),
            }
        };
        let words = |all: Vec<&str>| all.into_iter().map(word).collect::<Result<Vec<i64>, _>>();
        let attribute_words = [
            words(Shape::ALL.iter().map(|v| v.word()).collect())?,
            words(Color::ALL.iter().map(|v| v.word()).collect())?,
            words(Size::ALL.iter().map(|v| v.word()).collect())?,
            words(Texture::ALL.iter().map(|v| v.word()).collect())?,
        ];
        let leading = processor.leading_specials()?;
        let prompt = processor.encode_prompt(caption::DESCRIBE)?;
        let words_only = processor.encode_answer(caption::DESCRIBE)?;
        Ok(Self {
            world,
            processor,
            pad: processor.pad(),
            qformer_pad: processor.qformer_pad(),
            leading,
            trailing: prompt.len().saturating_sub(leading + words_only.len()),
            attribute_words,
            row_words: words(ROW_WORDS.to_vec())?,
            column_words: words(COLUMN_WORDS.to_vec())?,
        })
    }

    /// The instruction as the language model reads it.
    pub fn language(&self, texts: &[&str]) -> Result<TextBatch, TrainError> {
        let rows = texts.iter().map(|t| self.processor.encode_prompt(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.pad, Device::Cpu))
    }

    /// The instruction, or a caption for retrieval, as the Q-Former reads it.
    pub fn qformer(&self, texts: &[&str]) -> Result<TextBatch, TrainError> {
        let rows = texts.iter().map(|t| self.processor.encode_qformer(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.qformer_pad, Device::Cpu))
    }

    /// Instructions for both readers; `images` names the image of each.
    pub fn prompts(&self, texts: &[&str], images: &[i64]) -> Result<Prompts, TrainError> {
        Ok(Prompts {
            image: Tensor::from_slice(images),
            qformer: self.qformer(texts)?,
            language: self.language(texts)?,
        })
    }

    /// Answers without special tokens.
    pub fn answers<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Result<Vec<Vec<u32>>, TrainError> {
        Ok(texts.map(|t| self.processor.encode_answer(t)).collect::<Result<_, _>>()?)
    }

    /// Draws a question of a kind drawn by `mix` (VQAv2-, GQA-, OK-VQA-like, relation); the scene is `given`, or a fresh one where there
    /// is none.
    pub fn ask<'s>(&self, given: Option<&'s Scene>, mix: &[f64; 4], rng: &mut ChaCha8Rng) -> Asked<'s> {
        loop {
            let kind = choose(mix, rng);
            let scene = match given {
                Some(scene) => Cow::Borrowed(scene),
                None => Cow::Owned(Scene::draw(rng, Side::Train, if kind % 2 == 1 { 2 } else { 1 })),
            };
            let drawn = match kind {
                0 => Some(question::vqav2(&scene, rng)),
                1 => question::gqa(&scene, rng),
                2 => question::okvqa(&scene, self.world.facts(), rng),
                _ => relation(&scene, rng),
            };
            if let Some(question) = drawn {
                return Asked { question, scene, kind: if kind == RELATION { 1 } else { kind } };
            }
        }
    }

    /// Token ids of the words that describe each cell, `[scenes, 9, 6]` (shape, colour, size, texture, row, column), and whether the
    /// cell is empty, bool `[scenes, 9, 1]`. Empty cells have the id 0 for the first four.
    pub fn cell_words(&self, scenes: &[&Scene]) -> (Tensor, Tensor) {
        let mut ids = Vec::with_capacity(scenes.len() * 54);
        let mut empty = Vec::with_capacity(scenes.len() * 9);
        for scene in scenes {
            for (cell, labels) in scene.cell_labels().into_iter().enumerate() {
                empty.push(labels[0] as usize >= self.attribute_words[0].len());
                for (words, label) in self.attribute_words.iter().zip(labels) {
                    ids.push(words.get(label as usize).copied().unwrap_or(0));
                }
                ids.push(self.row_words[cell / 3]);
                ids.push(self.column_words[cell % 3]);
            }
        }
        let rows = scenes.len() as i64;
        (Tensor::from_slice(&ids).view([rows, 9, 6]), Tensor::from_slice(&empty).view([rows, 9, 1]))
    }
}

/// Content labels of the nine cells, i64 `[scenes, 9, 4]`.
pub fn cell_labels(scenes: &[&Scene]) -> Tensor {
    let labels: Vec<i64> = scenes.iter().flat_map(|s| s.cell_labels()).flatten().collect();
    Tensor::from_slice(&labels).view([scenes.len() as i64, 9, 4])
}

/// Content labels of the 36 patches, i64 `[scenes, 36, 4]`.
pub fn patch_labels(scenes: &[&Scene]) -> Tensor {
    let labels: Vec<i64> = scenes.iter().flat_map(|s| s.patch_labels()).flatten().collect();
    Tensor::from_slice(&labels).view([scenes.len() as i64, 36, 4])
}

/// What each question refers to.
pub fn groundings(asked: &[Asked<'_>]) -> Vec<Grounding> {
    asked.iter().map(|a| Grounding::of(&a.question, &a.scene)).collect()
}

/// A yes-no relation question where a few draws find one, else any question about places.
fn relation(scene: &Scene, rng: &mut ChaCha8Rng) -> Option<Question> {
    let mut drawn = question::gqa(scene, rng)?;
    for _ in 0..RELATION_DRAWS {
        if drawn.template == "relation" {
            break;
        }
        drawn = question::gqa(scene, rng)?;
    }
    Some(drawn)
}

/// The same question with `right of` turned to `left of` and `below` to `above`, its answer turned with it.
pub fn in_one_direction(asked: &mut Asked<'_>) {
    if asked.question.template != "relation" {
        return;
    }
    let text = asked.question.text.replace(" right of ", " left of ").replace(" below ", " above ");
    if text != asked.question.text {
        asked.question.text = text;
        asked.question.answer = if asked.question.answer == "yes" { "no" } else { "yes" }.to_owned();
    }
}

fn choose(shares: &[f64; 4], rng: &mut ChaCha8Rng) -> usize {
    let mut u: f64 = rng.random();
    for (i, share) in shares.iter().enumerate() {
        if u < *share {
            return i;
        }
        u -= share;
    }
    0
}
