//! One process at a time: advisory locks on files, with the holder's process id in them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// How often the file may be another one when it is locked: as often as others remove it just then.
const ATTEMPTS: usize = 100;

/// Holds a lock until it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

/// A lock that was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("`{}` is locked by process {holder}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process id of the holder, as it wrote it.
        holder: String,
    },
    /// The lock file cannot be opened or written.
    #[error("cannot lock `{}`", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FileLock {
    /// Takes the lock `path` (the file is made if missing) without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock `path`, waiting until it is free.
    ///
    /// # Errors
    /// [`LockError::Io`] when the file cannot be opened or locked.
    pub fn wait(path: &Path) -> Result<Self, LockError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Takes the lock `path` together with others that share it, waiting while one has it alone.
    ///
    /// # Errors
    /// [`LockError::Io`] when the file cannot be opened or locked.
    pub fn share(path: &Path) -> Result<Self, LockError> {
        Self::take(path, FlockOperation::LockShared)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, LockError> {
        for _ in 0..ATTEMPTS {
            let lock = Self::take_once(path, operation)?;
            if lock.is_at(path) {
                return Ok(lock);
            }
        }
        // A file system whose files change their numbers by themselves: nothing was replaced.
        Self::take_once(path, operation)
    }

    /// Whether the file that is locked is the one that the next process would open: whoever held it
    /// before may have removed it between its opening and its locking here.
    fn is_at(&self, path: &Path) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(path)) {
            (Ok(held), Ok(there)) => place(held) == place(there),
            _ => false,
        }
    }

    fn take_once(path: &Path, operation: FlockOperation) -> Result<Self, LockError> {
        let io = |source: io::Error| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .or_else(|error| match error.kind() {
                // A disk that went read-only: a lock needs no right to write.
                io::ErrorKind::ReadOnlyFilesystem => File::open(path),
                _ => Err(error),
            })
            .map_err(io)?;
        match flock(&file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = Vec::new();
                let _held_whatever_it_says = file.take(32).read_to_end(&mut text);
                let holder = String::from_utf8_lossy(&text).trim().to_owned();
                return Err(LockError::Held {
                    path: path.to_owned(),
                    holder: if holder.is_empty() {
                        "?".into()
                    } else {
                        holder
                    },
                });
            }
            other => other.map_err(|e| io(e.into()))?,
        }
        // The text is for people; the lock itself is the kernel's and ends with the process. A
        // full disk must keep nobody from his work.
        let _without_a_name = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(&path).unwrap();
        let error = FileLock::acquire(&path).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(held);
        FileLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_shared_lock_is_held_by_many_and_keeps_out_who_wants_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let shared = [
            FileLock::share(&path).unwrap(),
            FileLock::share(&path).unwrap(),
        ];
        FileLock::acquire(&path).unwrap_err();
        drop(shared);
        FileLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_whose_file_is_removed_by_its_holder_is_taken_on_the_file_that_comes_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(&path).unwrap();
        let inode = format!(":{} ", held.file.metadata().unwrap().ino());
        std::thread::scope(|scope| {
            // Opens the file that is there and waits for it; then that one is gone.
            let waits = scope.spawn(|| FileLock::wait(&path).unwrap());
            let waiting = || {
                let all = fs::read_to_string("/proc/locks").unwrap();
                let mut lines = all.lines();
                lines.any(|line| line.contains("->") && line.contains(&inode))
            };
            while !waiting() {
                std::thread::yield_now();
            }
            fs::remove_file(&path).unwrap();
            drop(held);
            let theirs = waits.join().unwrap();
            assert!(theirs.is_at(&path));
            FileLock::acquire(&path).unwrap_err();
        });
    }

    #[test]
    fn a_disk_without_room_for_the_holders_name_locks_all_the_same() {
        // Every write to it fails as on a full disk.
        let full = Path::new("/dev/full");
        let held = FileLock::acquire(full).unwrap();
        assert!(matches!(
            FileLock::acquire(full),
            Err(LockError::Held { .. })
        ));
        drop(held);
    }
}
