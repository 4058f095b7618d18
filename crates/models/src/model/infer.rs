//! How a model answers.

use std::collections::BTreeSet;

use ressa_experiment::search::SearchSizes;
use tch::Tensor;

use super::{MUTE, Model};
use crate::{Answer, AnswerBatch, Forced, Infer, ModelError, Prompts, Search, TextBatch, raw::longest};

impl Infer for Model {
    fn writes(&self) -> bool {
        self.language.is_some()
    }

    fn check_prompts(&self, prompts: &Prompts) -> Result<(), ModelError> {
        let language = self.language.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        self.connector.check_prompts(prompts)?;
        let before = prompts.language.layout().map_or(self.connector.image_tokens(), crate::Layout::tokens);
        match language.longest() {
            Some(positions) => longest("prompt", before as i64 + prompts.language.ids.size()[1], positions - 1),
            None => Ok(()),
        }
    }

    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        self.vision.forward(pixels)
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.connector.forward(features, prompts)
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        self.connector.project(queries)
    }

    fn word_embeddings(&self, ids: &Tensor) -> Option<Tensor> {
        Some(self.language()?.words(ids))
    }

    fn place_images(&self, states: Tensor, prompt: &TextBatch) -> Tensor {
        match prompt.layout() {
            None => states,
            Some(layout) => {
                let ids: Vec<i64> = layout.ids.iter().map(|&id| i64::from(id)).collect();
                let ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(self.device);
                // The image token may lie outside the vocabulary; what is looked up for it is not used.
                let known = ids.masked_fill(&ids.eq(i64::from(layout.image_token)), 0);
                let states = match &layout.mosaic {
                    Some(mosaic) => self.lay(&states, mosaic),
                    None => states,
                };
                crate::layout::merge(layout, &self.writing().words(&known), &states)
            }
        }
    }

    fn force_padded(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: AnswerBatch<'_>) -> Forced {
        self.writing().force(prefix, prompt, &answers, &self.special, None)
    }

    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        let mut states = Vec::new();
        let answers = AnswerBatch::whole(answers);
        let forced = self.writing().force(prefix, prompt, &answers, &self.special, Some(&mut states));
        // A decoder-only model's rows go on with the answer where the prompt ends; T5's encoder ends there by itself.
        let width = prefix.map_or(0, |prefix| prefix.size()[1]) + prompt.ids.size()[1];
        let states = states.into_iter().map(|x| x.narrow(1, 0, width.min(x.size()[1]))).collect();
        (forced, states)
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let image_token = self.architecture.image_token();
        let language = self.language.as_ref().ok_or_else(|| ModelError::Config(MUTE.to_owned()))?;
        tch::no_grad(|| language.generate(prefix, prompt, &self.special, image_token, search))
    }

    fn force_about(&self, features: &Tensor, prompts: &Prompts, answers: &[Vec<u32>]) -> Forced {
        match self.prefixes_of(features, prompts) {
            Some((prefixes, rows)) => {
                let answers = AnswerBatch::whole(answers);
                self.writing().force_about(&prefixes, &rows, &prompts.language, &answers, &self.special)
            }
            None => self.force(Some(&self.visual_prefix(features, prompts)), &prompts.language, answers),
        }
    }

    fn answer(&self, features: &Tensor, prompts: &Prompts, search: &Search) -> Result<Vec<Answer>, ModelError> {
        match (&self.language, self.prefixes_of(features, prompts)) {
            (Some(language), Some((prefixes, rows))) => {
                tch::no_grad(|| language.generate_about(&prefixes, &rows, &prompts.language, &self.special, search))
            }
            _ => self.generate(&self.visual_prefix(features, prompts), &prompts.language, search),
        }
    }

    fn search_sizes(&self) -> Option<SearchSizes> {
        Some(self.language()?.search_sizes(self.kind.elt_size_in_bytes() as u64))
    }

    fn text_positions(&self) -> Option<usize> {
        self.language()?;
        self.config().text_config().positions()
    }

    fn image_tokens(&self) -> usize {
        self.connector.image_tokens()
    }
}

impl Model {
    /// The prefix of each image that prompts are about, and of each row which one is its own, i64 `[rows]`; nothing where prefixes depend on more than the
    /// image, or no two rows share one.
    fn prefixes_of(&self, features: &Tensor, prompts: &Prompts) -> Option<(Tensor, Tensor)> {
        // Where words stand before the image, nothing before a row's own text depends on the row. Elsewhere rows are not read: that would
        // wait for the device.
        self.language.as_ref()?;
        prompts.language.layout()?;
        let rows = crate::generate::ids(&prompts.image);
        let images: Vec<i64> = rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if images.len() == rows.len() {
            return None;
        }
        let once = Prompts {
            image: Tensor::from_slice(&images).to_device(self.device),
            qformer: prompts.qformer.shallow_clone(),
            language: prompts.language.shallow_clone(),
        };
        let prefixes = self.visual_prefix(features, &once);
        let of_row = |row: &i64| images.binary_search(row).unwrap_or_default() as i64;
        let about = Tensor::from_slice(&rows.iter().map(of_row).collect::<Vec<_>>()).to_device(self.device);
        Some((prefixes, about))
    }
}
