//! What calibration remembers of a layer's inputs.

use ressa_models::Observer;
use tch::{Kind, Tensor, no_grad};

/// Second moments of the inputs of one linear layer.
#[derive(Debug)]
pub struct ColumnStatistics {
    sum_of_squares: Tensor,
    samples: u64,
}

impl ColumnStatistics {
    /// Empty statistics of a layer with `columns` inputs.
    pub fn new(columns: i64, device: tch::Device) -> Self {
        Self { sum_of_squares: Tensor::zeros([columns], (Kind::Double, device)), samples: 0 }
    }

    /// Adds one sample's inputs `[..., in]`: squares are summed over tokens in f32, over samples in f64.
    pub fn add_sample(&mut self, input: &Tensor) {
        self.observe(input);
        self.end_sample();
    }

    /// Counts a sample whose inputs have been observed.
    pub fn end_sample(&mut self) {
        self.samples += 1;
    }

    /// `sqrt(sum of squares / samples)` of each column, f32 `[in]`; zero for an input that is never alive.
    pub fn norm(&self) -> Tensor {
        (&self.sum_of_squares / (self.samples.max(1) as f64)).sqrt().to_kind(Kind::Float)
    }

    /// Whether every input seen so far was finite.
    pub fn is_finite(&self) -> bool {
        bool::try_from(self.sum_of_squares.isfinite().all()).unwrap_or(false)
    }
}

impl Observer for ColumnStatistics {
    fn observe(&mut self, input: &Tensor) {
        no_grad(|| {
            let columns = self.sum_of_squares.size()[0];
            let rows = input.detach().reshape([-1, columns]).to_kind(Kind::Float);
            let squares = rows.square().sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
            let _ = self.sum_of_squares.g_add_(&squares.to_kind(Kind::Double));
        });
    }
}
