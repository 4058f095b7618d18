//! libtorch as ressa needs it: search path, CUDA loading, seeds, threads, memory figures.
//!
//! [`init`] is the one place that touches libtorch's process-wide state. Everything else here only asks.

mod counts;
mod cuda;
mod deterministic;
mod errors;
mod figures;
mod levels;
pub mod memory;
mod noise;
pub mod optim;
mod settings;
mod stopping;
mod stream;
mod tensors;

pub use counts::{count_nonzero, is_finite};
pub use deterministic::set_deterministic;
pub use errors::{
    Exhausted, RuntimeError, is_out_of_memory, panic_message, take_trace, tch_error, unless_out_of_memory,
    without_trace,
};
pub use figures::{cpu_seconds, libtorch_version, peak_memory_bytes};
pub use levels::{LevelTable, Levels};
pub use noise::normal_like;
pub use settings::{DeviceChoice, RuntimeOptions, device_name, flush_denormals, init, seed};
pub use stopping::{ask_to_stop, is_asked_to_stop};
pub use stream::{normals, stream};
pub use tch::Device;
pub use tensors::replace_tensors;
