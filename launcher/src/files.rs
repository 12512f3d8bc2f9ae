//! Paths and files: where this program lies, and what lies there.

use crate::{
    LAUNCH_MAX,
    arena::Arena,
    kernel::{AT_FDCWD, EACCES, O_CLOEXEC, PATH_MAX, fail, nr, reason, syscall},
};

/// The target of the link at `path` (ended by NUL), if it is one.
fn read_link(path: &[u8], arena: &mut Arena) -> Result<&'static [u8], isize> {
    let memory = arena.take(PATH_MAX);
    let (at, len) = (memory.as_mut_ptr() as usize, memory.len());
    // SAFETY: `path` ends with NUL, `memory` is ours.
    let result = unsafe {
        syscall(
            nr::READLINKAT,
            [AT_FDCWD, path.as_ptr() as usize, at, len, 0, 0],
        )
    };
    if result < 0 {
        Err(result)
    } else {
        Ok(&memory[..result as usize])
    }
}

/// What lies before the last `/`; nothing when there is none.
pub fn parent(path: &[u8]) -> &[u8] {
    let mut end = path.len();
    while end > 0 && path[end - 1] != b'/' {
        end -= 1;
    }
    &path[..end.saturating_sub(1)]
}

/// The launcher's own path: `/proc/self/exe`, or without `/proc` what the kernel was asked to
/// start (getauxval(3): AT_EXECFN), made absolute, links followed.
pub fn own_path(executed: &'static [u8], arena: &mut Arena) -> &'static [u8] {
    if let Ok(path) = read_link(b"/proc/self/exe\0", arena) {
        return path;
    }
    let mut path = absolute(executed, arena);
    for _ in 0..40 {
        let terminated = arena.join(&[path]);
        match read_link(terminated, arena) {
            Ok(target) if target.first() == Some(&b'/') => path = target,
            Ok(target) => {
                let joined = arena.join(&[parent(path), b"/", target]);
                path = &joined[..joined.len() - 1];
            }
            Err(_) => return path,
        }
    }
    fail(&[b"cannot start `", executed, b"`: too many symbolic links"])
}

pub fn absolute(path: &'static [u8], arena: &mut Arena) -> &'static [u8] {
    if path.first() == Some(&b'/') {
        return path;
    }
    let memory = arena.take(PATH_MAX);
    let (at, len) = (memory.as_mut_ptr() as usize, memory.len());
    // SAFETY: `memory` is ours; the kernel writes at most `len` bytes, the last a NUL it counts.
    let result = unsafe { syscall(nr::GETCWD, [at, len, 0, 0, 0, 0]) };
    if result < 1 {
        fail(&[
            b"cannot find out where `",
            path,
            b"` lies: ",
            reason(result),
        ]);
    }
    let joined = arena.join(&[&memory[..result as usize - 1], b"/", path]);
    &joined[..joined.len() - 1]
}

/// The content of `path` (ended by NUL), at most `LAUNCH_MAX` bytes.
pub fn read_file(path: &[u8], arena: &mut Arena) -> Result<&'static [u8], isize> {
    // SAFETY: `path` ends with NUL.
    let file = unsafe {
        syscall(
            nr::OPENAT,
            [AT_FDCWD, path.as_ptr() as usize, O_CLOEXEC, 0, 0, 0],
        )
    };
    if file < 0 {
        return Err(file);
    }
    let memory = arena.take(LAUNCH_MAX);
    let mut len = 0;
    while len < memory.len() {
        let (at, room) = (memory[len..].as_mut_ptr() as usize, memory.len() - len);
        // SAFETY: `room` bytes from `at` are ours.
        let result = unsafe { syscall(nr::READ, [file as usize, at, room, 0, 0, 0]) };
        match result {
            0 => break,
            1.. => len += result as usize,
            _ => return Err(result),
        }
    }
    Ok(&memory[..len])
}

/// Whether there is something at `path` (ended by NUL).
pub fn exists(path: &[u8]) -> bool {
    let at = path.as_ptr() as usize;
    // SAFETY: `path` ends with NUL.
    unsafe { syscall(nr::FACCESSAT, [AT_FDCWD, at, 0, 0, 0, 0]) == 0 }
}

/// What statfs(2) tells of a file system.
pub struct FileSystem {
    /// Programs cannot be started from it: it is mounted with `noexec`.
    pub is_noexec: bool,
    /// What a user other than root can still write.
    pub free_bytes: u64,
}

/// The file system that `path` (ended by NUL) lies on, if the kernel tells.
pub fn file_system(path: &[u8]) -> Option<FileSystem> {
    const NOEXEC: u64 = 8;
    let mut status = [0_u64; 32];
    let (path, to) = (path.as_ptr() as usize, status.as_mut_ptr() as usize);
    // 64-bit layout: words from the start; struct statfs64 of Arm: 84 bytes, two words before.
    #[cfg(target_pointer_width = "64")]
    let arguments = [path, to, 0, 0, 0, 0];
    #[cfg(target_pointer_width = "32")]
    let arguments = [path, 84, to, 0, 0, 0];
    // SAFETY: `path` ends with NUL, the buffer is larger than the structure.
    if unsafe { syscall(nr::STATFS, arguments) } != 0 {
        return None;
    }
    #[cfg(target_pointer_width = "64")]
    let (block, free, flags) = (status[1], status[4], status[10]);
    #[cfg(target_pointer_width = "32")]
    let (block, free, flags) = (status[0] >> 32, status[3], status[8] & 0xffff_ffff);
    Some(FileSystem {
        is_noexec: flags & NOEXEC != 0,
        free_bytes: free.saturating_mul(block),
    })
}

/// Why the program at `path` (ended by NUL) was not started.
pub fn not_started(path: &[u8], error: isize) -> &'static [u8] {
    if error == -EACCES && file_system(path).is_some_and(|found| found.is_noexec) {
        b"it lies on a file system that is mounted with `noexec`"
    } else {
        reason(error)
    }
}

pub fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text.iter().zip(prefix).all(|(a, b)| a == b)
}
