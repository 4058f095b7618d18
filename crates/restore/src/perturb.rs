//! Noise on effective weights while a training runs: LoRA-GGPO.
//!
//! - Formula: a step computes with `W' + e`; each weight of row `i` of the effective matrix `W'` gets independent normal noise of the variance
//!   `sigma^2 / n (|W'_i|^2 + beta |g_i|^2)`, with lengths of the row and of its gradient
//! - Paper: Chang et al., "LoRA-GGPO", arXiv 2502.14538v1, equations 6 to 8 (later versions of that number are another method, LoRA-MGPO); the part without
//!   gradients is Flat-LoRA's, Li et al., arXiv 2409.14396
//! - Reference: none published. Two independent implementations of v1 were compared; one adds the two parts as variances, as here, the other (kohya-ss/sd-scripts,
//!   pull request 1974) as standard deviations
//! - Differs: `n` counts the weights of the row that the mask keeps, and only those get noise, so that a row's noise is as long as the formula says and pruned weights
//!   stay zero. `g` is that of the step before, as in both implementations. Of an update of low rank it is `s (dB A + B dA)`, the direction in which a step of
//!   gradient descent on the factors moves the weight: the gradient of the weight itself would take the memory of a weight

use std::collections::BTreeMap;

use ressa_experiment::perturb::NoiseConfig;
use ressa_models::{KeepMask, ModelError, Update, UpdateSet, VisionLanguage};
use ressa_runtime::{normal_like, optim::FlatAdamW};
use serde_json::Value;
use tch::{Kind, Tensor, no_grad};

/// Name of its entry in a checkpoint.
const ROWS: &str = "perturbation.rows";

/// Puts noise on a student's weights, anew in each step.
pub(crate) struct Perturbation {
    config: NoiseConfig,
    seed: u64,
    /// By weight.
    layers: BTreeMap<String, Layer>,
}

struct Layer {
    /// Numbers of its parameters: the two factors, or all elements.
    parameters: Vec<usize>,
    /// Squared lengths of the rows of its gradient in the step before, f32 `[out, 1]`.
    rows: Tensor,
}

impl Perturbation {
    /// For a student with updates; nothing where there is no noise. `names` are those of the weights of all parameters.
    pub fn of(student: &dyn VisionLanguage, config: NoiseConfig, names: &[String], seed: u64) -> Option<Self> {
        if !config.is_on() {
            return None;
        }
        let mut layers = BTreeMap::new();
        for weight in student.weights().into_iter().filter(|weight| weight.base().dim() == 2) {
            if weight.update().is_some() && !is_queries(student, weight.key()) {
                let of_weight = names.iter().enumerate().filter(|(_, name)| *name == weight.key());
                let rows = Tensor::zeros([weight.base().size()[0], 1], (Kind::Float, weight.device()));
                let parameters = of_weight.map(|(at, _)| at).collect();
                layers.insert(weight.key().to_owned(), Layer { parameters, rows });
            }
        }
        Some(Self { config, seed, layers })
    }

    /// Gives a student the noise of a step, on top of its `updates`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn wear(&self, student: &mut dyn VisionLanguage, updates: &UpdateSet, step: u32) -> Result<(), ModelError> {
        for weight in student.weights_mut() {
            let Some((layer, inner)) = self.layers.get(weight.key()).zip(updates.get(weight.key())) else { continue };
            let noise = Noise {
                config: self.config,
                rows: layer.rows.shallow_clone(),
                seed: self.seed,
                label: format!("perturbation {step} {}", weight.key()),
            };
            weight.set_update(Some(Box::new(Perturbed { inner: inner.shallow_clone(), noise })))?;
        }
        Ok(())
    }

    /// Takes in the gradient of a step, before the optimiser moves its parameters.
    pub fn learn(&mut self, student: &dyn VisionLanguage, optimiser: &FlatAdamW, gradient: &Tensor) {
        if self.config.beta == 0.0 {
            return;
        }
        let mut from = 0;
        let starts: Vec<i64> = optimiser
            .parameters()
            .iter()
            .map(|parameter| {
                from += parameter.numel() as i64;
                from - parameter.numel() as i64
            })
            .collect();
        no_grad(|| {
            for weight in student.weights() {
                let Some((layer, update)) = self.layers.get_mut(weight.key()).zip(weight.update()) else { continue };
                let part = |&at: &usize| {
                    let parameter = &optimiser.parameters()[at];
                    (parameter.detach(), gradient.narrow(0, starts[at], parameter.numel() as i64).view_as(parameter))
                };
                let parts: Vec<(Tensor, Tensor)> = layer.parameters.iter().map(part).collect();
                let of_weight = match parts.as_slice() {
                    [(_, all)] => all.shallow_clone(),
                    [(a, of_a), (b, of_b)] => {
                        let scale = update.settings().get("scale").and_then(Value::as_f64).unwrap_or(1.0);
                        (of_b.matmul(a) + b.matmul(of_a)) * scale
                    }
                    _ => continue,
                };
                let of_weight = match weight.keep().filter(|_| update.respects_mask()) {
                    Some(keep) => of_weight.masked_fill(&keep.remove(), 0.0),
                    None => of_weight,
                };
                layer.rows = of_weight.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
            }
        });
    }

    /// What a resumed training needs.
    pub fn saved(&self) -> (String, Tensor) {
        let rows: Vec<Tensor> = self.layers.values().map(|layer| layer.rows.reshape([-1])).collect();
        (
            ROWS.to_owned(),
            if rows.is_empty() { Tensor::zeros([0], tch::kind::FLOAT_CPU) } else { Tensor::cat(&rows, 0) },
        )
    }

    /// Continues from what [`Perturbation::saved`] gave.
    ///
    /// # Errors
    /// An entry that is missing or of another size.
    pub fn resume(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
        let wanted: i64 = self.layers.values().map(|layer| layer.rows.numel() as i64).sum();
        let found = saved.get(ROWS).filter(|rows| rows.size() == [wanted]);
        let rows = found.ok_or_else(|| ModelError::Config(format!("the checkpoint has no `{ROWS}` that fits")))?;
        let mut from = 0;
        for layer in self.layers.values_mut() {
            let count = layer.rows.numel() as i64;
            layer.rows = rows.f_narrow(0, from, count)?.f_view([count, 1])?.f_to_device(layer.rows.device())?;
            from += count;
        }
        Ok(())
    }
}

fn is_queries(student: &dyn VisionLanguage, key: &str) -> bool {
    student.queries().is_some_and(|queries| queries.key() == key)
}

/// The noise of a weight in a step: the same whenever the weight is formed.
#[derive(Debug)]
struct Noise {
    config: NoiseConfig,
    rows: Tensor,
    seed: u64,
    label: String,
}

impl Noise {
    /// For an effective weight `[out, in]` of which `keep` is left.
    fn of(&self, effective: &Tensor, keep: Option<&KeepMask>) -> Tensor {
        let NoiseConfig { sigma, beta } = self.config;
        let sum = |x: &Tensor| x.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
        let effective = effective.detach().to_kind(Kind::Float);
        let many = match keep {
            Some(keep) => sum(&keep.keep().to_kind(Kind::Float)).clamp_min(1.0),
            None => Tensor::full([1, 1], effective.size()[1], (Kind::Float, effective.device())),
        };
        let variance = (sum(&effective.square()) + &self.rows * beta) / many * sigma.powi(2);
        let noise = normal_like(&effective, self.seed, &self.label) * variance.sqrt();
        match keep {
            Some(keep) => noise.masked_fill(&keep.remove(), 0.0),
            None => noise,
        }
    }
}

/// An update with noise on the weight that it makes.
#[derive(Debug)]
struct Perturbed {
    inner: Box<dyn Update>,
    noise: Noise,
}

impl Update for Perturbed {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        self.inner.parameters()
    }

    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update> {
        let Noise { config, rows, seed, label } = &self.noise;
        let noise = Noise { config: *config, rows: rows.shallow_clone(), seed: *seed, label: label.clone() };
        Box::new(Self { inner: self.inner.with(parameters), noise })
    }

    fn settings(&self) -> Value {
        self.inner.settings()
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        self.inner.fits(weight, shape)
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        let formed = self.inner.form(base, keep, kind);
        let noise = no_grad(|| self.noise.of(&formed, keep.filter(|_| self.respects_mask())).to_kind(kind));
        formed + noise
    }

    fn respects_mask(&self) -> bool {
        self.inner.respects_mask()
    }
}

#[cfg(test)]
mod tests {
    use ressa_models::{Full, Weight};
    use tch::Device;

    use super::*;

    /// A row's noise is as long as the formula says, with a mask or without, and pruned weights get none.
    #[test]
    fn noise_has_the_variance_of_its_row() {
        let options = (Kind::Float, Device::Cpu);
        let (rows, columns) = (3, 40_000);
        let lengths = Tensor::from_slice(&[1.0f32, 2.0, 4.0]).view([rows, 1]);
        let base = Tensor::ones([rows, columns], options) * &lengths / f64::from(columns as i32).sqrt();
        let slopes = Tensor::from_slice(&[0.0f32, 300.0, 0.0]).view([rows, 1]);
        let config = NoiseConfig { sigma: 0.1, beta: 0.04 };
        let half =
            Tensor::arange(columns, (Kind::Int64, Device::Cpu)).remainder(2).eq(0).expand([rows, columns], false);
        for masked in [false, true] {
            let mut weight = Weight::new("l.weight", base.shallow_clone());
            if masked {
                weight.set_keep(Some(&half)).expect("fits");
            }
            let noise = Noise { config, rows: slopes.shallow_clone(), seed: 1, label: "l".to_owned() };
            let plain = Full { delta: base.zeros_like() };
            let expected = plain.form(weight.base(), weight.keep(), Kind::Float);
            weight.set_update(Some(Box::new(Perturbed { inner: Box::new(plain), noise }))).expect("fits");
            let formed = weight.effective(Kind::Float);
            assert!(formed.equal(&weight.effective(Kind::Float)), "another noise in the same step");
            let noise = formed - expected;
            // Half of the squared length is left under the mask.
            let part = if masked { 0.5 } else { 1.0 };
            for (row, (length, slope)) in [(1.0, 0.0), (4.0, 300.0), (16.0, 0.0)].into_iter().enumerate() {
                let found = noise.get(row as i64).square().sum(Kind::Double).double_value(&[]);
                let wanted = 0.01 * (length * part + 0.04 * slope);
                assert!((found / wanted - 1.0).abs() < 0.05, "row {row}: {found} of {wanted}");
            }
            let pruned = noise.masked_select(&half.logical_not());
            assert_eq!(pruned.ne(0.0).any().int64_value(&[]) == 0, masked);
        }
    }
}
