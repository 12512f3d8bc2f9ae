//! Folders for half-made things: removed when they are dropped, known by name to whoever has to end
//! this process early ([`made`]), and found by the next one when it was killed.
//!
//! Each is named `PREFIX` + process id + `-` + six characters, and locked while its process lives, so
//! that it is not taken for a dead one's where the id means nothing (another container's, on the same
//! folder). Ids come again, in containers always the same: what has ours and is not ours goes, too,
//! after a day.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// All that this process has made; those that are gone stay in the list.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// How old a folder with our id has to be that we have not made: on file systems that several machines
/// share, locks may tell nothing.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _alive: Option<File>,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves it where it is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// A new folder in `parent`. Those with the same `prefix` that killed processes of this user left are
/// removed first.
///
/// # Errors
/// When `parent` cannot be read or written.
pub fn folder(parent: &Path, prefix: &str) -> io::Result<Scratch> {
    for child in fs::read_dir(parent)?.flatten() {
        let name = child.file_name();
        let Some(process) = name
            .to_string_lossy()
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(process, _)| process.parse::<u32>().ok())
        else {
            continue;
        };
        if is_left(process, &name, &child.path()) {
            tracing::debug!(path = %child.path().display(), "removing what a killed process left");
            let _ = pytheas_durable::remove_tree(&child.path());
        }
    }
    // In one go, for other threads that look for what an earlier process of our id left.
    let mut all = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::Builder::new()
        .prefix(&format!("{prefix}{}-", std::process::id()))
        .tempdir_in(parent)?;
    all.push(std::path::absolute(dir.path())?);
    drop(all);
    // Where folders cannot be locked (some network file systems), the process id has to do.
    let alive = File::open(dir.path()).ok();
    let alive = alive.filter(|dir| flock(dir, FlockOperation::NonBlockingLockShared).is_ok());
    Ok(Scratch { dir, _alive: alive })
}

/// Whether a process that is gone left the folder `dir`, and it is ours to remove.
fn is_left(process: u32, name: &OsStr, dir: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(dir) else {
        return false;
    };
    let is_gone = if process == std::process::id() {
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > OLD)
            && !made().iter().any(|path| path.file_name() == Some(name))
    } else {
        !Path::new("/proc").join(process.to_string()).exists()
    };
    // In a folder for everyone (`/tmp`), others may make what is named like ours.
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    is_gone && is_ours && metadata.is_dir() && is_unlocked(dir)
}

fn is_unlocked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Every folder that [`folder`] has made for this process.
pub fn made() -> Vec<PathBuf> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id that no process has: above the kernel's largest.
    const NOBODY: u32 = 4_194_305;

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: String| dir.path().join(name);
        let dead = at(format!(".new-{NOBODY}-a1b2c3"));
        let foreign = at(format!(".new-{NOBODY}-locked"));
        let others = at(format!(".old-{NOBODY}-a1b2c3"));
        let bare = at(format!(".new-{NOBODY}"));
        for path in [&dead, &foreign, &others, &bare] {
            fs::create_dir_all(path.join("inner")).unwrap();
        }
        // As a process in another container does, whose id nobody here has.
        let lock = File::open(&foreign).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockShared).unwrap();
        let first = folder(dir.path(), ".new-").unwrap();
        let second = folder(dir.path(), ".new-").unwrap();
        assert!(!dead.exists());
        assert!(foreign.exists() && others.exists() && bare.exists());
        assert!(first.path().exists() && second.path().exists());
        let all = made();
        assert!(all.iter().any(|path| path == first.path()), "{all:?}");
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn of_an_earlier_process_with_our_id_only_what_is_old_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = folder(dir.path(), ".new-").unwrap();
        let at = |end: &str| {
            dir.path()
                .join(format!(".new-{}-{end}", std::process::id()))
        };
        let (old, recent) = (at("a1b2c3"), at("d4e5f6"));
        let link = dir.path().join(format!(".new-{NOBODY}-link"));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&recent).unwrap();
        std::os::unix::fs::symlink(&recent, &link).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        for path in [old.as_path(), ours.path()] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        let _another = folder(dir.path(), ".new-").unwrap();
        assert!(!old.exists());
        assert!(recent.exists() && link.exists() && ours.path().exists());
    }
}
