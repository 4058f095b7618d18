//! Figures about this process: time, memory, the libtorch it runs on.

use crate::cuda;

/// User and system time of this process, all threads, in seconds.
pub fn cpu_seconds() -> f64 {
    let usage = usage();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Most host memory this process has held at once, in bytes.
pub fn peak_memory_bytes() -> u64 {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage().ru_maxrss.max(0) as u64 * unit
}

fn usage() -> libc::rusage {
    // SAFETY: an all-zero rusage is valid, and getrusage only writes into it; it cannot fail for the calling process.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

/// The version of the libtorch that is loaded, such as `2.11.0+cu130`; the release it was built for when the installation does not say.
pub fn libtorch_version() -> String {
    installed_version().unwrap_or_else(|| "2.11".to_owned())
}

/// Archives of libtorch carry `build-version`, wheels `version.py`, both one folder above the libraries.
fn installed_version() -> Option<String> {
    let home = cuda::library_folder()?.parent()?.to_owned();
    if let Ok(text) = std::fs::read_to_string(home.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(home.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    line.split(['\'', '"']).nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_this_process() {
        let before = cpu_seconds();
        let mut x = tch::Tensor::ones([256, 256], (tch::Kind::Float, tch::Device::Cpu));
        for _ in 0..20 {
            x = x.matmul(&x) * 1e-3;
        }
        assert!(x.size() == [256, 256] && cpu_seconds() > before);
        assert!(peak_memory_bytes() > 10 << 20, "libtorch alone is larger than that");
        assert!(libtorch_version().starts_with("2."), "{}", libtorch_version());
    }
}
