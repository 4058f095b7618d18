//! AdamW with savable state, the learning-rate schedule of every training loop, and clipping by the global norm.
//!
//! tch's own optimisers cannot save their state, so a training that uses them cannot be resumed. Here both moments are one flat tensor
//! each: a step costs a handful of large operations and one small one per parameter, and the state is two tensors and a counter.

mod flat;
mod linear;

use tch::{Kind, Tensor, no_grad};

pub use flat::FlatAdamW;
pub use linear::LinearSchedule;

/// A tensor that trains, with its own decay.
#[derive(Debug)]
pub struct Parameter {
    /// A floating-point leaf that requires a gradient.
    pub tensor: Tensor,
    /// Decoupled weight decay; 0 for biases, norms and adapters.
    pub weight_decay: f64,
}

/// Constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) with bias correction. A parameter without a gradient counts as having gradient zero.
#[derive(Debug)]
pub struct AdamW {
    parameters: Vec<Parameter>,
    moments: Moments,
}

/// Everything an interrupted training needs of its optimiser.
#[derive(Debug)]
pub struct AdamWState {
    /// First moments of all parameters, flat, in their order, f32.
    pub first: Tensor,
    /// Second moments, like `first`.
    pub second: Tensor,
    /// Steps taken.
    pub steps: u64,
}

/// A saved state that belongs to other parameters.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the saved optimiser has {saved} elements, these parameters have {expected}: it belongs to another training")]
pub struct StateMismatch {
    /// Elements in the saved moments.
    pub saved: i64,
    /// Elements of the parameters.
    pub expected: i64,
}

impl AdamW {
    /// An optimiser with zero moments, on the device of the parameters.
    pub fn new(parameters: Vec<Parameter>, options: AdamWOptions) -> Self {
        let elements: i64 = parameters.iter().map(|p| p.tensor.numel() as i64).sum();
        let device = parameters.first().map_or(tch::Device::Cpu, |p| p.tensor.device());
        Self { parameters, moments: Moments::new(elements, device, options) }
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        for parameter in &mut self.parameters {
            parameter.tensor.zero_grad();
        }
    }

    /// Applies the gradients, scaled down where their global norm exceeds `clip`. Returns the norm before clipping; where it is not
    /// finite, nothing is changed.
    pub fn step(&mut self, learning_rate: f64, clip: Option<f64>) -> f64 {
        no_grad(|| {
            let gradients: Vec<Tensor> = self.parameters.iter().map(flat_gradient).collect();
            if gradients.is_empty() {
                return 0.0;
            }
            let mut gradient = Tensor::cat(&gradients, 0);
            let norm = gradient.norm().double_value(&[]);
            if !norm.is_finite() {
                return norm;
            }
            if let Some(limit) = clip
                && norm > limit
            {
                let _ = gradient.g_mul_scalar_(limit / (norm + 1e-6));
            }
            let update = self.moments.update(&gradient, learning_rate);
            self.apply(&update, learning_rate);
            norm
        })
    }

    fn apply(&mut self, update: &Tensor, learning_rate: f64) {
        let mut offset = 0;
        for Parameter { tensor, weight_decay } in &mut self.parameters {
            let count = tensor.numel() as i64;
            let part = update.narrow(0, offset, count).view_as(tensor).to_kind(tensor.kind());
            if *weight_decay != 0.0 {
                let _ = tensor.g_mul_scalar_(1.0 - learning_rate * *weight_decay);
            }
            let _ = tensor.g_add_(&part);
            offset += count;
        }
    }

    /// A copy of the state.
    pub fn state(&self) -> AdamWState {
        self.moments.state()
    }

    /// Continues from a saved state.
    pub fn resume(&mut self, state: &AdamWState) -> Result<(), StateMismatch> {
        self.moments.resume(state)
    }
}

/// Both moments of all parameters, flat, in their order.
#[derive(Debug)]
struct Moments {
    options: AdamWOptions,
    first: Tensor,
    second: Tensor,
    steps: u64,
}

impl Moments {
    fn new(elements: i64, device: tch::Device, options: AdamWOptions) -> Self {
        let zeros = || Tensor::zeros([elements], (Kind::Float, device));
        Self { options, first: zeros(), second: zeros(), steps: 0 }
    }

    /// Takes a gradient in and answers with what is to be added to the parameters, weight decay aside.
    fn update(&mut self, gradient: &Tensor, learning_rate: f64) -> Tensor {
        let AdamWOptions { beta1, beta2, epsilon } = self.options;
        self.steps += 1;
        let steps = self.steps as f64;
        let _ = self.first.lerp_(gradient, 1.0 - beta1);
        let _ = self.second.lerp_(&gradient.square(), 1.0 - beta2);
        let scale = (1.0 - beta2.powf(steps)).sqrt();
        let mut root = self.second.sqrt();
        let _ = root.g_mul_scalar_(1.0 / scale);
        let _ = root.g_add_scalar_(epsilon);
        let mut update = &self.first / root;
        let _ = update.g_mul_scalar_(-learning_rate / (1.0 - beta1.powf(steps)));
        update
    }

    fn state(&self) -> AdamWState {
        AdamWState { first: self.first.copy(), second: self.second.copy(), steps: self.steps }
    }

    fn resume(&mut self, state: &AdamWState) -> Result<(), StateMismatch> {
        let expected = self.first.numel() as i64;
        for saved in [&state.first, &state.second] {
            if saved.numel() as i64 != expected {
                return Err(StateMismatch { saved: saved.numel() as i64, expected });
            }
        }
        self.first.copy_(&state.first);
        self.second.copy_(&state.second);
        self.steps = state.steps;
        Ok(())
    }
}

fn flat_gradient(parameter: &Parameter) -> Tensor {
    let tensor = &parameter.tensor;
    let gradient = tensor.grad();
    if gradient.defined() {
        gradient.reshape([-1]).to_kind(Kind::Float)
    } else {
        Tensor::zeros([tensor.numel() as i64], (Kind::Float, tensor.device()))
    }
}

/// Learning rate over time: a linear warm-up times a cosine that spans all steps and ends at a share of the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps over which the rate ramps up; 0 or 1 for none.
    pub warmup: u32,
    /// Steps in all.
    pub steps: u32,
    /// Share of the peak that the cosine ends at, 0 to 1; 1 is a constant rate.
    pub final_share: f64,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn at(&self, step: u32) -> f64 {
        let ramp = (f64::from(step) + 1.0) / f64::from(self.warmup.max(1));
        let progress = f64::from(step) / f64::from(self.steps.max(1));
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
        self.peak * ramp.min(1.0) * (self.final_share + (1.0 - self.final_share) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps of the published update written out with scalars.
    #[test]
    fn two_steps_by_hand() {
        let parameter = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
        let mut optimiser = AdamW::new(
            vec![Parameter { tensor: parameter.shallow_clone(), weight_decay: 0.1 }],
            AdamWOptions { beta1: 0.9, beta2: 0.98, epsilon: 1e-8 },
        );
        let (mut weight, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for step in 1..=2 {
            optimiser.zero_grad();
            (&parameter * &parameter * 0.5f64).sum(Kind::Float).backward();
            optimiser.step(0.05, None);
            for i in 0..2 {
                let gradient = weight[i];
                m[i] += 0.1 * (gradient - m[i]);
                v[i] += 0.02 * (gradient * gradient - v[i]);
                let (c1, c2) = (1.0 - 0.9f64.powi(step), 1.0 - 0.98f64.powi(step));
                weight[i] = weight[i] * (1.0 - 0.05 * 0.1) - 0.05 * (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-8);
            }
        }
        let got = Vec::<f32>::try_from(&parameter.detach()).expect("f32");
        for i in 0..2 {
            assert!((f64::from(got[i]) - weight[i]).abs() < 1e-6, "{got:?} {weight:?}");
        }
    }

    #[test]
    fn clipping_reports_the_norm_before_it() {
        let parameter = Tensor::from_slice(&[3.0f32, 4.0]).set_requires_grad(true);
        let mut optimiser = AdamW::new(
            vec![Parameter { tensor: parameter.shallow_clone(), weight_decay: 0.0 }],
            AdamWOptions::default(),
        );
        (&parameter * &parameter * 0.5f64).sum(Kind::Float).backward();
        assert!((optimiser.step(0.0, Some(1.0)) - 5.0).abs() < 1e-6);
        let first = Vec::<f32>::try_from(&optimiser.state().first).expect("f32");
        assert!((first[0] - 0.06).abs() < 1e-5 && (first[1] - 0.08).abs() < 1e-5, "{first:?}");
    }

    #[test]
    fn schedule_ramps_and_ends_near_its_share() {
        let schedule = Schedule { peak: 2.0, warmup: 4, steps: 100, final_share: 0.1 };
        assert!((schedule.at(0) - 0.5).abs() < 1e-12);
        assert!(schedule.at(3) > schedule.at(2) && schedule.at(4) < 2.0);
        assert!((schedule.at(100) - 0.2).abs() < 1e-12);
    }
}
