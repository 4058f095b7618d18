//! The distance of attention within a step, in both ways of computing it.

use std::collections::BTreeMap;

use ressa_models::{
    Attended, Flow, Tower,
    blocks::{Chain, FlowGradient},
};
use tch::{Tensor, no_grad, with_grad};

use super::Pass;
use crate::{
    gradient::FlatGradient,
    micro::Exchange,
    step::distills,
    traced::{Attentions, real_queries},
};

/// Attentions of a block of the student, by its tower and number, beside the teacher's.
type Compared<'a> = ((&'a (Tower, usize), &'a Vec<Attended>), &'a Vec<Attended>);

/// Gradients of what entered blocks of a tower.
type OfBlocks = BTreeMap<usize, FlowGradient>;

impl Pass<'_> {
    /// The distance of connector's and language model's attention in an exchange, the mean over its rows; nothing where it is not compared. `entry` is
    /// what entered the language model.
    pub(super) fn attention(
        &self,
        maps: &Attentions,
        taught: &[Vec<Attended>],
        entry: &Flow,
        exchange: &Exchange,
    ) -> Option<Tensor> {
        let distance = |((&(tower, block), own), taught): Compared<'_>| {
            let real = |queries| real_queries(self.student, (tower, block), Some(entry), exchange, queries);
            self.compared.maps.loss(tower, own, taught, &real)
        };
        maps.iter().zip(taught).map(distance).reduce(|sum, more| sum + more)
    }

    /// The same of towers that ran without a gradient, as a value: parameters' gradients are added, and those of what entered the language model's
    /// blocks are joined with those that are there. Beside it, those of the connector's.
    pub(super) fn exchange_between(
        &self,
        [connector, language]: [&Chain; 2],
        entry: &Flow,
        exchange: &Exchange,
        taught: &[Vec<Attended>],
        (own, gradient): (&mut OfBlocks, &mut FlatGradient<'_>),
    ) -> (Option<Tensor>, OfBlocks) {
        let share = self.attention_weight() * exchange.rows * self.scale;
        let (of_connector, of_language) = self.compared.maps.split(taught);
        let real = |tower: Tower| {
            move |block: usize, queries: i64| real_queries(self.student, (tower, block), Some(entry), exchange, queries)
        };
        let mut to = Gradients { own, gradient, share };
        let tower = Tower::Language;
        let in_language = self.attention_between((tower, language), of_language, &real(tower), &mut to);
        let mut of_blocks = OfBlocks::new();
        let mut to = Gradients { own: &mut of_blocks, gradient: to.gradient, share };
        let tower = Tower::Connector;
        let in_connector = self.attention_between((tower, connector), of_connector, &real(tower), &mut to);
        (sum(in_connector, in_language), of_blocks)
    }

    /// The distance of the image encoder's attention, as a share of the whole batch's.
    pub(super) fn of_images(&self, maps: &Attentions) -> Option<Tensor> {
        let distance =
            |((&(tower, _), own), taught): Compared<'_>| self.compared.maps.loss(tower, own, taught, &|_| None);
        let sum = maps.iter().zip(&self.taught.image_maps).map(distance).reduce(|sum, more| sum + more)?;
        Some(sum * self.batch.images)
    }

    /// What the distance of attention weighs in what is minimised.
    fn attention_weight(&self) -> f64 {
        distills(self.settings).map_or(0.0, |distill| distill.weight * distill.attention.weight)
    }

    /// The same of an image encoder that ran without a gradient, whose gradients are added, and those of what entered its blocks.
    pub(super) fn images_between(&self, chain: &Chain, gradient: &mut FlatGradient<'_>) -> (Option<Tensor>, OfBlocks) {
        let mut own = OfBlocks::new();
        let share = self.attention_weight() * self.batch.images * self.scale;
        let mut to = Gradients { own: &mut own, gradient, share };
        let found = self.attention_between((Tower::Vision, chain), &self.taught.image_maps, &|_, _| None, &mut to);
        (found.map(|distance| distance * self.batch.images), own)
    }

    /// The distance of attention of a tower that ran without a gradient: its gradients are those of parameters of the compared blocks and of what entered
    /// them. `real` says which queries of a block's attention are no padding.
    fn attention_between(
        &self,
        (tower, chain): (Tower, &Chain),
        taught: &[Vec<Attended>],
        real: &dyn Fn(usize, i64) -> Option<Tensor>,
        to: &mut Gradients<'_, '_>,
    ) -> Option<Tensor> {
        let mut all = None;
        for (block, taught) in self.compared.maps.blocks(tower).into_iter().zip(taught) {
            let Some(entered) = chain.leaf(block) else { continue };
            let (distance, total) = with_grad(|| {
                let own = self.student.attended(tower, block, &entered);
                let distance = self.compared.maps.loss(tower, &own, taught, &|queries| real(block, queries));
                let total = &distance * to.share;
                (distance, total)
            });
            if total.requires_grad() {
                let found = to.gradient.add_block(&total, (tower, block), &entered);
                to.own.entry(block).or_default().add(found);
            }
            all = sum(all, Some(distance.detach()));
        }
        all
    }
}

/// Where gradients of compared attention go, and what the distance is multiplied by before it is differentiated.
struct Gradients<'a, 'g> {
    /// Gradients of what entered blocks.
    own: &'a mut OfBlocks,
    /// Gradients of parameters.
    gradient: &'a mut FlatGradient<'g>,
    share: f64,
}

fn sum(left: Option<Tensor>, right: Option<Tensor>) -> Option<Tensor> {
    match (left, right) {
        (Some(left), Some(right)) => Some(no_grad(|| left + right)),
        (left, right) => left.or(right),
    }
}
