//! The walk over the columns in tensor operations, for devices other than the host.
//!
//! Within a few columns the errors `e` of a row's pruned weights solve a triangular system, `e_j U_jj + sum over i < j of e_i U_ij = w_j` for each
//! pruned `j`, a system of its own for each row. With `M_ij = U_ij / U_jj` where `j` is pruned, else 0, that is `e (I + M) = w / diag(U)`. All rows are
//! inverted together, and what stays is corrected by one product. So a block takes a few launches for every [`STEP`] columns (for every group,
//! with N:M), nothing is copied to the host, and nothing waits.

use tch::{Kind, Tensor};

use super::{LayerProblem, Threshold, Walk, quota};
use crate::select::device;

/// Columns whose errors are solved for together. A row's matrix takes as many squared.
const STEP: i64 = 32;
/// Triangular matrices of at most so many columns are inverted by powers; larger ones by halves, which loses no digits.
const POWERS: i64 = 8;

/// The columns of a block that are done together.
struct Step<'a> {
    /// `[rows, columns]`, a view.
    weight: &'a Tensor,
    /// 1 where a weight goes, else 0, f32 `[rows, columns]`.
    pruned: &'a Tensor,
    /// `(I + M)^-1` of every row, `[rows, columns, columns]`.
    inverse: &'a Tensor,
    /// Diagonal of `U`.
    diagonal: &'a Tensor,
}

impl Walk {
    /// Whether all layers ask for the same kind of pattern, so that they can be walked as one.
    pub(super) fn is_uniform(&self) -> bool {
        self.groups.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// As [`Walk::block`], for layers that [`Walk::is_uniform`].
    pub(super) fn block_on_device(&mut self, layers: &[LayerProblem<'_>], from: i64, to: i64, threshold: Threshold) {
        let width = to - from;
        let of_block = |tensor: &Tensor| tensor.narrow(1, from, width);
        let (weight, keep, importance) = (of_block(&self.weight), of_block(&self.keep), of_block(&self.importance));
        let upper = of_block(&self.upper.narrow(0, from, width));
        let diagonal = upper.diagonal(0, 0, 1).contiguous();
        // U_ij / U_jj above the diagonal.
        let ratios = (&upper / &diagonal).triu(1);
        let errors = Tensor::empty(weight.size(), (Kind::Float, weight.device()));
        match self.groups.first().copied().flatten() {
            None => {
                self.choose_on_device(layers, (from, to), &diagonal, threshold);
                let pruned = keep.logical_not().to_kind(Kind::Float);
                let inverses = inverses(&ratios, &pruned);
                for (at, inverse) in (0..width).step_by(STEP as usize).zip(&inverses) {
                    let columns = |tensor: &Tensor, along: i64| tensor.narrow(along, at, inverse.size()[1]);
                    let (weight_here, pruned) = (columns(&weight, 1), columns(&pruned, 1));
                    let step =
                        Step { weight: &weight_here, pruned: &pruned, inverse, diagonal: &columns(&diagonal, 0) };
                    columns(&errors, 1).copy_(&step.errors());
                    correct(&weight, &columns(&errors, 1), &columns(&upper, 0), at);
                }
            }
            Some((of, count)) => {
                let of = of as i64;
                for at in (0..width).step_by(of as usize) {
                    let columns = |tensor: &Tensor, along: i64| tensor.narrow(along, at, of);
                    let (weight_here, diagonal) = (columns(&weight, 1), columns(&diagonal, 0));
                    let saliency = saliency(&weight_here, &diagonal);
                    let kept = device::keep(&saliency, count as i64);
                    columns(&keep, 1).copy_(&kept);
                    columns(&importance, 1).copy_(&saliency);
                    let pruned = kept.logical_not().to_kind(Kind::Float);
                    let ratios = columns(&columns(&ratios, 0), 1);
                    let inverse = invert(&(ratios.unsqueeze(0) * pruned.unsqueeze(1)));
                    let step = Step { weight: &weight_here, pruned: &pruned, inverse: &inverse, diagonal: &diagonal };
                    columns(&errors, 1).copy_(&step.errors());
                    correct(&weight, &columns(&errors, 1), &columns(&upper, 0), at);
                }
            }
        }
        let _ = of_block(&self.weight).masked_fill_(&keep.logical_not(), 0.0);
        if to < self.columns {
            let right = self.upper.narrow(0, from, width).narrow(1, to, self.columns - to);
            let _ = self.weight.narrow(1, to, self.columns - to).addmm_(&errors.neg(), &right);
        }
    }

    /// Marks what goes in a block where the pattern does not say it; layers of one height with the same question at once.
    fn choose_on_device(
        &mut self,
        layers: &[LayerProblem<'_>],
        block: (i64, i64),
        diagonal: &Tensor,
        threshold: Threshold,
    ) {
        let of_block = |tensor: &Tensor| tensor.narrow(1, block.0, block.1 - block.0);
        let saliency = saliency(&of_block(&self.weight), diagonal);
        of_block(&self.importance).copy_(&saliency);
        let mut at = 0;
        while at < layers.len() {
            let (first, rows) = self.places[at];
            let alike = |&next: &usize| self.places[next].1 == rows && layers[next].selection == layers[at].selection;
            let count = (at..layers.len()).take_while(alike).count();
            let of_layers = |tensor: &Tensor| tensor.narrow(0, first as i64, (rows * count) as i64);
            let (values, selection) = (of_layers(&saliency), layers[at].selection);
            let keep = match threshold {
                Threshold::Inclusive => {
                    let values = values.reshape([count as i64, -1]);
                    let index = quota::inclusive(selection, values.size()[1] as usize, rows as i64, self.columns);
                    let place = (index as i64).min(values.size()[1] - 1) + 1;
                    values.gt_tensor(&values.kthvalue(place, 1, true).0)
                }
                Threshold::Exact => {
                    let (members, count) = quota::exact(selection, rows as i64, block, self.columns);
                    device::keep(&values.reshape([-1, members]), count)
                }
            };
            of_layers(&of_block(&self.keep)).copy_(&keep.reshape(values.size()));
            at += count;
        }
    }
}

impl Step<'_> {
    /// `e`, f32 `[rows, columns]`.
    fn errors(&self) -> Tensor {
        let scaled = (self.weight / self.diagonal) * self.pruned;
        scaled.unsqueeze(1).bmm(self.inverse).squeeze_dim(1)
    }
}

/// Takes the errors of the columns from `at` on out of these and all to their right. `upper` are their rows of `U`.
fn correct(weight: &Tensor, errors: &Tensor, upper: &Tensor, at: i64) {
    let rest = weight.size()[1] - at;
    let _ = weight.narrow(1, at, rest).addmm_(&errors.neg(), &upper.narrow(1, at, rest));
}

/// `w^2 / U_jj^2`.
fn saliency(weight: &Tensor, diagonal: &Tensor) -> Tensor {
    weight.square() / diagonal.square()
}

/// `(I + M)^-1` of every row for each [`STEP`] columns of a block; `M` is `ratios` `[columns, columns]` where the column's weight goes.
fn inverses(ratios: &Tensor, pruned: &Tensor) -> Vec<Tensor> {
    let (rows, width) = (pruned.size()[0], pruned.size()[1]);
    let corner = |at: i64, size: i64| ratios.narrow(0, at, size).narrow(1, at, size);
    if width % STEP == 0 && width > 0 {
        let steps = width / STEP;
        let corners = Tensor::stack(&(0..steps).map(|step| corner(step * STEP, STEP)).collect::<Vec<_>>(), 0);
        let matrices = corners.unsqueeze(1) * pruned.reshape([rows, steps, 1, STEP]).transpose(0, 1);
        let inverse = invert(&matrices.reshape([-1, STEP, STEP])).view([steps, rows, STEP, STEP]);
        return (0..steps).map(|step| inverse.get(step)).collect();
    }
    let step = |at: i64| {
        let size = STEP.min(width - at);
        invert(&(corner(at, size).unsqueeze(0) * pruned.narrow(1, at, size).unsqueeze(1)))
    };
    (0..width).step_by(STEP as usize).map(step).collect()
}

/// `(I + M)^-1` for each of `[batch, n, n]`, zero on and below the diagonal.
fn invert(strict: &Tensor) -> Tensor {
    let (batch, n) = (strict.size()[0], strict.size()[1]);
    if n <= POWERS || n % 2 == 1 {
        let eye = Tensor::eye(n, (strict.kind(), strict.device()));
        // (I - M)(I + M^2)(I + M^4)...: the powers end, for M^n is zero.
        let (mut inverse, mut power, mut length) = (eye - strict, strict.shallow_clone(), 2);
        while length < n {
            power = power.bmm(&power);
            inverse = inverse.baddbmm(&inverse, &power, 1.0, 1.0);
            length *= 2;
        }
        return inverse;
    }
    let half = n / 2;
    let part = |row: i64, column: i64| strict.narrow(1, row * half, half).narrow(2, column * half, half);
    let corners = invert(&Tensor::cat(&[part(0, 0), part(1, 1)], 0));
    let (above, below) = (corners.narrow(0, 0, batch), corners.narrow(0, batch, batch));
    let between = above.bmm(&part(0, 1)).bmm(&below).neg();
    let left = Tensor::cat(&[above, between], 2);
    let right = Tensor::cat(&[below.zeros_like(), below], 2);
    Tensor::cat(&[left, right], 1)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn inverses_of_triangular_matrices() {
        for n in [1, 2, 3, 4, 8, 16, 17, 32] {
            let values = Tensor::arange(3 * n * n, (Kind::Float, Device::Cpu)) * 0.7;
            let strict = (values.sin() * 0.4).view([3, n, n]).triu(1);
            let eye = Tensor::eye(n, (Kind::Float, Device::Cpu));
            let error = (invert(&strict).bmm(&(&strict + &eye)) - &eye).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{n}: {error}");
        }
    }
}
