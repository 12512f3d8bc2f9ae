//! One process at a time: advisory locks on files, with the holder's process id in them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Holds a lock until it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
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

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, LockError> {
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
            .map_err(io)?;
        match flock(&file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.take(32).read_to_string(&mut holder).map_err(io)?;
                return Err(LockError::Held {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            other => other.map_err(|e| io(e.into()))?,
        }
        // The text is for people; the lock itself is the kernel's and ends with the process.
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
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
}
