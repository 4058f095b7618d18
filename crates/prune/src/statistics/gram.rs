//! The Gram matrix of a layer's inputs.
//!
//! Tokens are gathered until a block of [`TOKENS`] is full and multiplied then, so the sums are the same however the tokens arrived, and the
//! product is large enough to run at full speed. Only the upper triangle is computed, in column stripes. Products and sums are f32: blocks are
//! few, so rounding stays near that of one product, and f64 would double the largest buffer of a calibration.
//!
//! On a GPU, inputs of half precision are multiplied as they are and summed in f32. Products of two such numbers are exact in f32, so nothing is
//! rounded that converting first would keep; only the order of the sums is another. It takes a tenth of the time of f32 products.

use tch::{Device, Kind, Tensor};

/// Tokens in a product on the host.
const TOKENS: i64 = 1024;
/// The same on another device.
const DEVICE_TOKENS: i64 = 2048;
/// Columns of a stripe on the host. Half a stripe's square is computed for nothing.
const STRIPE: i64 = 256;
/// The same on another device, where a product costs a launch.
const DEVICE_STRIPE: i64 = 1024;

/// The running sum of `x^T x`.
#[derive(Debug)]
pub(super) struct Gram {
    /// `[in, in]`; right in the upper triangle.
    upper: Tensor,
    /// `[TOKENS, in]`, f32 or half precision, made when the first token arrives.
    waiting: Option<Tensor>,
    filled: i64,
}

impl Gram {
    pub(super) fn new(columns: i64, device: Device) -> Self {
        Self::from_upper(Tensor::zeros([columns, columns], (Kind::Float, device)))
    }

    pub(super) fn from_upper(upper: Tensor) -> Self {
        Self { upper, waiting: None, filled: 0 }
    }

    /// Adds rows `[tokens, in]` of any precision.
    pub(super) fn add(&mut self, rows: &Tensor) {
        let on_host = rows.device() == Device::Cpu;
        let as_they_are = !on_host && matches!(rows.kind(), Kind::BFloat16 | Kind::Half);
        let rows = &if as_they_are { rows.shallow_clone() } else { rows.to_kind(Kind::Float) };
        if self.waiting.as_ref().is_some_and(|waiting| waiting.kind() != rows.kind()) {
            self.flush();
        }
        let (count, columns) = (rows.size()[0], rows.size()[1]);
        let tokens = if on_host { TOKENS } else { DEVICE_TOKENS };
        let mut at = 0;
        while at < count {
            let taken = (tokens - self.filled).min(count - at);
            if taken == tokens {
                add_products(&mut self.upper, &rows.narrow(0, at, taken));
            } else {
                let waiting =
                    self.waiting.get_or_insert_with(|| Tensor::zeros([tokens, columns], (rows.kind(), rows.device())));
                waiting.narrow(0, self.filled, taken).copy_(&rows.narrow(0, at, taken));
                self.filled += taken;
                if self.filled == tokens {
                    add_products(&mut self.upper, waiting);
                    self.filled = 0;
                }
            }
            at += taken;
        }
    }

    /// Multiplies what waits for a full block.
    fn flush(&mut self) {
        if let Some(waiting) = self.waiting.take()
            && self.filled > 0
        {
            add_products(&mut self.upper, &waiting.narrow(0, 0, self.filled));
        }
        self.filled = 0;
    }

    /// The sum over everything added: a new tensor, right in the upper triangle.
    pub(super) fn upper(&self) -> Tensor {
        let mut upper = self.upper.copy();
        if let Some(waiting) = &self.waiting
            && self.filled > 0
        {
            add_products(&mut upper, &waiting.narrow(0, 0, self.filled));
        }
        upper
    }

    /// Its diagonal, as far as it has been summed, with the squares of what still waits.
    pub(super) fn diagonal(&self) -> Tensor {
        let summed = self.upper.diagonal(0, 0, 1);
        match &self.waiting {
            Some(waiting) if self.filled > 0 => {
                let waiting = waiting.narrow(0, 0, self.filled).to_kind(Kind::Float).square();
                summed + waiting.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
            }
            _ => summed,
        }
    }
}

fn add_products(upper: &mut Tensor, rows: &Tensor) {
    let (columns, on_host) = (rows.size()[1], rows.device() == Device::Cpu);
    let stripe = if on_host { STRIPE } else { DEVICE_STRIPE };
    let mut from = 0;
    while from < columns {
        let to = (from + stripe).min(columns);
        let (left, right) = (rows.narrow(1, 0, to).transpose(0, 1), rows.narrow(1, from, to - from));
        let mut target = upper.narrow(0, 0, to).narrow(1, from, to - from);
        if rows.kind() == Kind::Float {
            let _ = target.addmm_(&left, &right);
        } else {
            // A device without products of this kind converts.
            let product = left.f_mm_dtype(&right, Kind::Float);
            let converted = || left.to_kind(Kind::Float).matmul(&right.to_kind(Kind::Float));
            let _ = target.g_add_(&product.unwrap_or_else(|_| converted()));
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_multiplied_exactly() {
        let rows = (Tensor::arange(40 * 6, (Kind::Float, Device::Cpu)) * 0.37).sin().view([40, 6]);
        for kind in [Kind::BFloat16, Kind::Half] {
            let half = rows.to_kind(kind);
            let mut found = Tensor::zeros([6, 6], (Kind::Float, Device::Cpu));
            add_products(&mut found, &half);
            let exact = half.to_kind(Kind::Double);
            let exact = exact.transpose(0, 1).matmul(&exact);
            assert!((found - exact).triu(0).abs().max().double_value(&[]) < 1e-5, "{kind:?}");
        }
    }
}
