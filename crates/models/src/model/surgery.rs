//! How a model shows its weights and lets them be changed.

use ressa_checkpoint::names;
use tch::Tensor;

use super::{Model, layer_ids};
use crate::{
    BlockGroups, InBlocks, LayerId, Linear, ModelError, Surgery, TensorMap, Tower, VisionLanguage, Weight,
    layers::Parts,
};

impl Surgery for Model {
    fn with_vision_of(&self, other: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, ModelError> {
        let (mine, theirs) = (self.blocks(Tower::Vision), other.blocks(Tower::Vision));
        if mine != theirs {
            let message = format!("an image encoder of {theirs} blocks cannot take the place of one of {mine}");
            return Err(ModelError::Config(message));
        }
        let mut tensors = self.tensors();
        let path = format!("{}.", self.architecture.vision_path());
        let of_vision = |name: &str| name.starts_with(&path);
        tensors.extend(other.tensors().into_iter().filter(|(name, _)| of_vision(name)));
        for weight in other.weights().into_iter().filter(|weight| of_vision(weight.name())) {
            tensors.insert(weight.name().to_owned(), tch::no_grad(|| weight.exact().detach()));
        }
        self.vision.refit(&mut tensors);
        let model = self.over(&tensors)?;
        Ok(Box::new(model.wearing(Surgery::weights(self).into_iter().filter(|weight| !of_vision(weight.name())))))
    }

    fn linears(&self) -> Vec<(&LayerId, &Linear)> {
        let language = self.language.iter().flat_map(|language| language.linears());
        self.ids.iter().zip(self.vision.linears().into_iter().chain(self.connector.linears()).chain(language)).collect()
    }

    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)> {
        let Self { vision, connector, language, ids, .. } = self;
        let language = language.iter_mut().flat_map(|language| language.linears_mut());
        ids.iter().zip(vision.linears_mut().into_iter().chain(connector.linears_mut()).chain(language)).collect()
    }

    fn join_projection(&mut self) -> bool {
        let has_joined = self.connector.join_projection();
        self.ids = layer_ids(self.vision.as_ref(), self.connector.as_ref(), self.language.as_deref());
        has_joined
    }

    fn groups(&self, tower: Tower, block: usize) -> BlockGroups {
        let groups = match tower {
            Tower::Vision => self.vision.groups(block),
            Tower::Connector => self.connector.groups(block),
            Tower::Language => self.language.as_ref().map(|language| language.groups(block)).unwrap_or_default(),
        };
        let first = self.ids.iter().find(|id| id.tower == tower && id.block == block);
        let place = first.and_then(|id| names::block(&id.name)).map(|place| (place.stack.to_owned(), place.index));
        BlockGroups { place, ..groups }
    }

    fn connectors(&self) -> Vec<&Linear> {
        let retrieval = self.retrieval.iter().flat_map(Parts::linears);
        self.connector.projections().into_iter().chain(retrieval).collect()
    }

    fn weights(&self) -> Vec<&Weight> {
        let mut all = self.vision.weights();
        all.extend(self.connector.weights());
        all.extend(self.language.iter().flat_map(|language| language.weights()));
        all.extend(self.connector.projections().into_iter().flat_map(Linear::weights));
        all.extend(self.connector.queries());
        all.extend(self.retrieval.iter().flat_map(Parts::weights));
        all
    }

    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        let Self { vision, connector, language, retrieval, .. } = self;
        let mut all = vision.weights_mut();
        let (prunable, projections) = connector.all_weights_mut();
        all.extend(prunable);
        all.extend(language.iter_mut().flat_map(|language| language.weights_mut()));
        all.extend(projections);
        all.extend(retrieval.iter_mut().flat_map(Parts::weights_mut));
        all
    }

    fn queries(&self) -> Option<&Weight> {
        self.connector.queries()
    }

    fn keep_queries(&mut self, kept: &Tensor) -> Result<(), ModelError> {
        let none = || ModelError::Config("this model has no learned queries".to_owned());
        let (queries, left) = (self.queries().ok_or_else(none)?.base().size()[1], kept.numel() as i64);
        let inside = |kept: &Tensor| kept.min().int64_value(&[]) >= 0 && kept.max().int64_value(&[]) < queries;
        if left == 0 || !inside(kept) {
            return Err(ModelError::Config(format!("{left} queries cannot be left of {queries}")));
        }
        self.architecture = self.architecture.with_queries(left).ok_or_else(none)?;
        self.connector.keep_queries(kept);
        Ok(())
    }

    fn norms(&self, tower: Tower) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.norms(),
            Tower::Connector => self.connector.norms(),
            Tower::Language => self.language.iter().flat_map(|language| language.norms()).collect(),
        }
    }

    fn block_weights(&self, tower: Tower, block: usize) -> Vec<&Weight> {
        match tower {
            Tower::Vision => self.vision.block_weights(block),
            Tower::Connector => self.connector.block_weights(block),
            Tower::Language => self.language.iter().flat_map(|language| language.block_weights(block)).collect(),
        }
    }

    fn shallow_clone(&self) -> Box<dyn VisionLanguage> {
        let clone = self.over(&self.tensors()).expect("a model holds the tensors that its own configuration asks for");
        Box::new(clone.wearing(Surgery::weights(self)))
    }

    fn tensors(&self) -> TensorMap {
        let mut tensors: TensorMap = self.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
        for weight in Surgery::weights(self) {
            tensors.insert(weight.name().to_owned(), weight.base().shallow_clone());
        }
        tensors
    }
}
