//! How a model runs a block at a time.

use tch::{Kind, Tensor};

use super::Model;
use crate::{AnswerBatch, Attended, Entry, Flow, InBlocks, LayerId, Targets, TokenKind, Tower};

impl Model {
    /// What the tokens before a row's own text are, for a flow of the language model.
    fn prefix_kinds(&self, flow: &Flow) -> Vec<TokenKind> {
        match self.writing().image_places(flow) {
            None => vec![TokenKind::Visual; self.connector.image_tokens()],
            Some(places) => crate::generate::ids(&places.to_kind(Kind::Int64))
                .into_iter()
                .map(|of_image| if of_image != 0 { TokenKind::Visual } else { TokenKind::Text })
                .collect(),
        }
    }

    /// So many tokens, of which the first are those before a row's own text.
    fn language_kinds(&self, flow: &Flow, tokens: i64) -> Vec<TokenKind> {
        let mut kinds = self.prefix_kinds(flow);
        kinds.resize(tokens.max(0) as usize, TokenKind::Text);
        kinds
    }
}

impl InBlocks for Model {
    fn blocks(&self, tower: Tower) -> usize {
        match tower {
            Tower::Vision => self.vision.by_block().len(),
            Tower::Connector => self.connector.by_block().len(),
            Tower::Language => self.language.as_ref().map_or(0, |language| language.by_block().len()),
        }
    }

    fn answers_from(&self) -> Option<usize> {
        let language = self.language()?;
        (0..language.by_block().len()).find(|&block| !language.sees_image(block))
    }

    fn enter_from(&self, entry: Entry<'_>) -> Flow {
        match entry {
            Entry::Pixels(pixels) => self.vision.enter(pixels),
            Entry::Features { features, prompts } => self.connector.enter(features, prompts),
            Entry::Prefix { prefix, prompt, answers } => self.writing().enter(prefix, prompt, &answers, &self.special),
        }
    }

    fn leave(&self, tower: Tower, flow: &Flow) -> Tensor {
        match tower {
            Tower::Vision => self.vision.leave(flow),
            Tower::Connector => self.connector.language_input(flow),
            Tower::Language => self.writing().finish(flow),
        }
    }

    fn stack(&self, tower: Tower, flows: &[Flow]) -> Option<Flow> {
        match tower {
            Tower::Vision => self.vision.stack(flows),
            Tower::Connector => self.connector.stack(flows),
            Tower::Language => self.language()?.stack(flows),
        }
    }

    fn targets(&self, answers: &AnswerBatch<'_>) -> Targets {
        self.writing().targets(answers, &self.special)
    }

    fn run_block(&self, tower: Tower, block: usize, flow: &Flow) -> Flow {
        match tower {
            Tower::Vision => self.vision.run_block(block, flow),
            Tower::Connector => self.connector.run_block(block, flow),
            Tower::Language => self.writing().run_block(block, flow),
        }
    }

    fn residual(&self, tower: Tower, block: usize, flow: &Flow) -> Tensor {
        match tower {
            Tower::Language => self.writing().residual(block, flow),
            Tower::Vision | Tower::Connector => self.run_block(tower, block, flow).hidden,
        }
    }

    fn parts(&self, tower: Tower, block: usize) -> usize {
        match tower {
            Tower::Vision => self.vision.parts(block),
            Tower::Connector => self.connector.parts(block),
            Tower::Language => self.writing().parts(block),
        }
    }

    fn run_part(&self, tower: Tower, block: usize, part: usize, flow: &Flow) -> Flow {
        match tower {
            Tower::Vision => self.vision.run_part(block, part, flow),
            Tower::Connector => self.connector.run_part(block, part, flow),
            Tower::Language => self.writing().run_part(block, part, flow),
        }
    }

    fn attention_heads(&self, tower: Tower, block: usize) -> Vec<i64> {
        match tower {
            Tower::Vision => self.vision.attention_heads(block),
            Tower::Connector => self.connector.attention_heads(block),
            Tower::Language => self.language().map(|language| language.attention_heads(block)).unwrap_or_default(),
        }
    }

    fn attended(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<Attended> {
        match tower {
            Tower::Vision => self.vision.attended(block, flow),
            Tower::Connector => self.connector.attended(block, flow),
            Tower::Language => self.writing().attended(block, flow),
        }
    }

    fn token_kinds(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<TokenKind> {
        let tokens = flow.hidden.size()[1];
        match tower {
            Tower::Vision => TokenKind::parts(&[(TokenKind::Visual, tokens)]),
            Tower::Connector => self.connector.token_kinds(flow),
            Tower::Language if self.writing().sees_image(block) => self.language_kinds(flow, tokens),
            Tower::Language => TokenKind::parts(&[(TokenKind::Text, tokens)]),
        }
    }

    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        match layer.tower {
            Tower::Connector => self.connector.layer_tokens(layer, flow),
            Tower::Language => match self.writing().memory_read_by(layer, flow) {
                Some(tokens) => self.language_kinds(flow, tokens),
                None => self.token_kinds(layer.tower, layer.block, flow),
            },
            Tower::Vision => self.token_kinds(layer.tower, layer.block, flow),
        }
    }
}
