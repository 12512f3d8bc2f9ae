//! One metadata file: parsed, its signatures judged, and what is wrong with it said in words.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_release::Sha256;
use serde::{Serialize, de::DeserializeOwned};
use tough::schema::{Role, RoleType, Root, Signed};

use crate::fetch::DownloadError;

/// Longest root metadata we read, in bytes.
pub(crate) const ROOT_MAX: u64 = 512 << 10;

/// Metadata that is not trusted, and why.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MetadataError {
    /// It was not obtained, or is not the file that was promised.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Download(#[from] DownloadError),
    /// It is not metadata.
    #[error("`{file}` is not TUF metadata")]
    #[diagnostic(
        code(pytheas::metadata::refused::parse),
        help(
            "what the server sends is damaged or something else (a login page?); nothing of it was kept"
        )
    )]
    Parse {
        /// The file.
        file: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Nobody who may sign it has signed it.
    #[error("`{file}` is signed by an unknown key ({keys}), not by a key of the role `{role}`")]
    #[diagnostic(
        code(pytheas::metadata::refused::unknown_key),
        help(
            "someone without the keys of this repository made it; it was refused. If the keys were replaced on purpose, publish the new root metadata signed with the old root keys too"
        )
    )]
    UnknownKey {
        /// The file.
        file: String,
        /// The role.
        role: RoleType,
        /// Ids of the keys that signed it.
        keys: String,
    },
    /// Too few good signatures.
    #[error("`{file}` has {valid} valid signatures of the role `{role}`, {threshold} are needed")]
    #[diagnostic(
        code(pytheas::metadata::refused::signature),
        help(
            "it was changed after it was signed, or not all needed keys signed it; it was refused"
        )
    )]
    Signature {
        /// The file.
        file: String,
        /// The role.
        role: RoleType,
        /// Good signatures.
        valid: u64,
        /// Needed signatures.
        threshold: u64,
    },
    /// Too old.
    #[error("`{file}` expired at {expired} and it is {now}")]
    #[diagnostic(
        code(pytheas::metadata::refused::expired),
        help(
            "is the device's clock right? If so, the hub (or `pytheas publish`) has stopped renewing the role `{role}`, or someone keeps newer metadata away"
        )
    )]
    Expired {
        /// The file.
        file: String,
        /// The role.
        role: RoleType,
        /// When it expired.
        expired: Timestamp,
        /// The time that was used for the comparison.
        now: Timestamp,
    },
    /// A rollback attack, or a restored backup.
    #[error(
        "`{file}` has version {offered} of the role `{role}`, older than version {trusted}, which is trusted"
    )]
    #[diagnostic(
        code(pytheas::metadata::refused::older),
        help(
            "someone replays old metadata, or the repository was restored from a backup: then publish again until its versions are higher"
        )
    )]
    Older {
        /// The file.
        file: String,
        /// The role whose version went back.
        role: String,
        /// What the device knows.
        trusted: u64,
        /// What it was offered.
        offered: u64,
    },
    /// Files of different states of the repository.
    #[error("`{file}` has version {found}, {by} promises version {expected}")]
    #[diagnostic(
        code(pytheas::metadata::refused::other_version),
        help("the repository mixes files of different states; publish again")
    )]
    OtherVersion {
        /// The file.
        file: String,
        /// What promises the version.
        by: String,
        /// The promised version.
        expected: u64,
        /// The version it has.
        found: u64,
    },
    /// A needed entry is missing.
    #[error("`{file}` does not list `{missing}`")]
    #[diagnostic(
        code(pytheas::metadata::refused::not_listed),
        help("the repository was made by a faulty program; publish again")
    )]
    NotListed {
        /// The file.
        file: String,
        /// What it should list.
        missing: String,
    },
    /// The root given is not the one that was announced.
    #[error("the root metadata has SHA-256 {found}, {expected} was expected")]
    #[diagnostic(
        code(pytheas::metadata::refused::wrong_root),
        help(
            "compare with `pytheas keys show` on the machine that holds the keys; do not go on if they differ"
        )
    )]
    WrongRoot {
        /// What was announced.
        expected: Sha256,
        /// What came.
        found: Sha256,
    },
    /// The device belongs to another repository.
    #[error("`{}` is the root of another repository", path.display())]
    #[diagnostic(
        code(pytheas::metadata::refused::other_root),
        help(
            "this device trusts other keys; to hand it over, remove its state directory and enrol it again"
        )
    )]
    OtherRoot {
        /// The stored root.
        path: PathBuf,
    },
    /// There is no trusted root.
    #[error("there is no trusted root metadata in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::metadata::not_initialised),
        help("enrol the device first: `pytheas agent enrol --hub URL --root FILE`")
    )]
    NotInitialised {
        /// The folder.
        dir: PathBuf,
    },
    /// Stored metadata that cannot be relied on.
    #[error("trusted metadata `{}` is damaged: {why}", path.display())]
    #[diagnostic(
        code(pytheas::metadata::refused::damaged),
        help(
            "the disk lost it or someone changed it. Without it old metadata could not be told from new, so nothing is updated; the running release is not affected. Compare with the repository, then remove this file to trust what the repository offers next"
        )
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Stored metadata cannot be read.
    #[error("cannot read trusted metadata `{}`", path.display())]
    #[diagnostic(
        code(pytheas::metadata::io::read),
        help("is the folder readable for this user?")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Stored metadata cannot be written.
    #[error("cannot keep trusted metadata in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::metadata::io::write),
        help("is the disk full, or the folder not writable for this user?")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl MetadataError {
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write {
            path: path.to_owned(),
            source,
        }
    }
}

/// The metadata in `bytes`, not verified.
pub(super) fn parse<T: Role + DeserializeOwned>(
    file: &str,
    bytes: &[u8],
) -> Result<Signed<T>, MetadataError> {
    serde_json::from_slice(bytes).map_err(|source| MetadataError::Parse {
        file: file.to_owned(),
        source,
    })
}

/// Whether enough keys that `root` names for the role have signed `metadata`.
pub(super) fn verify<T: Role + Serialize>(
    root: &Root,
    metadata: &Signed<T>,
    file: &str,
) -> Result<(), MetadataError> {
    let Err(error) = root.verify_role(metadata) else {
        return Ok(());
    };
    let known = root
        .roles
        .get(&T::TYPE)
        .map_or(&[][..], |role| &role.keyids);
    let file = file.to_owned();
    if !metadata
        .signatures
        .iter()
        .any(|signature| known.contains(&signature.keyid))
    {
        let keys = metadata
            .signatures
            .iter()
            .map(|s| short_key_id(&s.keyid))
            .collect::<Vec<_>>();
        let keys = if keys.is_empty() {
            "it has no signature".into()
        } else {
            keys.join(", ")
        };
        return Err(MetadataError::UnknownKey {
            file,
            role: T::TYPE,
            keys,
        });
    }
    let (valid, threshold) = match error {
        tough::schema::Error::SignatureThreshold {
            threshold, valid, ..
        } => (valid, threshold),
        _ => (
            0,
            root.roles
                .get(&T::TYPE)
                .map_or(1, |role| role.threshold.get()),
        ),
    };
    Err(MetadataError::Signature {
        file,
        role: T::TYPE,
        valid,
        threshold,
    })
}

/// Whether `metadata` is still good at `now`.
pub(super) fn check_expiry<T: Role>(
    metadata: &Signed<T>,
    file: &str,
    now: Timestamp,
) -> Result<(), MetadataError> {
    let expired = metadata.signed.expires();
    if expired > now {
        return Ok(());
    }
    Err(MetadataError::Expired {
        file: file.to_owned(),
        role: T::TYPE,
        expired,
        now,
    })
}

/// The first eight hex digits of a key id, for people.
pub(crate) fn short_key_id(id: &[u8]) -> String {
    id.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
