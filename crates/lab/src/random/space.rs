//! Room on a disk, looked at before much is written.

use std::{
    ffi::CString,
    io::{Error, ErrorKind, Result},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Refuses to begin what the file system of a folder has no room for.
///
/// # Errors
/// Both numbers of bytes; or what the system says about the folder.
pub fn check(folder: &Path, needed: u64) -> Result<()> {
    let free = free(folder)?;
    if needed <= free {
        return Ok(());
    }
    let message = format!("{needed} bytes are needed and {free} are free");
    Err(Error::new(ErrorKind::StorageFull, message))
}

/// Bytes that this user may still write.
fn free(folder: &Path) -> Result<u64> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and the structure is written by the call before it is read.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(Error::last_os_error());
        }
        found.assume_init()
    };
    // Fields have other widths on other systems.
    #[allow(clippy::unnecessary_cast)]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}
