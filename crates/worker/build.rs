//! Links the worker with the path to libtorch that `ressa-runtime` hands on, and records the source revision it is built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_RESSA_TORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
    for path in ["../../.git/HEAD", "../../.git/index", "../../.git/logs/HEAD"] {
        if std::path::Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rustc-env=RESSA_REVISION={}", revision().unwrap_or_else(|| "unknown".to_owned()));
}

/// The commit, with `+dirty` where tracked sources differ from it.
fn revision() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no", "--", "../../crates", "../../Cargo.lock"])?;
    Some(format!("{}{}", commit.trim(), if dirty.is_empty() { "" } else { "+dirty" }))
}
