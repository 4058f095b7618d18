//! The Gram matrix of a layer's inputs.
//!
//! Tokens are gathered until a block of [`TOKENS`] is full and multiplied then, so the sums are the same however the tokens arrived, and the
//! product is large enough to run at full speed. Only the upper triangle is computed, in column stripes. Products and sums are f32: blocks are
//! few, so rounding stays near that of one product, and f64 would double the largest buffer of a calibration.

use tch::{Device, Kind, Tensor};

/// Tokens in a product.
const TOKENS: i64 = 1024;
/// Columns of a stripe. Half a stripe's square is computed for nothing.
const STRIPE: i64 = 256;

/// The running sum of `x^T x`.
#[derive(Debug)]
pub(super) struct Gram {
    /// `[in, in]`; right in the upper triangle.
    upper: Tensor,
    /// `[TOKENS, in]`, made when the first token arrives.
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

    /// Adds rows `[tokens, in]`, f32.
    pub(super) fn add(&mut self, rows: &Tensor) {
        let (count, columns) = (rows.size()[0], rows.size()[1]);
        let mut at = 0;
        while at < count {
            let taken = (TOKENS - self.filled).min(count - at);
            if taken == TOKENS {
                add_products(&mut self.upper, &rows.narrow(0, at, taken));
            } else {
                let waiting =
                    self.waiting.get_or_insert_with(|| Tensor::zeros([TOKENS, columns], (Kind::Float, rows.device())));
                waiting.narrow(0, self.filled, taken).copy_(&rows.narrow(0, at, taken));
                self.filled += taken;
                if self.filled == TOKENS {
                    add_products(&mut self.upper, waiting);
                    self.filled = 0;
                }
            }
            at += taken;
        }
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
                let waiting = waiting.narrow(0, 0, self.filled).square();
                summed + waiting.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
            }
            _ => summed,
        }
    }
}

fn add_products(upper: &mut Tensor, rows: &Tensor) {
    let columns = rows.size()[1];
    let mut from = 0;
    while from < columns {
        let to = (from + STRIPE).min(columns);
        let left = rows.narrow(1, 0, to).transpose(0, 1);
        let _ = upper.narrow(0, 0, to).narrow(1, from, to - from).addmm_(&left, &rows.narrow(1, from, to - from));
        from = to;
    }
}
