//! The stack that all decoder-only language models share: one sequence of image positions, instruction and answer, packed without padding
//! between, so that positions count real tokens and a causal mask is all that is needed. A network says how its words get their
//! positions, what a block does and how logits are made.

use ressa_experiment::search::SearchSizes;
use tch::{Device, Kind, Tensor};

use crate::{
    Answer, AnswerBatch, Attended, BlockGroups, Feed, Flow, Forced, Layout, Linear, ModelError, Search, TextBatch,
    Weight,
    config::SpecialTokens,
    generate::{
        self, Decoder, Start,
        cache::{BlockCache, Cache, Turn},
    },
    language::{LanguageModel, search_sizes},
    layers::{Part, PartMut, Parts, causal_bias, hidden, key_bias},
    packed::{Answers, Packed},
};

/// Place of the positions that predict answers among the companions of a flow.
const PREDICTORS: usize = 0;

/// Which positions tokens have.
pub(crate) enum Positions<'a> {
    /// Those of a sequence from its beginning; what stands before the text, where the image has places of its own.
    Sequence(Option<&'a Layout>),
    /// One token per beam, behind so many positions, i64 `[rows * beams]`.
    Next(&'a Tensor),
    /// Those of a batch that the caller has padded, with its mask, bool `[rows, tokens]`.
    Padded(&'a Tensor),
    /// Those of a batch in which images have rows and columns, i64 `[3, rows, tokens]`.
    Axes(&'a Tensor),
}

/// A decoder-only network: what one has of its own.
pub(crate) trait CausalNetwork: Parts + Send {
    /// Its blocks.
    type Block: CausalBlock;
    /// Number of tensors that every block reads beside the hidden states: tables of positions, `[..., tokens, width]`, the same for all rows.
    /// Where there are some, positions are in them alone.
    const SHARED: usize;

    /// All blocks, in the order of execution.
    fn blocks(&self) -> &[Self::Block];
    /// What makes logits.
    fn head(&self) -> &Linear;
    /// Where it computes.
    fn device(&self) -> Device;
    /// The type it computes in.
    fn kind(&self) -> Kind;
    /// Word embeddings of ids.
    fn words(&self, ids: &Tensor) -> Tensor;
    /// What enters the first block for embeddings `[rows, tokens, width]`, and what all blocks read beside it.
    fn place(&self, words: Tensor, positions: Positions<'_>) -> (Tensor, Vec<Tensor>);
    /// Logits of what left the last block `[..., width]`.
    fn logits(&self, x: &Tensor) -> Tensor;
    /// What is to be added to a row's number of tokens for the position of its next one.
    fn offset(&self, _layout: &Layout) -> i64 {
        0
    }
    /// Longest sequence that has positions.
    fn longest(&self) -> Option<i64> {
        None
    }
}

/// A block of a decoder-only network.
pub(crate) trait CausalBlock: Parts {
    /// What its norms feed.
    fn feeds(&self) -> Vec<Feed>;
    /// What of it can be removed as a whole.
    fn groups(&self) -> BlockGroups;
    /// What makes keys, and the first feed-forward layer.
    fn writing_linears(&self) -> [&Linear; 2];
    /// Query heads of its attention.
    fn heads(&self) -> i64;
    /// Queries and keys `[rows, heads, tokens, width]` of `[rows, tokens, width]`, and the factor on their products.
    fn queries_and_keys(&self, x: &Tensor, shared: &[Tensor]) -> (Tensor, Tensor, f64);
    /// The attention of `[rows, tokens, width]` with its residual connection, with keys and values `[rows, heads, tokens, width]`: those `before`, if
    /// there are some, and its own. Each token sees those before it, or what a `bias` says.
    fn attend_behind(
        &self,
        x: &Tensor,
        shared: &[Tensor],
        before: Option<&KeysValues>,
        bias: Option<&Tensor>,
    ) -> (Tensor, KeysValues);
    /// The feed-forward layer with its residual connection: the rest of the block.
    fn feed(&self, x: &Tensor) -> Tensor;

    /// [`CausalBlock::attend_behind`], then [`CausalBlock::feed`].
    fn forward_behind(
        &self,
        x: &Tensor,
        shared: &[Tensor],
        before: Option<&KeysValues>,
        bias: Option<&Tensor>,
    ) -> (Tensor, KeysValues) {
        let (x, kept) = self.attend_behind(x, shared, before, bias);
        (self.feed(&x), kept)
    }

    /// [`CausalBlock::forward_behind`] nothing.
    fn forward_keeping(&self, x: &Tensor, shared: &[Tensor], bias: Option<&Tensor>) -> (Tensor, KeysValues) {
        self.forward_behind(x, shared, None, bias)
    }
    /// One token per beam, `[rows * beams, 1, width]` to the same.
    fn step(&self, x: &Tensor, shared: &[Tensor], cache: &BlockCache, turn: &Turn) -> Tensor;
}

/// Keys and values `[rows, heads, tokens, width]` of a block.
pub(crate) struct KeysValues {
    pub keys: Tensor,
    pub values: Tensor,
}

impl KeysValues {
    /// These behind others of the same rows.
    pub fn behind(self, before: Option<&Self>) -> Self {
        match before {
            None => self,
            Some(before) => Self {
                keys: Tensor::cat(&[&before.keys, &self.keys], 2),
                values: Tensor::cat(&[&before.values, &self.values], 2),
            },
        }
    }

    /// Of each row those of an entry, i64 `[rows]`.
    fn of(&self, rows: &Tensor) -> Self {
        Self { keys: self.keys.index_select(0, rows), values: self.values.index_select(0, rows) }
    }
}

/// A decoder-only language model.
pub(crate) struct Causal<N>(pub N);

impl<N: CausalNetwork> Parts for Causal<N> {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.0.visit(show);
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.0.visit_mut(show);
    }
}

impl<N: CausalNetwork> Causal<N> {
    /// Image positions, then ids `[rows, tokens]` packed without padding between.
    fn join(&self, prefix: Option<&Tensor>, ids: &Tensor) -> Tensor {
        let words = self.0.words(ids);
        match prefix {
            Some(prefix) => Tensor::cat(&[prefix, &words], 1),
            None => words,
        }
    }

    /// Logits at the positions `at`, i64 `[rows, targets]`, of what left the last block `[rows, tokens, width]`.
    fn logits_at(&self, x: &Tensor, at: &Tensor) -> Tensor {
        let size = x.size();
        let starts = Tensor::arange(size[0], (Kind::Int64, x.device())).unsqueeze(1) * size[1];
        let picked = x.reshape([-1, size[2]]).index_select(0, &(starts + at).view([-1]));
        self.0.logits(&picked).view([size[0], at.size()[1], -1])
    }

    /// Reads packed prompts of `lengths` real positions each, image positions included. Logits after the last one `[rows, vocabulary]`.
    fn begin(&self, words: Tensor, layout: Option<&Layout>, lengths: &Tensor) -> (Cache, Tensor) {
        let tokens = words.size()[1];
        let (mut x, shared) = self.0.place(words, Positions::Sequence(layout));
        let mut blocks = Vec::with_capacity(self.0.blocks().len());
        for block in self.0.blocks() {
            let (out, kept) = block.forward_keeping(&x, &shared, None);
            blocks.push(BlockCache::after_prompt(&kept.keys, &kept.values));
            x = out;
        }
        let logits = self.logits_at(&x, &(lengths - 1).unsqueeze(1)).squeeze_dim(1);
        (self.cache(blocks, layout, lengths, tokens), logits)
    }

    /// [`Causal::begin`], the prefixes read once each, see [`Causal::behind`].
    fn begin_about(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        ids: &Tensor,
        layout: &Layout,
        lengths: &Tensor,
    ) -> (Cache, Tensor) {
        let (before, own) = (prefixes.size()[1], ids.size()[1]);
        let mut blocks = Vec::with_capacity(self.0.blocks().len());
        let x = self.behind(prefixes, rows, ids, layout, &mut |kept| {
            blocks.push(BlockCache::after_prompt(&kept.keys, &kept.values));
        });
        let logits = self.logits_at(&x, &(lengths - (before + 1)).unsqueeze(1)).squeeze_dim(1);
        (self.cache(blocks, Some(layout), lengths, before + own), logits)
    }

    /// What leaves the last block for `ids` `[rows, tokens]`, at least one, behind prefixes `[images, tokens, width]` that are read once each and not once
    /// for every row that is about them: row `r` is about `rows[r]`, i64 `[rows]`. Of each block, `keep` gets keys and values of prefix and row.
    fn behind(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        ids: &Tensor,
        layout: &Layout,
        keep: &mut dyn FnMut(KeysValues),
    ) -> Tensor {
        let (before, own) = (prefixes.size()[1], ids.size()[1]);
        let (mut images, shared) = self.0.place(prefixes.shallow_clone(), Positions::Sequence(Some(layout)));
        let whole = Tensor::zeros([1, before + own, 1], (self.0.kind(), self.device()));
        let (_, tables) = self.0.place(whole, Positions::Sequence(Some(layout)));
        let tables: Vec<Tensor> = tables.iter().map(|table| table.narrow(-2, before, own)).collect();
        // Everything before, and of a row's own text what is not later.
        let later = Tensor::ones([own, before + own], (Kind::Bool, self.device())).triu(before + 1);
        let bias = Tensor::zeros([own, before + own], (self.0.kind(), self.device()));
        let bias = bias.masked_fill(&later, hidden(self.0.kind())).unsqueeze(0).unsqueeze(0);
        let mut x = self.0.words(ids);
        for block in self.0.blocks() {
            let (out, kept) = block.forward_keeping(&images, &shared, None);
            images = out;
            let (out, kept) = block.forward_behind(&x, &tables, Some(&kept.of(rows)), Some(&bias));
            keep(kept);
            x = out;
        }
        x
    }

    /// The layout of prompts that can be read behind prefixes that rows share: there are words before the image, tables of positions that can be
    /// cut, and of each row at least one token of its own.
    fn shareable<'p>(&self, prompt: &'p TextBatch) -> Option<&'p Layout> {
        let layout = prompt.layout().filter(|_| N::SHARED > 0)?;
        (!prompt.on_host().iter().any(Vec::is_empty)).then_some(layout)
    }

    /// The memory of prompts of `lengths` real tokens, padded to `tokens`.
    fn cache(&self, blocks: Vec<BlockCache>, layout: Option<&Layout>, lengths: &Tensor, tokens: i64) -> Cache {
        let real = Tensor::arange(tokens, (Kind::Int64, self.device())).unsqueeze(0).less_tensor(&lengths.unsqueeze(1));
        let mut cache = Cache::after_prompt(blocks, &key_bias(&real, self.0.kind()), lengths.shallow_clone());
        cache.offset = layout.map_or(0, |layout| self.0.offset(layout));
        cache
    }

    /// Searches on from what a prompt has left.
    fn search(&self, start: Start, search: &Search) -> Result<Vec<Answer>, ModelError> {
        let Some(positions) = self.longest() else {
            return generate::search(self, start, search);
        };
        // Positions are learned: behind the last one nothing can be read.
        let positions = positions as usize;
        let max_length = Some(search.max_length.map_or(positions, |length| length.min(positions)));
        generate::search(self, start, &Search { max_length, ..*search })
    }

    fn shared<'f>(&self, flow: &'f Flow) -> &'f [Tensor] {
        &flow.context[PREDICTORS + 1..=PREDICTORS + N::SHARED]
    }
}

impl<N: CausalNetwork> LanguageModel for Causal<N> {
    fn device(&self) -> Device {
        self.0.device()
    }

    fn head(&self) -> &Linear {
        self.0.head()
    }

    fn words(&self, ids: &Tensor) -> Tensor {
        self.0.words(ids)
    }

    fn feeds(&self) -> Vec<Feed> {
        self.0.blocks().iter().flat_map(CausalBlock::feeds).collect()
    }

    fn groups(&self, block: usize) -> BlockGroups {
        self.0.blocks()[block].groups()
    }

    fn by_block(&self) -> Vec<Vec<&Linear>> {
        self.0.blocks().iter().map(Parts::linears).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        self.0.blocks()[block].weights()
    }

    fn search_sizes(&self, element: u64) -> SearchSizes {
        let blocks = self.0.blocks();
        search_sizes(blocks.len(), blocks[0].writing_linears(), self.head(), false, element)
    }

    fn longest(&self) -> Option<i64> {
        self.0.longest()
    }

    fn force(
        &self,
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        mut states: Option<&mut Vec<Tensor>>,
    ) -> Forced {
        let packed = Packed::new(prefix, prompt, answers, special, self.device());
        let Answers { targets, mask } = Answers::new(answers, special, self.device());
        let layout = prefix.and(prompt.layout());
        let (mut x, shared) = self.0.place(self.join(prefix, &packed.ids), Positions::Sequence(layout));
        for block in self.0.blocks() {
            x = block.forward_keeping(&x, &shared, None).0;
            if let Some(states) = states.as_deref_mut() {
                states.push(x.shallow_clone());
            }
        }
        Forced { logits: self.logits_at(&x, &packed.predictors), targets, mask }
    }

    fn force_about(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
    ) -> Forced {
        let Some(layout) = self.shareable(prompt) else {
            return self.force(Some(&prefixes.index_select(0, rows)), prompt, answers, special, None);
        };
        let packed = Packed::new(Some(prefixes), prompt, answers, special, self.device());
        let Answers { targets, mask } = Answers::new(answers, special, self.device());
        let x = self.behind(prefixes, rows, &packed.ids, layout, &mut |_| {});
        let own = &packed.predictors - prefixes.size()[1];
        Forced { logits: self.logits_at(&x, &own), targets, mask }
    }

    fn generate(
        &self,
        prefix: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        image_token: Option<i64>,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError> {
        let nothing = vec![Vec::new(); prompt.ids.size()[0] as usize];
        let packed = Packed::new(Some(prefix), prompt, &AnswerBatch::whole(&nothing), special, self.device());
        let lengths = packed.predictors.select(1, 0) + 1;
        let before = match prompt.layout() {
            Some(layout) => layout.ids.iter().map(|&id| i64::from(id)).collect(),
            None => Vec::from_iter(image_token),
        };
        let prompts = packed.before(prefix.size()[1] as usize, &lengths, &before);
        let (cache, logits) = self.begin(self.join(Some(prefix), &packed.ids), prompt.layout(), &lengths);
        self.search(Start { cache, logits, eos: special.eos.clone(), prompts }, search)
    }

    fn generate_about(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError> {
        let nothing = vec![Vec::new(); prompt.ids.size()[0] as usize];
        let Some(layout) = self.shareable(prompt) else {
            return self.generate(&prefixes.index_select(0, rows), prompt, special, None, search);
        };
        let packed = Packed::new(Some(prefixes), prompt, &AnswerBatch::whole(&nothing), special, self.device());
        let lengths = packed.predictors.select(1, 0) + 1;
        let before: Vec<i64> = layout.ids.iter().map(|&id| i64::from(id)).collect();
        let prompts = packed.before(prefixes.size()[1] as usize, &lengths, &before);
        let (cache, logits) = self.begin_about(prefixes, rows, &packed.ids, layout, &lengths);
        self.search(Start { cache, logits, eos: special.eos.clone(), prompts }, search)
    }

    fn read(&self, words: Tensor, mask: &Tensor, _decoder_ids: &Tensor, axes: Option<&Tensor>) -> Tensor {
        let (x, shared) = self.0.place(words, axes.map_or(Positions::Padded(mask), Positions::Axes));
        let bias = causal_bias(mask, self.0.kind());
        let run = |x: Tensor, block: &N::Block| block.forward_keeping(&x, &shared, Some(&bias)).0;
        self.0.logits(&self.0.blocks().iter().fold(x, run))
    }

    fn enter(&self, prefix: &Tensor, prompt: &TextBatch, answers: &AnswerBatch<'_>, special: &SpecialTokens) -> Flow {
        let packed = Packed::new(Some(prefix), prompt, answers, special, self.device());
        let (hidden, shared) = self.0.place(self.join(Some(prefix), &packed.ids), Positions::Sequence(prompt.layout()));
        let mut context = vec![packed.predictors];
        context.extend(shared);
        if let Some(layout) = prompt.layout() {
            let places: Vec<bool> = layout.ids.iter().map(|&id| id == layout.image_token).collect();
            context.push(Tensor::from_slice(&places).to_device(self.device()));
        }
        Flow { hidden, context, carried: None }
    }

    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        let first = flows.first()?;
        // What blocks share follows from the length, or from the length and the places of the image.
        let same = |flow: &Flow| flow.context.iter().zip(&first.context).skip(PREDICTORS + 1).all(|(a, b)| a.equal(b));
        let has_places = first.context.len() > PREDICTORS + 1 + N::SHARED;
        let shapes = |flow: &Flow| flow.context.iter().map(Tensor::size).collect::<Vec<_>>();
        if has_places && !flows.iter().all(|flow| shapes(flow) == shapes(first) && same(flow)) {
            return None;
        }
        Flow::stack(flows, PREDICTORS + 1)
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        flow.with_hidden(self.0.blocks()[block].forward_keeping(&flow.hidden, self.shared(flow), None).0)
    }

    fn parts(&self, _block: usize) -> usize {
        2
    }

    fn run_part(&self, block: usize, part: usize, flow: &Flow) -> Flow {
        let block = &self.0.blocks()[block];
        flow.with_hidden(match part {
            0 => block.attend_behind(&flow.hidden, self.shared(flow), None, None).0,
            _ => block.feed(&flow.hidden),
        })
    }

    fn attention_heads(&self, block: usize) -> Vec<i64> {
        vec![self.0.blocks()[block].heads()]
    }

    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended> {
        let (queries, keys, scale) = self.0.blocks()[block].queries_and_keys(&flow.hidden, self.shared(flow));
        vec![Attended { queries, keys, scale, bias: None, causal: true }]
    }

    fn image_places(&self, flow: &Flow) -> Option<Tensor> {
        flow.context.get(PREDICTORS + 1 + N::SHARED).map(Tensor::shallow_clone)
    }

    fn finish(&self, flow: &Flow) -> Tensor {
        self.logits_at(&flow.hidden, &flow.context[PREDICTORS])
    }
}

impl<N: CausalNetwork> Decoder for Causal<N> {
    fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        let turn = cache.advance();
        let positions = (&cache.lengths + (turn.step + cache.offset)).repeat_interleave_self_int(turn.beams, 0, None);
        let (mut x, shared) = self.0.place(self.0.words(&tokens.unsqueeze(1)), Positions::Next(&positions));
        for (block, memory) in self.0.blocks().iter().zip(&cache.blocks) {
            x = block.step(&x, &shared, memory, &turn);
        }
        self.0.logits(&x).squeeze_dim(1)
    }
}
