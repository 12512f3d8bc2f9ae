//! Keeps the allocator modest: left alone, glibc holds on to what an update freed, in an arena of
//! each thread, and the agent rests for months with it (measured: 45 MB at the peak of an update
//! instead of under 32, 14 MB kept instead of 2).

/// Blocks from this size on are mapped by themselves and go back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: libc::c_int = 128 << 10;

/// To be called once, before there are threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub(crate) fn settle() {
    for (option, value) in [
        // Set by hand, it no longer grows with the largest block that was freed.
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
        (libc::M_TRIM_THRESHOLD, MAPPED_BYTES),
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt takes two numbers; glibc ignores those that it does not know.
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

/// To be called once; musl's allocator needs nothing.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn settle() {}

/// Returns freed memory to the system where the allocator would keep it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim takes no pointer, only touches memory that is free, and locks each arena
    // itself; it may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns freed memory to the system where the allocator would keep it; musl's does not.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
