//! Processes with CUDA devices that are not there: the stand-in of `scripts/stand-in`, built once and put in the place of libtorch's CUDA half.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

/// The stand-in's switches, see its README.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// Folder of libtorch with the stand-in in it.
    pub library: PathBuf,
    /// Number of devices.
    pub devices: u32,
    /// Bytes that a device holds; `None` is no limit.
    pub bytes: Option<u64>,
    /// Whether large operations are priced, not computed.
    pub shapes_only: bool,
}

/// What a process did to its devices.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Report {
    /// Operations issued.
    pub launches: u64,
    /// Times the host waited for a device.
    pub syncs: u64,
    /// Bytes from the host.
    pub up_bytes: u64,
    /// Bytes to the host.
    pub down_bytes: u64,
    /// Most bytes held at a time, for each device.
    pub peak_bytes: Vec<u64>,
    /// Calls refused because their tensors are on different devices.
    pub violations: u64,
    /// What was wrong with them, and how often.
    pub refused: std::collections::BTreeMap<String, u64>,
}

impl StandIn {
    /// One device with values and without a limit. Builds the stand-in where that has not been done.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn new() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/stand-in/build.sh");
        let output = Command::new(&script).output().unwrap_or_else(|e| panic!("`{}`: {e}", script.display()));
        assert!(output.status.success(), "the stand-in is not built: {}", String::from_utf8_lossy(&output.stderr));
        let library = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Self { library, devices: 1, bytes: None, shapes_only: false }
    }

    /// Gives a process its devices. It appends what it did to them to `report` when it ends.
    pub fn lend(&self, command: &mut Command, report: &Path) {
        let mut path = OsString::from(&self.library);
        if let Some(others) = env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(others);
        }
        command.env("LD_LIBRARY_PATH", path);
        command.env("STAND_IN_DEVICES", self.devices.to_string()).env("STAND_IN_REPORT", report);
        if let Some(bytes) = self.bytes {
            command.env("STAND_IN_BYTES", bytes.to_string());
        }
        if self.shapes_only {
            command.env("STAND_IN_SHAPES", "1");
        }
    }
}

impl Default for StandIn {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads what processes reported, one line each, in the order in which they ended.
///
/// # Panics
/// When the file is not there, or is no report.
pub fn reports(path: &Path) -> Vec<Report> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}`: {e}"))).collect()
}
