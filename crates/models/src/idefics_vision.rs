//! The image encoder of Idefics3 and SmolVLM: SigLIP's over tiles, each of which may be padded on the right and below.
//!
//! Reference: `Idefics3VisionTransformer` in transformers 4.57, `modeling_idefics3.py`; `SmolVLMVisionTransformer` is the same network. Its
//! positions are followed as they are computed there, in the type of the computation: a patch is placed by its share of the side, times
//! `1 - 1e-6`. In f32 that puts every patch but the first one place too low (of 32, the places 0, 0, 1, ..., 30), in half types it is rounded away.

use tch::{Device, Kind, Tensor};

use crate::{
    ModelError, Scope,
    layers::{Embedding, parts},
    patch_encoder::{Embeddings, EncoderConfig, PatchEmbedding, PatchEncoder, Takes},
    transformer::PLAIN,
};

/// `vision_model.embeddings`.
pub(crate) struct Idefics3Embeddings {
    patch_embedding: PatchEmbedding,
    position_embedding: Embedding,
    /// Patches along a side of a tile of the configured size.
    side: i64,
    kind: Kind,
}

parts!(Idefics3Embeddings);

/// `vision_model`.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
) -> Result<PatchEncoder<Idefics3Embeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = Idefics3Embeddings {
        patch_embedding: PatchEmbedding::load(&embeddings.at("patch_embedding"), c.width, c.patch, true)?,
        position_embedding: Embedding::load(&embeddings.at("position_embedding"), c.patches(), c.width)?,
        side: c.image / c.patch,
        kind: scope.kind(),
    };
    let stack = ("encoder.layers", c.layers, Some("post_layernorm"));
    PatchEncoder::load(scope, embeddings, stack, &PLAIN, c.block(), takes)
}

impl Idefics3Embeddings {
    /// The places along a side that so many patches have, i64 `[patches]`.
    fn places(&self, patches: i64) -> Tensor {
        // On the host: a device may divide by multiplying.
        let shares = Tensor::arange(patches, (self.kind, Device::Cpu)) / patches as f64 * (1.0 - 1e-6);
        let step = 1.0 / self.side as f64;
        let bounds = Tensor::arange_start_step(step, 1.0, step, (Kind::Float, Device::Cpu));
        shares.bucketize(&bounds, false, true)
    }

    /// Rows of the table of positions, i64 `[rows * columns]`, for patches of so many rows and columns.
    fn positions(&self, [rows, columns]: [i64; 2]) -> Tensor {
        (self.places(rows).unsqueeze(1) * self.side + self.places(columns).unsqueeze(0)).flatten(0, 1)
    }

    fn placed(&self, pixels: &Tensor, positions: &Tensor) -> Tensor {
        let positions = positions.to_device(self.position_embedding.weight.device());
        self.patch_embedding.forward(pixels) + self.position_embedding.forward(&positions)
    }
}

impl Embeddings for Idefics3Embeddings {
    fn forward(&self, pixels: &Tensor) -> Tensor {
        self.placed(pixels, &self.positions(self.patch_embedding.grid(pixels)))
    }

    /// Patches of padding have the first place.
    fn forward_padded(&self, pixels: &Tensor, real: &[[i64; 2]]) -> Option<Tensor> {
        let [rows, columns] = self.patch_embedding.grid(pixels);
        let of_tile = |&[down, across]: &[i64; 2]| {
            let table = Tensor::zeros([rows, columns], (Kind::Int64, Device::Cpu));
            let own = self.positions([down, across]).view([down, across]);
            table.narrow(0, 0, down).narrow(1, 0, across).copy_(&own);
            table.flatten(0, 1)
        };
        let positions = Tensor::stack(&real.iter().map(of_tile).collect::<Vec<_>>(), 0);
        Some(self.placed(pixels, &positions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(kind: Kind, side: i64, patches: i64) -> Vec<i64> {
        let weight = Tensor::zeros([1, 1], (kind, Device::Cpu));
        let source = crate::TensorMap::from([
            ("patch_embedding.weight".to_owned(), Tensor::zeros([1, 3, 1, 1], (kind, Device::Cpu))),
            ("patch_embedding.bias".to_owned(), Tensor::zeros([1], (kind, Device::Cpu))),
            ("position_embedding.weight".to_owned(), weight),
        ]);
        let mut source = &source;
        let scope = Scope::root(&mut source, kind, crate::Rounding::Reference);
        let embeddings = Idefics3Embeddings {
            patch_embedding: PatchEmbedding::load(&scope.at("patch_embedding"), 1, 1, true).unwrap(),
            position_embedding: Embedding::load(&scope.at("position_embedding"), 1, 1).unwrap(),
            side,
            kind,
        };
        Vec::try_from(embeddings.places(patches)).unwrap()
    }

    /// As transformers 4.57.6 has them.
    #[test]
    fn patches_have_the_places_of_the_reference_in_each_type() {
        let low: Vec<i64> = (0..32).map(|place: i64| (place - 1).max(0)).collect();
        assert_eq!(places(Kind::Float, 32, 32), low);
        assert_eq!(places(Kind::BFloat16, 32, 32), (0..32).collect::<Vec<i64>>());
        assert_eq!(places(Kind::Float, 4, 2), [0, 1]);
        assert_eq!(places(Kind::Float, 1, 1), [0]);
    }
}
