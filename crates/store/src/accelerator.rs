//! The name of a GPU, as its driver says it.

use std::{fs, path::Path};

/// Where NVIDIA's driver lists its GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The name of the GPU with a number, such as `NVIDIA H100 80GB HBM3`; `None` where the driver does not say it.
///
/// Numbers are the driver's, in the order of the bus. A process that sees other devices, or in another order, may hold another GPU; in one
/// machine they are mostly of one kind.
pub fn accelerator(index: usize) -> Option<String> {
    named(Path::new(GPUS), index)
}

fn named(folder: &Path, index: usize) -> Option<String> {
    let mut gpus: Vec<_> = fs::read_dir(folder).ok()?.filter_map(|gpu| Some(gpu.ok()?.path())).collect();
    gpus.sort();
    let text = fs::read_to_string(gpus.get(index)?.join("information")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_the_bus() {
        let folder = tempfile::tempdir().expect("folder");
        for (bus, name) in [("0000:41:00.0", "NVIDIA A100-SXM4-80GB"), ("0000:01:00.0", "NVIDIA H100 80GB HBM3")] {
            let gpu = folder.path().join(bus);
            fs::create_dir(&gpu).expect("folder");
            fs::write(gpu.join("information"), format!("Model: \t\t {name}\nIRQ:   \t\t 31\n")).expect("written");
        }
        assert_eq!(named(folder.path(), 0).as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(named(folder.path(), 1).as_deref(), Some("NVIDIA A100-SXM4-80GB"));
        assert_eq!(named(folder.path(), 2), None);
        assert_eq!(named(&folder.path().join("absent"), 0), None);
    }
}
