//! Memory without an allocator, and the C strings in it.

use crate::kernel::{fail, nr, reason, syscall};

/// Memory that is handed out front to back and never given back.
pub struct Arena {
    next: *mut u8,
    left: usize,
}

impl Arena {
    pub fn map(size: usize) -> Self {
        const READ_WRITE: usize = 1 | 2;
        const PRIVATE_ANONYMOUS: usize = 2 | 0x20;
        let none = usize::MAX;
        // SAFETY: an anonymous private mapping touches no other memory.
        let at = unsafe { syscall(nr::MMAP, [0, size, READ_WRITE, PRIVATE_ANONYMOUS, none, 0]) };
        if (-4095..0).contains(&at) {
            fail(&[b"cannot start: ", reason(at)]);
        }
        Self {
            next: at as *mut u8,
            left: size,
        }
    }

    /// `len` zeroed bytes, aligned for pointers.
    pub fn take(&mut self, len: usize) -> &'static mut [u8] {
        let len = (len + 15) & !15;
        if len > self.left {
            fail(&[b"cannot start: the arguments or paths are too long"]);
        }
        // SAFETY: within the mapping, handed out once; fresh pages are zero.
        let slice = unsafe { core::slice::from_raw_parts_mut(self.next, len) };
        // SAFETY: still within or at the end of the mapping (checked above).
        self.next = unsafe { self.next.add(len) };
        self.left -= len;
        slice
    }

    /// The parts joined, ended by NUL.
    pub fn join(&mut self, parts: &[&[u8]]) -> &'static [u8] {
        let mut len = 0;
        for part in parts {
            len += part.len();
        }
        let memory = self.take(len + 1);
        let mut at = 0;
        for part in parts {
            for byte in *part {
                memory[at] = *byte;
                at += 1;
            }
        }
        &memory[..=at]
    }
}

/// A list of C strings for `execve`.
pub struct Strings {
    pub memory: *mut *const u8,
    pub len: usize,
    max: usize,
}

impl Strings {
    pub fn new(arena: &mut Arena, max: usize) -> Self {
        let memory = arena
            .take((max + 1) * size_of::<*const u8>())
            .as_mut_ptr()
            .cast();
        Self {
            memory,
            len: 0,
            max,
        }
    }

    pub fn push(&mut self, string: *const u8) {
        if self.len == self.max {
            fail(&[b"cannot start: `pytheas.launch` has too many records"]);
        }
        // SAFETY: `memory` has room for `max + 1` pointers; the last stays null.
        unsafe { self.memory.add(self.len).write(string) };
        self.len += 1;
    }
}

/// The bytes of a C string, without NUL.
///
/// # Safety
/// `string` points to a NUL-terminated string that stays.
pub unsafe fn bytes(string: *const u8) -> &'static [u8] {
    let mut len = 0;
    // SAFETY: the caller's promise.
    while unsafe { *string.add(len) } != 0 {
        len += 1;
    }
    // SAFETY: `len` bytes were just read.
    unsafe { core::slice::from_raw_parts(string, len) }
}
