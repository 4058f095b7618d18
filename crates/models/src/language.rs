//! The families of language models behind one front: answers forced, answers searched for, blocks run one by one.

use ressa_experiment::search::SearchSizes;
use tch::{Device, Tensor};

use crate::{
    Answer, AnswerBatch, Feed, Flow, Forced, LayerId, Linear, ModelError, Scope, Search, Targets, TextBatch, Weight,
    config::{SpecialTokens, TextConfig},
    generate::{self, Decoder, PromptPrefix, Start, cache::Cache},
    layers::{Part, PartMut, Parts},
    llama::{Llama, Rotary},
    opt::Opt,
    t5::T5,
};

/// Place of the encoder's output among the companions of a T5 decoder's flow.
const MEMORY: usize = 3;

/// A language model.
pub(crate) enum Language {
    /// Encoder-decoder.
    T5(Box<T5>),
    /// Decoder-only.
    Llama(Box<Llama>),
    /// Decoder-only.
    Opt(Box<Opt>),
}

impl Parts for Language {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        match self {
            Language::T5(t5) => t5.visit(show),
            Language::Llama(llama) => llama.visit(show),
            Language::Opt(opt) => opt.visit(show),
        }
    }

    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        match self {
            Language::T5(t5) => t5.visit_mut(show),
            Language::Llama(llama) => llama.visit_mut(show),
            Language::Opt(opt) => opt.visit_mut(show),
        }
    }
}

impl Language {
    pub fn load(scope: &Scope<'_>, config: &TextConfig) -> Result<Self, ModelError> {
        Ok(match config {
            TextConfig::T5(c) => Language::T5(Box::new(T5::load(scope, c)?)),
            TextConfig::Llama(c) => Language::Llama(Box::new(Llama::load(scope, c)?)),
            TextConfig::Opt(c) => Language::Opt(Box::new(Opt::load(scope, c)?)),
        })
    }

    /// Norms whose outputs are read by prunable linears and by nothing else.
    pub fn feeds(&self) -> Vec<Feed> {
        match self {
            Language::T5(t5) => t5.feeds(),
            Language::Llama(llama) => llama.feeds(),
            Language::Opt(opt) => opt.feeds(),
        }
    }

    /// Linears of each block, in the order of execution.
    pub fn by_block(&self) -> Vec<Vec<&Linear>> {
        match self {
            Language::T5(t5) => {
                let encoder = t5.encoder.iter().map(Parts::linears);
                encoder.chain(t5.decoder.iter().map(Parts::linears)).collect()
            }
            Language::Llama(llama) => llama.blocks.iter().map(Parts::linears).collect(),
            Language::Opt(opt) => opt.blocks.iter().map(Parts::linears).collect(),
        }
    }

    /// Sizes that the memory of a search follows from, with elements of so many bytes.
    pub fn search_sizes(&self, element: u64) -> SearchSizes {
        let (blocks, [keys, feed_forward], has_encoder) = match self {
            Language::T5(t5) => (t5.decoder.len(), t5.writing_linears(), true),
            Language::Llama(llama) => (llama.blocks.len(), llama.writing_linears(), false),
            Language::Opt(opt) => (opt.blocks.len(), opt.writing_linears(), false),
        };
        let size = |of: i64| of.unsigned_abs();
        SearchSizes {
            blocks: blocks as u64,
            keys: size(keys.shape().0),
            width: size(keys.shape().1),
            inner: size(feed_forward.shape().0),
            words: size(self.head().shape().0),
            has_encoder,
            element,
        }
    }

    /// Weights that [`Language::run_block`] reads.
    pub fn block_weights(&self, block: usize) -> Vec<&Weight> {
        match self {
            Language::T5(t5) => match block.checked_sub(t5.encoder.len()) {
                Some(block) => t5.decoder[block].weights(),
                None if block + 1 == t5.encoder.len() => {
                    [t5.encoder[block].weights(), t5.encoder_norm.weights()].concat()
                }
                None => t5.encoder[block].weights(),
            },
            Language::Llama(llama) => llama.blocks[block].weights(),
            Language::Opt(opt) => opt.blocks[block].weights(),
        }
    }

    /// What makes logits of the last hidden states.
    pub fn head(&self) -> &Linear {
        match self {
            Language::T5(t5) => &t5.head,
            Language::Llama(llama) => &llama.head,
            Language::Opt(opt) => &opt.head,
        }
    }

    /// Word embeddings `[rows, tokens, width]` of ids.
    pub fn words(&self, ids: &Tensor) -> Tensor {
        match self {
            Language::T5(t5) => t5.words(ids),
            Language::Llama(llama) => llama.words(ids),
            Language::Opt(opt) => opt.words(ids),
        }
    }

    /// Teacher-forced logits. `states`, if given, receives what left each block that reads the prompt (T5: the encoder's).
    pub fn force(
        &self,
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        states: Option<&mut Vec<Tensor>>,
    ) -> Forced {
        match self {
            Language::T5(t5) => {
                let answers = Answers::new(answers, special, t5.device());
                let memory = t5.encode(prefix, prompt, states);
                let logits = t5.decode(&answers.inputs(special.decoder_start), &memory);
                Forced { logits, targets: answers.targets, mask: answers.mask }
            }
            Language::Llama(llama) => {
                let packed = Packed::new(prefix, prompt, answers, special, llama.device());
                let targets = Answers::new(answers, special, llama.device());
                let x = llama.run(llama.embed(prefix, &packed.ids), states);
                let logits = llama.finish(&x, &packed.predictors);
                Forced { logits, targets: targets.targets, mask: targets.mask }
            }
            Language::Opt(opt) => {
                let packed = Packed::new(prefix, prompt, answers, special, opt.device());
                let targets = Answers::new(answers, special, opt.device());
                let x = opt.run(opt.embed(prefix, &packed.ids), states);
                let logits = opt.finish(&x, &packed.predictors);
                Forced { logits, targets: targets.targets, mask: targets.mask }
            }
        }
    }

    /// The answer to each row. `image_token` stands for an image position where a decoder-only model's repetitions are counted.
    pub fn generate(
        &self,
        prefix: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        image_token: Option<i64>,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError> {
        let eos = special.eos.clone();
        let rows = prompt.ids.size()[0] as usize;
        match self {
            Language::T5(t5) => {
                let mut cache = t5.begin(prefix, prompt);
                let start = Tensor::full([rows as i64], special.decoder_start, (tch::Kind::Int64, t5.device()));
                let logits = t5.step(&start, &mut cache);
                let prompts = (0..rows).map(|_| PromptPrefix { length: 1, ids: vec![special.decoder_start] }).collect();
                generate::search(t5.as_ref(), Start { cache, logits, eos, prompts }, search)
            }
            Language::Llama(llama) => {
                let packed = Packed::new(
                    Some(prefix),
                    prompt,
                    &AnswerBatch::whole(&vec![Vec::new(); rows]),
                    special,
                    llama.device(),
                );
                let lengths = packed.predictors.select(1, 0) + 1;
                let prompts = packed.before(prefix.size()[1] as usize, &lengths, image_token);
                let (cache, logits) = llama.begin(llama.embed(Some(prefix), &packed.ids), &lengths);
                generate::search(llama.as_ref(), Start { cache, logits, eos, prompts }, search)
            }
            Language::Opt(opt) => {
                let packed = Packed::new(
                    Some(prefix),
                    prompt,
                    &AnswerBatch::whole(&vec![Vec::new(); rows]),
                    special,
                    opt.device(),
                );
                let lengths = packed.predictors.select(1, 0) + 1;
                let prompts = packed.before(prefix.size()[1] as usize, &lengths, image_token);
                let (cache, logits) = opt.begin(opt.embed(Some(prefix), &packed.ids), &lengths);
                // Positions are learned: behind the last one nothing can be read.
                let positions = opt.longest() as usize;
                let max_length = Some(search.max_length.map_or(positions, |length| length.min(positions)));
                let search = Search { max_length, ..*search };
                generate::search(opt.as_ref(), Start { cache, logits, eos, prompts }, &search)
            }
        }
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        match self {
            Language::T5(t5) => t5.device(),
            Language::Llama(llama) => llama.device(),
            Language::Opt(opt) => opt.device(),
        }
    }

    /// What the logits of forced answers are to predict.
    pub fn targets(&self, answers: &AnswerBatch<'_>, special: &SpecialTokens) -> Targets {
        let Answers { targets, mask } = Answers::new(answers, special, self.device());
        Targets { ids: targets, mask }
    }

    /// What enters the first block.
    pub fn enter(
        &self,
        prefix: &Tensor,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
    ) -> Flow {
        match self {
            Language::T5(t5) => {
                let ids = Answers::new(answers, special, t5.device()).inputs(special.decoder_start);
                let (hidden, bias, memory_bias) = t5.embed(Some(prefix), prompt);
                Flow { hidden, context: vec![ids, memory_bias, bias], carried: None }
            }
            Language::Llama(llama) => {
                let packed = Packed::new(Some(prefix), prompt, answers, special, llama.device());
                let hidden = llama.embed(Some(prefix), &packed.ids);
                let [cos, sin] = llama.rotary(hidden.size()[1]).tables();
                Flow { hidden, context: vec![packed.predictors, cos, sin], carried: None }
            }
            Language::Opt(opt) => {
                let packed = Packed::new(Some(prefix), prompt, answers, special, opt.device());
                let hidden = opt.embed(Some(prefix), &packed.ids);
                Flow { hidden, context: vec![packed.predictors], carried: None }
            }
        }
    }

    /// Flows at the first block as the rows of one, where their shapes are the same.
    pub fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        match self {
            Language::T5(_) | Language::Opt(_) => Flow::stack(flows, usize::MAX),
            // The rotary tables follow from the length.
            Language::Llama(_) => Flow::stack(flows, 1),
        }
    }

    /// Runs one block. T5's flow turns from encoder to decoder when the last encoder block has run.
    pub fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        match (self, flow.context.as_slice()) {
            (Language::T5(t5), [ids, memory_bias, bias]) if block < t5.encoder.len() => {
                let hidden = t5.encoder[block].forward(&flow.hidden, bias);
                if block + 1 < t5.encoder.len() {
                    return flow.with_hidden(hidden);
                }
                let memory = t5.finish_encoder(&hidden);
                let (hidden, bias) = t5.embed_answer(ids);
                let context = vec![ids.shallow_clone(), memory_bias.shallow_clone(), bias, memory];
                Flow { hidden, context, carried: Some(MEMORY) }
            }
            (Language::T5(t5), [_, memory_bias, bias, memory]) => {
                let block = &t5.decoder[block - t5.encoder.len()];
                flow.with_hidden(block.forward(&flow.hidden, bias, memory, memory_bias))
            }
            (Language::Llama(llama), [_, cos, sin]) => {
                flow.with_hidden(llama.blocks[block].forward(&flow.hidden, &Rotary::from_tables(cos, sin)))
            }
            (Language::Opt(opt), [_]) => flow.with_hidden(opt.blocks[block].forward(&flow.hidden)),
            _ => unreachable!("a flow belongs to the model and the block that it was made for"),
        }
    }

    /// Whether a block's own tokens begin with the image's: all blocks but those of T5's decoder.
    pub fn sees_image(&self, block: usize) -> bool {
        match self {
            Language::T5(t5) => block < t5.encoder.len(),
            Language::Llama(_) | Language::Opt(_) => true,
        }
    }

    /// Tokens of the encoder's output, for a layer that reads it: keys and values of T5's cross-attention.
    pub fn memory_read_by(&self, layer: &LayerId, flow: &Flow) -> Option<i64> {
        let crosses = layer.name.ends_with(".EncDecAttention.k") || layer.name.ends_with(".EncDecAttention.v");
        match (self, flow.context.as_slice()) {
            (Language::T5(_), [_, _, _, memory]) if crosses => Some(memory.size()[1]),
            _ => None,
        }
    }

    /// Logits from what left the last block.
    pub fn finish(&self, flow: &Flow) -> Tensor {
        match self {
            Language::T5(t5) => t5.finish_decoder(&flow.hidden),
            Language::Llama(llama) => llama.finish(&flow.hidden, &flow.context[0]),
            Language::Opt(opt) => opt.finish(&flow.hidden, &flow.context[0]),
        }
    }
}

impl Decoder for T5 {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        T5::step(self, tokens, cache)
    }
}

impl Decoder for Llama {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        Llama::step(self, tokens, cache)
    }
}

impl Decoder for Opt {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        Opt::step(self, tokens, cache)
    }
}

/// Answers with their end token, padded on the right.
struct Answers {
    targets: Tensor,
    mask: Tensor,
}

impl Answers {
    fn new(answers: &AnswerBatch<'_>, special: &SpecialTokens, device: Device) -> Self {
        let end = special.eos.first().map(|&id| id as u32);
        let rows: Vec<Vec<u32>> =
            answers.rows.iter().map(|answer| answer.iter().copied().chain(end).collect()).collect();
        let TextBatch { ids, mask, .. } = TextBatch::pad_to(answers.width, &rows, special.pad as u32, device);
        Self { targets: ids, mask }
    }

    /// The targets moved right by one, behind the start token: what a decoder reads.
    fn inputs(&self, start: i64) -> Tensor {
        let tokens = self.targets.size()[1];
        let start = Tensor::full([self.targets.size()[0], 1], start, (tch::Kind::Int64, self.targets.device()));
        Tensor::cat(&[start, self.targets.narrow(1, 0, tokens - 1)], 1)
    }
}

/// Instructions and answers as one sequence per row without padding between.
struct Packed {
    /// i64 `[rows, tokens]`, padded on the right.
    ids: Tensor,
    /// Positions, counted with the image's, whose outputs predict each answer token and the end: i64 `[rows, longest answer + 1]`.
    predictors: Tensor,
}

impl Packed {
    fn new(
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        device: Device,
    ) -> Self {
        let before = prefix.map_or(0, |prefix| prefix.size()[1]) as usize;
        let (prompts, pad) = (prompt.on_host(), special.pad as u32);
        let AnswerBatch { rows: answers, width } = *answers;
        let longest = answers.iter().map(Vec::len).max().unwrap_or(0).max(width.saturating_sub(1));
        let mut rows = Vec::with_capacity(answers.len());
        let mut predictors = Vec::with_capacity(answers.len() * (longest + 1));
        for (row, answer) in answers.iter().enumerate() {
            // Something must stand before the first answer token: without image and instruction, one pad token.
            let blank = usize::from(before == 0 && prompts[row].is_empty());
            let length = prompts[row].len() + blank;
            let prompt = prompts[row].iter().copied().chain(std::iter::repeat_n(pad, blank));
            rows.push(prompt.chain(answer.iter().copied()).collect::<Vec<u32>>());
            let last = before + length + answer.len() - 1;
            predictors.extend((0..=longest).map(|t| (before + length - 1 + t).min(last) as i64));
        }
        let TextBatch { ids, .. } = TextBatch::pad(&rows, pad, device);
        let predictors =
            Tensor::from_slice(&predictors).view([answers.len() as i64, longest as i64 + 1]).to_device(device);
        Self { ids, predictors }
    }

    /// What stands before each row's answer, of `lengths` real positions of which `images` are the image's.
    fn before(&self, images: usize, lengths: &Tensor, image_token: Option<i64>) -> Vec<PromptPrefix> {
        let width = self.ids.size()[1] as usize;
        let ids = generate::ids(&self.ids);
        let lengths = generate::ids(lengths);
        let row = |(row, length): (usize, &i64)| {
            let length = *length as usize;
            let words = &ids[row * width..row * width + (length - images)];
            let image = image_token.filter(|_| images > 0);
            PromptPrefix { length, ids: image.into_iter().chain(words.iter().copied()).collect() }
        };
        lengths.iter().enumerate().map(row).collect()
    }
}
