//! The further calls of the kernel that unpacking needs.

use crate::kernel::{AT_FDCWD, O_CLOEXEC, nr, syscall};

#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const CLOSE: usize = 3;
    pub const LSEEK: usize = 8;
    pub const GETPID: usize = 39;
    pub const FLOCK: usize = 73;
    pub const UMASK: usize = 95;
    pub const GETEUID: usize = 107;
    pub const MKDIRAT: usize = 258;
    pub const UNLINKAT: usize = 263;
    pub const RENAMEAT: usize = 264;
    pub const SYMLINKAT: usize = 266;
    pub const SYNCFS: usize = 306;
    pub const STATX: usize = 332;
    pub const O_DIRECTORY: usize = 0o200_000;
    pub const O_NOFOLLOW: usize = 0o400_000;
}
#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const FLOCK: usize = 32;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const SYMLINKAT: usize = 36;
    pub const RENAMEAT: usize = 38;
    pub const CLOSE: usize = 57;
    pub const LSEEK: usize = 62;
    pub const UMASK: usize = 166;
    pub const GETPID: usize = 172;
    pub const GETEUID: usize = 175;
    pub const SYNCFS: usize = 267;
    pub const STATX: usize = 291;
    pub const O_DIRECTORY: usize = 0o40_000;
    pub const O_NOFOLLOW: usize = 0o100_000;
}
#[cfg(target_arch = "arm")]
pub mod number {
    pub const CLOSE: usize = 6;
    pub const LSEEK: usize = 19;
    pub const GETPID: usize = 20;
    pub const UMASK: usize = 60;
    pub const FLOCK: usize = 143;
    pub const GETEUID: usize = 201; // geteuid32
    pub const MKDIRAT: usize = 323;
    pub const UNLINKAT: usize = 328;
    pub const RENAMEAT: usize = 329;
    pub const SYMLINKAT: usize = 331;
    pub const SYNCFS: usize = 373;
    pub const STATX: usize = 397;
    pub const O_DIRECTORY: usize = 0o40_000;
    pub const O_NOFOLLOW: usize = 0o100_000;
}
#[cfg(target_arch = "riscv64")]
pub mod number {
    pub const FLOCK: usize = 32;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const SYMLINKAT: usize = 36;
    pub const CLOSE: usize = 57;
    pub const LSEEK: usize = 62;
    pub const UMASK: usize = 166;
    pub const GETPID: usize = 172;
    pub const GETEUID: usize = 175;
    pub const SYNCFS: usize = 267;
    pub const RENAMEAT: usize = 276; // renameat2 with flags 0: there is no renameat
    pub const STATX: usize = 291;
    pub const O_DIRECTORY: usize = 0o200_000;
    pub const O_NOFOLLOW: usize = 0o400_000;
}
pub use number::{O_DIRECTORY, O_NOFOLLOW};

pub const O_WRONLY: usize = 1;
pub const O_RDWR: usize = 2;
pub const O_CREAT: usize = 0o100;
pub const O_TRUNC: usize = 0o1000;
pub const AT_REMOVEDIR: usize = 0x200;
pub const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub const EINTR: isize = -4;
pub const EEXIST: isize = -17;
pub const ENOTDIR: isize = -20;
pub const ENOSPC: isize = -28;
pub const ENOSYS: isize = -38;
pub const ENOTEMPTY: isize = -39;

/// Calls the kernel with up to four arguments.
///
/// # Safety
/// The arguments must be what the call expects.
pub unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { syscall(number, [a, b, c, d, 0, 0]) }
}

pub fn open(dir: usize, path: &[u8], flags: usize, mode: usize) -> isize {
    // SAFETY: every path of the callers ends with NUL.
    unsafe {
        call(
            nr::OPENAT,
            dir,
            path.as_ptr() as usize,
            flags | O_CLOEXEC,
            mode,
        )
    }
}

pub fn close(file: isize) {
    // SAFETY: a file of ours that is not used again.
    unsafe { call(number::CLOSE, file as usize, 0, 0, 0) };
}

pub fn make_dir(dir: usize, path: &[u8], mode: usize) -> isize {
    // SAFETY: `path` ends with NUL.
    unsafe { call(number::MKDIRAT, dir, path.as_ptr() as usize, mode, 0) }
}

pub fn unlink(dir: usize, path: &[u8], flags: usize) -> isize {
    // SAFETY: `path` ends with NUL.
    unsafe { call(number::UNLINKAT, dir, path.as_ptr() as usize, flags, 0) }
}

pub fn user() -> u32 {
    // SAFETY: takes nothing.
    unsafe { call(number::GETEUID, 0, 0, 0, 0) as u32 }
}

/// The whole file, mapped.
pub fn map_file(path: &[u8]) -> Result<&'static [u8], isize> {
    let file = open(AT_FDCWD, path, 0, 0);
    if file < 0 {
        return Err(file);
    }
    // SAFETY: lseek(2) to the end tells the size.
    let len = unsafe { call(number::LSEEK, file as usize, 0, 2, 0) };
    if len < 0 {
        return Err(len);
    }
    // SAFETY: a private read-only mapping; nobody else has the address.
    let at = unsafe { syscall(nr::MMAP, [0, len as usize, 1, 2, file as usize, 0]) };
    close(file);
    if (-4095..0).contains(&at) {
        return Err(at);
    }
    // SAFETY: `len` bytes were just mapped and are never unmapped.
    Ok(unsafe { core::slice::from_raw_parts(at as *const u8, len as usize) })
}
