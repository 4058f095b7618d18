//! The one place where libtorch's process-wide settings are made.

use std::{fmt, str::FromStr, sync::OnceLock};

use tch::Device;

use crate::{RuntimeError, cuda};

/// Which device to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if one can be used, else the CPU.
    Auto,
    /// The CPU; CUDA is not even loaded.
    Cpu,
    /// This CUDA device or an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = RuntimeError;

    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| RuntimeError::Device(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What [`init`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeOptions {
    /// Device.
    pub device: DeviceChoice,
    /// Threads of one tensor operation; at least 1.
    pub threads: u32,
}

/// Sets threads, rounding of denormals and seed, loads CUDA if asked for, and returns the device. Call it first, from the main thread;
/// CUDA is looked for once per process, so that a later call with another device sees what the first one found.
///
/// libtorch leaves TF32 off for products unless the process was started with `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`, which is how `ressa --tf32` asks
/// for it.
pub fn init(options: &RuntimeOptions) -> Result<Device, RuntimeError> {
    let device = choose(options.device)?;
    tch::set_num_threads(options.threads.max(1).try_into().unwrap_or(i32::MAX));
    flush_denormals();
    seed(0);
    Ok(device)
}

fn choose(choice: DeviceChoice) -> Result<Device, RuntimeError> {
    static CUDA: OnceLock<Result<(), String>> = OnceLock::new();
    let found = match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto | DeviceChoice::Cuda(_) => CUDA.get_or_init(cuda::load),
    };
    match (choice, found) {
        (DeviceChoice::Cuda(index), Err(reason)) => Err(RuntimeError::Cuda { index, reason: reason.clone() }),
        (DeviceChoice::Cuda(index), Ok(())) => {
            let devices = tch::Cuda::device_count().max(0) as usize;
            if index < devices {
                return Ok(Device::Cuda(index));
            }
            let reason = format!("{devices} CUDA devices are visible");
            Err(RuntimeError::Cuda { index, reason })
        }
        (_, Ok(())) if tch::Cuda::is_available() => Ok(Device::Cuda(0)),
        _ => Ok(Device::Cpu),
    }
}

/// Seeds libtorch's generator, which all threads share. Nothing in ressa that must be repeatable draws from it; this is a safeguard.
pub fn seed(seed: i64) {
    tch::manual_seed(seed);
}

/// Flushes denormal numbers to zero in the calling thread: they carry no information here and cost a hundred cycles each.
/// [`init`] does it for its own thread; a thread that computes calls it once for itself.
pub fn flush_denormals() {
    #[cfg(target_arch = "x86_64")]
    {
        /// Flush results (bit 15) and treat operands (bit 6) as zero.
        const FLUSH: u32 = 1 << 15 | 1 << 6;
        let mut control = 0u32;
        // SAFETY: reads and writes the calling thread's SSE control register; the two bits only change the treatment of denormals.
        unsafe {
            std::arch::asm!("stmxcsr [{0}]", in(reg) &raw mut control, options(nostack));
            control |= FLUSH;
            std::arch::asm!("ldmxcsr [{0}]", in(reg) &raw const control, options(nostack));
        }
    }
}

/// `cpu` or `cuda:N`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn devices_are_spelt_as_in_the_field() {
        for text in ["auto", "cpu", "cuda:0", "cuda:13"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "cuda", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn init_flushes_denormals_and_falls_back_silently() {
        let auto = init(&RuntimeOptions { device: DeviceChoice::Auto, threads: 1 }).unwrap();
        assert!(auto == Device::Cpu || auto.is_cuda());
        let tiny = Tensor::from_slice(&[1e-30f32]) * 1e-10;
        assert_eq!(tiny.double_value(&[0]), 0.0);
        assert_eq!(tch::get_num_threads(), 1);
        let absent = init(&RuntimeOptions { device: DeviceChoice::Cuda(99), threads: 1 }).unwrap_err().to_string();
        assert!(absent.starts_with("`cuda:99` cannot be used"), "{absent}");
        let tensor = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        assert_eq!(device_name(tensor.device()), "cpu");
    }
}
