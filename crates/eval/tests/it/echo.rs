//! A model that says which image and which prompt it was shown.

use ressa_models::{Answer, AnswerBatch, Forced, Infer, ModelError, Prompts, Retrieve, Search, TextBatch};
use tch::{Kind, Tensor};

/// Answers with the token that the image's first grey value stands for, then the last word of the prompt. Embeds an image as the unit
/// vector of its grey value, and a text as the unit vector of its first word's token.
pub struct Echo {
    /// Width of the embeddings, and the number of known grey values.
    pub width: i64,
    /// Mean and standard deviation that pixels were normalised with.
    pub normalised: (f64, f64),
    /// Whether the model can embed.
    pub retrieves: bool,
}

impl Infer for Echo {
    fn encode_images(&self, pixels: &Tensor) -> Tensor {
        let (mean, std) = self.normalised;
        let grey: Tensor = (pixels.narrow(2, 0, 1).narrow(3, 0, 1).narrow(1, 0, 1) * std + mean) * 255.0;
        grey.view([-1, 1, 1]).round()
    }

    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        features.index_select(0, &prompts.image)
    }

    fn project(&self, queries: &Tensor) -> Tensor {
        queries.shallow_clone()
    }

    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let answers = (0..prefix.size()[0])
            .map(|row| {
                let image = prefix.double_value(&[row, 0, 0]) as u32;
                let last = prompt.ids.size()[1] - 2;
                let said = [image, prompt.ids.int64_value(&[row, last]) as u32];
                Answer { tokens: said[..search.max_new_tokens.min(2)].to_vec(), ended: false }
            })
            .collect();
        Ok(answers)
    }

    fn force_padded(&self, _: Option<&Tensor>, _: &TextBatch, _: AnswerBatch<'_>) -> Forced {
        unreachable!("evaluation never forces an answer")
    }

    fn force_traced(&self, _: Option<&Tensor>, _: &TextBatch, _: &[Vec<u32>]) -> (Forced, Vec<Tensor>) {
        unreachable!("evaluation never forces an answer")
    }
}

impl Retrieve for Echo {
    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor> {
        self.retrieves.then(|| features.view([-1, 1]).to_kind(Kind::Int64).one_hot(self.width).to_kind(Kind::Float))
    }

    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor> {
        self.retrieves.then(|| texts.ids.select(1, 1).one_hot(self.width).to_kind(Kind::Float))
    }
}
