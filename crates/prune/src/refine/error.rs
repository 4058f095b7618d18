//! How much of a layer's output is lost.

use tch::{Device, Kind, Tensor};

use super::Change;

/// Columns of a stripe. Half a stripe's square is computed for nothing.
const STRIPE: i64 = 512;

/// `w G w` of each row `w` of `[rows, in]`, f64 `[rows]`: the squared length of what the row puts out. Half a product, because `gram` is symmetric.
pub(super) fn energy(weight: &Tensor, gram: &Tensor) -> Tensor {
    let (rows, columns) = (weight.size()[0], weight.size()[1]);
    let mut total = Tensor::zeros([rows], (Kind::Double, weight.device()));
    let mut from = 0;
    while from < columns {
        let size = STRIPE.min(columns - from);
        let (own, stripe) = (weight.narrow(1, from, size), gram.narrow(1, from, size));
        let mut product = own.matmul(&stripe.narrow(0, from, size));
        if from > 0 {
            product += weight.narrow(1, 0, from).matmul(&stripe.narrow(0, 0, from)) * 2.0;
        }
        let _ = total.g_add_(&inner(&product, &own));
        from += size;
    }
    total
}

/// Inner products of the rows of two matrices, summed in f64 `[rows]`.
pub(super) fn inner(left: &Tensor, right: &Tensor) -> Tensor {
    (left * right).sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
}

/// The change of a layer's error from the errors of its rows, each f64 `[rows]`, and what the rows of the dense weight put out.
pub(super) fn change(before: &[Tensor], after: &[Tensor], energy: &Tensor) -> Change {
    let total = |parts: &[Tensor]| parts.iter().map(sum).sum::<f64>().max(0.0);
    let energy = sum(energy);
    let relative = |error: f64| if energy > 0.0 { error / energy } else { 0.0 };
    Change { before: relative(total(before)), after: relative(total(after)) }
}

/// On the host one after the other, so that threads change nothing.
fn sum(rows: &Tensor) -> f64 {
    Vec::<f64>::try_from(rows.to_device(Device::Cpu)).unwrap_or_default().iter().sum()
}
