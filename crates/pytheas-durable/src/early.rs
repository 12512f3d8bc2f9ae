//! Writing to the disk before it has to be done.

use std::fs::File;

/// Files below this are left to the sync.
#[cfg(target_os = "linux")]
const WORTH_BYTES: u64 = 128 << 10;

/// Has the system begin to write the `len` bytes that were written to `file`, without waiting for it:
/// the sync that comes later then has less to wait for. Promises nothing.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]
pub fn begin_writing(file: &File, len: u64) {
    use std::os::fd::AsRawFd as _;
    if len >= WORTH_BYTES {
        // SAFETY: it takes a descriptor, open while `file` is borrowed, and numbers; no pointer.
        // Whatever it says, the sync does what it has not.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
}

/// Does nothing where the system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn begin_writing(_: &File, _: u64) {}
