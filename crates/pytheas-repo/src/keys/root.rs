//! The root metadata of a folder of keys: read, verified, followed, put in force.

use std::{
    io,
    path::{Path, PathBuf},
};

use pytheas_durable::{FileLock, LockError};
use tough::schema::{Root, Signed};

use super::{KeyError, ROOT_JSON};

/// Longest root metadata, in bytes.
const MAX: u64 = 16 << 20;

/// Where version `version` of the root metadata is kept in `dir`.
pub(super) fn numbered(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("{version}.root.json"))
}

/// Puts a root into force in the folder `dir`: its number first, so that a power cut between the
/// writes is made good by [`RootFile::load`].
pub(super) fn store_root(dir: &Path, version: u64, bytes: &[u8]) -> Result<(), KeyError> {
    let online = dir.join("online");
    let mut paths = vec![numbered(dir, version)];
    if online.is_dir() {
        paths.push(online.join(ROOT_JSON));
    }
    paths.push(dir.join(ROOT_JSON));
    for path in paths {
        pytheas_durable::replace(&path, bytes).map_err(KeyError::io(&path))?;
    }
    Ok(())
}

/// Keeps other processes from changing the root of the folder `dir` meanwhile; waits for them.
pub(super) fn lock(dir: &Path) -> Result<FileLock, KeyError> {
    let path = dir.join(".lock");
    FileLock::wait(&path).map_err(|error| match error {
        LockError::Io { path, source } => KeyError::io(&path)(source),
        held @ LockError::Held { .. } => KeyError::io(&path)(io::Error::other(held)),
    })
}

/// The root metadata of a folder of keys, its own signatures checked.
#[derive(Debug, Clone)]
pub struct RootFile {
    /// As it is stored and published.
    pub bytes: Vec<u8>,
    /// What it says.
    pub signed: Root,
}

impl RootFile {
    /// The root metadata in force in `dir`: its `root.json`, or the next version when a power cut
    /// came between writing that and naming it so.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::BadRoot`].
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let mut root = Self::read(&dir.join(ROOT_JSON))?;
        loop {
            let next = root.signed.version.get().saturating_add(1);
            match Self::read(&numbered(dir, next)) {
                Err(KeyError::Missing { .. }) => return Ok(root),
                Err(error) => return Err(error),
                Ok(newer) => {
                    newer.follows(&root).map_err(|why| KeyError::BadRoot {
                        path: numbered(dir, next),
                        why,
                    })?;
                    root = newer;
                }
            }
        }
    }

    /// Every version from `first` to this one that the folder `dir` has, in order.
    pub(crate) fn versions(&self, dir: &Path) -> Result<Vec<Self>, KeyError> {
        let mut all = Vec::new();
        for version in 1..self.signed.version.get() {
            match Self::read(&numbered(dir, version)) {
                Ok(root) => all.push(root),
                Err(KeyError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        all.push(self.clone());
        Ok(all)
    }

    /// Whether this is the version after `old` and signed by enough keys of both (TUF §5.3.4).
    pub(crate) fn follows(&self, old: &Self) -> Result<(), String> {
        let root = self.parse().map_err(|error| error.to_string())?;
        if root.signed.version.get() != old.signed.version.get() + 1 {
            return Err(format!(
                "it has version {}, not the one after {}",
                root.signed.version, old.signed.version
            ));
        }
        old.signed
            .verify_role(&root)
            .map_err(|error| format!("version {}: {error}", old.signed.version))
    }

    pub(crate) fn parse(&self) -> Result<Signed<Root>, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// The root metadata in the file `path`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let path = path.to_owned();
        let help = "make keys with `pytheas keys init`, or name the folder that has them with `--keys`; where only this file is missing, take the newest `metadata/N.root.json` of your repository";
        let bytes = match pytheas_durable::read_at_most(&path, MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::Missing { path, help });
            }
            other => other.map_err(KeyError::io(&path))?,
        };
        Self::verified(bytes).map_err(|why| KeyError::BadRoot { path, why })
    }

    fn verified(bytes: Vec<u8>) -> Result<Self, String> {
        let root: Signed<Root> =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        root.signed
            .verify_role(&root)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            bytes,
            signed: root.signed,
        })
    }

    /// The root metadata in `bytes`, if it is one.
    pub(crate) fn check(bytes: &[u8]) -> Option<Self> {
        Self::verified(bytes.to_vec()).ok()
    }
}
