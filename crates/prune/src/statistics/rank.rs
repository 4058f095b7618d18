//! Whether calibration saw enough tokens to determine what a method inverts.

use serde::{Deserialize, Serialize};

use super::ColumnStatistics;

/// How many layers have a Gram matrix that cannot be of full rank, because calibration saw fewer tokens than the layer has inputs. Damping makes such a
/// matrix invertible, but directions that no token has are then settled by rounding, and with them weights that are worth nearly the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RankDeficit {
    /// Layers whose Gram matrix was inverted.
    pub layers: u64,
    /// Those of them that saw fewer tokens than they have inputs.
    pub deficient: u64,
    /// The one that saw the fewest tokens for each of its inputs, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Worst>,
}

/// A layer that saw fewer tokens than it has inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worst {
    /// Module path.
    pub layer: String,
    /// Tokens of the whole calibration that it read.
    pub tokens: u64,
    /// Columns of its weight.
    pub inputs: u64,
}

impl Worst {
    /// Whether this one has fewer tokens for each input.
    fn is_worse_than(&self, other: &Worst) -> bool {
        u128::from(self.tokens) * u128::from(other.inputs) < u128::from(other.tokens) * u128::from(self.inputs)
    }
}

impl RankDeficit {
    /// Counts a layer whose Gram matrix is inverted.
    pub(crate) fn add(&mut self, layer: &str, statistics: &ColumnStatistics) {
        let (tokens, inputs) = (statistics.tokens(), statistics.columns().unsigned_abs());
        self.layers += 1;
        if tokens < inputs {
            self.deficient += 1;
            self.note(Worst { layer: layer.to_owned(), tokens, inputs });
        }
    }

    /// Takes the layers of another part of the model in.
    pub fn extend(&mut self, other: RankDeficit) {
        self.layers += other.layers;
        self.deficient += other.deficient;
        if let Some(worst) = other.worst {
            self.note(worst);
        }
    }

    fn note(&mut self, found: Worst) {
        if self.worst.as_ref().is_none_or(|worst| found.is_worse_than(worst)) {
            self.worst = Some(found);
        }
    }

    /// What to know about masks that were chosen like this; `None` where every layer saw enough.
    pub fn warning(&self) -> Option<String> {
        let Worst { layer, tokens, inputs } = self.worst.as_ref()?;
        Some(format!(
            "{} of {} layers saw fewer calibration tokens than they have inputs (`{layer}`: {tokens} tokens, {inputs} inputs): their Hessian is \
             singular but for the damping, rounding decides about nearly equal weights, and another processor may choose other ones; more \
             samples or a larger `prune.sparsegpt.damping-share`, such as 0.1, help",
            self.deficient, self.layers
        ))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::statistics::Needs;

    #[test]
    fn too_few_tokens_are_counted() {
        let seen = |tokens: i64, inputs: i64| {
            let mut seen = ColumnStatistics::new(inputs, Needs::GRAM, Device::Cpu);
            seen.add_sample(&Tensor::ones([tokens, inputs], (Kind::Float, Device::Cpu)));
            seen
        };
        let mut found = RankDeficit::default();
        found.add("enough", &seen(8, 8));
        assert_eq!((found.warning(), found.deficient), (None, 0));
        found.add("almost", &seen(7, 8));
        let mut other = RankDeficit::default();
        other.add("few", &seen(3, 16));
        found.extend(other);
        found.add("almost again", &seen(7, 8));
        assert_eq!((found.layers, found.deficient), (4, 3));
        let warning = found.warning().expect("three layers");
        assert!(warning.starts_with("3 of 4 layers") && warning.contains("`few`: 3 tokens, 16 inputs"), "{warning}");
    }
}
