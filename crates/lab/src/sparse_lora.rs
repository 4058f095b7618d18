//! One SparseLoRA layer given as tensors: its output, its gradients and its merge.

use ressa_experiment::job::SparseLora;
use ressa_models::{Linear, LoraParts, ModelError, update};
use ressa_runtime::Device;
use serde_json::{Value, json};
use tch::{Kind, Tensor, no_grad, with_grad};

use crate::{
    LabError,
    tensors::{Inputs, save},
};

/// A linear layer with a keep mask and a low-rank update that the mask also covers.
#[derive(Debug)]
struct SparseLoraInput {
    /// `[out, in]`.
    pub weight: Tensor,
    /// True or 1 where a weight stays, `[out, in]`.
    pub keep_mask: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// `[..., in]`.
    pub x: Tensor,
    /// What the output is multiplied with before it is summed, `[..., out]`.
    pub upstream: Tensor,
    /// Factor on `b @ a`.
    pub scaling: f64,
}

/// What [`sparse_lora`] computes, f32.
#[derive(Debug)]
struct SparseLoraOutput {
    /// `x ((W + s B A) ∘ M)^T + bias`, `[..., out]`.
    pub y: Tensor,
    /// Gradient of `sum(y * upstream)` in `a`.
    pub grad_a: Tensor,
    /// Gradient of `sum(y * upstream)` in `b`.
    pub grad_b: Tensor,
    /// `(W + s B A) ∘ M`, `[out, in]`.
    pub merged: Tensor,
}

/// Runs the layer forwards and backwards and merges it, with the code that restores whole models.
///
/// # Errors
/// Shapes that do not fit.
fn sparse_lora(input: &SparseLoraInput) -> Result<SparseLoraOutput, ModelError> {
    let float = |tensor: &Tensor| tensor.detach().f_to_kind(Kind::Float);
    let leaf = |tensor: &Tensor| Ok::<_, ModelError>(float(tensor)?.copy().set_requires_grad(true));
    let bias = input.bias.as_ref().map(float).transpose()?;
    with_grad(|| {
        let mut linear = Linear::new("weight", float(&input.weight)?, bias);
        linear.set_mask(Some(input.keep_mask.f_ne(0)?))?;
        let (a, b) = (leaf(&input.a)?, leaf(&input.b)?);
        let parts = LoraParts { a: a.shallow_clone(), b: b.shallow_clone(), scale: input.scaling };
        linear.set_update(Some(Box::new(update::SparseLora(parts))))?;
        let x = shaped("x", float(&input.x)?, linear.shape().1)?;
        let y = linear.forward(&x);
        if y.size() != input.upstream.size() {
            let (found, wanted) = (input.upstream.size(), y.size());
            return Err(ModelError::Shape { name: "upstream".to_owned(), found, wanted });
        }
        (&y * float(&input.upstream)?).sum(Kind::Float).f_backward()?;
        linear.matrix_mut().bake()?;
        let merged = linear.weight().shallow_clone();
        Ok(SparseLoraOutput { y: y.detach(), grad_a: a.grad(), grad_b: b.grad(), merged })
    })
}

/// `x` if its rows have the layer's width.
fn shaped(name: &str, x: Tensor, width: i64) -> Result<Tensor, ModelError> {
    let found = x.size();
    match found.last() {
        Some(&last) if last == width => Ok(x),
        _ => Err(ModelError::Shape { name: name.to_owned(), found, wanted: vec![-1, width] }),
    }
}

/// [`sparse_lora`] from and to safetensors files: `weight, keep_mask, a, b, x, upstream` and optionally `bias` in,
/// `y, grad_a, grad_b, merged` out.
pub(crate) fn run(job: &SparseLora, device: Device) -> Result<Value, LabError> {
    let tensors = Inputs::open(&job.input, device)?;
    let layer = SparseLoraInput {
        weight: tensors.get("weight")?,
        keep_mask: tensors.get("keep_mask")?,
        bias: tensors.find("bias")?,
        a: tensors.get("a")?,
        b: tensors.get("b")?,
        x: tensors.get("x")?,
        upstream: tensors.get("upstream")?,
        scaling: job.scaling,
    };
    let found = sparse_lora(&layer).map_err(|error| LabError::input(&job.input, error))?;
    let named = [("y", found.y), ("grad_a", found.grad_a), ("grad_b", found.grad_b), ("merged", found.merged)];
    no_grad(|| save(&job.output, &named.map(|(name, tensor)| (name.to_owned(), tensor)).into()))?;
    Ok(json!({ "output": job.output }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(tensor: &Tensor) -> Vec<f32> {
        Vec::<f32>::try_from(tensor.reshape([-1])).expect("f32")
    }

    fn by_hand() -> SparseLoraInput {
        SparseLoraInput {
            weight: Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([2, 2]),
            keep_mask: Tensor::from_slice(&[1u8, 0, 1, 1]).view([2, 2]),
            bias: Some(Tensor::from_slice(&[10.0f32, 20.0])),
            a: Tensor::from_slice(&[1.0f32, -1.0]).view([1, 2]),
            b: Tensor::from_slice(&[2.0f32, 3.0]).view([2, 1]),
            x: Tensor::from_slice(&[1.0f32, 2.0]).view([1, 2]),
            upstream: Tensor::from_slice(&[1.0f32, 1.0]).view([1, 2]),
            scaling: 0.5,
        }
    }

    /// W + BA/2 = [[2, 1], [4.5, 2.5]], masked [[2, 0], [4.5, 2.5]].
    #[test]
    fn forward_backward_and_merge_by_hand() {
        let found = sparse_lora(&by_hand()).expect("runs");
        assert_eq!(floats(&found.merged), [2.0, 0.0, 4.5, 2.5]);
        assert_eq!(floats(&found.y), [12.0, 29.5]);
        assert_eq!(floats(&found.grad_a), [2.5, 3.0]);
        assert_eq!(floats(&found.grad_b), [0.5, -0.5]);
    }

    /// `RESSA_GOLDEN=folder`: safetensors with `W, mask, A, B, bias, x, upstream, y, grad_A, grad_B, merged`, and JSON with `scaling` beside.
    #[test]
    #[ignore = "needs a folder in RESSA_GOLDEN"]
    fn layers_equal_another_implementations() {
        let folder = std::env::var("RESSA_GOLDEN").expect("RESSA_GOLDEN names a folder");
        let mut compared = 0;
        for entry in std::fs::read_dir(folder).expect("golden folder") {
            let path = entry.expect("entry").path();
            if path.extension().is_none_or(|e| e != "safetensors") {
                continue;
            }
            let given = Inputs::open(&path, Device::Cpu).expect("tensors");
            let get = |name: &str| given.get(name).expect("tensor");
            let about = std::fs::read_to_string(path.with_extension("json")).expect("description");
            let about: Value = serde_json::from_str(&about).expect("JSON");
            let input = SparseLoraInput {
                weight: get("W"),
                keep_mask: get("mask"),
                bias: Some(get("bias")),
                a: get("A"),
                b: get("B"),
                x: get("x"),
                upstream: get("upstream"),
                scaling: about["scaling"].as_f64().expect("scaling"),
            };
            let found = sparse_lora(&input).expect("runs");
            let pairs = [("y", found.y), ("grad_A", found.grad_a), ("grad_B", found.grad_b), ("merged", found.merged)];
            for (name, found) in pairs {
                let expected = get(name);
                let apart = (&found - &expected).abs().max().double_value(&[]);
                assert!(apart <= 3e-5 * expected.abs().max().double_value(&[]), "{} {name}: {apart}", path.display());
                compared += 1;
            }
        }
        assert!(compared > 0, "nothing compared");
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let message = |change: fn(&mut SparseLoraInput)| {
            let mut input = by_hand();
            change(&mut input);
            sparse_lora(&input).expect_err("refused").to_string()
        };
        let narrow = |input: &mut SparseLoraInput| input.x = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        assert!(message(narrow).contains("`x`"), "{}", message(narrow));
        let tall = |input: &mut SparseLoraInput| input.upstream = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        assert!(message(tall).contains("`upstream`"), "{}", message(tall));
        let wide = |input: &mut SparseLoraInput| input.a = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        assert!(message(wide).contains(".lora_A`"), "{}", message(wide));
    }
}
