//! An app's data folder around an update that changes it: set aside before, put back when the
//! update fails, given up when it is committed.
//!
//! ```text
//! set_aside   data ─copy─▶ snapshot.part ─sync, rename─▶ snapshot        (the app is stopped)
//! again       data ─rename─▶ data.failed;  snapshot ─copy─▶ data.part ─sync, rename─▶ data
//! put_back    data ─rename─▶ data.failed;  snapshot ─rename─▶ data
//! forget      snapshot ─rename─▶ snapshot.part ─▶ removed
//! ```
//! `snapshot` is whole whenever it exists, so its being there is all that has to be known after a
//! power cut, and each of these may be repeated at any point of it. Files are copied by reference
//! where the file system can (btrfs, XFS); hard links between files and extended attributes are not
//! kept; sockets are left out.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use pytheas_durable::{faults, move_dir, remove_tree, trees};
use pytheas_update::{Failure, Reason};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat,
        chownat, fchmod, fchown, fstat, futimens, mkdirat, mknodat, openat, readlinkat, statat,
        symlinkat, utimensat,
    },
    path::Arg,
};

use crate::{failure::device_failure, paths::StateDir, slots};

/// Room that is left free for everything else.
const RESERVE_BYTES: u64 = 1 << 20;
/// What a file costs beside its content.
const PER_FILE_BYTES: u64 = 4096;
/// Folders in folders that are copied; two are open for each level.
const MAX_DEPTH: usize = 200;

/// Fails when there is no room for copies of the data folders of `dirs`, which share a file system.
///
/// # Errors
/// [`Reason::NoSpace`] with both numbers, or a folder that cannot be read.
pub(crate) fn require_space(dirs: &[StateDir]) -> Result<(), Failure> {
    let mut needed = 0_u64;
    for dir in dirs {
        let data = dir.data();
        let size = size_bytes(&data).map_err(|error| device_failure("read", &data, &error))?;
        if size > 0 && !copies_by_reference(dir) {
            needed = needed.saturating_add(size);
        }
    }
    let Some(dir) = dirs.first().filter(|_| needed > 0) else {
        return Ok(());
    };
    let root = dir.device();
    let free = slots::free_bytes(root).map_err(|error| crate::failure::slot_failure(&error))?;
    if free >= needed.saturating_add(RESERVE_BYTES) {
        return Ok(());
    }
    let message = format!(
        "the data cannot be set aside before the update: {needed} bytes are needed in `{}`, {free} are free\n\
         help: free some space on the device, or publish the release with `snapshot = false` in `[tool.pytheas.hooks]`",
        root.display()
    );
    Err(Failure::new(Reason::NoSpace, message))
}

/// What a copy of `path` takes at most.
fn size_bytes(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut size = PER_FILE_BYTES;
    if metadata.is_dir() {
        for child in fs::read_dir(path)? {
            // Sparse files may claim more than there is in the world.
            size = size.saturating_add(size_bytes(&child?.path())?);
        }
    } else if metadata.is_file() {
        size = size.saturating_add(metadata.len());
    }
    Ok(size)
}

/// Whether the file system copies files by reference, which takes no room.
fn copies_by_reference(dir: &StateDir) -> bool {
    let try_one = || -> io::Result<()> {
        let (from, to) = (
            dir.root().join("reflink.from"),
            dir.root().join("reflink.to"),
        );
        let result = pytheas_durable::replace(&from, &[0; 8192])
            .and_then(|()| copy_content(File::open(&from)?, &File::create(&to)?, false));
        let _nothing_there = fs::remove_file(&from);
        let _nothing_there = fs::remove_file(&to);
        result
    };
    try_one().is_ok()
}

/// Copies the data to `snapshot`. The app must not be running.
///
/// # Errors
/// With the path that is at fault; the data is as it was.
pub(crate) fn set_aside(dir: &StateDir) -> Result<(), Failure> {
    let result = (|| {
        forget(dir)?;
        let part = dir.snapshot_part();
        if dir.data().exists() {
            copy(&dir.data(), &part)?;
        } else {
            pytheas_durable::create_dir_all(&part)?;
        }
        trees::sync(&part)?;
        faults::point("agent:data:copied");
        move_dir(&part, &dir.snapshot())?;
        faults::point("agent:data:aside");
        Ok(())
    })();
    result.map_err(|error: io::Error| {
        let _as_far_as_it_goes = remove_tree(&dir.snapshot_part());
        device_failure("set aside", &dir.data(), &error)
    })
}

/// Lets the data be a fresh copy of `snapshot`, if there is one.
///
/// # Errors
/// With the path that is at fault; done again it goes on.
pub(crate) fn again(dir: &StateDir) -> Result<(), Failure> {
    let (snapshot, part, data) = (dir.snapshot(), dir.data_part(), dir.data());
    let result = (|| {
        if !snapshot.exists() {
            return Ok(());
        }
        remove_tree(&part)?;
        copy(&snapshot, &part)?;
        trees::sync(&part)?;
        give_up(dir)?;
        move_dir(&part, &data)?;
        faults::point("agent:data:again");
        remove_tree(&dir.data_failed())
    })();
    result.map_err(|error: io::Error| device_failure("put back", &data, &error))
}

/// Puts the data back that was set aside, if it was.
///
/// # Errors
/// With the path that is at fault; done again it goes on.
pub(crate) fn put_back(dir: &StateDir) -> Result<(), Failure> {
    let result = (|| {
        if dir.snapshot().exists() {
            give_up(dir)?;
            faults::point("agent:data:given-up");
            move_dir(&dir.snapshot(), &dir.data())?;
            faults::point("agent:data:back");
        }
        Ok(())
    })();
    result.map_err(|error: io::Error| device_failure("put back", &dir.data(), &error))
}

/// Moves the data out of the way, if it is there.
fn give_up(dir: &StateDir) -> io::Result<()> {
    if dir.data().exists() {
        remove_tree(&dir.data_failed())?;
        move_dir(&dir.data(), &dir.data_failed())?;
    }
    Ok(())
}

/// Removes everything but the data itself.
///
/// # Errors
/// Whatever the file system says; what stays costs space, nothing else.
pub(crate) fn forget(dir: &StateDir) -> io::Result<()> {
    // One rename: a half removed snapshot would look like a whole one after a power cut.
    if dir.snapshot().exists() {
        remove_tree(&dir.snapshot_part())?;
        move_dir(&dir.snapshot(), &dir.snapshot_part())?;
    }
    for waste in [dir.snapshot_part(), dir.data_part(), dir.data_failed()] {
        remove_tree(&waste)?;
    }
    Ok(())
}

/// Keeps what was set aside for an update that nobody remembers; where it lies now.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn rescue(dir: &StateDir) -> io::Result<Option<PathBuf>> {
    let kept = dir.root().join("data.rescued");
    if !dir.snapshot().exists() || kept.exists() {
        return Ok(None); // what was rescued first is the more valuable
    }
    move_dir(&dir.snapshot(), &kept)?;
    Ok(Some(kept))
}

/// Copies a folder with everything in it: modes, owners, times.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_entry((CWD, from), (CWD, to), MAX_DEPTH)
}

/// Copies one entry of a folder. What is read belongs to the app, of which a process may be left
/// that changes it meanwhile: no link is followed, nothing is waited for, and what is copied is
/// what was looked at.
fn copy_entry<N: Arg + Copy>(
    (from, name): (BorrowedFd<'_>, N),
    (to, target): (BorrowedFd<'_>, N),
    depth: usize,
) -> io::Result<()> {
    let to_read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            if depth == 0 {
                let text = format!("folders lie more than {MAX_DEPTH} deep in each other");
                return Err(io::Error::other(text));
            }
            let source = openat(from, name, to_read | OFlags::DIRECTORY, Mode::empty())?;
            let found = fstat(&source)?;
            mkdirat(to, target, Mode::from_raw_mode(0o700))?;
            let made = openat(to, target, to_read | OFlags::DIRECTORY, Mode::empty())?;
            for entry in Dir::read_from(&source)? {
                let entry = entry?;
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    copy_entry((source.as_fd(), name), (made.as_fd(), name), depth - 1)?;
                }
            }
            keep_attributes(&made, &found)
        }
        FileType::RegularFile => {
            let source = File::from(openat(from, name, to_read, Mode::empty())?);
            let found = fstat(&source)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("a file became something else meanwhile"));
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = File::from(openat(to, target, flags, Mode::from_raw_mode(0o600))?);
            copy_content(source, &made, true)?;
            keep_attributes(&made, &found)?;
            faults::point("agent:data:file");
            Ok(())
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, target)?;
            keep_owner_and_times(to, target, &found)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
            mknodat(to, target, FileType::Fifo, mode, 0)?;
            keep_owner_and_times(to, target, &found)?;
            Ok(chmodat(to, target, mode, AtFlags::empty())?) // the folder is still ours alone
        }
        // A socket: whoever listens makes a new one.
        _ => Ok(()),
    }
}

/// Copies a file's content by reference; if that cannot be, `by_content`.
fn copy_content(mut source: File, mut target: &File, by_content: bool) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(target, &source) {
        Ok(()) => Ok(()),
        Err(error) if !by_content => Err(error.into()),
        Err(_) => io::copy(&mut source, &mut target).map(drop),
    }
}

/// Whose a copy is, its mode and its times.
fn keep_attributes(made: &impl AsFd, of: &Stat) -> io::Result<()> {
    let now = fstat(made)?;
    if (now.st_uid, now.st_gid) != (of.st_uid, of.st_gid) {
        let (uid, gid) = (Uid::from_raw(of.st_uid), Gid::from_raw(of.st_gid));
        fchown(made, Some(uid), Some(gid))?;
    }
    fchmod(made, Mode::from_raw_mode(of.st_mode & 0o7777))?;
    Ok(futimens(made, &times(of))?)
}

/// As [`keep_attributes`], for what cannot be opened.
fn keep_owner_and_times(dir: BorrowedFd<'_>, name: impl Arg + Copy, of: &Stat) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let now = statat(dir, name, flags)?;
    if (now.st_uid, now.st_gid) != (of.st_uid, of.st_gid) {
        let (uid, gid) = (Uid::from_raw(of.st_uid), Gid::from_raw(of.st_gid));
        chownat(dir, name, Some(uid), Some(gid), flags)?;
    }
    Ok(utimensat(dir, name, &times(of), flags)?)
}

fn times(of: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: number(of.st_atime),
            tv_nsec: number(of.st_atime_nsec),
        },
        last_modification: Timespec {
            tv_sec: number(of.st_mtime),
            tv_nsec: number(of.st_mtime_nsec),
        },
    }
}

/// A number of another type: those of the fields differ from platform to platform.
fn number<A: TryInto<B>, B: Default>(from: A) -> B {
    from.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
