//! How a worker relates to its coordinator: an interrupt is the coordinator's business, and no worker outlives it.

extern "C" fn give_back(_signal: libc::c_int) {
    ressa_runtime::ask_to_stop();
}

/// Ignores interrupts (the coordinator decides whether the running stage may finish) and asks the kernel to end this process when the
/// coordinator dies, so that a killed sweep leaves nothing running.
pub fn follow_the_coordinator() {
    // SAFETY: plain system calls without memory arguments; SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        // Whoever started this process asks with it for what trains to be saved and given back.
        let handler = give_back as extern "C" fn(libc::c_int);
        libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}
