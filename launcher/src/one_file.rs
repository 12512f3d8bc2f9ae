//! The first stage of a one-file bundle: unpacks the tree that lies behind it in the same file,
//! once, and starts it. Compiled into the launcher with `--cfg one_file` (see `main.rs`).
//!
//! The file, all numbers little endian:
//!
//! ```text
//! this program
//! frame…            u32 packed length, u32 unpacked length, one Zstandard frame (with checksum)
//! trailer           256 bytes:
//!     0  "pytheas-one-file"
//!    16  u64 format = 1
//!    24  u64 where the first frame starts
//!    32  u64 size of all files in bytes
//!    40  u64 number of frames
//!    48  tree id, 64 hexadecimal digits
//!   112  what is started, relative to the tree (`bin/app`), filled up with NUL
//!   240  u64 0
//!   248  u64 XXH64 of the bytes before
//! ```
//!
//! The first frame is the index, one record per entry, folders before what lies in them:
//! kind (`d` folder, `f` file, `x` program, `l` link), u64 size, path, NUL, for a link target, NUL.
//! The others, joined, are the contents of all files in the index's order; each but the last
//! unpacks to the same size.
//!
//! The tree lies in `DIR/<tree id>`, where DIR is `PYTHEAS_UNPACK_DIR`, else the first that can be
//! used of `$XDG_CACHE_HOME/pytheas/run`, `$HOME/.cache/pytheas/run`, `$TMPDIR/pytheas-<uid>`,
//! `/var/tmp/pytheas-<uid>`, `/tmp/pytheas-<uid>`. A folder that other users can write to is not
//! used. Unpacking happens in `DIR/<tree id>.tmp` under a lock on `DIR/<tree id>.lock`; the folder
//! is synced and renamed when it is whole, so that concurrent first starts, `kill -9` and power
//! cuts leave the tree whole or absent. What a killed start left is written over by the next.

use super::*;

#[path = "zstd.rs"]
mod zstd;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const CLOSE: usize = 3;
    pub const LSEEK: usize = 8;
    pub const GETPID: usize = 39;
    pub const FLOCK: usize = 73;
    pub const UMASK: usize = 95;
    pub const GETEUID: usize = 107;
    pub const STATFS: usize = 137;
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
mod number {
    pub const FLOCK: usize = 32;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const SYMLINKAT: usize = 36;
    pub const RENAMEAT: usize = 38;
    pub const STATFS: usize = 43;
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
mod number {
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
mod number {
    pub const FLOCK: usize = 32;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const SYMLINKAT: usize = 36;
    pub const STATFS: usize = 43;
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
use number::{O_DIRECTORY, O_NOFOLLOW};

const O_WRONLY: usize = 1;
const O_RDWR: usize = 2;
const O_CREAT: usize = 0o100;
const O_TRUNC: usize = 0o1000;
const AT_REMOVEDIR: usize = 0x200;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const EINTR: isize = -4;
const EACCES: isize = -13;
const EEXIST: isize = -17;
const ENOTDIR: isize = -20;
const ENOSPC: isize = -28;
const ENOSYS: isize = -38;
const ENOTEMPTY: isize = -39;
/// Not a number of the kernel: other users can write to the folder.
const UNSAFE: isize = -4096;

const TRAILER_LEN: usize = 256;
const INDEX_MAX: usize = 1 << 30;

/// The end of the file, checked.
struct Trailer {
    frames_at: usize,
    size_bytes: u64,
    frames: u64,
    id: &'static [u8],
    entry: &'static [u8],
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = 0;
    for index in (0..8).rev() {
        word = word << 8 | bytes.get(at + index).map_or(0, |byte| *byte as u64);
    }
    word
}

impl Trailer {
    fn read(file: &'static [u8]) -> Option<Self> {
        let trailer = &file[file.len().checked_sub(TRAILER_LEN)?..];
        let entry = &trailer[112..240];
        let entry = &entry[..entry.iter().position(|byte| *byte == 0)?];
        let is_good = starts_with(trailer, b"pytheas-one-file")
            && word(trailer, 16) == 1
            && word(trailer, 248) == zstd::xxh64(&trailer[..248])
            && !entry.is_empty();
        is_good.then(|| Self {
            frames_at: word(trailer, 24) as usize,
            size_bytes: word(trailer, 32),
            frames: word(trailer, 40),
            id: &trailer[48..112],
            entry,
        })
    }
}

/// Calls the kernel with up to four arguments.
///
/// # Safety
/// The arguments must be what the call expects.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { syscall(number, [a, b, c, d, 0, 0]) }
}

fn open(dir: usize, path: &[u8], flags: usize, mode: usize) -> isize {
    // SAFETY: every path in this file ends with NUL.
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

fn close(file: isize) {
    // SAFETY: a file of ours that is not used again.
    unsafe { call(number::CLOSE, file as usize, 0, 0, 0) };
}

fn make_dir(dir: usize, path: &[u8], mode: usize) -> isize {
    // SAFETY: `path` ends with NUL.
    unsafe { call(number::MKDIRAT, dir, path.as_ptr() as usize, mode, 0) }
}

fn unlink(dir: usize, path: &[u8], flags: usize) -> isize {
    // SAFETY: `path` ends with NUL.
    unsafe { call(number::UNLINKAT, dir, path.as_ptr() as usize, flags, 0) }
}

fn user() -> u32 {
    // SAFETY: takes nothing.
    unsafe { call(number::GETEUID, 0, 0, 0, 0) as u32 }
}

/// The whole file, mapped.
fn map_file(path: &[u8]) -> Result<&'static [u8], isize> {
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

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

fn why(error: isize) -> &'static [u8] {
    match error {
        UNSAFE => b"other users can write to it",
        ENOSPC => b"no space is left",
        EEXIST => b"something else is there",
        -30 => b"the file system is read-only",
        -122 => b"the disk quota is used up",
        _ => reason(error),
    }
}

/// A folder that trees are unpacked into.
#[derive(Clone, Copy)]
struct Place {
    /// Ended by NUL.
    dir: &'static [u8],
    /// The last part of the path must be a folder of its own, no link: it lies where all can write.
    is_shared: bool,
}

impl Place {
    fn path(&self, arena: &mut Arena, parts: &[&[u8]]) -> &'static [u8] {
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
    fn check(&self) -> Result<(), isize> {
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
        if (owner != user() && owner != 0) || mode & 0o022 != 0 {
            return Err(UNSAFE);
        }
        Ok(())
    }

    /// Makes the folder and those above it that are missing.
    fn make(&self) -> Result<(), isize> {
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
fn places(envp: *const *const u8, envc: usize, arena: &mut Arena) -> ([Option<Place>; 5], bool) {
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

/// The path of the tree's launcher, and the environment: number of entries, entries.
type Unpacked = (&'static [u8], usize, *const *const u8);

/// Unpacks if needed; ends the process when that fails. This program then does itself what the
/// tree's launcher would, which saves a start.
pub fn start(
    own: &'static [u8],
    (argc, argv): (usize, *const *const u8),
    (envc, envp): (usize, *const *const u8),
    arena: &mut Arena,
) -> Unpacked {
    let own_path = arena.join(&[own]);
    let damaged = || -> ! {
        fail(&[
            b"`",
            own,
            b"` is damaged or was cut off\n  help: copy the file again",
        ])
    };
    let file = match map_file(own_path) {
        Ok(file) => file,
        Err(error) => fail(&[b"cannot read `", own, b"`: ", reason(error)]),
    };
    let Some(trailer) = Trailer::read(file) else {
        damaged()
    };
    let (places, is_chosen) = places(envp, envc, arena);
    for place in places.iter().flatten() {
        let program = place.path(arena, &[trailer.id, b"/", trailer.entry]);
        if exists(program) && place.check().is_ok() {
            return unpacked(program, own, (argc, argv), (envc, envp), arena);
        }
    }
    let mut first: Option<(Place, isize)> = None;
    for place in places.iter().flatten() {
        match prepare(place, &trailer, file, arena) {
            Ok(()) => {
                let program = place.path(arena, &[trailer.id, b"/", trailer.entry]);
                return unpacked(program, own, (argc, argv), (envc, envp), arena);
            }
            Err(Failure::Damaged) => damaged(),
            Err(Failure::System(error)) => {
                first.get_or_insert((*place, error));
            }
        }
    }
    let mut digits = [0; 20];
    let size = decimal(trailer.size_bytes.div_ceil(1 << 20), &mut digits);
    match first {
        Some((place, error)) => fail(&[
            b"cannot unpack into `",
            &place.dir[..place.dir.len() - 1],
            b"`: ",
            why(error),
            b"\n  help: the app needs ",
            size,
            if is_chosen {
                b" MiB there; change `PYTHEAS_UNPACK_DIR`"
            } else {
                b" MiB in a folder of its own; name one with `PYTHEAS_UNPACK_DIR`"
            },
        ]),
        None => fail(&[b"there is no folder to unpack into\n  help: set `PYTHEAS_UNPACK_DIR`"]),
    }
}

enum Failure {
    Damaged,
    System(isize),
}

impl From<isize> for Failure {
    fn from(error: isize) -> Self {
        Self::System(error)
    }
}

/// Unpacks the tree into `place`, or waits for another process that does.
fn prepare(
    place: &Place,
    trailer: &Trailer,
    file: &'static [u8],
    arena: &mut Arena,
) -> Result<(), Failure> {
    let made = place.make();
    place.check().map_err(|error| made.err().unwrap_or(error))?;
    let root = open(AT_FDCWD, place.dir, O_DIRECTORY, 0);
    if root < 0 {
        return Err(root.into());
    }
    let root = root as usize;
    let name = arena.join(&[trailer.id]);
    let lock = arena.join(&[trailer.id, b".lock"]);
    let lock = open(root, lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    if lock < 0 {
        return Err(lock.into());
    }
    let locked = loop {
        // SAFETY: flock(2) LOCK_EX on a file of ours; released when this process ends or execs.
        match unsafe { call(number::FLOCK, lock as usize, 2, 0, 0) } {
            EINTR => continue,
            result => break result == 0,
        }
    };
    let program = place.path(arena, &[trailer.id, b"/", trailer.entry]);
    if exists(program) {
        return Ok(());
    }
    check_space(root, trailer.size_bytes)?;
    // Without locks (some network file systems) each process unpacks for itself.
    let mut digits = [0; 20];
    // SAFETY: takes nothing.
    let process = decimal(
        unsafe { call(number::GETPID, 0, 0, 0, 0) } as u64,
        &mut digits,
    );
    let temporary = arena.join(&[trailer.id, b".tmp", if locked { b"" } else { process }]);
    // SAFETY: sets and gives a number.
    let mask = unsafe { call(number::UMASK, 0o022, 0, 0, 0) };
    let unpacked = unpack(root, temporary, trailer, file);
    // SAFETY: as above.
    unsafe { call(number::UMASK, mask as usize, 0, 0, 0) };
    unpacked?;
    // SAFETY: both names end with NUL.
    let renamed = unsafe {
        let (from, to) = (temporary.as_ptr() as usize, name.as_ptr() as usize);
        call(number::RENAMEAT, root, from, root, to)
    };
    match renamed {
        0 | EEXIST | ENOTEMPTY => {} // another process was first
        error => return Err(error.into()),
    }
    close(lock);
    close(root as isize);
    Ok(())
}

/// The file system has room and lets programs start (statfs(2), 64-bit layout).
fn check_space(root: usize, size_bytes: u64) -> Result<(), isize> {
    #[cfg(target_pointer_width = "64")]
    {
        let mut status = [0_u64; 32];
        // SAFETY: fstatfs is statfs's neighbour on all: 138 and 44. The buffer is large enough.
        let result = unsafe { call(number::STATFS + 1, root, status.as_mut_ptr() as usize, 0, 0) };
        if result == 0 {
            const NO_EXECUTION: u64 = 8;
            if status[10] & NO_EXECUTION != 0 {
                return Err(EACCES);
            }
            let (block, available) = (status[1], status[4]);
            if available.saturating_mul(block) < size_bytes {
                return Err(ENOSPC);
            }
        }
    }
    let _on_32_bit_writing_tells = (root, size_bytes);
    Ok(())
}

/// One record of the index.
struct Record {
    kind: u8,
    size: u64,
    /// Ended by NUL.
    path: &'static [u8],
    /// Ended by NUL; empty when it is no link.
    target: &'static [u8],
}

/// The records of the index, front to back.
struct Index {
    rest: &'static [u8],
}

impl Index {
    fn text(&mut self) -> Result<&'static [u8], Failure> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(Failure::Damaged)?;
        let (text, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Ok(text)
    }

    fn next(&mut self) -> Result<Option<Record>, Failure> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.rest.len() < 10 {
            return Err(Failure::Damaged);
        }
        let (kind, size) = (self.rest[0], word(self.rest, 1));
        self.rest = &self.rest[9..];
        let path = self.text()?;
        let target = if kind == b'l' { self.text()? } else { b"" };
        // The builder writes no such paths; a file made by others shall not climb out either.
        let inside = path.len() > 1
            && path[0] != b'/'
            && path[..path.len() - 1]
                .split(|byte| *byte == b'/')
                .all(|part| part != b"..");
        if inside {
            Ok(Some(Record {
                kind,
                size,
                path,
                target,
            }))
        } else {
            Err(Failure::Damaged)
        }
    }
}

/// The frames of the file, unpacked one after another.
struct Frames {
    file: &'static [u8],
    at: usize,
    left: u64,
    decoder: zstd::Decoder,
}

impl Frames {
    /// The next frame's packed bytes and unpacked length.
    fn head(&mut self) -> Result<(&'static [u8], usize), Failure> {
        self.left = self.left.checked_sub(1).ok_or(Failure::Damaged)?;
        let lengths = word(
            self.file
                .get(self.at..self.at + 8)
                .ok_or(Failure::Damaged)?,
            0,
        );
        let (packed, unpacked) = ((lengths & 0xffff_ffff) as usize, (lengths >> 32) as usize);
        let from = self.at + 8;
        let frame = self.file.get(from..from + packed).ok_or(Failure::Damaged)?;
        self.at = from + packed;
        if unpacked > INDEX_MAX {
            Err(Failure::Damaged)
        } else {
            Ok((frame, unpacked))
        }
    }

    fn unpack(&mut self, frame: &[u8], to: &mut [u8]) -> Result<(), Failure> {
        self.decoder.decode(frame, to).map_err(|_| Failure::Damaged)
    }
}

/// Writes the tree into the folder `name` below `root`.
fn unpack(root: usize, name: &[u8], trailer: &Trailer, file: &'static [u8]) -> Result<(), Failure> {
    match make_dir(root, name, 0o755) {
        0 | EEXIST => {}
        error => return Err(error.into()),
    }
    let dir = open(root, name, O_DIRECTORY | O_NOFOLLOW, 0);
    if dir < 0 {
        return Err(dir.into());
    }
    let dir = dir as usize;
    let mut frames = Frames {
        file,
        at: trailer.frames_at,
        left: trailer.frames,
        decoder: zstd::Decoder::new(),
    };
    let (frame, len) = frames.head()?;
    let index = &mut Arena::map(len + 16).take(len)[..len];
    frames.unpack(frame, index)?;
    let index: &'static [u8] = index;
    let result = write_entries(dir, index, &mut frames);
    if result.is_err() {
        remove_entries(dir, index);
        unlink(root, name, AT_REMOVEDIR);
        return result;
    }
    // Content before name: after a power cut the tree is whole or not there.
    // SAFETY: an open folder of ours.
    let synced = unsafe { call(number::SYNCFS, dir, 0, 0, 0) };
    close(dir as isize);
    if synced < 0 && synced != ENOSYS {
        Err(synced.into())
    } else {
        Ok(())
    }
}

fn write_entries(dir: usize, index: &'static [u8], frames: &mut Frames) -> Result<(), Failure> {
    let mut buffer: &mut [u8] = &mut [];
    let (mut at, mut end) = (0, 0);
    let mut records = Index { rest: index };
    while let Some(record) = records.next()? {
        match record.kind {
            b'd' => match make_dir(dir, record.path, 0o755) {
                0 | EEXIST => continue,
                error => return Err(error.into()),
            },
            b'l' => {
                let link = || {
                    let (to, at) = (
                        record.target.as_ptr() as usize,
                        record.path.as_ptr() as usize,
                    );
                    // SAFETY: both end with NUL.
                    unsafe { call(number::SYMLINKAT, to, dir, at, 0) }
                };
                let mut result = link();
                if result == EEXIST {
                    unlink(dir, record.path, 0);
                    result = link();
                }
                if result < 0 {
                    return Err(result.into());
                }
                continue;
            }
            b'f' | b'x' => {}
            _ => return Err(Failure::Damaged),
        }
        let mode = if record.kind == b'x' { 0o755 } else { 0o644 };
        let file = open(
            dir,
            record.path,
            O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
            mode,
        );
        if file < 0 {
            return Err(file.into());
        }
        let mut left = record.size;
        while left > 0 {
            if at == end {
                let (frame, len) = frames.head()?;
                if buffer.is_empty() {
                    buffer = Arena::map(len + 16).take(len);
                }
                end = len;
                at = 0;
                frames.unpack(frame, buffer.get_mut(..len).ok_or(Failure::Damaged)?)?;
                if len == 0 {
                    return Err(Failure::Damaged);
                }
            }
            let part = ((end - at) as u64).min(left) as usize;
            let from = &buffer[at..at + part];
            // SAFETY: `part` bytes from there are ours.
            let written =
                unsafe { call(nr::WRITE, file as usize, from.as_ptr() as usize, part, 0) };
            match written {
                EINTR => continue,
                ..0 => return Err(written.into()),
                _ => {}
            }
            at += written as usize;
            left -= written as u64;
        }
        close(file);
    }
    if frames.left != 0 || at != end {
        Err(Failure::Damaged)
    } else {
        Ok(())
    }
}

/// Gives the space back after a failure: files first, then the folders, which are empty by then,
/// the deepest first.
fn remove_entries(dir: usize, index: &'static [u8]) {
    let mut depth_max = 0;
    let mut records = Index { rest: index };
    while let Ok(Some(record)) = records.next() {
        if record.kind == b'd' {
            depth_max = depth(record.path).max(depth_max);
        } else {
            unlink(dir, record.path, 0);
        }
    }
    for wanted in (0..=depth_max).rev() {
        let mut records = Index { rest: index };
        while let Ok(Some(record)) = records.next() {
            if record.kind == b'd' && depth(record.path) == wanted {
                unlink(dir, record.path, AT_REMOVEDIR);
            }
        }
    }
}

fn depth(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

/// What the launcher goes on with: the path of the tree's own launcher, and the environment with
/// `PYTHEAS_ONE_FILE` naming this file. A tree whose program is no launcher is started right away.
fn unpacked(
    program: &'static [u8],
    own: &'static [u8],
    (argc, argv): (usize, *const *const u8),
    (envc, envp): (usize, *const *const u8),
    arena: &mut Arena,
) -> Unpacked {
    const NAME: &[u8] = b"PYTHEAS_ONE_FILE=";
    let mut variables = Strings::new(arena, envc + 1);
    for index in 0..envc {
        // SAFETY: index < envc.
        let variable = unsafe { *envp.add(index) };
        // SAFETY: the kernel's environment strings are C strings.
        if !starts_with(unsafe { bytes(variable) }, NAME) {
            variables.push(variable);
        }
    }
    variables.push(arena.join(&[NAME, own]).as_ptr());
    let path = &program[..program.len() - 1];
    let launch = arena.join(&[parent(parent(path)), LAUNCH_FILE]);
    if exists(launch) {
        return (path, variables.len, variables.memory);
    }
    let mut arguments = Strings::new(arena, argc.max(1));
    arguments.push(program.as_ptr());
    for index in 1..argc {
        // SAFETY: index < argc.
        arguments.push(unsafe { *argv.add(index) });
    }
    // SAFETY: C strings and NULL-terminated lists of them.
    let error = unsafe {
        let (arguments, variables) = (arguments.memory as usize, variables.memory as usize);
        call(
            nr::EXECVE,
            program.as_ptr() as usize,
            arguments,
            variables,
            0,
        )
    };
    fail(&[
        b"cannot start `", &program[..program.len() - 1], b"`: ", reason(error),
        b"\n  help: remove that folder, it is unpacked again; a file system mounted with `noexec` does not do (`PYTHEAS_UNPACK_DIR`)",
    ])
}
