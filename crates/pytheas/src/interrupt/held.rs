//! Signals held back while a process that was told to end puts in order.
//!
//! Whoever ends a program often says so twice at once (`timeout` to it and to its group; a terminal and
//! a shell's `kill`), and the second word would end the process that tidies for the first. So those of
//! the first second are taken for the same word. A later one ends it at once: somebody insists.
//!
//! A mask outlives `exec`, so nothing is missed between the two programs. This needs `unsafe`: neither
//! the standard library nor `rustix` or `signal-hook` can set a thread's mask. The calls below get a set
//! made by `sigemptyset` and write nowhere else.
#![expect(
    unsafe_code,
    reason = "the header says why, each block why it is sound"
)]

use std::{mem::MaybeUninit, ptr, time::Duration};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Within this a second signal is the first once more.
const SAME_WORD: Duration = Duration::from_secs(1);

/// The signals that end this process in order.
fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes the set whole before anything reads it; the numbers are signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Holds them back from this thread, and from the program that it becomes by `exec`.
pub(super) fn hold() {
    let set = set();
    // SAFETY: the set is whole, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// Forgets those that wait, and lets the next ones through to this thread.
pub(super) fn let_through() {
    let set = set();
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the set and the time are whole; what was waiting is not asked for. Each call takes one
    // waiting signal away, and fails when there is none.
    while unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const now) } > 0 {}
    // SAFETY: as in `hold`.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
}

/// From a second on, the next signal ends this process.
pub(super) fn let_through_later() {
    // Where no thread can be had, all are held back until the end.
    let _waits = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(SAME_WORD);
        let_through();
        loop {
            std::thread::park();
        }
    });
}
