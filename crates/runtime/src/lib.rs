//! libtorch as ressa needs it: search path, CUDA loading, seeds, threads, memory figures.
// LEAD -> B: the worker already calls these names, please provide exactly them:
//   enum DeviceChoice { Auto, Cpu, Cuda(usize) }: Clone, FromStr("auto"|"cpu"|"cuda:0")
//   struct RuntimeOptions { pub device: DeviceChoice, pub threads: u32 }
//   fn init(&RuntimeOptions) -> Result<Device, RuntimeError>
//   fn device_name(Device) -> String;  fn libtorch_version() -> String;  fn cpu_seconds() -> f64
//   fn is_out_of_memory(&str) -> bool;  fn without_trace(&str) -> String

pub use tch::Device;
