//! What a local reconstruction takes: windows of a tower, trained one after the other.

use ressa_experiment::{
    Tower,
    config::CalibrationConfig,
    reconstruct::{NamedWindow, Trained, Window, WindowInputs, WindowTargets, WindowTraining},
};

use crate::{
    calibration::{Calibrated, Samples},
    model::Layer,
    program::{host, training},
    stage::{Need, Time},
    work::Work,
};

/// A reconstruction of a tower.
pub(crate) struct Reconstruction<'a> {
    pub calibrated: Calibrated<'a>,
    pub training: &'a WindowTraining,
}

impl Reconstruction<'_> {
    /// Time and memory.
    pub fn need(&self, calibration: &CalibrationConfig) -> Need {
        let (own, subject, tower) = (&self.calibrated, self.calibrated.subject, self.calibrated.tower);
        let (machine, samples) = (&subject.machine, Samples::of(calibration));
        let rows = samples.rows(tower);
        let batch = f64::from(self.training.batch).min(rows);
        let (batches, passes) = ((rows / batch).ceil(), f64::from(self.training.passes));
        let step = own.pass(samples.batch_of(tower, batch));
        let forward = step.forward(|other| other == tower);
        // Gradients of activations and of weights are a product each for each of the forward pass.
        let mut each = forward.times(3.0);
        // Every window has an optimiser of its own.
        let steps = training::STEP_LAUNCHES * self.windows();
        each += machine.traffic(self.parameters() * training::PARAMETER_BYTES * 2.0, steps);
        each += machine.traffic(self.trained() * training::WEIGHT_BYTES, 0.0);
        let below = Tower::ALL.into_iter().filter(|&below| below < tower).map(|below| own.through(samples, below));
        let mut work = below.sum::<Work>().times(if self.has_two_streams() { 2.0 } else { 1.0 });
        work += forward.times(self.runs() * batches);
        work += each.times(batches * passes);
        let window = self.of_window();
        let changed = own.weights() * machine.bytes();
        // What enters a window, what is to leave it, and what enters it in the dense model where that is something else.
        let flows = own.flows(samples) * if self.has_two_streams() { 1.5 } else { 1.0 };
        let peak = subject.weights_bytes()
            + subject.masks_bytes()
            + subject.masked_bytes()
            + changed
            + flows
            + window * (training::PARAMETER_BYTES + training::WEIGHT_BYTES)
            + step.kept(&|layer| layer.tower == tower, true) * self.blocks()
            + step.live(|other| other <= tower);
        // Kept window by window, and published.
        let written = changed * 2.0;
        let waiting =
            samples.images() * host::IMAGE_SECONDS / machine.cores + machine.copy(written) + written / host::DISK_BYTES;
        let mut time = Time::of(machine, work, waiting);
        time.steps = batches * passes * self.windows();
        Need { time, peak, fallback: None }
    }

    /// Whether the dense model's activations go along beside those of the changed one.
    fn has_two_streams(&self) -> bool {
        self.training.inputs == WindowInputs::Changed && self.training.targets == WindowTargets::Dense
    }

    /// Passes of the tower without gradients: what is to leave every window, its error before and after, and on to the next one.
    fn runs(&self) -> f64 {
        let runs = if self.training.inputs == WindowInputs::Changed { 4.0 } else { 3.0 };
        if self.training.window != Window::MATRIX {
            return runs;
        }
        // A whole block runs to see what each of its layers reads.
        let blocks: f64 = self.calibrated.stacks().map(|stack| stack.blocks).sum();
        let layers = self.calibrated.layers().count() as f64 / blocks.max(1.0);
        runs + layers * if self.has_two_streams() { 2.0 } else { 1.0 }
    }

    /// Windows of the tower.
    fn windows(&self) -> f64 {
        let blocks: f64 = self.calibrated.stacks().map(|stack| stack.blocks).sum();
        match self.training.window {
            Window::Blocks(count) => (blocks / f64::from(count.max(1))).ceil(),
            Window::Named(NamedWindow::Matrix) => self.calibrated.layers().count() as f64,
            Window::Named(NamedWindow::AttentionMlp) => 2.0 * blocks,
            Window::Named(NamedWindow::Block) => blocks,
        }
    }

    /// Weights that change in all windows. Norms and biases are few.
    fn trained(&self) -> f64 {
        match self.training.train {
            Trained::None | Trained::Norms => 0.0,
            _ => self.calibrated.weights(),
        }
    }

    /// Parameters that train in all windows.
    fn parameters(&self) -> f64 {
        let of = |rank: u32| {
            let of = |layer: &Layer| f64::from(rank) * (layer.inputs + layer.outputs);
            self.calibrated.layers().map(of).sum()
        };
        self.training.rank.map_or_else(|| self.trained(), of)
    }

    /// Blocks of a window, at least one: what a half reads is found out with the gradients of all.
    fn blocks(&self) -> f64 {
        match self.training.window {
            Window::Blocks(count) => f64::from(count),
            Window::Named(_) => 1.0,
        }
    }

    /// Weights of the largest window that change.
    fn of_window(&self) -> f64 {
        if self.trained() == 0.0 {
            return 0.0;
        }
        match self.training.window {
            Window::Named(NamedWindow::Matrix) => self.calibrated.largest_layer(),
            _ => {
                let of = |stack| self.calibrated.of_block(stack);
                self.calibrated.stacks().map(of).fold(0.0, f64::max) * self.blocks()
            }
        }
    }
}
