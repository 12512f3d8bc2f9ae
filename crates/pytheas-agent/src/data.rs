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
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use pytheas_durable::{faults, move_dir, remove_tree, trees};
use pytheas_update::{Failure, Reason};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, chownat, mknodat, utimensat};

use crate::{failure::device_failure, paths::StateDir, slots};

/// Room that is left free for everything else.
const RESERVE_BYTES: u64 = 1 << 20;
/// What a file costs beside its content.
const PER_FILE_BYTES: u64 = 4096;

/// Fails when there is no room for copies of the data folders of `dirs`, which share a file system.
///
/// # Errors
/// [`Reason::NoSpace`] with both numbers, or a folder that cannot be read.
pub(crate) fn require_space(dirs: &[StateDir]) -> Result<(), Failure> {
    let mut needed = 0;
    for dir in dirs {
        let data = dir.data();
        let size = size_bytes(&data).map_err(|error| device_failure("read", &data, &error))?;
        if size > 0 && !copies_by_reference(dir) {
            needed += size;
        }
    }
    let Some(dir) = dirs.first().filter(|_| needed > 0) else {
        return Ok(());
    };
    let root = dir.device();
    let free = slots::free_bytes(root).map_err(|error| crate::failure::slot_failure(&error))?;
    if free >= needed + RESERVE_BYTES {
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
            size += size_bytes(&child?.path())?;
        }
    } else if metadata.is_file() {
        size += metadata.len();
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
        let result =
            pytheas_durable::replace(&from, &[0; 8192]).and_then(|()| copy_file(&from, &to, false));
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
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        fs::set_permissions(to, Permissions::from_mode(0o700))?;
        for child in fs::read_dir(from)? {
            let child = child?;
            copy(&child.path(), &to.join(child.file_name()))?;
        }
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        copy_file(from, to, true)?;
        faults::point("agent:data:file");
    } else if kind.is_fifo() {
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        mknodat(CWD, to, rustix::fs::FileType::Fifo, mode, 0)?;
    } else {
        tracing::debug!("`{}` is not set aside", from.display());
        return Ok(()); // a socket: whoever listens makes a new one
    }
    keep_attributes(to, &metadata)
}

/// Copies one file by reference; if that cannot be, `by_content`.
fn copy_file(from: &Path, to: &Path, by_content: bool) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create(to)?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(()),
        Err(error) if !by_content => Err(error.into()),
        Err(_) => {
            drop(target);
            fs::copy(from, to).map(drop)
        }
    }
}

fn keep_attributes(path: &Path, of: &fs::Metadata) -> io::Result<()> {
    let is_link = of.file_type().is_symlink();
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let now = fs::symlink_metadata(path)?;
    if (now.uid(), now.gid()) != (of.uid(), of.gid()) {
        let (uid, gid) = (Uid::from_raw(of.uid()), Gid::from_raw(of.gid()));
        chownat(CWD, path, Some(uid), Some(gid), flags)?;
    }
    if !is_link {
        fs::set_permissions(path, Permissions::from_mode(of.mode() & 0o7777))?;
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(of.atime(), of.atime_nsec()),
        last_modification: time(of.mtime(), of.mtime_nsec()),
    };
    utimensat(CWD, path, &times, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests;
