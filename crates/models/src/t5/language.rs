//! T5 as the language model of a vision-language model. Its blocks are the encoder's, then the decoder's.

use ressa_experiment::search::SearchSizes;
use tch::{Device, Kind, Tensor};

use super::{DecoderBlock, EncoderBlock, T5};
use crate::{
    Answer, AnswerBatch, Attended, BlockGroups, Feed, Flow, Forced, LayerId, Linear, ModelError, Search, TextBatch,
    Weight,
    config::SpecialTokens,
    generate::{self, Decoder, PromptPrefix, Start, cache::Cache},
    language::{LanguageModel, search_sizes},
    layers::Parts,
    packed::Answers,
};

/// Place of the encoder's output among the companions of a decoder's flow.
const MEMORY: usize = 3;

impl LanguageModel for T5 {
    fn device(&self) -> Device {
        T5::device(self)
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn words(&self, ids: &Tensor) -> Tensor {
        T5::words(self, ids)
    }

    fn feeds(&self) -> Vec<Feed> {
        T5::feeds(self)
    }

    fn groups(&self, block: usize) -> BlockGroups {
        T5::groups(self, block)
    }

    fn by_block(&self) -> Vec<Vec<&Linear>> {
        let encoder = self.encoder.iter().map(Parts::linears);
        encoder.chain(self.decoder.iter().map(Parts::linears)).collect()
    }

    /// The last encoder block also runs the encoder's last norm.
    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        match block.checked_sub(self.encoder.len()) {
            Some(block) => self.decoder[block].weights(),
            None if block + 1 == self.encoder.len() => {
                [self.encoder[block].weights(), self.encoder_norm.weights()].concat()
            }
            None => self.encoder[block].weights(),
        }
    }

    fn search_sizes(&self, element: u64) -> SearchSizes {
        search_sizes(self.decoder.len(), self.writing_linears(), &self.head, true, element)
    }

    /// `states[i]` is what left encoder block `i`.
    fn force(
        &self,
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        states: Option<&mut Vec<Tensor>>,
    ) -> Forced {
        let answers = Answers::new(answers, special, self.device());
        let memory = T5::encode(self, prefix, prompt, states);
        let logits = self.decode(&answers.inputs(special.decoder_start), &memory);
        Forced { logits, targets: answers.targets, mask: answers.mask }
    }

    fn generate(
        &self,
        prefix: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        _image_token: Option<i64>,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError> {
        let rows = prompt.ids.size()[0];
        let mut cache = self.begin(prefix, prompt);
        let start = Tensor::full([rows], special.decoder_start, (Kind::Int64, self.device()));
        let logits = T5::step(self, &start, &mut cache);
        let prompts = (0..rows).map(|_| PromptPrefix { length: 1, ids: vec![special.decoder_start] }).collect();
        generate::search(self, Start { cache, logits, eos: special.eos.clone(), prompts }, search)
    }

    fn encode(&self, prefix: &Tensor, prompt: &TextBatch) -> Option<Tensor> {
        Some(T5::encode(self, Some(prefix), prompt, None).states)
    }

    fn read(&self, words: Tensor, mask: &Tensor, decoder_ids: &Tensor, _axes: Option<&Tensor>) -> Tensor {
        self.decode(decoder_ids, &T5::read(self, words, mask))
    }

    fn enter(&self, prefix: &Tensor, prompt: &TextBatch, answers: &AnswerBatch<'_>, special: &SpecialTokens) -> Flow {
        let ids = Answers::new(answers, special, self.device()).inputs(special.decoder_start);
        let (hidden, bias, memory_bias) = self.embed(Some(prefix), prompt);
        Flow { hidden, context: vec![ids, memory_bias, bias], carried: None }
    }

    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        Flow::stack(flows, usize::MAX)
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        (0..self.parts(block)).fold(flow.shallow_clone(), |flow, part| self.run_part(block, part, &flow))
    }

    /// Two in the encoder, with cross-attention three in the decoder.
    fn parts(&self, block: usize) -> usize {
        if block < self.encoder.len() { 2 } else { 3 }
    }

    /// The flow turns from encoder to decoder when the last encoder block has run.
    fn run_part(&self, block: usize, part: usize, flow: &Flow) -> Flow {
        match flow.context.as_slice() {
            [ids, memory_bias, bias] if block < self.encoder.len() => {
                let layer = &self.encoder[block];
                if part == 0 {
                    return flow.with_hidden(layer.attend(&flow.hidden, bias));
                }
                let hidden = layer.feed(&flow.hidden);
                if block + 1 < self.encoder.len() {
                    return flow.with_hidden(hidden);
                }
                let memory = self.finish_encoder(&hidden);
                let (hidden, bias) = self.embed_answer(ids);
                let context = vec![ids.shallow_clone(), memory_bias.shallow_clone(), bias, memory];
                Flow { hidden, context, carried: Some(MEMORY) }
            }
            [_, memory_bias, bias, memory] => {
                let block = &self.decoder[block - self.encoder.len()];
                flow.with_hidden(match part {
                    0 => block.attend(&flow.hidden, bias),
                    1 => block.look(&flow.hidden, memory, memory_bias),
                    _ => block.feed(&flow.hidden),
                })
            }
            _ => unreachable!("a flow belongs to the model and the block that it was made for"),
        }
    }

    /// The encoder's last norm follows its stack.
    fn residual(&self, block: usize, flow: &Flow) -> Tensor {
        match (self.encoder.get(block), flow.context.as_slice()) {
            (Some(encoder), [_, _, bias]) => encoder.forward(&flow.hidden, bias),
            _ => self.run_block(block, flow).hidden,
        }
    }

    /// Self-attention, and in the decoder the attention to the encoder's output.
    fn attention_heads(&self, block: usize) -> Vec<i64> {
        match block.checked_sub(self.encoder.len()) {
            None => vec![self.encoder[block].attention.heads],
            Some(block) => {
                let DecoderBlock { attention, cross, .. } = &self.decoder[block];
                vec![attention.heads, cross.heads]
            }
        }
    }

    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended> {
        let x = &flow.hidden;
        match flow.context.as_slice() {
            [_, _, bias] if block < self.encoder.len() => {
                let EncoderBlock { attention_norm, attention, .. } = &self.encoder[block];
                let normed = attention_norm.forward(x);
                vec![attention.attended(&normed, &normed, bias)]
            }
            [_, memory_bias, bias, memory] => {
                let block = &self.decoder[block - self.encoder.len()];
                let normed = block.attention_norm.forward(x);
                let own = block.attention.attended(&normed, &normed, bias);
                let normed = block.cross_norm.forward(&block.attend(x, bias));
                vec![own, block.cross.attended(&normed, memory, memory_bias)]
            }
            _ => unreachable!("a flow belongs to the model and the block that it was made for"),
        }
    }

    fn sees_image(&self, block: usize) -> bool {
        block < self.encoder.len()
    }

    /// Keys and values of the cross-attention read the encoder's output.
    fn memory_read_by(&self, layer: &LayerId, flow: &Flow) -> Option<i64> {
        let block = self.decoder.get(layer.block.checked_sub(self.encoder.len())?)?;
        let crosses = [&block.cross.k, &block.cross.v].iter().any(|linear| linear.name() == layer.name);
        flow.context.get(MEMORY).filter(|_| crosses).map(|memory| memory.size()[1])
    }

    fn finish(&self, flow: &Flow) -> Tensor {
        self.finish_decoder(&flow.hidden)
    }
}

impl Decoder for T5 {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        T5::step(self, tokens, cache)
    }
}
