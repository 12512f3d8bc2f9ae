//! Trusted metadata on disk: loaded whole, replaced durably, never silently ignored.
//!
//! Targets metadata, also of delegated roles, is only a cache here: the snapshot says which version
//! of it counts, so what is missing or damaged is fetched again. For the rest there are [`copies`].
//!
//! [`copies`]: super::copies

use std::{collections::HashMap, path::Path};

use jiff::Timestamp as Time;
use pytheas_durable::faults;
use serde::{Deserialize, Serialize};

use super::{
    copies::Folder,
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

/// Why metadata on the disk is not what was stored.
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
    /// The root metadata in `folder`, which must be there and signed by its own keys.
    pub(super) fn require(folder: &Folder) -> Result<Self, MetadataError> {
        let judge = |bytes: &[u8]| {
            let judged = Envelope::read(layout::ROOT, bytes).and_then(|envelope| {
                let signed: Root = envelope.open()?;
                envelope.judge(Root::NAME, signed.keys(Root::NAME))?;
                Ok(signed)
            });
            judged.map_err(|error| damaged(&folder.file(ROOT), &error))
        };
        match folder.read(ROOT, judge, Root::version)? {
            Some((bytes, signed)) => Ok(Self { bytes, signed }),
            None => Err(MetadataError::NotInitialised {
                dir: folder.main().to_owned(),
            }),
        }
    }
}

impl<T: Role> Stored<T> {
    /// The metadata in the file `name`, if the file is there. Keys that were replaced are dealt
    /// with by [`Forget`], so a wrong signature means that the file was changed.
    fn load(folder: &Folder, name: &str, keys: Keys<'_>) -> Result<Option<Self>, MetadataError> {
        let judge = |bytes: &[u8]| {
            let judged = Envelope::read("", bytes).and_then(|envelope| {
                envelope.judge(T::NAME, keys)?;
                envelope.open::<T>()
            });
            judged.map_err(|error| damaged(&folder.file(name), &error))
        };
        let found = folder.read(name, judge, T::version)?;
        Ok(found.map(|(bytes, signed)| Self { bytes, signed }))
    }

    /// As [`Self::load`], of what is only a cache: what is damaged is fetched again.
    fn cached(folder: &Folder, name: &str, keys: Keys<'_>) -> Option<Self> {
        let folder = Folder::single(folder.main());
        Self::load(&folder, name, keys).unwrap_or_else(|error| {
            tracing::debug!(
                "`{}` is fetched again: {error}",
                folder.file(name).display()
            );
            None
        })
    }
}

impl Trusted {
    /// What is in `dir`.
    pub(super) fn load(dir: &Folder) -> Result<Self, MetadataError> {
        let root = Stored::require(dir)?;
        finish_forgetting(dir, root.signed.version())?;
        let keys = |role| root.signed.keys(role);
        Ok(Self {
            timestamp: Stored::load(dir, TIMESTAMP, keys(Timestamp::NAME))?,
            snapshot: Stored::load(dir, SNAPSHOT, keys(Snapshot::NAME))?,
            targets: Stored::cached(dir, TARGETS, keys(Targets::NAME)),
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
        dir: &Folder,
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
            let json = serde_json::to_vec(&forget).expect("numbers and texts");
            dir.keep(FORGET, &json)?;
        }
        faults::point("tuf-root:before");
        dir.keep(ROOT, &root.bytes)?;
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
        dir: &Folder,
        metadata: Stored<Timestamp>,
    ) -> Result<(), MetadataError> {
        dir.keep(TIMESTAMP, &metadata.bytes)?;
        self.timestamp = Some(metadata);
        Ok(())
    }

    pub(super) fn keep_snapshot(
        &mut self,
        dir: &Folder,
        metadata: Stored<Snapshot>,
    ) -> Result<(), MetadataError> {
        dir.keep(SNAPSHOT, &metadata.bytes)?;
        self.snapshot = Some(metadata);
        Ok(())
    }

    pub(super) fn keep_targets(
        &mut self,
        dir: &Folder,
        metadata: Stored<Targets>,
    ) -> Result<(), MetadataError> {
        Folder::single(dir.main()).keep(TARGETS, &metadata.bytes)?;
        self.targets = Some(metadata);
        Ok(())
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
        dir: &Folder,
        role: &str,
        keys: Keys<'_>,
    ) -> Option<Stored<Targets>> {
        Stored::cached(dir, &layout::role_file(role), keys)
    }

    pub(super) fn keep_delegated(
        &mut self,
        dir: &Folder,
        role: &str,
        metadata: Stored<Targets>,
    ) -> Result<(), MetadataError> {
        Folder::single(dir.main()).keep(&layout::role_file(role), &metadata.bytes)?;
        self.delegated.insert(role.to_owned(), metadata);
        Ok(())
    }
}

/// Forgets what [`FORGET`] names, if the root it belongs to is in place. What was forgotten.
fn finish_forgetting(dir: &Folder, root_version: u64) -> Result<Vec<String>, MetadataError> {
    let judge = |bytes: &[u8]| {
        serde_json::from_slice::<Forget>(bytes).map_err(|error| MetadataError::Damaged {
            path: dir.file(FORGET),
            why: format!("it does not parse: {error}"),
        })
    };
    let Some((_, forget)) = dir.read(FORGET, judge, |forget| forget.root_version)? else {
        return Ok(Vec::new());
    };
    let due = root_version >= forget.root_version;
    if due {
        let names: Vec<&str> = [TIMESTAMP, SNAPSHOT, TARGETS]
            .into_iter()
            .filter(|file| forget.files.iter().any(|name| name == file))
            .collect();
        dir.remove(&names)?;
    }
    dir.remove(&[FORGET])?;
    Ok(if due { forget.files } else { Vec::new() })
}
