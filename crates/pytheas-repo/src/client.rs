//! The device's side of a repository: trusted metadata on disk, and fetching what it vouches for.
//!
//! Small and synchronous; the network is a [`Fetch`], the time an argument. The client follows the
//! client workflow of the TUF specification 1.0.33 (§5), for any repository: its own keys of all
//! the kinds that the specification names, delegations, consistent snapshots or none. `tough` is
//! not used: its loader keeps trusted metadata with a plain write, skips the rollback check when
//! that was torn and reads the system's clock (`facts/tuf.md`), and its types lose fields that
//! they do not know in delegations.
//!
//! ```text
//! STATE/tuf/root.json timestamp.json snapshot.json targets.json   as they were downloaded
//! STATE/tuf/<role>.json                                           delegated roles, percent-encoded
//! STATE/downloads/<sha256>                                        blobs, complete or begun
//! ```
//! Invariants: stored metadata is replaced whole or not at all, and only by metadata that passed
//! every check; stored metadata that does not parse is an error and never "none".

mod canonical;
mod content;
mod copies;
mod delegations;
mod keys;
mod metadata;
mod objects;
mod offered;
mod pin;
mod refresh;
mod schema;
mod search;
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
use copies::Folder;
use metadata::Envelope;
#[cfg(feature = "store")]
pub(crate) use metadata::ROOT_MAX;
#[cfg(not(feature = "store"))]
use metadata::ROOT_MAX;
use schema::{Role as _, Root};
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
    /// Delegated roles asked for one target.
    pub delegations: usize,
}

impl Default for Limits {
    /// 512 KiB for root, 16 KiB for timestamp, 1 MiB for snapshot and target, 16 MiB for targets,
    /// 256 root versions, 32 delegated roles.
    fn default() -> Self {
        Self {
            root: ROOT_MAX,
            timestamp: 16 << 10,
            snapshot: 1 << 20,
            targets: 16 << 20,
            target: 1 << 20,
            root_updates: 256,
            delegations: 32,
        }
    }
}

/// A repository as a device sees it.
pub struct Client<'f> {
    metadata_dir: Folder,
    downloads_dir: PathBuf,
    fetch: &'f mut dyn Fetch,
    limits: Limits,
    trusted: Trusted,
    /// The fixed time of the last refresh (§5.1).
    time: Option<Timestamp>,
}

/// Whether `state_dir` has a trusted root already.
pub fn is_initialised(state_dir: &Path) -> bool {
    Folder::of(state_dir).file(trusted::ROOT).exists()
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
    init_in(&Folder::of(state_dir), root, expected)
}

/// As [`init`], the folder for trusted metadata itself given.
///
/// # Errors
/// As [`init`].
pub fn init_at(dir: &Path, root: &[u8], expected: Option<&Sha256>) -> Result<(), MetadataError> {
    init_in(&Folder::single(dir), root, expected)
}

fn init_in(dir: &Folder, root: &[u8], expected: Option<&Sha256>) -> Result<(), MetadataError> {
    let file = crate::layout::ROOT;
    let found = Sha256::of(root);
    if let Some(expected) = expected
        && *expected != found
    {
        return Err(MetadataError::WrongRoot {
            expected: *expected,
            found,
        });
    }
    let envelope = Envelope::read(file, root)?;
    let given: Root = envelope.open()?;
    envelope.judge(Root::NAME, given.keys(Root::NAME))?;
    dir.create()?;
    match Stored::require(dir) {
        Ok(stored) => {
            // The stored root may be a later version of the one given: then nothing is to do.
            let (old, new) = (stored.signed.keys(Root::NAME), given.keys(Root::NAME));
            let is_later = stored.signed.version() >= given.version();
            if stored.bytes == root || (is_later && old.same_as(&new)) {
                return Ok(());
            }
            let path = dir.file(trusted::ROOT);
            Err(MetadataError::OtherRoot { path })
        }
        Err(MetadataError::NotInitialised { .. }) => dir.keep(trusted::ROOT, root),
        Err(error) => Err(error),
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
        let downloads = state_dir.join("downloads");
        Self::open_in(Folder::of(state_dir), &downloads, fetch, limits)
    }

    /// As [`Self::open_with`], both folders given.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(
        metadata_dir: &Path,
        downloads_dir: &Path,
        fetch: &'f mut dyn Fetch,
        limits: Limits,
    ) -> Result<Self, MetadataError> {
        Self::open_in(Folder::single(metadata_dir), downloads_dir, fetch, limits)
    }

    fn open_in(
        metadata_dir: Folder,
        downloads_dir: &Path,
        fetch: &'f mut dyn Fetch,
        limits: Limits,
    ) -> Result<Self, MetadataError> {
        Ok(Self {
            trusted: Trusted::load(&metadata_dir)?,
            metadata_dir,
            downloads_dir: downloads_dir.to_owned(),
            fetch,
            limits,
            time: None,
        })
    }

    /// When the metadata that is trusted now expires, if there is any: the earliest of all roles.
    pub fn expires(&self) -> Option<Timestamp> {
        let trusted = &self.trusted;
        Some(
            trusted
                .root
                .signed
                .expires()
                .min(trusted.timestamp.as_ref()?.signed.expires())
                .min(trusted.snapshot.as_ref()?.signed.expires())
                .min(trusted.targets.as_ref()?.signed.expires()),
        )
    }

    /// Names of all targets in the trusted metadata, sorted; of delegated roles, those that were
    /// asked for something.
    pub fn target_names(&self) -> Vec<String> {
        let roles = self.trusted.targets.iter();
        let roles = roles.chain(self.trusted.delegated.values());
        let mut names: Vec<String> = roles
            .flat_map(|stored| stored.signed.targets.keys().cloned())
            .collect();
        names.sort();
        names.dedup();
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
