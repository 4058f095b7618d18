//! How a worker relates to its coordinator: an interrupt is the coordinator's business, and no worker outlives it.

/// Ignores interrupts (the coordinator decides whether the running stage may finish) and asks the kernel to end this process when the
/// coordinator dies, so that a killed sweep leaves nothing running.
pub fn follow_the_coordinator() {
    // SAFETY: plain system calls without memory arguments; SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}
