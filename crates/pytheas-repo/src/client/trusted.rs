//! Trusted metadata on disk: loaded whole, replaced durably, never silently ignored.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp as Time;
use pytheas_durable::{faults, replace, sync_dir};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tough::schema::{Role, RoleType, Root, Signed, Snapshot, Targets, Timestamp};

use super::metadata::{MetadataError, verify};
use crate::SIGNED_AT;

pub(super) const ROOT: &str = "root.json";
const TIMESTAMP: &str = "timestamp.json";
const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";
/// Says that metadata signed by replaced keys is to be forgotten once the new root is in place.
const FORGET: &str = "forget.json";

/// Metadata as it was downloaded, and what it says.
pub(super) struct Stored<T> {
    pub(super) bytes: Vec<u8>,
    pub(super) signed: Signed<T>,
}

/// Everything the device trusts.
pub(super) struct Trusted {
    pub(super) root: Stored<Root>,
    pub(super) timestamp: Option<Stored<Timestamp>>,
    pub(super) snapshot: Option<Stored<Snapshot>>,
    pub(super) targets: Option<Stored<Targets>>,
}

/// The content of [`FORGET`] (format 1).
#[derive(Debug, Serialize, Deserialize)]
struct Forget {
    format: u32,
    /// It holds from this version of the root on.
    root_version: u64,
    files: Vec<String>,
}

/// Where a device keeps its trusted metadata.
pub(super) fn metadata_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("tuf")
}

impl<T: Role + DeserializeOwned> Stored<T> {
    /// The metadata in the file `path`, if the file is there.
    fn load(path: &Path) -> Result<Option<Self>, MetadataError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| MetadataError::Read {
                path: path.to_owned(),
                source,
            })?,
        };
        match serde_json::from_slice(&bytes) {
            Ok(signed) => Ok(Some(Self { bytes, signed })),
            Err(error) => Err(MetadataError::Damaged {
                path: path.to_owned(),
                why: format!("it does not parse: {error}"),
            }),
        }
    }

    /// The metadata in the file `path`, which must be there.
    pub(super) fn require(path: &Path) -> Result<Self, MetadataError> {
        Self::load(path)?.ok_or_else(|| MetadataError::NotInitialised {
            dir: path.parent().unwrap_or(path).to_owned(),
        })
    }

    /// As [`Self::load`], the signatures checked: keys that were replaced are dealt with by
    /// [`Forget`], so a wrong signature means that the file was changed.
    fn load_verified(path: &Path, root: &Root) -> Result<Option<Self>, MetadataError>
    where
        T: Serialize,
    {
        let Some(stored) = Self::load(path)? else {
            return Ok(None);
        };
        verify(root, &stored.signed, "").map_err(|_| MetadataError::Damaged {
            path: path.to_owned(),
            why: format!("it is not signed by the keys of the role `{}`", T::TYPE),
        })?;
        Ok(Some(stored))
    }
}

impl Trusted {
    /// What is in `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self, MetadataError> {
        let root_path = dir.join(ROOT);
        let root = Stored::<Root>::require(&root_path)?;
        let keys = &root.signed.signed;
        verify(keys, &root.signed, "").map_err(|_| MetadataError::Damaged {
            path: root_path,
            why: "it is not signed by its own keys".into(),
        })?;
        finish_forgetting(dir, keys.version.get())?;
        Ok(Self {
            timestamp: Stored::load_verified(&dir.join(TIMESTAMP), keys)?,
            snapshot: Stored::load_verified(&dir.join(SNAPSHOT), keys)?,
            targets: Stored::load_verified(&dir.join(TARGETS), keys)?,
            root,
        })
    }

    /// A time that is certainly past: when the trusted timestamp metadata was signed.
    pub(super) fn clock_floor(&self) -> Option<Time> {
        signed_at(&self.timestamp.as_ref()?.signed.signed)
    }

    /// Keeps `root` (TUF §5.3.8) and forgets metadata whose keys it replaces (§5.3.11).
    ///
    /// Off-spec: §5.3.11 comes after the last root; done with each, so that a power cut between
    /// two roots cannot make us forget that keys were replaced.
    pub(super) fn keep_root(
        &mut self,
        dir: &Path,
        root: Stored<Root>,
    ) -> Result<(), MetadataError> {
        let (old, new) = (&self.root.signed.signed, &root.signed.signed);
        let replaced = |role: RoleType| old.roles.get(&role) != new.roles.get(&role);
        let mut files = Vec::new();
        if replaced(RoleType::Timestamp) || replaced(RoleType::Snapshot) {
            files.extend([TIMESTAMP.to_owned(), SNAPSHOT.to_owned()]);
        }
        if replaced(RoleType::Targets) {
            files.push(TARGETS.to_owned()); // only a cache: the snapshot pins its version
        }
        let version = new.version.get();
        if !files.is_empty() {
            let forget = Forget {
                format: 1,
                root_version: version,
                files,
            };
            let path = dir.join(FORGET);
            let json = serde_json::to_vec(&forget).expect("numbers and texts");
            replace(&path, &json).map_err(MetadataError::write(&path))?;
        }
        faults::point("tuf-root:before");
        let path = dir.join(ROOT);
        replace(&path, &root.bytes).map_err(MetadataError::write(&path))?;
        faults::point("tuf-root:after");
        for file in finish_forgetting(dir, version)? {
            match file.as_str() {
                TIMESTAMP => self.timestamp = None,
                SNAPSHOT => self.snapshot = None,
                _ => self.targets = None,
            }
        }
        self.root = root;
        Ok(())
    }

    pub(super) fn keep_timestamp(
        &mut self,
        dir: &Path,
        metadata: Stored<Timestamp>,
    ) -> Result<(), MetadataError> {
        keep(&dir.join(TIMESTAMP), metadata, &mut self.timestamp)
    }

    pub(super) fn keep_snapshot(
        &mut self,
        dir: &Path,
        metadata: Stored<Snapshot>,
    ) -> Result<(), MetadataError> {
        keep(&dir.join(SNAPSHOT), metadata, &mut self.snapshot)
    }

    pub(super) fn keep_targets(
        &mut self,
        dir: &Path,
        metadata: Stored<Targets>,
    ) -> Result<(), MetadataError> {
        keep(&dir.join(TARGETS), metadata, &mut self.targets)
    }
}

fn keep<T>(
    path: &Path,
    metadata: Stored<T>,
    place: &mut Option<Stored<T>>,
) -> Result<(), MetadataError> {
    replace(path, &metadata.bytes).map_err(MetadataError::write(path))?;
    *place = Some(metadata);
    Ok(())
}

/// Forgets what [`FORGET`] names, if the root it belongs to is in place. What was forgotten.
fn finish_forgetting(dir: &Path, root_version: u64) -> Result<Vec<String>, MetadataError> {
    let path = dir.join(FORGET);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| MetadataError::Read {
            path: path.clone(),
            source,
        })?,
    };
    let forget: Forget =
        serde_json::from_slice(&bytes).map_err(|error| MetadataError::Damaged {
            path: path.clone(),
            why: format!("it does not parse: {error}"),
        })?;
    let due = root_version >= forget.root_version;
    if due {
        for file in [TIMESTAMP, SNAPSHOT, TARGETS] {
            if forget.files.iter().any(|name| name == file) {
                remove(&dir.join(file))?;
            }
        }
        sync_dir(dir).map_err(MetadataError::write(dir))?;
        faults::point("tuf-forget:removed");
    }
    remove(&path)?;
    Ok(if due { forget.files } else { Vec::new() })
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

/// When timestamp metadata was signed, if its publisher said so.
pub(super) fn signed_at(timestamp: &Timestamp) -> Option<Time> {
    timestamp._extra.get(SIGNED_AT)?.as_str()?.parse().ok()
}
