//! What a language model does for a vision-language model: force answers, search for answers, run blocks one by one.

use ressa_experiment::search::SearchSizes;
use tch::{Device, Tensor};

use crate::{
    Answer, AnswerBatch, Attended, BlockGroups, Feed, Flow, Forced, LayerId, Linear, ModelError, Scope, Search,
    Targets, TextBatch, Weight,
    causal::Causal,
    config::{SpecialTokens, TextConfig},
    layers::Parts,
    llama::Llama,
    opt::Opt,
    packed::Answers,
    t5::T5,
};

/// A language model that reads image positions and an instruction, and writes an answer.
pub(crate) trait LanguageModel: Parts + Send {
    /// Where it computes.
    fn device(&self) -> Device;

    /// What makes logits of the last hidden states.
    fn head(&self) -> &Linear;

    /// Word embeddings `[rows, tokens, width]` of ids.
    fn words(&self, ids: &Tensor) -> Tensor;

    /// Norms whose outputs are read by prunable linears and by nothing else.
    fn feeds(&self) -> Vec<Feed>;

    /// What of a block can be removed as a whole.
    fn groups(&self, block: usize) -> BlockGroups;

    /// Linears of each block, in the order of execution.
    fn by_block(&self) -> Vec<Vec<&Linear>>;

    /// Weights that [`LanguageModel::run_block`] reads.
    fn block_weights(&self, block: usize) -> Vec<&Weight>;

    /// Sizes that the memory of a search follows from, with elements of so many bytes.
    fn search_sizes(&self, element: u64) -> SearchSizes;

    /// Longest sequence that has positions; `None` where positions go on forever.
    fn longest(&self) -> Option<i64> {
        None
    }

    /// Teacher-forced logits. `states`, if given, receives what left each block that reads the prompt.
    fn force(
        &self,
        prefix: Option<&Tensor>,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
        states: Option<&mut Vec<Tensor>>,
    ) -> Forced;

    /// The answer to each row. `image_token` stands for an image position where a decoder-only model's repetitions are counted.
    fn generate(
        &self,
        prefix: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        image_token: Option<i64>,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError>;

    /// As [`LanguageModel::generate`], where several rows have the same prefix: of `prefixes` `[images, tokens, width]`, row `r` has that of
    /// `rows[r]`, i64 `[rows]`.
    fn generate_about(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        prompt: &TextBatch,
        special: &SpecialTokens,
        search: &Search,
    ) -> Result<Vec<Answer>, ModelError> {
        self.generate(&prefixes.index_select(0, rows), prompt, special, None, search)
    }

    /// As [`LanguageModel::force`], where several rows have the same prefix, as in [`LanguageModel::generate_about`].
    fn force_about(
        &self,
        prefixes: &Tensor,
        rows: &Tensor,
        prompt: &TextBatch,
        answers: &AnswerBatch<'_>,
        special: &SpecialTokens,
    ) -> Forced {
        self.force(Some(&prefixes.index_select(0, rows)), prompt, answers, special, None)
    }

    /// What the logits of forced answers are to predict.
    fn targets(&self, answers: &AnswerBatch<'_>, special: &SpecialTokens) -> Targets {
        let Answers { targets, mask } = Answers::new(answers, special, self.device());
        Targets { ids: targets, mask }
    }

    /// What left the encoder's last norm; nothing for a decoder-only model.
    fn encode(&self, _prefix: &Tensor, _prompt: &TextBatch) -> Option<Tensor> {
        None
    }

    /// Logits of a padded batch as another implementation has it: embeddings `[rows, tokens, width]` with their mask, and, for an
    /// encoder-decoder, the ids that its decoder reads. `axes` i64 `[3, rows, tokens]` are positions where images have rows and columns.
    fn read(&self, words: Tensor, mask: &Tensor, decoder_ids: &Tensor, axes: Option<&Tensor>) -> Tensor;

    /// What enters the first block.
    fn enter(&self, prefix: &Tensor, prompt: &TextBatch, answers: &AnswerBatch<'_>, special: &SpecialTokens) -> Flow;

    /// Flows at the first block as the rows of one, where their shapes are the same.
    fn stack(&self, flows: &[Flow]) -> Option<Flow>;

    /// Runs one block.
    fn run_block(&self, block: usize, flow: &Flow) -> Flow;

    /// What a block leaves of its own tokens `[rows, tokens, width]`, before anything that follows a stack.
    fn residual(&self, block: usize, flow: &Flow) -> Tensor {
        self.run_block(block, flow).hidden
    }

    /// Parts of a block with a residual connection each.
    fn parts(&self, _block: usize) -> usize {
        1
    }

    /// Runs one part of a block.
    fn run_part(&self, block: usize, _part: usize, flow: &Flow) -> Flow {
        self.run_block(block, flow)
    }

    /// Heads of each attention of a block, see [`crate::InBlocks::attention_heads`].
    fn attention_heads(&self, block: usize) -> Vec<i64>;

    /// What the attentions of a block look at where `flow` enters it.
    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended>;

    /// Whether a block's own tokens begin with the image's.
    fn sees_image(&self, _block: usize) -> bool {
        true
    }

    /// Which of the tokens before a row's own text are the image's, true where one is, bool `[tokens]`; nothing where all are.
    fn image_places(&self, _flow: &Flow) -> Option<Tensor> {
        None
    }

    /// Tokens of the encoder's output, for a layer that reads it.
    fn memory_read_by(&self, _layer: &LayerId, _flow: &Flow) -> Option<i64> {
        None
    }

    /// Logits from what left the last block.
    fn finish(&self, flow: &Flow) -> Tensor;
}

/// The language model of a configuration.
pub(crate) fn load(scope: &Scope<'_>, config: &TextConfig) -> Result<Box<dyn LanguageModel>, ModelError> {
    Ok(match config {
        TextConfig::T5(c) => Box::new(T5::load(scope, c)?),
        TextConfig::Llama(c) => Box::new(Causal(Llama::load(scope, c, c.llama())?)),
        TextConfig::Qwen2(c) => Box::new(Causal(Llama::load(scope, c, c.qwen2()?)?)),
        TextConfig::Mistral(c) => Box::new(Causal(Llama::load(scope, c, c.mistral()?)?)),
        TextConfig::Opt(c) => Box::new(Causal(Opt::load(scope, c)?)),
    })
}

/// [`LanguageModel::search_sizes`] from the linears of a block that writes: what makes its keys, and its first feed-forward layer.
pub(crate) fn search_sizes(
    blocks: usize,
    [keys, feed_forward]: [&Linear; 2],
    head: &Linear,
    has_encoder: bool,
    element: u64,
) -> SearchSizes {
    let size = |of: i64| of.unsigned_abs();
    SearchSizes {
        blocks: blocks as u64,
        keys: size(keys.shape().0),
        width: size(keys.shape().1),
        inner: size(feed_forward.shape().0),
        words: size(head.shape().0),
        has_encoder,
        element,
    }
}
