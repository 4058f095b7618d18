//! Host memory that is given back: pages of mapped files, and what the allocator keeps for later.

/// What becomes of the pages of a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// They will be read soon: the system may fetch them meanwhile. They are not resident by that.
    Soon,
    /// They need not be resident any longer; reading them again fetches them again.
    Done,
}

/// Tells the system about `length` bytes from `start` on. It may take no notice; nothing is read or written.
///
/// # Safety
/// With [`Advice::Done`] all pages that the range touches must belong to a map of a file into which nothing was ever written: their bytes
/// are thrown away and come from the file again.
pub unsafe fn advise(start: *const u8, length: usize, advice: Advice) {
    let page = page_size();
    let before = start as usize % page;
    let (from, length) = (start as usize - before, length + before);
    let advice = match advice {
        Advice::Soon => libc::MADV_WILLNEED,
        Advice::Done => libc::MADV_DONTNEED,
    };
    // SAFETY: the caller vouches for the pages; an address that is not mapped is answered with an error, which changes nothing.
    unsafe { libc::madvise(from as *mut libc::c_void, length, advice) };
}

fn page_size() -> usize {
    // SAFETY: sysconf only looks up a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

/// Host memory that this process holds now, in bytes; the most it has held where the system does not say.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map_or_else(crate::peak_memory_bytes, |pages| pages * page_size() as u64)
}

/// Hands memory that is free inside the allocator back to the system, where the allocator can.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
