//! Writes the tree: whole and synced under its name, or not at all.

use super::{
    Failure, decimal,
    format::{Frames, Index, Trailer},
    place::Place,
    system::{
        AT_REMOVEDIR, EEXIST, EINTR, ENOSPC, ENOSYS, ENOTEMPTY, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_RDWR,
        O_TRUNC, O_WRONLY, call, close, make_dir, number, open, unlink,
    },
    zstd,
};
use crate::{
    arena::Arena,
    files::{exists, file_system},
    kernel::{AT_FDCWD, nr},
};

/// Not a number of the kernel: programs cannot be started from that file system.
pub const NOEXEC: isize = -4098;

/// Unpacks the tree into `place`, or waits for another process that does.
pub fn prepare(
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
    check_space(place, trailer.size_bytes)?;
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

/// The file system has room and lets programs start.
fn check_space(place: &Place, size_bytes: u64) -> Result<(), isize> {
    match file_system(place.dir) {
        Some(found) if found.is_noexec => Err(NOEXEC),
        Some(found) if found.free_bytes < size_bytes => Err(ENOSPC),
        _ => Ok(()),
    }
}

/// Writes the tree into the folder `name` below `root`.
fn unpack(root: usize, name: &[u8], trailer: &Trailer, file: &'static [u8]) -> Result<(), Failure> {
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
    // Not before: a damaged index leaves nothing.
    match make_dir(root, name, 0o755) {
        0 | EEXIST => {}
        error => return Err(error.into()),
    }
    let dir = open(root, name, O_DIRECTORY | O_NOFOLLOW, 0);
    if dir < 0 {
        return Err(dir.into());
    }
    let dir = dir as usize;
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
