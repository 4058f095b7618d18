//! The factor that optimal brain surgeon needs: upper triangular `U` with `U^T U = H^-1`.
//!
//! The usual way is Cholesky, inverse, Cholesky. But if `H = R R^T` with `R` upper triangular, which is Cholesky started in the last corner, then `U = R^-1`: one
//! factorisation and one triangular inverse, half the work and half the lost digits. Both are done in one sweep over blocks of columns, in place, with
//! products whose inner dimension is a block. libtorch computes those bit for bit alike on any number of threads, which its own Cholesky does not.
//! On another device the corners stay there too, factorised by libtorch in f64, and whether all went well is asked once at the end.

use tch::{Device, Kind, Tensor};

use crate::rows::floats;

/// Columns of a block on the host; its triangle is factorised in f64.
const BLOCK: i64 = 128;
/// The same on another device, where a block costs some thirty launches and libtorch factorises its triangle.
const DEVICE_BLOCK: i64 = 512;
/// Columns of a stripe of the trailing update. Half a stripe's square is computed for nothing.
const STRIPE: i64 = 512;

/// The matrix is not positive definite, as far as f32 can tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotDefinite;

/// `U` from the upper triangle of `H`, f32 `[n, n]`, which is overwritten.
pub(super) fn inverse_factor(mut h: Tensor) -> Result<Tensor, NotDefinite> {
    let (n, device) = (h.size()[0], h.device());
    let block = if device == Device::Cpu { BLOCK } else { DEVICE_BLOCK };
    let mut corners = match device {
        Device::Cpu => Corners::Host(floats(&h.diagonal(0, 0, 1))),
        _ => Corners::Device { diagonal: h.diagonal(0, 0, 1).to_kind(Kind::Double), failed: Vec::new() },
    };
    let mut to = n;
    while to > 0 {
        let from = (to - 1) / block * block;
        let size = to - from;
        let corner = h.narrow(0, from, size).narrow(1, from, size);
        let inverse = corners.invert(&corner, from)?;
        // The block's own rows of U: what earlier steps left there times the corner's inverse.
        if to < n {
            let mut right = h.narrow(0, from, size).narrow(1, to, n - to);
            right.copy_(&inverse.matmul(&right));
        }
        h.narrow(0, from, size).narrow(1, from, size).copy_(&inverse);
        if from > 0 {
            // The block's columns of R, above its corner, with the sign of what is subtracted below.
            let panel = h.narrow(0, 0, from).narrow(1, from, size).matmul(&inverse.transpose(0, 1));
            let minus = panel.neg();
            let mut start = 0;
            while start < from {
                let end = (start + STRIPE).min(from);
                let columns = panel.narrow(0, start, end - start).transpose(0, 1);
                let _ = h.narrow(0, 0, end).narrow(1, start, end - start).addmm_(&minus.narrow(0, 0, end), &columns);
                start = end;
            }
            h.narrow(0, 0, from).narrow(1, from, size).copy_(&minus.matmul(&inverse));
            if to < n {
                let own = h.narrow(0, from, size).narrow(1, to, n - to);
                let _ = h.narrow(0, 0, from).narrow(1, to, n - to).addmm_(&minus, &own);
            }
        }
        to = from;
    }
    let _ = h.triu_(0);
    corners.finish()?;
    Ok(h)
}

/// How corners are inverted.
enum Corners {
    /// On the host; the original diagonal.
    Host(Vec<f32>),
    /// In tensor operations; the original diagonal, f64, and whether each corner has failed.
    Device { diagonal: Tensor, failed: Vec<Tensor> },
}

impl Corners {
    /// The inverse of the upper triangular factor of the corner that begins at a column, f32; anything if the corner is not definite.
    fn invert(&mut self, corner: &Tensor, from: i64) -> Result<Tensor, NotDefinite> {
        let size = corner.size()[0];
        match self {
            Corners::Host(diagonal) => {
                let original = &diagonal[from as usize..(from + size) as usize];
                Ok(Tensor::from_slice(&invert_corner(&floats(corner), original)?).view([size, size]))
            }
            Corners::Device { diagonal, failed } => {
                // Upside down, the factorisation that starts in the last corner is libtorch's.
                let turned = corner.to_kind(Kind::Double).flip([0, 1]);
                let (lower, info) = turned.linalg_cholesky_ex(false, false);
                let pivots = lower.diagonal(0, 0, 1).square();
                let least = diagonal.narrow(0, from, size).flip([0]) * f64::from(f32::EPSILON);
                let sound = pivots.gt_tensor(&least).all().logical_and(&info.eq(0));
                failed.push(sound.logical_not());
                let eye = Tensor::eye(size, (Kind::Double, corner.device()));
                let inverse = lower.linalg_solve_triangular(&eye, false, true, false);
                Ok(inverse.flip([0, 1]).to_kind(Kind::Float))
            }
        }
    }

    /// Whether all corners were definite.
    fn finish(self) -> Result<(), NotDefinite> {
        match self {
            Corners::Device { failed, .. } if !failed.is_empty() => {
                if Tensor::stack(&failed, 0).any().int64_value(&[]) == 0 { Ok(()) } else { Err(NotDefinite) }
            }
            _ => Ok(()),
        }
    }
}

/// The inverse of the upper triangular factor of a corner `[n, n]`, of which the upper triangle counts.
fn invert_corner(corner: &[f32], original: &[f32]) -> Result<Vec<f32>, NotDefinite> {
    let n = original.len();
    // `factor` holds R by rows; `inverse` holds R^-1 by columns, so that both inner loops run along memory.
    let mut factor = vec![0.0f64; n * n];
    for j in (0..n).rev() {
        for i in (0..=j).rev() {
            let (row, column) = (&factor[i * n + j + 1..(i + 1) * n], &factor[j * n + j + 1..(j + 1) * n]);
            let rest = f64::from(corner[i * n + j]) - dot(row, column);
            if i == j {
                // Less than rounding leaves of a pivot of this size is noise, and NaN is no pivot either.
                if rest.is_nan() || rest <= f64::from(original[j]) * f64::from(f32::EPSILON) {
                    return Err(NotDefinite);
                }
                factor[j * n + j] = rest.sqrt();
            } else {
                factor[i * n + j] = rest / factor[j * n + j];
            }
        }
    }
    let mut inverse = vec![0.0f64; n * n];
    for j in 0..n {
        inverse[j * n + j] = 1.0 / factor[j * n + j];
        for i in (0..j).rev() {
            let rest = dot(&factor[i * n + i + 1..=i * n + j], &inverse[j * n + i + 1..=j * n + j]);
            inverse[j * n + i] = -rest / factor[i * n + i];
        }
    }
    Ok((0..n * n).map(|at| inverse[at % n * n + at / n] as f32).collect())
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

/// Ones on the diagonal where it is zero, and `damping` added all along it.
pub(crate) fn dampen(h: &mut Tensor, dead: &Tensor, damping: f64) {
    let mut diagonal = h.diagonal(0, 0, 1);
    let _ = diagonal.masked_fill_(dead, 1.0);
    let _ = diagonal.g_add_scalar_(damping);
}

/// Columns that no token ever used, bool `[in]`.
pub(crate) fn dead_columns(h: &Tensor) -> Tensor {
    h.diagonal(0, 0, 1).eq(0.0)
}

/// The mean of the diagonal once dead columns count as one, on the host in f64.
pub(crate) fn mean_diagonal(h: &Tensor, dead: &Tensor) -> f64 {
    let diagonal = h.diagonal(0, 0, 1).masked_fill(dead, 1.0).to_device(Device::Cpu);
    diagonal.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gram(n: i64, tokens: i64) -> Tensor {
        let x = (Tensor::arange(n * tokens, (Kind::Float, Device::Cpu)) * 0.7391).sin().view([tokens, n]) * 3.0;
        x.transpose(0, 1).matmul(&x) + Tensor::eye(n, (Kind::Float, Device::Cpu)) * n as f64
    }

    #[test]
    fn the_factor_inverts_at_every_width() {
        for n in [1, 5, 127, 128, 129, 300, 700] {
            let h = gram(n, n + 7);
            let u = inverse_factor(h.copy()).expect("definite");
            let product = u.transpose(0, 1).matmul(&u).matmul(&h);
            let error = (product - Tensor::eye(n, (Kind::Float, Device::Cpu))).abs().max().double_value(&[]);
            assert!(error < 1e-4, "{n}: {error}");
            assert_eq!(u.tril(-1).abs().max().double_value(&[]), 0.0);
        }
    }

    #[test]
    fn by_hand() {
        // H = R R^T with R = [[2, 3], [0, 5]].
        let h = Tensor::from_slice(&[13.0f32, 15.0, 15.0, 25.0]).view([2, 2]);
        let u = Vec::<f32>::try_from(inverse_factor(h).expect("definite").reshape([-1])).expect("f32");
        assert_eq!(u, [0.5, -0.3, 0.0, 0.2]);
    }

    #[test]
    fn what_is_singular_is_said() {
        let x = (Tensor::arange(3 * 40, (Kind::Float, Device::Cpu)) * 0.37).sin().view([3, 40]);
        assert_eq!(inverse_factor(x.transpose(0, 1).matmul(&x)).expect_err("rank 3"), NotDefinite);
        assert_eq!(
            inverse_factor(Tensor::full([2, 2], f64::NAN, (Kind::Float, Device::Cpu))).expect_err("NaN"),
            NotDefinite
        );
    }
}
