//! The adapted layer and the losses against what the authors' Python code gives, and by hand.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::config::{DistillConfig, Reduction};
use ressa_models::{Forced, Linear, Lora, LoraParts, SparseLora, Update};
use ressa_restore::{
    Output,
    loss::{contrastive, distillation},
};
use tch::{Kind, Tensor};

fn forced(logits: Tensor, targets: Tensor, mask: Tensor) -> Forced {
    Forced { logits, targets, mask }
}

/// Two positions, of which the second is padding: the mean looks at the first alone, the sum at both.
#[test]
fn distillation_by_hand() {
    let teacher = Tensor::from_slice(&[0.0f32, 0.0, 2.0f32.ln(), 0.0]).view([1, 2, 2]);
    let student = Tensor::zeros([1, 2, 2], (Kind::Float, tch::Device::Cpu)) + Tensor::from_slice(&[3.0f32.ln(), 0.0]);
    let student = forced(
        student,
        Tensor::zeros([1, 2], (Kind::Int64, tch::Device::Cpu)),
        Tensor::from_slice(&[true, false]).view([1, 2]),
    );
    let value = |reduction| {
        let settings = DistillConfig { weight: 1.0, temperature: 1.0, reduction, ..DistillConfig::default() };
        distillation(&Output::Logits(teacher.shallow_clone()), &student, &settings).double_value(&[])
    };
    let first = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
    let third = 1.0f64 / 3.0;
    let second = 2.0 * third * (2.0 * third / 0.75).ln() + third * (third / 0.25).ln();
    assert!((value(Reduction::Mean) - first).abs() < 1e-6);
    assert!((value(Reduction::Sum) - first - second).abs() < 1e-6);
}

/// Two images and texts in two dimensions: the best query decides, and both directions count.
#[test]
fn contrastive_by_hand() {
    let images = Tensor::from_slice(&[1.0f32, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0, 1.0]).view([2, 2, 2]);
    let texts = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
    let loss = contrastive(&images, &texts, 0.0).double_value(&[]);
    assert!((loss - (1.0 + (-10.0f64).exp()).ln()).abs() < 1e-6, "{loss}");
}

/// `RESSA_GOLDEN=folder cargo test -p ressa-restore -- --ignored`, with the folder that the golden exporter wrote.
#[test]
#[ignore = "needs the exporter's folder in RESSA_GOLDEN"]
fn sparselora_equals_the_reference() {
    let folder = std::env::var("RESSA_GOLDEN").expect("RESSA_GOLDEN names the exporter's folder");
    let mut cases = 0;
    for entry in std::fs::read_dir(Path::new(&folder).join("sparselora")).expect("golden folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            compare_case(&path);
            cases += 1;
        }
    }
    assert!(cases >= 3, "only {cases} cases");
}

/// Gradients of what trains on a layer's weight.
fn gradients(layer: &Linear) -> Vec<Tensor> {
    let update = layer.matrix().update().expect("an update");
    update.parameters().into_iter().map(|(_, parameter)| parameter.grad()).collect()
}

fn compare_case(path: &Path) {
    let tensors: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).expect("tensors").into_iter().collect();
    let about = std::fs::read_to_string(path.with_extension("json")).expect("description");
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    let scale = about["scaling"].as_f64().expect("scaling");
    let get = |name: &str| tensors[name].shallow_clone();
    let agrees = |name: &str, got: &Tensor| {
        let difference = (got - get(name)).abs().max().double_value(&[]);
        let largest = get(name).abs().max().double_value(&[]);
        assert!(difference <= 3e-5 * largest, "{} {name}: differs by {difference} of {largest}", path.display());
    };

    let layer = |masked| {
        let (a, b) = (get("A").copy().set_requires_grad(true), get("B").copy().set_requires_grad(true));
        let mut layer = Linear::new("layer", get("W"), Some(get("bias")));
        layer.set_mask(Some(get("mask").to_kind(Kind::Bool))).expect("mask fits");
        let parts = LoraParts { a, b, scale };
        let update: Box<dyn Update> = if masked { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) };
        layer.set_update(Some(update)).expect("the update fits");
        layer
    };
    let mut sparse = layer(true);
    let x = get("x").set_requires_grad(true);
    let y = sparse.forward(&x);
    (&y * get("upstream")).sum(Kind::Float).backward();
    agrees("y", &y);
    agrees("grad_x", &x.grad());
    for (gradient, part) in gradients(&sparse).into_iter().zip(["grad_A", "grad_B"]) {
        agrees(part, &gradient);
    }
    sparse.matrix_mut().bake().expect("merges");
    agrees("merged", sparse.weight());
    let open = layer(false);
    let y = open.forward(&get("x"));
    (&y * get("upstream")).sum(Kind::Float).backward();
    agrees("delta_unmasked.y", &y);
    for (gradient, part) in gradients(&open).into_iter().zip(["delta_unmasked.grad_A", "delta_unmasked.grad_B"]) {
        agrees(part, &gradient);
    }

    let logits = get("kd.sparse_logits").set_requires_grad(true);
    let labels = get("kd.labels");
    let student = forced(logits.shallow_clone(), labels.clamp_min(0), labels.ge(0));
    let weight = about["kd"]["kl_weight"].as_f64().expect("weight");
    let temperature = about["kd"]["temperature"].as_f64().expect("temperature");
    let settings = DistillConfig { weight, temperature, reduction: Reduction::Sum, ..DistillConfig::default() };
    let (task, divergence) =
        (student.loss(), distillation(&Output::Logits(get("kd.dense_logits")), &student, &settings));
    let total = &task * (1.0 - weight) + &divergence * weight;
    total.backward();
    agrees("kd.losses", &Tensor::stack(&[task, divergence, total], 0));
    agrees("kd.grad_sparse_logits", &logits.grad());
}
