//! What `core` expects from a C library. `no_builtins` keeps LLVM from turning these loops into
//! calls of themselves.

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(from.add(index).read()) };
    }
    to
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) < (from as usize) {
        // SAFETY: the caller's promise; front to back when the target lies before the source.
        return unsafe { memcpy(to, from, len) };
    }
    for index in (0..len).rev() {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(from.add(index).read()) };
    }
    to
}

/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(index).write(byte as u8) };
    }
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for index in 0..len {
        // SAFETY: the caller's promise.
        let (x, y) = unsafe { (*a.add(index), *b.add(index)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
/// As bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, len) }
}

/// Named by the unwind tables of the precompiled `core`; never called, panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
