//! The folder of trusted metadata and its second copy, so that one rotten file costs nothing.
//!
//! `tuf-copy/` beside `tuf/` holds root, timestamp and snapshot once more: what keeps a device from
//! being told old news. The copy is written first. Each file proves itself by its signatures, so of
//! two whole ones the newer counts, and the other is written anew: trusted versions never go back.
//! Targets, also of delegated roles, are only a cache: the snapshot says which version counts.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pytheas_durable::{create_dir_all, faults, remove_tree, replace, sync_dir};
use tracing::warn;

use super::metadata::MetadataError;

/// Where trusted metadata lies.
#[derive(Debug)]
pub(super) struct Folder {
    main: PathBuf,
    copy: Option<PathBuf>,
}

/// What one of the two places holds.
enum Found<T> {
    Whole(Vec<u8>, T),
    Nothing,
    Damaged(MetadataError),
}

impl Folder {
    /// `tuf/` and `tuf-copy/` of a device.
    pub(super) fn of(state_dir: &Path) -> Self {
        Self {
            main: state_dir.join("tuf"),
            copy: Some(state_dir.join("tuf-copy")),
        }
    }

    /// One folder, without a copy.
    pub(super) fn single(dir: &Path) -> Self {
        Self {
            main: dir.to_owned(),
            copy: None,
        }
    }

    /// The folder that counts.
    pub(super) fn main(&self) -> &Path {
        &self.main
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.main.join(name)
    }

    /// Makes the folders. What was removed was removed with its copy.
    pub(super) fn create(&self) -> Result<(), MetadataError> {
        if let Some(copy) = self.copy.as_ref().filter(|_| !self.main.exists()) {
            remove_tree(copy).map_err(MetadataError::write(copy))?;
        }
        create_dir_all(&self.main).map_err(MetadataError::write(&self.main))
    }

    /// The file `name`: the newer of what is whole, which then is in both places again. `judge`
    /// checks the bytes and says what they mean; `version` orders them.
    ///
    /// # Errors
    /// When neither is whole, and the one that counts is there.
    pub(super) fn read<T>(
        &self,
        name: &str,
        judge: impl Fn(&[u8]) -> Result<T, MetadataError>,
        version: impl Fn(&T) -> u64,
    ) -> Result<Option<(Vec<u8>, T)>, MetadataError> {
        let find = |path: &Path| {
            Ok(match read(path)? {
                None => Found::Nothing,
                Some(bytes) => match judge(&bytes) {
                    Ok(value) => Found::Whole(bytes, value),
                    Err(error) => Found::Damaged(error),
                },
            })
        };
        let path = self.file(name);
        // Whoever removes the whole folder wants the device to forget.
        let copy = self.copy.as_ref().filter(|_| self.main.is_dir());
        let copy = copy.map(|folder| folder.join(name));
        // A part of the disk that cannot be read is damage as well, when there is a copy.
        let main = match (find(&path), &copy) {
            (Err(error), Some(_)) => Found::Damaged(error),
            (found, _) => found?,
        };
        let Some(copy) = copy else {
            return match main {
                Found::Whole(bytes, value) => Ok(Some((bytes, value))),
                Found::Nothing => Ok(None),
                Found::Damaged(error) => Err(error),
            };
        };
        let second = find(&copy).unwrap_or_else(Found::Damaged);
        match (main, second) {
            (Found::Whole(bytes, value), Found::Whole(other, _)) if bytes == other => {
                Ok(Some((bytes, value)))
            }
            (Found::Whole(bytes, value), Found::Whole(_, second))
                if version(&value) >= version(&second) =>
            {
                mend(&copy, &bytes);
                Ok(Some((bytes, value)))
            }
            (Found::Whole(bytes, value), Found::Nothing | Found::Damaged(_)) => {
                mend(&copy, &bytes);
                Ok(Some((bytes, value)))
            }
            (main, Found::Whole(bytes, value)) => {
                if let Found::Damaged(error) = main {
                    warn!("`{}` is repaired from its copy: {error}", path.display());
                }
                mend(&path, &bytes);
                Ok(Some((bytes, value)))
            }
            (Found::Damaged(error), _) => Err(error),
            (Found::Nothing, _) => Ok(None),
        }
    }

    /// Writes the file `name` to both places, the copy first.
    pub(super) fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), MetadataError> {
        if let Some(folder) = &self.copy {
            let path = folder.join(name);
            create_dir_all(folder)
                .and_then(|()| replace(&path, bytes))
                .map_err(MetadataError::write(&path))?;
            faults::point("tuf-copy:written");
        }
        let path = self.file(name);
        replace(&path, bytes).map_err(MetadataError::write(&path))
    }

    /// Removes the files `names` from both places, for good.
    pub(super) fn remove(&self, names: &[&str]) -> Result<(), MetadataError> {
        for folder in self.copy.iter().chain([&self.main]) {
            for name in names {
                remove(&folder.join(name))?;
            }
            match sync_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(MetadataError::write(folder)(error));
                }
                _ => faults::point("tuf-forget:removed"),
            }
        }
        Ok(())
    }
}

/// Makes one of the two places whole again. When that fails (a full disk) the next start does it.
fn mend(path: &Path, bytes: &[u8]) {
    let parent = path.parent().unwrap_or(path);
    if let Err(error) = create_dir_all(parent).and_then(|()| replace(path, bytes)) {
        warn!("cannot write `{}`: {error}", path.display());
    }
}

/// The bytes of a stored file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, MetadataError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|source| MetadataError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn remove(path: &Path) -> Result<(), MetadataError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MetadataError::Write {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
