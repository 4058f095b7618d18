//! Forward and backward over one part of a batch, in two ways that give the same gradient.

mod attention;

use std::collections::BTreeMap;

use ressa_experiment::stage::AdaptTraining;
use ressa_models::{
    Entry, Flow, Forced, Targets, Tower, VisionLanguage,
    blocks::{Chain, FlowGradient, product},
};
use tch::{Kind, Tensor, no_grad, with_grad};

use crate::{
    batch::{are_features, features},
    gradient::FlatGradient,
    loss,
    micro::{Exchange, MicroBatch},
    step::{Reply, Terms, distills, forced},
    teacher::{Output, TeacherOutputs},
    traced::{Compared, Inside, Traced, after, forced_traced, images_traced, token_weights},
    words::Words,
};

/// What the in-batch contrastive loss needs of this part.
pub(crate) enum Contrast<'a> {
    /// There is no such loss.
    None,
    /// The part is the whole batch: its texts.
    Whole(&'a ressa_models::TextBatch),
    /// The loss of the whole batch is known: this part's texts, and the gradients of its image and text embeddings.
    Part { texts: ressa_models::TextBatch, images_gradient: Tensor, texts_gradient: Tensor, value: Option<Tensor> },
}

/// What the student says in an exchange, and how far its hidden states and its attention are from the teacher's.
struct Said {
    forced: Forced,
    hidden: Option<Tensor>,
    attention: Option<Tensor>,
}

/// What a part is computed with.
pub(crate) struct Pass<'a> {
    pub student: &'a dyn VisionLanguage,
    pub batch: &'a MicroBatch,
    pub taught: &'a TeacherOutputs,
    pub compared: &'a Compared,
    pub contrast: Contrast<'a>,
    pub settings: &'a AdaptTraining,
    /// What losses are multiplied by before they are differentiated; the gradient has to be divided by it.
    pub scale: f64,
}

impl Pass<'_> {
    /// A loss as it is differentiated.
    fn scaled(&self, loss: &Tensor) -> Tensor {
        if self.scale == 1.0 { loss.shallow_clone() } else { with_grad(|| loss * self.scale) }
    }

    /// Compares what leaves the connector with words; the language model does not run.
    pub fn aligning(self, words: &Words, gradient: &mut FlatGradient<'_>) -> Terms {
        let terms = with_grad(|| {
            let features = features(self.student, &self.batch.pixels);
            let loss = |exchange: &Exchange, captions| {
                let asked = !exchange.answers.is_empty();
                let prefix = asked.then(|| self.student.visual_prefix(&features, &exchange.prompts));
                prefix.and_then(|prefix| words.loss(&prefix, exchange, captions))
            };
            let (questions, captions) = (loss(&self.batch.questions, false), loss(&self.batch.captions, true));
            Terms::aligned(questions, captions, self.batch.pixels.device())
        });
        gradient.add_all(&self.scaled(&terms.total));
        terms.without_history()
    }

    /// Keeps every activation until the gradient is known. The student's weights keep the autograd graph.
    pub fn at_once(self, gradient: &mut FlatGradient<'_>) -> Terms {
        let (terms, scaled) = with_grad(|| {
            let (features, maps) = images_traced(self.student, &self.batch.pixels, &self.compared.of_student());
            let questions = self.said(&features, &self.batch.questions, &self.taught.question_inside);
            let captions = self.said(&features, &self.batch.captions, &self.taught.caption_inside);
            let (contrastive, pull) = self.contrast(&features);
            let terms = self.terms(questions, captions, contrastive, self.of_images(&maps));
            let total = match pull {
                Some(pull) => &terms.total + pull,
                None => terms.total.shallow_clone(),
            };
            (terms, self.scaled(&total))
        });
        gradient.add_all(&scaled);
        terms
    }

    /// Keeps what enters each block, and computes the block again when its gradient is asked for.
    pub fn recomputing(self, gradient: &mut FlatGradient<'_>) -> Terms {
        let student = self.student;
        let encoded = (!are_features(&self.batch.pixels)).then(|| {
            let entry = with_grad(|| student.enter_from(Entry::Pixels(&self.batch.pixels)));
            Chain::run(student, Tower::Vision, &entry, gradient)
        });
        let features = match &encoded {
            Some((_, last)) => with_grad(|| student.leave(Tower::Vision, last)),
            None => self.batch.pixels.shallow_clone(),
        };
        let (of_images, of_image_blocks) = match &encoded {
            Some((images, _)) => self.images_between(images, gradient),
            None => Default::default(),
        };
        let leaf = features.detach().set_requires_grad(features.requires_grad());
        let mut of_features = Accumulated::default();

        let (questions, captions) = (&self.batch.questions, &self.batch.captions);
        let asked = self.exchange(questions, &leaf, &mut of_features, gradient, true);
        let said = self.exchange(captions, &leaf, &mut of_features, gradient, false);
        let (contrastive, pull) = with_grad(|| self.contrast(&leaf));
        let third = self.terms(None, None, contrastive, of_images);
        let total = match pull {
            Some(pull) => &third.total + pull,
            None => third.total.shallow_clone(),
        };
        if total.requires_grad() {
            // Retrieval reads the connector without recomputation: its queries are few.
            let found = gradient.add_all_and(&self.scaled(&total), &leaf);
            of_features.add(found);
        }
        if let Some((images, last)) = encoded {
            let back = of_features.take().and_then(|found| with_grad(|| product(&features, &found)));
            let last = backward_into(back, &last, gradient);
            images.backward_with(student, last, of_image_blocks, gradient);
        }
        Terms::sum([asked, said, Some(third)])
    }

    /// One kind of exchange, forward and back to the image features.
    fn exchange(
        &self,
        exchange: &Exchange,
        features: &Tensor,
        of_features: &mut Accumulated,
        gradient: &mut FlatGradient<'_>,
        questions: bool,
    ) -> Option<Terms> {
        if exchange.answers.is_empty() {
            return None;
        }
        let student = self.student;
        let prompts = &exchange.prompts;
        let asked = with_grad(|| student.enter_from(Entry::Features { features, prompts }));
        let (connector, queries) = Chain::run(student, Tower::Connector, &asked, gradient);
        let prefix = with_grad(|| student.leave(Tower::Connector, &queries));
        let prefix_leaf = prefix.detach().set_requires_grad(prefix.requires_grad());
        let read = with_grad(|| {
            let (prompt, answers) = (&prompts.language, exchange.answers());
            let prefix = student.place_images(prefix_leaf.shallow_clone(), prompt);
            student.enter_from(Entry::Prefix { prefix: &prefix, prompt, answers })
        });
        let (language, states) = Chain::run(student, Tower::Language, &read, gradient);
        let (teacher, taught) = match questions {
            true => (self.taught.questions.as_ref(), &self.taught.question_inside),
            false => (self.taught.captions.as_ref(), &self.taught.caption_inside),
        };
        let (hidden, mut own) = self.hidden_between((&language, &read, &states), exchange, &taught.states, gradient);
        let (attention, of_blocks) =
            self.exchange_between([&connector, &language], &read, exchange, &taught.maps, (&mut own, &mut *gradient));
        let terms = with_grad(|| {
            let logits = student.leave(Tower::Language, &states);
            let Targets { ids, mask } = student.targets(&exchange.answers());
            let said = Forced { logits, targets: ids, mask };
            let reply = Reply { student: &said, teacher, exchange, compared: self.compared, hidden, attention };
            let (first, second) = if questions { (Some(reply), None) } else { (None, Some(reply)) };
            Terms::new(first, second, None, None, self.batch.pixels.device(), self.settings)
        });
        let of_states = backward_into(Some(self.scaled(&terms.total)), &states, gradient);
        let of_read = language.backward_with(student, of_states, own, gradient);
        let of_prefix = no_later(of_read, &read, &prefix_leaf, gradient);
        let back = of_prefix.and_then(|found| with_grad(|| product(&prefix, &found)));
        let of_queries = backward_into(back, &queries, gradient);
        let of_asked = connector.backward_with(student, of_queries, of_blocks, gradient);
        of_features.add(no_later(of_asked, &asked, features, gradient));
        Some(terms.without_history())
    }

    /// What the student says in an exchange, with the distance of its hidden states where they are compared.
    fn said(&self, features: &Tensor, exchange: &Exchange, taught: &Inside) -> Option<Said> {
        if self.compared.is_empty() {
            return Some(Said { forced: forced(self.student, features, exchange)?, hidden: None, attention: None });
        }
        let watched = self.compared.of_student();
        let Traced { forced, states, maps, entry } = forced_traced(self.student, features, exchange, &watched)?;
        let distance = |((block, state), taught): ((&usize, &Tensor), &Tensor)| {
            self.distance(*block, state, taught, &entry, exchange)
        };
        let hidden = states.iter().zip(&taught.states).map(distance).reduce(|sum, more| sum + more);
        let attention = self.attention(&maps, &taught.maps, &entry, exchange);
        Some(Said { forced, hidden, attention })
    }

    /// The distance of what left a block from what the teacher has there.
    fn distance(&self, block: usize, state: &Tensor, taught: &Tensor, entry: &Flow, exchange: &Exchange) -> Tensor {
        let hidden = distills(self.settings).map(|distill| distill.hidden.clone()).unwrap_or_default();
        let tokens = token_weights(self.student, block, entry, exchange, &hidden, state.size()[1]);
        self.compared.states.loss(block, state, taught, &tokens)
    }

    /// The distance of hidden states of a tower that ran without a gradient. That of the last block has one through `last`; those of others are
    /// gradients of what entered the blocks behind them.
    fn hidden_between(
        &self,
        (chain, entry, last): (&Chain, &Flow, &Flow),
        exchange: &Exchange,
        taught: &[Tensor],
        gradient: &mut FlatGradient<'_>,
    ) -> (Option<Tensor>, BTreeMap<usize, FlowGradient>) {
        let (mut sum, mut own): (Option<Tensor>, _) = (None, BTreeMap::new());
        let share =
            distills(self.settings).map_or(0.0, |distill| distill.weight * distill.hidden.weight) * exchange.rows;
        for (block, taught) in self.compared.states.blocks().into_iter().zip(taught) {
            let behind = chain.leaf(block + 1);
            let distance = with_grad(|| {
                let state = after(self.student, block, behind.as_ref().unwrap_or(last));
                self.distance(block, state, taught, entry, exchange)
            });
            let distance = match &behind {
                None => distance,
                Some(behind) => {
                    let total = with_grad(|| &distance * (share * self.scale));
                    own.insert(block + 1, backward_into(Some(total), behind, gradient));
                    distance.detach()
                }
            };
            sum = Some(match sum {
                None => distance,
                Some(sum) => with_grad(|| sum + distance),
            });
        }
        (sum, own)
    }

    fn terms(
        &self,
        questions: Option<Said>,
        captions: Option<Said>,
        contrastive: Option<Tensor>,
        images: Option<Tensor>,
    ) -> Terms {
        fn reply<'r>(
            said: &'r Option<Said>,
            teacher: Option<&'r Output>,
            (exchange, compared): (&'r Exchange, &'r Compared),
        ) -> Option<Reply<'r>> {
            let Said { forced: student, hidden, attention } = said.as_ref()?;
            let [hidden, attention] = [hidden, attention].map(|distance| distance.as_ref().map(Tensor::shallow_clone));
            Some(Reply { student, teacher, exchange, compared, hidden, attention })
        }
        let questions = reply(&questions, self.taught.questions.as_ref(), (&self.batch.questions, self.compared));
        let captions = reply(&captions, self.taught.captions.as_ref(), (&self.batch.captions, self.compared));
        Terms::new(questions, captions, contrastive, images, self.batch.pixels.device(), self.settings)
    }

    /// The contrastive loss as a value, and a scalar that has its gradient where the value is that of other parts too.
    fn contrast(&self, features: &Tensor) -> (Option<Tensor>, Option<Tensor>) {
        let embed = |texts| Some((self.student.retrieval_images(features)?, self.student.retrieval_texts(texts)?));
        match &self.contrast {
            Contrast::None => (None, None),
            Contrast::Whole(texts) => {
                let hardness = self.settings.hardness;
                (embed(texts).map(|(images, texts)| loss::contrastive(&images, &texts, hardness)), None)
            }
            Contrast::Part { texts, images_gradient, texts_gradient, value } => {
                let task = 1.0 - distills(self.settings).map_or(0.0, |distill| distill.weight);
                let pull = embed(texts).map(|(images, texts)| {
                    let pull = (images * images_gradient).sum(Kind::Float) + (texts * texts_gradient).sum(Kind::Float);
                    pull * (self.settings.contrastive * task)
                });
                (value.as_ref().map(Tensor::shallow_clone), pull)
            }
        }
    }
}

/// The in-batch loss of all parts, and the gradients of all embeddings: those of images, those of texts.
pub(crate) fn contrast_of(images: &[Tensor], texts: &[Tensor], hardness: f64) -> (Tensor, Tensor, Tensor) {
    let leaf = |parts: &[Tensor]| no_grad(|| Tensor::cat(parts, 0)).set_requires_grad(true);
    let (images, texts) = (leaf(images), leaf(texts));
    let value = with_grad(|| loss::contrastive(&images, &texts, hardness));
    let mut found = Tensor::run_backward(&[&value], &[&images, &texts], false, false);
    let texts = found.pop().expect("two gradients");
    (value.detach(), found.pop().expect("two gradients"), texts)
}

/// From a scalar to gradients of the leaves that a tower was left with.
fn backward_into(total: Option<Tensor>, last: &Flow, gradient: &mut FlatGradient<'_>) -> FlowGradient {
    let Some(total) = total.filter(Tensor::requires_grad) else { return FlowGradient::default() };
    let leaves: Vec<Tensor> = last.wanting().map(Tensor::shallow_clone).collect();
    FlowGradient::of(last, &mut gradient.add_between(&total, &leaves).into_iter())
}

/// From gradients of what entered a tower to that of what it was made of.
fn no_later(found: FlowGradient, entry: &Flow, source: &Tensor, gradient: &mut FlatGradient<'_>) -> Option<Tensor> {
    let FlowGradient { hidden, carried } = found;
    let total = with_grad(|| {
        let hidden = hidden.and_then(|g| product(&entry.hidden, &g));
        let carried = carried.and_then(|g| product(entry.carried()?, &g));
        match (hidden, carried) {
            (Some(hidden), Some(carried)) => Some(hidden + carried),
            (hidden, carried) => hidden.or(carried),
        }
    })?;
    let leaves: Vec<Tensor> = source.requires_grad().then(|| source.shallow_clone()).into_iter().collect();
    gradient.add_between(&total, &leaves).into_iter().next().filter(Tensor::defined)
}

/// A sum of gradients.
#[derive(Default)]
struct Accumulated(Option<Tensor>);

impl Accumulated {
    fn add(&mut self, gradient: Option<Tensor>) {
        self.0 = match (self.0.take(), gradient) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
    }

    fn take(&mut self) -> Option<Tensor> {
        self.0.take()
    }
}
