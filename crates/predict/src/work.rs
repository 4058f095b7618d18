//! Work on a card: operations with their floating-point operations and bytes, and the time they take there.
//!
//! Two clocks, as on a real device: the host issues an operation in [`Card::launch_us`], the device runs each for the longer of arithmetic and
//! memory traffic, at least [`Card::kernel_us`]. The host runs ahead, so a stretch without a wait takes as long as the slower clock.

use std::ops::AddAssign;

use ressa_experiment::job::Compute;

use crate::{card::Card, program::host};

/// A card that computes in a type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine<'a> {
    pub card: &'a Card,
    /// Type of the computation.
    pub compute: Compute,
    /// Whether products of f32 may use TF32.
    pub tf32: bool,
    /// Host cores of a worker.
    pub cores: f64,
}

impl Machine<'_> {
    /// Bytes of an element.
    pub fn bytes(&self) -> f64 {
        match self.compute {
            Compute::Float32 => 4.0,
            Compute::Bfloat16 | Compute::Float16 => 2.0,
        }
    }

    /// Operations a second of a matrix product in the type of the computation.
    fn rate(&self) -> f64 {
        match self.compute {
            Compute::Float32 => self.single_rate(),
            Compute::Bfloat16 | Compute::Float16 => self.card.half_tflops * 1e12,
        }
    }

    fn single_rate(&self) -> f64 {
        1e12 * if self.tf32 { self.card.tf32_tflops } else { self.card.single_tflops }
    }

    /// A matrix product `[rows, inner] x [inner, columns]` in the type of the computation, `times` over.
    pub fn product(&self, rows: f64, inner: f64, columns: f64, times: f64) -> Work {
        let bytes = (rows * inner + inner * columns + rows * columns) * self.bytes();
        self.kernels(2.0 * rows * inner * columns, bytes, self.rate(), times)
    }

    /// The same in f32.
    pub fn single_product(&self, rows: f64, inner: f64, columns: f64, times: f64) -> Work {
        let bytes = (rows * inner + inner * columns + rows * columns) * 4.0;
        self.kernels(2.0 * rows * inner * columns, bytes, self.single_rate(), times)
    }

    /// Attention in one kernel or three, `flops` in all.
    pub fn attention(&self, flops: f64, times: f64) -> Work {
        self.kernels(flops, 0.0, self.rate(), times)
    }

    /// `launches` operations that move `bytes` together and compute little.
    pub fn traffic(&self, bytes: f64, launches: f64) -> Work {
        let seconds = (bytes / (self.card.gbytes_per_second * 1e9)).max(launches * self.card.kernel_us * 1e-6);
        Work { launches, busy: seconds, bytes, ..Work::default() }
    }

    /// Waits of the host for the device.
    pub fn syncs(&self, count: f64) -> Work {
        Work { syncs: count, ..Work::default() }
    }

    fn kernels(&self, flops: f64, bytes: f64, rate: f64, times: f64) -> Work {
        let each = (flops / rate).max(bytes / (self.card.gbytes_per_second * 1e9)).max(self.card.kernel_us * 1e-6);
        Work { flops: flops * times, bytes: bytes * times, launches: times, busy: each * times, syncs: 0.0 }
    }

    /// Seconds that the work takes.
    pub fn seconds(&self, work: Work) -> f64 {
        let issuing = work.launches * self.card.launch_us * 1e-6;
        issuing.max(work.busy) + work.syncs * host::SYNC_SECONDS
    }

    /// Seconds to copy bytes to the card.
    pub fn copy(&self, bytes: f64) -> f64 {
        bytes / (self.card.host_gbytes_per_second * 1e9)
    }
}

/// Operations, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// Floating-point operations of matrix products and attention.
    pub flops: f64,
    /// Bytes that kernels read and write.
    pub bytes: f64,
    /// Operations issued.
    pub launches: f64,
    /// Waits for the device.
    pub syncs: f64,
    /// Seconds that the device computes.
    pub busy: f64,
}

impl Work {
    /// The same work so many times.
    pub fn times(self, times: f64) -> Self {
        let Self { flops, bytes, launches, syncs, busy } = self;
        Self {
            flops: flops * times,
            bytes: bytes * times,
            launches: launches * times,
            syncs: syncs * times,
            busy: busy * times,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.launches += other.launches;
        self.syncs += other.syncs;
        self.busy += other.busy;
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), |mut sum, work| {
            sum += work;
            sum
        })
    }
}
