//! Planted channel scales: what Wanda sees is the same to the bit, what magnitude sees is not.

use ressa_experiment::{
    Pattern, Tower,
    config::{MethodConfig, Metric, Propagate, TokenConfig},
};
use ressa_models::{
    MaskSet, Spread, Storage, load_folder,
    presets::{random_tensors, tiny_blip2_flant5, tiny_blip2_opt, tiny_flant5, tiny_vicuna},
    rescale_folder, save_folder,
};
use ressa_prune::{PruneRequest, prune_tower};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions};

use crate::tower::samples;

const VOCABULARY: i64 = 40;

#[test]
fn wanda_prunes_the_same_weights_and_magnitude_others() {
    ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let _no_grad = tch::no_grad_guard();
    let families = [
        (tiny_flant5(VOCABULARY), true),
        (tiny_vicuna(VOCABULARY), true),
        (tiny_blip2_flant5(VOCABULARY), true),
        (tiny_blip2_opt(VOCABULARY, true), true),
        // Norms behind their layers stay as they are.
        (tiny_blip2_opt(VOCABULARY, false), false),
    ];
    for (config, language_changes) in families {
        for storage in [Storage::F32, Storage::Bf16] {
            let home = tempfile::tempdir().unwrap();
            let [source, rescaled] = ["source", "rescaled"].map(|name| home.path().join(name));
            save_folder(&source, &config, &random_tensors(&config, 3).unwrap(), storage).unwrap();
            let spread = Spread { deviation: 0.7, seed: 1 };
            rescale_folder(&source, &rescaled, spread, &mut |_, _| {}).unwrap();
            let masks = |folder, tower, metric, pattern| -> MaskSet {
                let request = PruneRequest {
                    tower,
                    metric,
                    pattern,
                    sparsity: (pattern == Pattern::Unstructured).then_some(0.6),
                    group: None,
                    method: MethodConfig::default(),
                    tokens: TokenConfig::default(),
                    propagate: Propagate::Pruned,
                    seed: 3,
                };
                let mut model = load_folder(folder, Device::Cpu).unwrap();
                prune_tower(model.as_mut(), &request, &samples(), &mut |_| {}).unwrap().masks
            };
            for pattern in [Pattern::Unstructured, Pattern::NOfM { keep: 2, of: 4 }] {
                for (tower, changes) in [(Tower::Vision, true), (Tower::Language, language_changes)] {
                    let same = |metric| {
                        let [one, two] = [&source, &rescaled].map(|folder| masks(folder, tower, metric, pattern));
                        assert!(!one.is_empty());
                        one.iter().zip(two.iter()).all(|((a, x), (b, y))| a == b && x.equal(y))
                    };
                    let what = format!("{:?} {storage:?} {tower} {pattern}", config.family());
                    assert!(same(Metric::Wanda), "{what}");
                    assert_eq!(same(Metric::Magnitude), !changes, "{what}");
                }
            }
        }
    }
}
