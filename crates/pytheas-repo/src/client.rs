//! The device's side of a repository: trusted metadata on disk, and fetching what it vouches for.
//!
//! Small and synchronous; the network is a [`Fetch`], the time an argument. The client follows the
//! client workflow of the TUF specification 1.0.33 (§5) on `tough`'s schema types. `tough`'s own
//! loader is not used: it keeps trusted metadata with a plain write and skips the rollback check
//! when that was torn, and it reads the system's clock (`facts/tuf.md`).
//!
//! ```text
//! STATE/tuf/root.json timestamp.json snapshot.json targets.json   as they were downloaded
//! STATE/downloads/<sha256>                                        blobs, complete or begun
//! ```
//! Invariants: stored metadata is replaced whole or not at all, and only by metadata that passed
//! every check; stored metadata that does not parse is an error and never "none".

mod content;
mod metadata;
mod objects;
mod refresh;
mod trusted;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pytheas_release::Sha256;

pub use content::ContentError;
#[cfg(feature = "store")]
pub(crate) use content::{fetch_index, fetch_tree};
pub use metadata::MetadataError;
#[cfg(feature = "store")]
pub(crate) use metadata::short_key_id;
#[cfg(feature = "store")]
pub(crate) use objects::fetch_objects;
pub use refresh::Refreshed;

use crate::fetch::Fetch;
#[cfg(feature = "store")]
pub(crate) use metadata::ROOT_MAX;
#[cfg(not(feature = "store"))]
use metadata::ROOT_MAX;
use metadata::{parse, verify};
use trusted::{Stored, Trusted};

/// What may be read of one file before its true size is known from signed metadata, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Any version of the root metadata.
    pub root: u64,
    /// The timestamp metadata.
    pub timestamp: u64,
    /// The snapshot metadata, also when the timestamp promises more.
    pub snapshot: u64,
    /// The targets metadata, also when the snapshot promises more.
    pub targets: u64,
    /// A release document.
    pub target: u64,
    /// Root versions followed in one go.
    pub root_updates: u64,
}

impl Default for Limits {
    /// 512 KiB for root, 16 KiB for timestamp, 1 MiB for snapshot and target, 16 MiB for targets,
    /// 256 root versions.
    fn default() -> Self {
        Self {
            root: ROOT_MAX,
            timestamp: 16 << 10,
            snapshot: 1 << 20,
            targets: 16 << 20,
            target: 1 << 20,
            root_updates: 256,
        }
    }
}

/// A repository as a device sees it.
pub struct Client<'f> {
    metadata_dir: PathBuf,
    downloads_dir: PathBuf,
    fetch: &'f mut dyn Fetch,
    limits: Limits,
    trusted: Trusted,
}

/// Whether `state_dir` has a trusted root already.
pub fn is_initialised(state_dir: &Path) -> bool {
    trusted::metadata_dir(state_dir)
        .join(trusted::ROOT)
        .exists()
}

/// Makes `state_dir` trust the root metadata `root`, which came with the device or by hand.
///
/// Doing it again with the same root changes nothing. `expected` is the SHA-256 of the file when
/// it was fetched over a channel that is not trusted itself.
///
/// # Errors
/// [`MetadataError`] when the root is another one than `expected`, does not parse, is not signed
/// by its own keys, or when the device trusts another repository already.
pub fn init(state_dir: &Path, root: &[u8], expected: Option<&Sha256>) -> Result<(), MetadataError> {
    let file = "root.json";
    let found = Sha256::of(root);
    if let Some(expected) = expected
        && *expected != found
    {
        return Err(MetadataError::WrongRoot {
            expected: *expected,
            found,
        });
    }
    let signed = parse::<tough::schema::Root>(file, root)?;
    verify(&signed.signed, &signed, file)?;
    let dir = trusted::metadata_dir(state_dir);
    pytheas_durable::create_dir_all(&dir).map_err(MetadataError::write(&dir))?;
    let path = dir.join(trusted::ROOT);
    match std::fs::read(&path) {
        Ok(_) => {
            // The stored root may be a later version of the one given: then nothing is to do.
            let stored = Stored::<tough::schema::Root>::require(&path)?;
            let same_root_keys = signed.signed.roles.get(&tough::schema::RoleType::Root)
                == stored
                    .signed
                    .signed
                    .roles
                    .get(&tough::schema::RoleType::Root);
            if stored.bytes == root
                || (same_root_keys && stored.signed.signed.version >= signed.signed.version)
            {
                return Ok(());
            }
            Err(MetadataError::OtherRoot { path })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            pytheas_durable::replace(&path, root).map_err(MetadataError::write(&path))
        }
        Err(source) => Err(MetadataError::Read { path, source }),
    }
}

impl<'f> Client<'f> {
    /// The client whose state lies in `state_dir`, made by [`init`].
    ///
    /// # Errors
    /// [`MetadataError::NotInitialised`] without a trusted root; [`MetadataError::Damaged`] when
    /// stored metadata does not parse or is not signed as it should be.
    pub fn open(state_dir: &Path, fetch: &'f mut dyn Fetch) -> Result<Self, MetadataError> {
        Self::open_with(state_dir, fetch, Limits::default())
    }

    /// As [`Self::open`], with other limits.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        state_dir: &Path,
        fetch: &'f mut dyn Fetch,
        limits: Limits,
    ) -> Result<Self, MetadataError> {
        let metadata_dir = trusted::metadata_dir(state_dir);
        let trusted = Trusted::load(&metadata_dir)?;
        Ok(Self {
            metadata_dir,
            downloads_dir: state_dir.join("downloads"),
            fetch,
            limits,
            trusted,
        })
    }

    /// When the metadata that is trusted now expires, if there is any: the earliest of all roles.
    pub fn expires(&self) -> Option<Timestamp> {
        Some(
            self.trusted
                .root
                .signed
                .signed
                .expires
                .min(self.trusted.timestamp.as_ref()?.signed.signed.expires)
                .min(self.trusted.snapshot.as_ref()?.signed.signed.expires)
                .min(self.trusted.targets.as_ref()?.signed.signed.expires),
        )
    }

    /// Names of all targets in the trusted metadata, sorted.
    pub fn target_names(&self) -> Vec<String> {
        let Some(targets) = &self.trusted.targets else {
            return Vec::new();
        };
        let mut names: Vec<String> = targets
            .signed
            .signed
            .targets
            .keys()
            .map(|name| name.raw().to_owned())
            .collect();
        names.sort();
        names
    }
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("metadata_dir", &self.metadata_dir)
            .finish_non_exhaustive()
    }
}
