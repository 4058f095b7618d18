//! The few layers the architectures share: norms, embedding, attention, activations, and the list of a block's linears.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Feed, Linear, ModelError, Scope, Weight};

/// A part of a network that holds weights, listed in the order of execution.
pub(crate) enum Part<'a> {
    /// A linear, with its weight and bias.
    Linear(&'a Linear),
    /// A norm's gain or shift.
    Norm(&'a Weight),
}

/// The same, to change.
pub(crate) enum PartMut<'a> {
    /// A linear, with its weight and bias.
    Linear(&'a mut Linear),
    /// A norm's gain or shift.
    Norm(&'a mut Weight),
}

/// A module and the weights below it.
pub(crate) trait Parts {
    /// Shows every part below this one.
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>));
    /// The same, to change.
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>));

    /// The linears.
    fn linears(&self) -> Vec<&Linear> {
        let mut all = Vec::new();
        self.visit(&mut |part| {
            if let Part::Linear(linear) = part {
                all.push(linear);
            }
        });
        all
    }

    /// The linears, to change.
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = Vec::new();
        self.visit_mut(&mut |part| {
            if let PartMut::Linear(linear) = part {
                all.push(linear);
            }
        });
        all
    }

    /// The weights: of linears, their biases, of norms.
    fn weights(&self) -> Vec<&Weight> {
        let mut all = Vec::new();
        self.visit(&mut |part| match part {
            Part::Linear(linear) => all.extend(linear.weights()),
            Part::Norm(weight) => all.push(weight),
        });
        all
    }

    /// Gains and shifts of norms.
    fn norms(&self) -> Vec<&Weight> {
        let mut all = Vec::new();
        self.visit(&mut |part| {
            if let Part::Norm(weight) = part {
                all.push(weight);
            }
        });
        all
    }

    /// The weights, to change.
    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        let mut all = Vec::new();
        self.visit_mut(&mut |part| match part {
            PartMut::Linear(linear) => all.extend(linear.weights_mut()),
            PartMut::Norm(weight) => all.push(weight),
        });
        all
    }
}

impl Parts for Linear {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        show(Part::Linear(self));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        show(PartMut::Linear(self));
    }
}

impl Parts for LayerNorm {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.affine.iter().flatten().for_each(|weight| show(Part::Norm(weight)));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.affine.iter_mut().flatten().for_each(|weight| show(PartMut::Norm(weight)));
    }
}

impl Parts for RmsNorm {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        show(Part::Norm(&self.weight));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        show(PartMut::Norm(&mut self.weight));
    }
}

impl<T: Parts> Parts for Option<T> {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.iter().for_each(|part| part.visit(show));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.iter_mut().for_each(|part| part.visit_mut(show));
    }
}

impl<T: Parts> Parts for Vec<T> {
    fn visit<'a>(&'a self, show: &mut dyn FnMut(Part<'a>)) {
        self.iter().for_each(|part| part.visit(show));
    }
    fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut(PartMut<'a>)) {
        self.iter_mut().for_each(|part| part.visit_mut(show));
    }
}

/// Implements [`Parts`] by a struct's fields; without any, for a module whose tensors are neither pruned nor trained.
macro_rules! parts {
    ($module:ty) => {
        impl $crate::layers::Parts for $module {
            fn visit<'a>(&'a self, _: &mut dyn FnMut($crate::layers::Part<'a>)) {}
            fn visit_mut<'a>(&'a mut self, _: &mut dyn FnMut($crate::layers::PartMut<'a>)) {}
        }
    };
    ($module:ty: $($field:ident),+) => {
        impl $crate::layers::Parts for $module {
            fn visit<'a>(&'a self, show: &mut dyn FnMut($crate::layers::Part<'a>)) {
                $($crate::layers::Parts::visit(&self.$field, show);)+
            }
            fn visit_mut<'a>(&'a mut self, show: &mut dyn FnMut($crate::layers::PartMut<'a>)) {
                $($crate::layers::Parts::visit_mut(&mut self.$field, show);)+
            }
        }
    };
}
pub(crate) use parts;

/// An activation function by the name it has in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact, with the error function.
    Gelu,
    /// The same under its other name.
    GeluPython,
    /// The tanh approximation.
    GeluNew,
    /// The same under its other name.
    GeluPytorchTanh,
    /// The same under a third name.
    GeluFast,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    /// The same under its other name.
    Swish,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// Applies the function to every element.
    pub fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu | Activation::GeluPython => x.gelu("none"),
            // The reference writes it out, so that half types are rounded at each step.
            Activation::GeluNew if x.kind() != Kind::Float => {
                let inner = (x + x.pow_tensor_scalar(3.0) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
                x * 0.5 * (inner.tanh() + 1.0)
            }
            Activation::GeluNew | Activation::GeluPytorchTanh | Activation::GeluFast => x.gelu("tanh"),
            Activation::QuickGelu => x * (x * 1.702).sigmoid(),
            Activation::Relu => x.relu(),
            Activation::Silu | Activation::Swish => x.silu(),
            Activation::Tanh => x.tanh(),
        }
    }
}

/// Normalises the last dimension to mean 0 and variance 1, then scales and shifts.
pub(crate) struct LayerNorm {
    name: String,
    /// Gain and shift.
    affine: Option<[Weight; 2]>,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    pub fn load(scope: &Scope<'_>, width: i64, eps: f64) -> Result<Self, ModelError> {
        let affine = Some([Weight::load(scope, "weight", &[width])?, Weight::load(scope, "bias", &[width])?]);
        Ok(Self { name: scope.path().to_owned(), affine, width, eps })
    }

    /// Without scale and shift.
    pub fn plain(width: i64, eps: f64) -> Self {
        Self { name: String::new(), affine: None, width, eps }
    }

    /// What it feeds, where it has a gain: the only readers of its outputs.
    pub fn feeds(&self, readers: &[&Linear]) -> Option<Feed> {
        self.affine.as_ref().and_then(|_| feed(&self.name, true, readers))
    }

    /// In the type of its weights.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.affine {
            Some([weight, bias]) => {
                let kind = weight.base().kind();
                let (weight, bias) = (weight.effective(kind), bias.effective(kind));
                x.to_kind(kind).layer_norm([self.width], Some(&weight), Some(&bias), self.eps, true)
            }
            None => x.layer_norm::<Tensor>([self.width], None, None, self.eps, true),
        }
    }
}

/// Divides the last dimension by its root mean square, then scales. No mean, no bias.
pub(crate) struct RmsNorm {
    name: String,
    weight: Weight,
    eps: f64,
    fused: bool,
}

impl RmsNorm {
    pub fn load(scope: &Scope<'_>, width: i64, eps: f64) -> Result<Self, ModelError> {
        Ok(Self {
            name: scope.path().to_owned(),
            weight: Weight::load(scope, "weight", &[width])?,
            eps,
            fused: scope.fused(),
        })
    }

    /// What it feeds: the only readers of its outputs.
    pub fn feeds(&self, readers: &[&Linear]) -> Option<Feed> {
        feed(&self.name, false, readers)
    }

    /// In the type of its weight.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = self.weight.base().kind();
        let weight = self.weight.effective(kind);
        if self.fused && x.kind() == kind {
            return x.internal_fused_rms_norm(weight.size(), Some(&weight), self.eps).0;
        }
        // As the reference: normalised in f32, rounded, then scaled.
        let wide = x.to_kind(Kind::Float);
        let mean = wide.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        (wide * (mean + self.eps).rsqrt()).to_kind(kind) * weight
    }
}

fn feed(norm: &str, bias: bool, readers: &[&Linear]) -> Option<Feed> {
    let readers: Vec<String> = readers.iter().map(|reader| reader.name().to_owned()).collect();
    (!readers.is_empty()).then(|| Feed { norm: norm.to_owned(), bias, readers })
}

/// A table of vectors, read by row number.
pub(crate) struct Embedding {
    pub weight: Tensor,
    kind: Kind,
}

impl Embedding {
    pub fn load(scope: &Scope<'_>, rows: i64, width: i64) -> Result<Self, ModelError> {
        Ok(Self { weight: scope.matrix("weight", &[rows, width])?, kind: scope.kind() })
    }

    /// Number of vectors.
    pub fn rows(&self) -> i64 {
        self.weight.size()[0]
    }

    /// `[..., width]` for ids `[...]`, in the type of the computation.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false).to_kind(self.kind)
    }

    /// The first `count` vectors, `[count, width]`, in the type of the computation.
    pub fn first(&self, count: i64) -> Tensor {
        self.weight.narrow(0, 0, count).to_kind(self.kind)
    }
}

/// `[rows, tokens, heads * width]` to `[rows, heads, tokens, width]`, a view.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// The inverse of [`split_heads`].
pub(crate) fn join_heads(x: &Tensor) -> Tensor {
    let size = x.size();
    x.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
}

/// How much attention's logits are scaled and what is added to them.
#[derive(Clone, Copy)]
pub(crate) struct Attend<'a> {
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// Added to the logits, broadcast to `[rows, heads, queries, keys]`.
    pub bias: Option<&'a Tensor>,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
    /// Whether to round logits and weights, as the reference does here where it computes in fewer than 32 bits, instead of using the fused
    /// kernel.
    pub rounded: bool,
}

/// Softmax attention of `q` `[rows, heads, queries, width]` over `k`, `v` `[rows, heads, keys, width]`; `[rows, queries, heads * width]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, attend: Attend<'_>) -> Tensor {
    let Attend { scale, bias, causal, rounded } = attend;
    if rounded {
        let logits = q.matmul(&k.transpose(-2, -1));
        let logits = if scale == 1.0 { logits } else { logits * scale };
        let logits = bias.map_or_else(|| logits.shallow_clone(), |bias| &logits + bias);
        return join_heads(&logits.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v));
    }
    // The fused kernel has no gradient for the bias; libtorch's own fallback makes more passes over the logits than these lines.
    let out = match bias.filter(|bias| bias.requires_grad()) {
        Some(bias) => (scaled(q, scale).matmul(&k.transpose(-2, -1)) + bias).softmax(-1, None::<Kind>).matmul(v),
        None => Tensor::scaled_dot_product_attention(q, k, v, bias, 0.0, causal, scale, false),
    };
    join_heads(&out)
}

fn scaled(q: &Tensor, scale: f64) -> Tensor {
    if scale == 1.0 { q.shallow_clone() } else { q * scale }
}

/// What is added to the logits of keys that must not be seen. Finite, so that a row without any key stays a number.
pub(crate) fn hidden(kind: Kind) -> f64 {
    if kind == Kind::Half { -65504.0 } else { -1e9 }
}

/// `[rows, keys]`, true where a key is real, as a bias `[rows, 1, 1, keys]`.
pub(crate) fn key_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let zeros = Tensor::zeros(mask.size(), (kind, mask.device()));
    zeros.masked_fill(&mask.logical_not(), hidden(kind)).unsqueeze(1).unsqueeze(1)
}

/// `[rows, keys]`, true where a key is real, as a bias `[rows, 1, keys, keys]` that also hides keys after the query. Row by row
/// equal positions, whatever is hidden.
pub(crate) fn causal_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let tokens = mask.size()[1];
    let earlier = Tensor::ones([tokens, tokens], (Kind::Bool, mask.device())).tril(0);
    let seen = earlier.logical_and(&mask.unsqueeze(1));
    Tensor::zeros(seen.size(), (kind, mask.device())).masked_fill(&seen.logical_not(), hidden(kind)).unsqueeze(1)
}

/// A mask with `count` true columns before it: a prefix that is always real.
pub(crate) fn prefixed(mask: &Tensor, count: i64) -> Tensor {
    if count == 0 {
        return mask.shallow_clone();
    }
    let real = Tensor::ones([mask.size()[0], count], (Kind::Bool, mask.device()));
    Tensor::cat(&[&real, mask], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn rms_norm_divides_by_the_root_mean_square_and_keeps_the_mean() {
        let weight = Weight::new("norm.weight", Tensor::from_slice(&[1.0f32, 1.0, 10.0]));
        let norm = RmsNorm { name: String::new(), weight, eps: 1.0, fused: true };
        // Mean square (1 + 4 + 22) / 3 = 9, plus 1: root sqrt(10).
        let x = Tensor::from_slice(&[1.0f32, 2.0, 22f32.sqrt()]).unsqueeze(0);
        let found: Vec<f64> = Vec::try_from(norm.forward(&x).get(0).to_kind(Kind::Double)).expect("three numbers");
        let expected = [1.0 / 10f64.sqrt(), 2.0 / 10f64.sqrt(), 10.0 * 2.2f64.sqrt()];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5 * b), "{found:?}");
    }

    /// The path with a trainable bias and the fused path are two writings of one formula.
    #[test]
    fn both_ways_of_attention_agree() {
        let wave = |shape: [i64; 4], step: f64| {
            (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * step).sin().view(shape)
        };
        let (q, k, v) = (wave([2, 3, 4, 8], 0.9), wave([2, 3, 5, 8], 1.7), wave([2, 3, 5, 8], 0.4));
        let bias = wave([2, 3, 4, 5], 2.1);
        let trained = bias.copy().set_requires_grad(true);
        for scale in [1.0, 0.3] {
            let fused = attention(&q, &k, &v, Attend { scale, bias: Some(&bias), causal: false, rounded: false });
            let written = attention(&q, &k, &v, Attend { scale, bias: Some(&trained), causal: false, rounded: false });
            let largest = (fused - written).abs().max().double_value(&[]);
            assert!(largest < 1e-5, "{largest}");
        }
    }
}
