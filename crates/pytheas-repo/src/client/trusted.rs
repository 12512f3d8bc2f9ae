//! Trusted metadata on disk: loaded whole, replaced durably, never silently ignored.
//!
//! Metadata of delegated roles is only a cache here: the snapshot says which version of it counts,
//! so what is missing or damaged is fetched again.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp as Time;
use pytheas_durable::{faults, replace, sync_dir};
use serde::{Deserialize, Serialize};

use super::{
    keys::Keys,
    metadata::{Envelope, MetadataError},
    schema::{Role, Root, Snapshot, Targets, Timestamp},
};
use crate::layout;

pub(super) const ROOT: &str = "root.json";
const TIMESTAMP: &str = "timestamp.json";
const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";
/// Says that metadata signed by replaced keys is to be forgotten once the new root is in place.
const FORGET: &str = "forget";

/// Metadata as it was downloaded, and what it says.
pub(super) struct Stored<T> {
    pub(super) bytes: Vec<u8>,
    pub(super) signed: T,
}

/// Everything the device trusts.
pub(super) struct Trusted {
    pub(super) root: Stored<Root>,
    pub(super) timestamp: Option<Stored<Timestamp>>,
    pub(super) snapshot: Option<Stored<Snapshot>>,
    pub(super) targets: Option<Stored<Targets>>,
    /// Delegated roles that were asked, by their names.
    pub(super) delegated: HashMap<String, Stored<Targets>>,
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

fn damaged(path: &Path, error: &MetadataError) -> MetadataError {
    let why = match error {
        MetadataError::Parse { source, .. } => format!("it does not parse: {source}"),
        MetadataError::UnknownKey { role, .. } | MetadataError::Signature { role, .. } => {
            format!("it is not signed by the keys of the role `{role}`")
        }
        other => other.to_string(),
    };
    MetadataError::Damaged {
        path: path.to_owned(),
        why,
    }
}

impl Stored<Root> {
    /// The root metadata in the file `path`, which must be there and signed by its own keys.
    pub(super) fn require(path: &Path) -> Result<Self, MetadataError> {
        let Some(bytes) = read(path)? else {
            return Err(MetadataError::NotInitialised {
                dir: path.parent().unwrap_or(path).to_owned(),
            });
        };
        let judged = Envelope::read(layout::ROOT, &bytes).and_then(|envelope| {
            let signed: Root = envelope.open()?;
            envelope.judge(Root::NAME, signed.keys(Root::NAME))?;
            Ok(signed)
        });
        match judged {
            Ok(signed) => Ok(Self { bytes, signed }),
            Err(error) => Err(damaged(path, &error)),
        }
    }
}

impl<T: Role> Stored<T> {
    /// The metadata in the file `path`, if the file is there. Keys that were replaced are dealt
    /// with by [`Forget`], so a wrong signature means that the file was changed.
    fn load(path: &Path, keys: Keys<'_>) -> Result<Option<Self>, MetadataError> {
        let Some(bytes) = read(path)? else {
            return Ok(None);
        };
        let judged = Envelope::read("", &bytes).and_then(|envelope| {
            envelope.judge(T::NAME, keys)?;
            envelope.open()
        });
        match judged {
            Ok(signed) => Ok(Some(Self { bytes, signed })),
            Err(error) => Err(damaged(path, &error)),
        }
    }
}

impl Trusted {
    /// What is in `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self, MetadataError> {
        let root = Stored::require(&dir.join(ROOT))?;
        finish_forgetting(dir, root.signed.version())?;
        let keys = |role| root.signed.keys(role);
        Ok(Self {
            timestamp: Stored::load(&dir.join(TIMESTAMP), keys(Timestamp::NAME))?,
            snapshot: Stored::load(&dir.join(SNAPSHOT), keys(Snapshot::NAME))?,
            targets: Stored::load(&dir.join(TARGETS), keys(Targets::NAME))?,
            delegated: HashMap::new(),
            root,
        })
    }

    /// A time that is certainly past: when the trusted timestamp metadata was signed.
    pub(super) fn clock_floor(&self) -> Option<Time> {
        self.timestamp.as_ref()?.signed.signed_at()
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
        let (old, new) = (&self.root.signed, &root.signed);
        let replaced = |role: &str| !old.keys(role).same_as(&new.keys(role));
        let mut files = Vec::new();
        if replaced(Timestamp::NAME) || replaced(Snapshot::NAME) {
            files.extend([TIMESTAMP.to_owned(), SNAPSHOT.to_owned()]);
        }
        if replaced(Targets::NAME) {
            files.push(TARGETS.to_owned()); // only a cache: the snapshot pins its version
        }
        let version = new.version();
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

    /// The top-level targets metadata, or that of a delegated role.
    pub(super) fn targets_role(&self, role: &str) -> Option<&Stored<Targets>> {
        if role == Targets::NAME {
            self.targets.as_ref()
        } else {
            self.delegated.get(role)
        }
    }

    /// The stored metadata of the delegated role `role`, if it is signed as its delegator says.
    pub(super) fn load_delegated(
        dir: &Path,
        role: &str,
        keys: Keys<'_>,
    ) -> Option<Stored<Targets>> {
        let path = dir.join(layout::role_file(role));
        match Stored::load(&path, keys) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!("`{}` is fetched again: {error}", path.display());
                None
            }
        }
    }

    pub(super) fn keep_delegated(
        &mut self,
        dir: &Path,
        role: &str,
        metadata: Stored<Targets>,
    ) -> Result<(), MetadataError> {
        let path = dir.join(layout::role_file(role));
        replace(&path, &metadata.bytes).map_err(MetadataError::write(&path))?;
        self.delegated.insert(role.to_owned(), metadata);
        Ok(())
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
    let Some(bytes) = read(&path)? else {
        return Ok(Vec::new());
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
