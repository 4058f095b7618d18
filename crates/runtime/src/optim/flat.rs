//! AdamW over parameters that lie in one tensor: a step is a handful of operations however many parameters there are, and nothing is read
//! back from the device.

use tch::{Kind, Tensor, no_grad};

use super::{AdamWOptions, AdamWState, Moments, StateMismatch};

/// AdamW as [`super::AdamW`], with one weight decay for all parameters.
#[derive(Debug)]
pub struct FlatAdamW {
    /// All parameters, f32, flat, in their order.
    flat: Tensor,
    /// The parameters: views of `flat`.
    parameters: Vec<Tensor>,
    weight_decay: f64,
    moments: Moments,
}

impl FlatAdamW {
    /// Moves the parameters' values into one tensor, on the device of the first.
    pub fn new(initial: &[Tensor], weight_decay: f64, options: AdamWOptions) -> Self {
        let device = initial.first().map_or(tch::Device::Cpu, Tensor::device);
        let flat = match initial {
            [] => Tensor::zeros([0], (Kind::Float, device)),
            _ => {
                let rows: Vec<Tensor> = initial.iter().map(|p| p.detach().reshape([-1]).to_kind(Kind::Float)).collect();
                Tensor::cat(&rows, 0).to_device(device)
            }
        };
        let mut offset = 0;
        let view = |parameter: &Tensor| {
            let count = parameter.numel() as i64;
            let view = flat.narrow(0, offset, count).view_as(parameter).detach().set_requires_grad(true);
            offset += count;
            view
        };
        let parameters = initial.iter().map(view).collect();
        let moments = Moments::new(flat.numel() as i64, device, options);
        Self { flat, parameters, weight_decay, moments }
    }

    /// The parameters, leaves that require gradients. They change with every step.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Applies a flat gradient, scaled down where its norm exceeds `clip`. Answers with the norm before clipping, a scalar that is still on the
    /// device; where it is not finite, the parameters are of no more use.
    pub fn step(&mut self, gradient: &Tensor, learning_rate: f64, clip: Option<f64>) -> Tensor {
        no_grad(|| {
            let norm = gradient.norm();
            let update = match clip {
                None => self.moments.update(gradient, learning_rate),
                Some(limit) => {
                    // In f64 and rounded once, as a factor from the host would be.
                    let wide = norm.to_kind(Kind::Double);
                    let factor = wide.full_like(limit) / (&wide + 1e-6);
                    let factor = factor.where_self(&wide.gt(limit), &wide.ones_like());
                    self.moments.update(&(gradient * factor.to_kind(Kind::Float)), learning_rate)
                }
            };
            if self.weight_decay != 0.0 {
                let _ = self.flat.g_mul_scalar_(1.0 - learning_rate * self.weight_decay);
            }
            let _ = self.flat.g_add_(&update);
            norm
        })
    }

    /// Makes elements of a parameter zero, and forgets what the optimiser knows of them. `elements` is bool, of the parameter's shape, true where.
    pub fn reset(&mut self, parameter: usize, elements: &Tensor) {
        let from: i64 = self.parameters[..parameter].iter().map(|p| p.numel() as i64).sum();
        let elements = elements.reshape([-1]);
        let count = elements.numel() as i64;
        no_grad(|| {
            for tensor in [&self.flat, &self.moments.first, &self.moments.second] {
                let _ = tensor.narrow(0, from, count).masked_fill_(&elements, 0.0);
            }
        });
    }

    /// All parameters, f32, flat, in their order: what [`FlatAdamW::resume`] wants beside the state.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// A copy of the optimiser's state.
    pub fn state(&self) -> AdamWState {
        self.moments.state()
    }

    /// Continues from saved parameters, as [`FlatAdamW::flat`] gave them, and a saved state.
    ///
    /// # Errors
    /// Parameters or a state of another training.
    pub fn resume(&mut self, parameters: &Tensor, state: &AdamWState) -> Result<(), StateMismatch> {
        let (saved, expected) = (parameters.numel() as i64, self.flat.numel() as i64);
        if saved != expected {
            return Err(StateMismatch { saved, expected });
        }
        self.moments.resume(state)?;
        no_grad(|| self.flat.copy_(parameters));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{AdamW, Parameter};

    fn wave(shape: [i64; 2], step: f64) -> Tensor {
        (Tensor::arange(shape[0] * shape[1], (Kind::Float, tch::Device::Cpu)) * step).sin().view(shape)
    }

    /// An element that is reset goes on as one that has not trained yet; its neighbours as if nothing had happened.
    #[test]
    fn a_reset_element_starts_again() {
        let train = |is_reset: bool| {
            let mut flat = FlatAdamW::new(&[wave([2, 3], 0.7), wave([2, 2], 1.3)], 0.0, AdamWOptions::default());
            for step in 0..4 {
                if is_reset && step == 3 {
                    let elements = Tensor::from_slice(&[false, true, false, false]).view([2, 2]);
                    flat.reset(1, &elements);
                    assert_eq!(flat.parameters()[1].double_value(&[0, 1]), 0.0);
                }
                let _ = flat.step(&Tensor::ones([10], (Kind::Float, tch::Device::Cpu)), 0.1, None);
            }
            (flat.flat().copy(), flat.state())
        };
        let ((plain, left), (reset, right)) = (train(false), train(true));
        let other = plain.ne_tensor(&reset);
        assert_eq!(Vec::<i64>::try_from(other.nonzero().view([-1])).unwrap(), [7]);
        let other = left.first.ne_tensor(&right.first).logical_or(&left.second.ne_tensor(&right.second));
        assert_eq!(Vec::<i64>::try_from(other.nonzero().view([-1])).unwrap(), [7]);
        // One step of a gradient of 1 on moments of 0.
        assert!((right.first.double_value(&[7]) - 0.1).abs() < 1e-6);
    }

    /// The same bits as one parameter at a time, clipped and unclipped, with and without decay.
    #[test]
    fn flat_and_single_parameters_take_the_same_steps() {
        for (clip, decay) in [(None, 0.0), (Some(0.1), 0.0), (Some(1e9), 0.1)] {
            let initial = [wave([3, 4], 0.7), wave([2, 5], 1.3)];
            let single: Vec<Tensor> = initial.iter().map(|p| p.copy().set_requires_grad(true)).collect();
            let parameter = |p: &Tensor| Parameter { tensor: p.shallow_clone(), weight_decay: decay };
            let mut one = AdamW::new(single.iter().map(parameter).collect(), AdamWOptions::default());
            let mut flat = FlatAdamW::new(&initial, decay, AdamWOptions::default());
            let loss = |p: &[Tensor]| (p[0].square().sum(Kind::Float) + p[1].exp().sum(Kind::Float)) * 0.5;
            for _ in 0..3 {
                one.zero_grad();
                loss(&single).backward();
                let norm = one.step(0.05, clip);
                let found = Tensor::run_backward(&[loss(flat.parameters())], flat.parameters(), false, false);
                let found: Vec<Tensor> = found.iter().map(|g| g.reshape([-1])).collect();
                let flat_norm = flat.step(&Tensor::cat(&found, 0), 0.05, clip);
                assert_eq!(flat_norm.double_value(&[]), norm);
                for (left, right) in single.iter().zip(flat.parameters()) {
                    assert!(left.equal(right), "{clip:?} {decay}");
                }
            }
        }
    }
}
