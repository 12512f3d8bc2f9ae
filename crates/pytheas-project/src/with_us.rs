//! Programs that end when we are killed: uv and build back ends, which would go on for minutes, into
//! folders that nobody waits for.
//!
//! The one place in this crate with `unsafe`: only a child itself can ask for that, between fork and
//! exec.

use std::{io, os::unix::process::CommandExt, process::Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the kernel kill what `command` starts when the thread that starts it ends; that thread has
/// to wait for it.
#[expect(
    unsafe_code,
    reason = "PR_SET_PDEATHSIG can only be set by the child itself, before exec"
)]
pub(crate) fn end_with_us(command: &mut Command) {
    let us = getpid();
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two
    // system calls (prctl, getppid) and builds an `io::Error` without allocating; it touches no lock
    // and no memory that another thread may have left half written.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have ended between fork and prctl; then nobody would send the signal.
            if getppid() != Some(us) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
}
