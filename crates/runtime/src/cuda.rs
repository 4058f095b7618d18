//! Finds the libtorch that is loaded and gives it its CUDA half.
//!
//! Binaries link only `libtorch_cpu`, so that one build runs with and without a GPU. The CUDA half registers itself when it is loaded,
//! which must come before anything asks libtorch about CUDA: the answer "no" is remembered for good.

use std::{
    ffi::{CStr, CString, OsStr, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

#[cfg(target_os = "linux")]
const CPU_LIBRARY: &str = "libtorch_cpu.so";

/// Folder of the loaded `libtorch_cpu`.
#[cfg(target_os = "linux")]
pub(crate) fn library_folder() -> Option<PathBuf> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid record whose name is null or a C string, and `found` is the option given below.
        let (name, found) = unsafe { ((*info).dlpi_name, &mut *found.cast::<Option<PathBuf>>()) };
        if name.is_null() {
            return 0;
        }
        // SAFETY: not null, see above.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
        if path.file_name().is_some_and(|file| file == CPU_LIBRARY) {
            *found = path.parent().map(Path::to_owned);
            return 1;
        }
        0
    }
    let mut found: Option<PathBuf> = None;
    // SAFETY: `visit` keeps to the callback's contract and `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

/// Folder of the loaded `libtorch_cpu`; unknown outside Linux.
#[cfg(not(target_os = "linux"))]
pub(crate) fn library_folder() -> Option<PathBuf> {
    None
}

/// Loads `libtorch_cuda` from beside the loaded `libtorch_cpu`, with symbols visible to it. The error says what is missing.
pub(crate) fn load() -> Result<(), String> {
    let folder = library_folder().ok_or("libtorch was not found among the loaded libraries")?;
    let file = folder.join("libtorch_cuda.so");
    if !file.exists() {
        return Err(format!("this libtorch has no CUDA half (`{}` is missing)", file.display()));
    }
    let path = CString::new(file.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a C string naming libtorch's own library, whose constructors are meant to run in any process that has libtorch_cpu.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a C string that stays valid until the next call in this thread.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown reason".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(reason)
}
