//! What the logits of an attention are made of, for those who look at its distribution: the fused kernel never forms it.

use tch::{Kind, Tensor};

use crate::layers::hidden;

/// Queries and keys of one attention, and what is added to their products.
#[derive(Debug)]
pub struct Attended {
    /// `[rows, heads, queries, width]`.
    pub queries: Tensor,
    /// `[rows, heads, keys, width]`; where query heads share keys, repeated for each of them.
    pub keys: Tensor,
    /// Factor on the products.
    pub scale: f64,
    /// Added to the logits, broadcast to `[rows, heads, queries, keys]`; a constant.
    pub bias: Option<Tensor>,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
}

impl Attended {
    /// `[rows, heads, queries, keys]` of its distributions.
    pub fn size(&self) -> [i64; 4] {
        let queries = self.queries.size();
        [queries[0], queries[1], queries[2], self.keys.size()[2]]
    }

    /// A second handle on the same.
    pub fn shallow_clone(&self) -> Self {
        Self {
            queries: self.queries.shallow_clone(),
            keys: self.keys.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            ..*self
        }
    }

    /// Some rows and some heads of it, each as first and count.
    #[must_use]
    pub fn piece(&self, rows: (i64, i64), heads: (i64, i64)) -> Self {
        // A dimension of a bias that is the same for all has the length 1.
        let cut = |tensor: &Tensor, dimension: i64, (first, count): (i64, i64)| match tensor.size()[dimension as usize]
        {
            1 => tensor.shallow_clone(),
            _ => tensor.narrow(dimension, first, count),
        };
        let both = |tensor: &Tensor| cut(&cut(tensor, 0, rows), 1, heads);
        Self {
            queries: both(&self.queries),
            keys: both(&self.keys),
            scale: self.scale,
            bias: self.bias.as_ref().map(both),
            causal: self.causal,
        }
    }

    /// Logarithms of its probabilities, f32 `[rows, heads, queries, keys]`; of keys that are hidden, so small that their probability is 0.
    pub fn log_probabilities(&self) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_kind(Kind::Float);
        let mut logits = wide(&self.queries).matmul(&wide(&self.keys).transpose(-2, -1)) * self.scale;
        if let Some(bias) = &self.bias {
            logits += wide(bias);
        }
        if self.causal {
            let [_, _, queries, keys] = self.size();
            let later = Tensor::ones([queries, keys], (Kind::Bool, logits.device())).triu(1);
            logits = logits.masked_fill(&later, hidden(Kind::Float));
        }
        logits.log_softmax(-1, Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::layers::{Attend, attention};

    fn wave(shape: [i64; 4], step: f64) -> Tensor {
        (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * step).sin().view(shape)
    }

    /// Its distributions over the values are what the fused attention gives.
    #[test]
    fn its_distribution_is_the_one_that_attention_takes() {
        for (causal, bias) in [(true, None), (false, Some(wave([1, 3, 5, 5], 2.1))), (false, None)] {
            let (queries, keys, values) = (wave([2, 3, 5, 8], 0.9), wave([2, 3, 5, 8], 1.7), wave([2, 3, 5, 8], 0.4));
            let attend = Attend { scale: 0.3, bias: bias.as_ref(), causal, rounded: false };
            let fused = attention(&queries, &keys, &values, attend);
            let attended = Attended { queries, keys, scale: 0.3, bias, causal };
            let of = |attended: &Attended, values: &Tensor| attended.log_probabilities().exp().matmul(values);
            let mixed = crate::layers::join_heads(&of(&attended, &values));
            assert!((fused - &mixed).abs().max().double_value(&[]) < 1e-5, "{causal}");
            let piece = of(&attended.piece((1, 1), (1, 2)), &values.narrow(0, 1, 1).narrow(1, 1, 2));
            let whole = of(&attended, &values).narrow(0, 1, 1).narrow(1, 1, 2);
            assert!((piece - whole).abs().max().double_value(&[]) < 1e-6, "{causal}");
        }
    }
}
