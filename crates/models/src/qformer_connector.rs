//! A Q-Former and the projection of what its queries give: the connector of the BLIP-2 family.

use tch::{Kind, Tensor};

use crate::{
    Attended, BlockGroups, Flow, LayerId, Linear, ModelError, Prompts, TokenKind, Weight,
    connector::Connector,
    layers::{Part, PartMut, Parts},
    qformer::{Images, Layer, QFormer, Share, apart, together},
    raw::longest,
};

/// Places of image features and of the rows that look at them among the companions of a flow.
const FEATURES: usize = 0;
const ROWS: usize = 1;

/// `qformer` and `language_projection`.
pub(crate) struct QFormerConnector {
    qformer: QFormer,
    /// Nothing in a retrieval model.
    projection: Option<Linear>,
    /// Whether the projection is the block behind the Q-Former's layers.
    joined: bool,
    kind: Kind,
}

impl QFormerConnector {
    pub fn new(qformer: QFormer, projection: Option<Linear>, kind: Kind) -> Self {
        Self { qformer, projection, joined: false, kind }
    }
}

/// The projection is beside the prunable parts until it joins them.
impl Parts for QFormerConnector {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.qformer.visit(show);
        self.projection.iter().filter(|_| self.joined).for_each(|projection| projection.visit(show));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.qformer.visit_mut(show);
        self.projection.iter_mut().filter(|_| self.joined).for_each(|projection| projection.visit_mut(show));
    }
}

impl Connector for QFormerConnector {
    fn image_tokens(&self) -> usize {
        self.qformer.queries() as usize
    }

    fn by_block(&self) -> Vec<Vec<&Linear>> {
        let joined = self.projection.iter().filter(|_| self.joined).map(|projection| vec![projection]);
        self.qformer.layers.iter().map(Parts::linears).chain(joined).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        match self.qformer.layers.get(block) {
            Some(layer) => layer.weights(),
            None => self.projection.iter().flat_map(Linear::weights).collect(),
        }
    }

    fn groups(&self, block: usize) -> BlockGroups {
        let sets = self.qformer.layers.get(block).map(|layer| layer.groups()).unwrap_or_default();
        BlockGroups { sets, ..BlockGroups::default() }
    }

    fn enter(&self, features: &Tensor, prompts: &Prompts) -> Flow {
        let (hidden, bias) = self.qformer.embed(prompts.image.size()[0], Some(&prompts.qformer));
        let features = self.qformer.features(features);
        let context = [Some(features), Some(prompts.image.shallow_clone()), bias].into_iter().flatten().collect();
        Flow { hidden, context, carried: Some(FEATURES) }
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        let Some(layer) = self.qformer.layers.get(block) else {
            return flow.with_hidden(self.project(&self.leave(flow)));
        };
        let images = Some(Images { features: &flow.context[FEATURES], rows: &flow.context[ROWS] });
        let bias = flow.context.get(ROWS + 1);
        flow.with_hidden(layer.forward(&flow.hidden, self.qformer.queries(), bias, images))
    }

    /// Attention, to the image too, and feed-forward layers; the projection is not divided.
    fn parts(&self, block: usize) -> usize {
        if block < self.qformer.layers.len() { 2 } else { 1 }
    }

    fn run_part(&self, block: usize, part: usize, flow: &Flow) -> Flow {
        let (Some(layer), queries) = (self.qformer.layers.get(block), self.qformer.queries()) else {
            return self.run_block(block, flow);
        };
        flow.with_hidden(match part {
            0 => {
                let images = Some(Images { features: &flow.context[FEATURES], rows: &flow.context[ROWS] });
                together(layer.attend(&flow.hidden, queries, flow.context.get(ROWS + 1), images))
            }
            _ => {
                let [q, t] = apart(&flow.hidden, queries);
                layer.feed(q, t)
            }
        })
    }

    /// None of the projection, where it is a block.
    fn attention_heads(&self, block: usize) -> Vec<i64> {
        self.qformer.layers.get(block).map(Layer::attention_heads).unwrap_or_default()
    }

    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended> {
        let Some(layer) = self.qformer.layers.get(block) else { return Vec::new() };
        let images = Images { features: &flow.context[FEATURES], rows: &flow.context[ROWS] };
        layer.attended(&flow.hidden, self.qformer.queries(), flow.context.get(ROWS + 1), images)
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        flow.hidden.narrow(1, 0, self.qformer.queries())
    }

    fn project(&self, states: &Tensor) -> Tensor {
        match &self.projection {
            Some(projection) => projection.forward(&states.to_kind(self.kind)),
            None => states.shallow_clone(),
        }
    }

    fn language_input(&self, flow: &Flow) -> Tensor {
        if self.joined { flow.hidden.shallow_clone() } else { self.project(&self.leave(flow)) }
    }

    fn forward(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        let entry = self.enter(features, prompts);
        self.leave(&(0..self.qformer.layers.len()).fold(entry, |flow, block| self.run_block(block, &flow)))
    }

    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        // Each row looks at its own image, wherever that came from.
        let alone = flows.iter().map(|flow| {
            let mut flow = flow.shallow_clone();
            flow.context[FEATURES] = flow.context[FEATURES].index_select(0, &flow.context[ROWS]);
            flow
        });
        let mut stacked = Flow::stack(&alone.collect::<Vec<_>>(), usize::MAX)?;
        stacked.context[ROWS] = QFormer::each(stacked.hidden.size()[0], stacked.hidden.device());
        Some(stacked)
    }

    fn token_kinds(&self, flow: &Flow) -> Vec<TokenKind> {
        let (tokens, queries) = (flow.hidden.size()[1], self.qformer.queries());
        TokenKind::parts(&[(TokenKind::Query, queries), (TokenKind::Text, tokens - queries)])
    }

    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        let own = self.token_kinds(flow);
        let only = |kind| own.iter().copied().filter(|own| *own == kind).collect();
        let Some(block) = self.qformer.layers.get(layer.block) else { return only(TokenKind::Query) };
        match block.share_of(&layer.name) {
            Share::All => own,
            Share::Queries => only(TokenKind::Query),
            Share::Texts => only(TokenKind::Text),
            Share::Images => {
                let patches = flow.context.get(FEATURES).map_or(0, |features| features.size()[..2].iter().product());
                TokenKind::parts(&[(TokenKind::Visual, patches)])
            }
        }
    }

    fn projections(&self) -> Vec<&Linear> {
        self.projection.iter().filter(|_| !self.joined).collect()
    }

    fn join_projection(&mut self) -> bool {
        self.joined = self.projection.is_some();
        self.joined
    }

    fn has_joined(&self) -> bool {
        self.joined
    }

    fn queries(&self) -> Option<&Weight> {
        Some(&self.qformer.query_tokens)
    }

    fn keep_queries(&mut self, kept: &Tensor) {
        let queries = &mut self.qformer.query_tokens;
        let left = tch::no_grad(|| queries.base().index_select(1, &kept.to_device(queries.device())));
        *queries = Weight::new(queries.name().to_owned(), left);
    }

    fn all_weights_mut(&mut self) -> (Vec<&mut Weight>, Vec<&mut Weight>) {
        let QFormer { layernorm, layers, query_tokens, .. } = &mut self.qformer;
        let (mut prunable, mut others) = (layernorm.weights_mut(), Vec::new());
        prunable.extend(layers.weights_mut());
        let projections = if self.joined { &mut prunable } else { &mut others };
        projections.extend(self.projection.iter_mut().flat_map(Linear::weights_mut));
        others.push(query_tokens);
        (prunable, others)
    }

    fn check_prompts(&self, prompts: &Prompts) -> Result<(), ModelError> {
        match self.qformer.positions() {
            Some(positions) => longest("Q-Former's text", prompts.qformer.ids.size()[1], positions),
            None => Ok(()),
        }
    }

    fn qformer(&self) -> Option<&QFormer> {
        Some(&self.qformer)
    }
}
