//! The folder that trees are unpacked into: which are tried, and which can be trusted.

use super::{
    decimal,
    system::{AT_SYMLINK_NOFOLLOW, EEXIST, ENOSYS, ENOTDIR, make_dir, number, user},
};
use crate::{
    arena::{Arena, bytes},
    files::{absolute, starts_with},
    kernel::{AT_FDCWD, PATH_MAX, syscall},
};

/// Not a number of the kernel: other users can write to the folder.
pub const UNSAFE: isize = -4096;
/// As above: it belongs to another user.
pub const FOREIGN: isize = -4097;

/// A folder that trees are unpacked into.
#[derive(Clone, Copy)]
pub struct Place {
    /// Ended by NUL.
    pub dir: &'static [u8],
    /// The last part of the path must be a folder of its own, no link: it lies where all can write.
    is_shared: bool,
}

impl Place {
    pub fn path(&self, arena: &mut Arena, parts: &[&[u8]]) -> &'static [u8] {
        let dir = &self.dir[..self.dir.len() - 1];
        let mut all: [&[u8]; 6] = [b""; 6];
        all[0] = dir;
        all[1] = b"/";
        for (slot, part) in all[2..].iter_mut().zip(parts) {
            *slot = part;
        }
        arena.join(&all)
    }

    /// Whether it is a folder that nobody but this user and root can write to (statx(2)).
    pub fn check(&self) -> Result<(), isize> {
        let mut status = [0_u64; 32];
        let flags = if self.is_shared {
            AT_SYMLINK_NOFOLLOW
        } else {
            0
        };
        // SAFETY: `dir` ends with NUL, struct statx has 256 bytes; 0xa = STATX_MODE | STATX_UID.
        let result = unsafe {
            let (path, to) = (self.dir.as_ptr() as usize, status.as_mut_ptr() as usize);
            syscall(number::STATX, [AT_FDCWD, path, flags, 0xa, to, 0])
        };
        match result {
            0 => {}
            ENOSYS if !self.is_shared => return Ok(()), // Linux before 4.11
            error => return Err(error),
        }
        let owner = (status[2] >> 32) as u32; // at 20
        let mode = (status[3] >> 32) as u16; // at 28
        if mode & 0o170_000 != 0o040_000 {
            return Err(ENOTDIR);
        }
        if owner != user() && owner != 0 {
            Err(FOREIGN)
        } else if mode & 0o022 != 0 {
            Err(UNSAFE)
        } else {
            Ok(())
        }
    }

    /// Makes the folder and those above it that are missing.
    pub fn make(&self) -> Result<(), isize> {
        let mut path = [0_u8; PATH_MAX];
        if self.dir.len() > path.len() {
            return Err(-36);
        }
        let mut last = 0;
        for (at, byte) in self.dir.iter().enumerate() {
            if at > 0 && (*byte == b'/' || *byte == 0) {
                path[at] = 0;
                last = make_dir(AT_FDCWD, &path[..=at], 0o700);
            }
            path[at] = *byte;
        }
        if last < 0 && last != EEXIST {
            Err(last)
        } else {
            Ok(())
        }
    }
}

/// The folders to try, in order.
pub fn places(
    envp: *const *const u8,
    envc: usize,
    arena: &mut Arena,
) -> ([Option<Place>; 5], bool) {
    let mut places = [None; 5];
    if let Some(dir) = variable(b"PYTHEAS_UNPACK_DIR=", envp, envc) {
        let dir = absolute(dir, arena);
        places[0] = Some(Place {
            dir: arena.join(&[dir]),
            is_shared: false,
        });
        return (places, true);
    }
    let mut digits = [0; 20];
    let user = decimal(u64::from(user()), &mut digits);
    let known: [(Option<&[u8]>, &[u8], bool); 5] = [
        (
            variable(b"XDG_CACHE_HOME=", envp, envc),
            b"/pytheas/run",
            false,
        ),
        (
            variable(b"HOME=", envp, envc),
            b"/.cache/pytheas/run",
            false,
        ),
        (variable(b"TMPDIR=", envp, envc), b"/pytheas-", true),
        (Some(b"/var/tmp"), b"/pytheas-", true),
        (Some(b"/tmp"), b"/pytheas-", true),
    ];
    for (place, (base, below, is_shared)) in places.iter_mut().zip(known) {
        let Some(base) = base.filter(|base| base.first() == Some(&b'/')) else {
            continue;
        };
        let dir = arena.join(&[base, below, if is_shared { user } else { b"" }]);
        *place = Some(Place { dir, is_shared });
    }
    (places, false)
}

/// The value of an environment variable; none when it is not set or empty.
fn variable(name: &[u8], envp: *const *const u8, envc: usize) -> Option<&'static [u8]> {
    for index in 0..envc {
        // SAFETY: index < envc, and the kernel's environment strings are C strings.
        let text = unsafe { bytes(*envp.add(index)) };
        if starts_with(text, name) && text.len() > name.len() {
            return Some(&text[name.len()..]);
        }
    }
    None
}
