//! The connector between the two models: learned queries that read an instruction and look at image features.
//!
//! Reference: `InstructBlipQFormerModel` in transformers, `modeling_instructblip.py` (a post-norm BERT with cross-attention and a feed-forward
//! layer of their own for the queries), and `Blip2QFormerModel`, `modeling_blip_2.py`: the same without text, or with text whose words and
//! positions lie outside the module.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use crate::{
    Attended, GroupSet, Linear, ModelError, Scope, TextBatch, Unit, Weight,
    config::{at_least_one, divides, layers, positive},
    layers::{Activation, Attend, Embedding, LayerNorm, attention, key_bias, parts, prefixed, split_heads},
};

/// `qformer_config` of a checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Tokens of the instruction's vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Longest instruction.
    pub max_position_embeddings: i64,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Every so many layers, beginning with the first, look at the image.
    pub cross_attention_frequency: usize,
    /// Width of the image features. The reference puts the vision tower's width in its place, and so do we.
    pub encoder_hidden_size: i64,
    /// BLIP-2 only: whether text can be read. InstructBLIP's Q-Former always reads text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_qformer_text_input: bool,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for QFormerConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            cross_attention_frequency: 2,
            encoder_hidden_size: 1408,
            use_qformer_text_input: false,
            rest: Map::new(),
        }
    }
}

impl QFormerConfig {
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        if let Some(kind) = self.rest.get("position_embedding_type").filter(|kind| *kind != "absolute") {
            let message = format!("`qformer_config.position_embedding_type` is `{kind}`; only `absolute` is supported");
            return Err(ModelError::Config(message));
        }
        layers("qformer_config.num_hidden_layers", self.num_hidden_layers)?;
        positive("qformer_config.layer_norm_eps", self.layer_norm_eps)?;
        at_least_one("qformer_config.vocab_size", self.vocab_size)?;
        at_least_one("qformer_config.intermediate_size", self.intermediate_size)?;
        at_least_one("qformer_config.max_position_embeddings", self.max_position_embeddings)?;
        at_least_one("qformer_config.cross_attention_frequency", self.cross_attention_frequency as i64)?;
        divides("qformer_config.hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
    }
}

/// Where a checkpoint keeps what the Q-Former reads text with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// InstructBLIP: `qformer.embeddings`, its norm included.
    Instructions,
    /// BLIP-2 for retrieval: `embeddings` beside the module, `qformer.layernorm` in it.
    Captions,
    /// BLIP-2: nowhere; `qformer.layernorm` normalises the queries.
    Nothing,
}

/// Words and positions of a text.
struct Words {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
}

impl Words {
    fn load(scope: &Scope<'_>, c: &QFormerConfig) -> Result<Self, ModelError> {
        let d = c.hidden_size;
        Ok(Self {
            word_embeddings: Embedding::load(&scope.at("word_embeddings"), c.vocab_size, d)?,
            position_embeddings: Embedding::load(&scope.at("position_embeddings"), c.max_position_embeddings, d)?,
        })
    }

    /// `[rows, tokens, width]` for ids `[rows, tokens]`.
    fn forward(&self, ids: &Tensor) -> Tensor {
        self.word_embeddings.forward(ids) + self.position_embeddings.first(ids.size()[1])
    }
}

/// `attention` or `crossattention`: `attention.{query,key,value}` and `output.{dense,LayerNorm}` with the residual inside.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    layer_norm: LayerNorm,
    heads: i64,
    fused: bool,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &QFormerConfig, key_width: i64) -> Result<Self, ModelError> {
        let d = c.hidden_size;
        let (inner, output) = (scope.at("attention"), scope.at("output"));
        Ok(Self {
            query: Linear::load(&inner.at("query"), d, d, true)?,
            key: Linear::load(&inner.at("key"), d, key_width, true)?,
            value: Linear::load(&inner.at("value"), d, key_width, true)?,
            dense: Linear::load(&output.at("dense"), d, d, true)?,
            layer_norm: LayerNorm::load(&output.at("LayerNorm"), d, c.layer_norm_eps)?,
            heads: c.num_attention_heads,
            fused: scope.fused(),
        })
    }

    /// Over the hidden states themselves.
    fn over_self(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.mix(x, &self.key.forward(x), &self.value.forward(x), bias)
    }

    /// Over image features `[images, tokens, width]`, of which row `r` looks at image `rows[r]`. Keys and values are computed once per image.
    fn over_images(&self, x: &Tensor, features: &Tensor, rows: &Tensor) -> Tensor {
        let of_row = |images: Tensor| images.index_select(0, rows);
        self.mix(x, &of_row(self.key.forward(features)), &of_row(self.value.forward(features)), None)
    }

    /// What `x` looks at, where its keys are these.
    fn attended(&self, x: &Tensor, key: &Tensor, bias: Option<&Tensor>) -> Attended {
        let (queries, keys) = (split_heads(&self.query.forward(x), self.heads), split_heads(key, self.heads));
        let scale = (queries.size()[3] as f64).powf(-0.5);
        Attended { queries, keys, scale, bias: bias.map(Tensor::shallow_clone), causal: false }
    }

    fn mix(&self, x: &Tensor, key: &Tensor, value: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let Attended { queries, keys, scale, .. } = self.attended(x, key, bias);
        let attend = Attend { scale, bias, causal: false, rounded: !self.fused };
        let mixed = attention(&queries, &keys, &split_heads(value, self.heads), attend);
        self.layer_norm.forward(&(self.dense.forward(&mixed) + x))
    }
}

/// `intermediate` and `output`, or `intermediate_query` and `output_query`, with the residual inside.
struct FeedForward {
    intermediate: Linear,
    output: Linear,
    layer_norm: LayerNorm,
    activation: Activation,
}

impl FeedForward {
    fn load(scope: &Scope<'_>, c: &QFormerConfig, suffix: &str) -> Result<Self, ModelError> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        let output = scope.at(format_args!("output{suffix}"));
        Ok(Self {
            intermediate: Linear::load(&scope.at(format_args!("intermediate{suffix}.dense")), f, d, true)?,
            output: Linear::load(&output.at("dense"), d, f, true)?,
            layer_norm: LayerNorm::load(&output.at("LayerNorm"), d, c.layer_norm_eps)?,
            activation: c.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.activation.forward(&self.intermediate.forward(x));
        self.layer_norm.forward(&(self.output.forward(&hidden) + x))
    }
}

/// What a layer of a block reads of the block's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Queries,
    Texts,
    Images,
}

/// What the queries look at.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    /// `[images, tokens, width]`.
    pub features: &'a Tensor,
    /// i64 `[rows]`.
    pub rows: &'a Tensor,
}

/// `encoder.layer.i`: self-attention of queries and text together, then each part by itself.
pub(crate) struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    query_feed_forward: FeedForward,
    text_feed_forward: Option<FeedForward>,
}

parts!(Attention: query, key, value, dense, layer_norm);
parts!(FeedForward: intermediate, output, layer_norm);
parts!(Layer: attention, crossattention, query_feed_forward, text_feed_forward);
parts!(QFormer: layernorm, layers);

/// What a Q-Former's shape follows from.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub config: &'a QFormerConfig,
    /// Learned queries.
    pub queries: i64,
    /// Width of the image features.
    pub image_width: i64,
    pub reads: Reads,
}

impl Layer {
    fn load(scope: &Scope<'_>, shape: Shape<'_>, index: usize) -> Result<Self, ModelError> {
        let c = shape.config;
        let crossattention = if index.is_multiple_of(c.cross_attention_frequency) {
            Some(Attention::load(&scope.at("crossattention"), c, shape.image_width)?)
        } else {
            None
        };
        let reads = shape.reads == Reads::Instructions || c.use_qformer_text_input;
        Ok(Self {
            attention: Attention::load(&scope.at("attention"), c, c.hidden_size)?,
            crossattention,
            query_feed_forward: FeedForward::load(scope, c, "_query")?,
            text_feed_forward: if reads { Some(FeedForward::load(scope, c, "")?) } else { None },
        })
    }

    /// What the linear of this name reads.
    pub fn share_of(&self, name: &str) -> Share {
        let is = |linears: &[&Linear]| linears.iter().any(|linear| linear.name() == name);
        let Attention { query, key, value, dense, .. } = &self.attention;
        if is(&[query, key, value, dense]) {
            return Share::All;
        }
        if self.crossattention.as_ref().is_some_and(|cross| is(&[&cross.key, &cross.value])) {
            return Share::Images;
        }
        let texts = self.text_feed_forward.as_ref();
        if texts.is_some_and(|texts| is(&[&texts.intermediate, &texts.output])) { Share::Texts } else { Share::Queries }
    }

    /// Its heads and channels. Norms stand behind residuals, so that the layer does not pass on what it reads.
    pub fn groups(&self) -> Vec<GroupSet> {
        let attentions = [Some(&self.attention), self.crossattention.as_ref()].into_iter().flatten();
        let heads = attentions.map(|attention| {
            let Attention { query, key, value, dense, heads, .. } = attention;
            GroupSet::new(Unit::Heads, *heads).made_by(&[query, key, value], 1).read_by(dense)
        });
        let feeds = [Some(&self.query_feed_forward), self.text_feed_forward.as_ref()].into_iter().flatten();
        let channels = feeds.map(|feed| {
            let count = feed.output.shape().1;
            GroupSet::new(Unit::Channels, count).made_by(&[&feed.intermediate], 1).read_by(&feed.output)
        });
        heads.chain(channels).collect()
    }

    /// Heads of its attention, and of that to the image.
    pub fn attention_heads(&self) -> Vec<i64> {
        [Some(&self.attention), self.crossattention.as_ref()].into_iter().flatten().map(|part| part.heads).collect()
    }

    /// What queries and text look at among themselves, and what the queries look at in the image.
    pub fn attended(&self, x: &Tensor, queries: i64, bias: Option<&Tensor>, images: Images<'_>) -> Vec<Attended> {
        let own = self.attention.attended(x, &self.attention.key.forward(x), bias);
        let Some(cross) = &self.crossattention else { return vec![own] };
        let [q, _] = apart(&self.attention.over_self(x, bias), queries);
        let looks = q.map(|q| {
            let keys = cross.key.forward(images.features).index_select(0, images.rows);
            cross.attended(&q, &keys, None)
        });
        [Some(own), looks].into_iter().flatten().collect()
    }

    fn text(&self, x: &Tensor) -> Tensor {
        match &self.text_feed_forward {
            Some(feed_forward) => feed_forward.forward(x),
            None => unreachable!("a Q-Former without embeddings is given no text"),
        }
    }

    /// `[rows, queries + tokens, width]` to the same. `images` is needed where there are queries.
    pub fn forward(&self, x: &Tensor, queries: i64, bias: Option<&Tensor>, images: Option<Images<'_>>) -> Tensor {
        let [q, t] = self.attend(x, queries, bias, images);
        self.feed(q, t)
    }

    /// The attention of [`Layer::forward`]: what becomes of the queries, and of the text.
    pub fn attend(
        &self,
        x: &Tensor,
        queries: i64,
        bias: Option<&Tensor>,
        images: Option<Images<'_>>,
    ) -> [Option<Tensor>; 2] {
        let x = self.attention.over_self(x, bias);
        let [mut q, t] = apart(&x, queries);
        if let (Some(queries), Some(crossattention), Some(images)) = (&q, &self.crossattention, images) {
            q = Some(crossattention.over_images(queries, images.features, images.rows));
        }
        [q, t]
    }

    /// The feed-forward layers behind.
    pub fn feed(&self, q: Option<Tensor>, t: Option<Tensor>) -> Tensor {
        let (q, t) = (q.map(|q| self.query_feed_forward.forward(&q)), t.map(|t| self.text(&t)));
        together([q, t])
    }
}

/// The queries and the text of `[rows, queries + tokens, width]`, where there are some.
pub(crate) fn apart(x: &Tensor, queries: i64) -> [Option<Tensor>; 2] {
    let tokens = x.size()[1] - queries;
    match (queries, tokens) {
        (0, _) => [None, Some(x.shallow_clone())],
        (_, 0) => [Some(x.narrow(1, 0, queries)), None],
        _ => [Some(x.narrow(1, 0, queries)), Some(x.narrow(1, queries, tokens))],
    }
}

/// The opposite of [`apart`].
pub(crate) fn together(parts: [Option<Tensor>; 2]) -> Tensor {
    match parts {
        [Some(q), Some(t)] => Tensor::cat(&[q, t], 1),
        [Some(one), None] | [None, Some(one)] => one,
        [None, None] => unreachable!("queries or text"),
    }
}

/// `qformer`, with the `query_tokens` and, for captions, the `embeddings` that the checkpoint keeps beside it.
pub(crate) struct QFormer {
    /// `[1, queries, width]`.
    pub query_tokens: Weight,
    words: Option<Words>,
    pub layernorm: LayerNorm,
    pub layers: Vec<Layer>,
    kind: Kind,
}

impl QFormer {
    /// `root` is the checkpoint's. In f16, BLIP-2's Q-Former computes in f32.
    pub fn load(root: &Scope<'_>, shape: Shape<'_>) -> Result<Self, ModelError> {
        let c = shape.config;
        let query_tokens = Weight::load(&root.wide(), "query_tokens", &[1, shape.queries, c.hidden_size])?;
        let instructed = shape.reads == Reads::Instructions;
        let scope = if instructed { root.at("qformer") } else { root.at("qformer").wide() };
        let (words, norm) = match shape.reads {
            Reads::Instructions => (Some(scope.at("embeddings")), scope.at("embeddings.layernorm")),
            Reads::Captions => (Some(root.at("embeddings")), scope.at("layernorm")),
            Reads::Nothing => (None, scope.at("layernorm")),
        };
        let layers = scope.at("encoder.layer");
        Ok(Self {
            query_tokens,
            words: words.map(|scope| Words::load(&scope, c)).transpose()?,
            layernorm: LayerNorm::load(&norm, c.hidden_size, c.layer_norm_eps)?,
            layers: (0..c.num_hidden_layers).map(|i| Layer::load(&layers.at(i), shape, i)).collect::<Result<_, _>>()?,
            kind: scope.kind(),
        })
    }

    /// Number of learned queries.
    pub fn queries(&self) -> i64 {
        self.query_tokens.base().size()[1]
    }

    /// Longest text that has positions; `None` where no text is read.
    pub fn positions(&self) -> Option<i64> {
        self.words.as_ref().map(|words| words.position_embeddings.rows())
    }

    /// Features in the type of this part's computation.
    pub fn features(&self, features: &Tensor) -> Tensor {
        features.to_kind(self.kind)
    }

    /// Queries and text, normalised together, `[rows, queries + tokens, width]`.
    fn enter(&self, queries: Option<&Tensor>, text: Option<&TextBatch>) -> Tensor {
        let words = text.zip(self.words.as_ref()).map(|(text, words)| words.forward(&text.ids).to_kind(self.kind));
        let queries = queries.map(|queries| queries.to_kind(self.kind));
        let parts: Vec<&Tensor> = queries.iter().chain(&words).collect();
        self.layernorm.forward(&Tensor::cat(&parts, 1))
    }

    /// What enters the first layer, and the bias that hides padding. A Q-Former that reads nothing ignores the text.
    pub fn embed(&self, rows: i64, text: Option<&TextBatch>) -> (Tensor, Option<Tensor>) {
        let text = text.filter(|_| self.words.is_some());
        let queries = self.query_tokens.effective(self.query_tokens.kind()).expand([rows, -1, -1], false);
        let bias = text.map(|text| key_bias(&prefixed(&text.mask, self.queries()), self.kind));
        (self.enter(Some(&queries), text), bias)
    }

    /// The last states `[rows, queries + tokens, width]`, with a text or without.
    pub fn run(&self, images: Images<'_>, text: Option<&TextBatch>) -> Tensor {
        let (x, bias) = self.embed(images.rows.size()[0], text);
        let features = self.features(images.features);
        let images = Images { features: &features, rows: images.rows };
        let run = |x: Tensor, layer: &Layer| layer.forward(&x, self.queries(), bias.as_ref(), Some(images));
        self.layers.iter().fold(x, run)
    }

    /// The queries' last states `[rows, queries, width]`, with a text or without.
    pub fn forward(&self, images: Images<'_>, text: Option<&TextBatch>) -> Tensor {
        self.run(images, text).narrow(1, 0, self.queries())
    }

    /// The first token's last state `[texts, width]` of a text read without queries and without an image; nothing where no text can be read.
    pub fn forward_text(&self, text: &TextBatch) -> Option<Tensor> {
        self.words.as_ref()?;
        let bias = key_bias(&text.mask, self.kind);
        let x = self.enter(None, Some(text));
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(&x, 0, Some(&bias), None));
        Some(x.select(1, 0))
    }

    /// Row numbers for features that are looked at once each.
    pub fn each(images: i64, device: tch::Device) -> Tensor {
        Tensor::arange(images, (Kind::Int64, device))
    }
}
