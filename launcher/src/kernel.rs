//! The kernel: numbers of its calls, the call itself for each CPU, and what is said when it refuses.

use core::arch::asm;

/// Numbers of the system calls used (linux/arch/*/syscalls).
#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const EXECVE: usize = 59;
    pub const GETCWD: usize = 79;
    pub const STATFS: usize = 137;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
}
/// Of the kernel's generic table (include/uapi/asm-generic/unistd.h).
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub mod nr {
    pub const GETCWD: usize = 17;
    pub const STATFS: usize = 43;
    pub const FACCESSAT: usize = 48;
    pub const OPENAT: usize = 56;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const READLINKAT: usize = 78;
    pub const EXIT_GROUP: usize = 94;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
}
#[cfg(target_arch = "arm")]
pub mod nr {
    pub const READ: usize = 3;
    pub const WRITE: usize = 4;
    pub const EXECVE: usize = 11;
    pub const GETCWD: usize = 183;
    pub const MMAP: usize = 192; // mmap2
    pub const EXIT_GROUP: usize = 248;
    pub const STATFS: usize = 266; // statfs64
    pub const OPENAT: usize = 322;
    pub const READLINKAT: usize = 332;
    pub const FACCESSAT: usize = 334;
}

/// A system call with up to six arguments; a negative result is an error number.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "x86_64")]
pub unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; the rest is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
             in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
             in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "aarch64")]
pub unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but x0; the rest is the caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => result,
             in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
             options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "arm")]
pub unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: EABI: number in r7 (saved here, LLVM may use it as frame pointer), arguments in
    // r0-r5, result in r0; the rest is the caller's promise.
    unsafe {
        asm!("mov {saved}, r7", "mov r7, {number}", "svc 0", "mov r7, {saved}",
             saved = out(reg) _, number = in(reg) number,
             inlateout("r0") a[0] as isize => result, in("r1") a[1], in("r2") a[2],
             in("r3") a[3], in("r4") a[4], in("r5") a[5], options(nostack));
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// The arguments must be what the call `number` expects.
#[cfg(target_arch = "riscv64")]
pub unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but a0; the rest is the caller's promise.
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") a[0] as isize => result,
             in("a1") a[1], in("a2") a[2], in("a3") a[3], in("a4") a[4], in("a5") a[5],
             options(nostack));
    }
    result
}

pub const AT_FDCWD: usize = -100_isize as usize;
pub const AT_EXECFN: usize = 31;
pub const O_CLOEXEC: usize = 0o2_000_000;
pub const ENOENT: isize = 2;
pub const EACCES: isize = 13;
/// Exit code for "cannot be started", as a shell uses it.
const CANNOT_START: usize = 127;
pub const PATH_MAX: usize = 4096;

/// Writes the parts to standard error and ends with exit code 127.
pub fn fail(parts: &[&[u8]]) -> ! {
    for part in [&b"pytheas: "[..]].iter().chain(parts).chain(&[&b"\n"[..]]) {
        // SAFETY: write(2) of a valid slice. A failure cannot be told to anyone.
        unsafe { syscall(nr::WRITE, [2, part.as_ptr() as usize, part.len(), 0, 0, 0]) };
    }
    loop {
        // SAFETY: exit_group(2) takes a number and does not return.
        unsafe { syscall(nr::EXIT_GROUP, [CANNOT_START, 0, 0, 0, 0, 0]) };
    }
}

/// What an error number means to a person.
pub fn reason(error: isize) -> &'static [u8] {
    match -error {
        2 => b"no such file",
        7 => b"the arguments are too long",
        8 => b"it is for another kind of CPU, or damaged",
        12 => b"out of memory",
        13 => b"permission denied",
        20 => b"a part of the path is no folder",
        36 => b"the path is too long",
        40 => b"too many symbolic links",
        _ => b"the system refuses",
    }
}
