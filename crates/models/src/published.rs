//! The published models as networks: their configurations are the checkpoint crate's.

use serde_json::Value;

pub use ressa_checkpoint::PUBLISHED;

use crate::{Architecture, Blip2Config, families};

/// The configuration of a published model, by the name it has on the hub.
pub fn published_architecture(name: &str) -> Option<Box<dyn Architecture>> {
    let config = ressa_checkpoint::published_config(name)?;
    // A test reads every one of them.
    families::parse(Value::Object(config)).ok()
}

/// The same, of a model of the BLIP-2 family.
pub fn published_config(name: &str) -> Option<Blip2Config> {
    published_architecture(name)?.blip2().cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ressa_checkpoint::{Outline, names::is_prunable};

    use super::*;
    use crate::Model;

    /// Counted by hand from the papers' and the hub's figures; copies of tied tensors count once.
    #[test]
    fn published_models_have_their_published_numbers_of_parameters() {
        for (name, parameters) in [
            ("instructblip-flan-t5-xl", 4_022_969_088_i64),
            ("instructblip-vicuna-7b", 7_913_210_624),
            ("blip2-flan-t5-xl", 3_942_446_592),
            ("blip2-opt-2.7b", 3_744_761_856),
            ("llava-1.5-7b-hf", 7_063_427_072),
            ("llava-v1.6-vicuna-7b-hf", 7_063_431_168),
            ("llava-v1.6-mistral-7b-hf", 7_566_747_648),
            ("llama3-llava-next-8b-hf", 8_355_276_800),
            ("qwen2-vl-2b-instruct", 2_208_985_600),
            ("qwen2-vl-7b-instruct", 8_291_375_616),
            ("qwen2.5-vl-3b-instruct", 3_754_622_976),
            ("qwen2.5-vl-7b-instruct", 8_292_166_656),
            ("smolvlm-256m-instruct", 256_484_928),
            ("smolvlm-500m-instruct", 507_482_304),
            ("internvl3-1b-hf", 938_193_024),
            ("internvl3-2b-hf", 2_088_957_440),
            ("internvl3-8b-hf", 7_944_373_760),
        ] {
            let config = published_architecture(name).expect("it is in the list");
            let shapes = Model::tensor_shapes(config.as_ref()).expect("published shapes are sound");
            let found: i64 = shapes.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
            assert_eq!(found, parameters, "{name}");
        }
        for name in PUBLISHED {
            let config = published_architecture(name).expect("it is in the list");
            let written = config.to_json().expect("JSON");
            let again = families::parse(written.clone()).expect(name);
            assert_eq!(again.to_json().expect("JSON"), written, "{name} reads as written");
            assert!(Model::tensor_shapes(config.as_ref()).is_ok(), "{name}");
        }
    }

    /// Folders are looked at without the networks; what is known there must be what the networks have.
    #[test]
    fn outlines_of_configurations_are_the_networks_own() {
        let golden = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
            crate::folder::read_config(&path).expect(name)
        };
        let published = PUBLISHED.map(|name| published_architecture(name).expect("it is in the list"));
        let goldens = [
            "instructblip-flant5",
            "instructblip-vicuna",
            "blip2-flant5",
            "blip2-opt",
            "blip2-itm",
            "llava-default",
            "llava-full",
            "llava-tied",
            "llava-siglip",
            "llava-siglip-default",
            "llava-dinov2",
            "llava-dinov2-gated",
            "llava-layers",
            "llava-next",
            "llava-next-layers",
            "llava-next-full",
            "qwen2-vl",
            "qwen2-vl-parts",
            "qwen2_5-vl",
            "qwen2_5-vl-parts",
            "smolvlm",
            "smolvlm-thirds",
            "idefics3",
            "idefics3-whole",
            "internvl",
            "internvl-llama",
            "internvl-one",
        ];
        let goldens = goldens.map(golden);
        for config in published.into_iter().chain(goldens) {
            let written = config.to_json().expect("JSON");
            let outline = Outline::of(written.as_object().expect("an object")).expect("a supported network");
            let shapes = Model::tensor_shapes(config.as_ref()).expect("sound shapes").into_iter();
            let shapes: BTreeMap<String, Vec<usize>> =
                shapes.map(|(name, shape)| (name, shape.into_iter().map(|size| size as usize).collect())).collect();
            let linears: BTreeMap<_, _> =
                shapes.clone().into_iter().filter(|(name, shape)| is_prunable(name, shape)).collect();
            assert_eq!(outline.linears, linears);
            for (name, shape) in &outline.others {
                assert_eq!(shapes.get(name), Some(shape), "{name}");
            }
            // Every matrix that is no prunable linear, T5's tables of position biases aside.
            let matrices =
                shapes.iter().filter(|(name, shape)| shape.len() > 1 && !name.contains("relative_attention_bias"));
            for (name, shape) in matrices.filter(|(name, _)| !outline.linears.contains_key(*name)) {
                let known = outline.others.get(name).or(outline.heads.get(name));
                assert!(known == Some(shape) || name.ends_with("_projection.weight"), "{name}");
            }
        }
    }
}
