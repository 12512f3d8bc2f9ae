//! One metadata file: its signatures judged, then read, and what is wrong with it said in words.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_release::Sha256;
use serde::{Deserialize, de::Error as _};

use super::{
    canonical::signed_part,
    keys::{Keys, Signature},
    schema::Role,
};
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
        role: String,
        /// Ids of the keys that signed it.
        keys: String,
    },
    /// A repeated signature, which must not count twice.
    #[error("`{file}` is signed twice in the name of the key {key}")]
    #[diagnostic(
        code(pytheas::metadata::refused::signed_twice),
        help("no repository does that by accident; it was refused")
    )]
    SignedTwice {
        /// The file.
        file: String,
        /// The key's id, shortened.
        key: String,
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
        role: String,
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
        role: String,
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
    /// A target was asked for before the metadata was brought up to date.
    #[error("the metadata was not brought up to date")]
    #[diagnostic(
        code(pytheas::metadata::not_refreshed),
        help("refresh it first; this is a fault of the program that asks")
    )]
    NotRefreshed,
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

/// A metadata file whose signatures are still to be judged.
pub(super) struct Envelope<'f> {
    file: &'f str,
    bytes: &'f [u8],
    /// The canonical form of what is signed.
    message: Vec<u8>,
    signatures: Vec<Signature>,
}

impl<'f> Envelope<'f> {
    /// Reads the signatures of the metadata `bytes`.
    pub(super) fn read(file: &'f str, bytes: &'f [u8]) -> Result<Self, MetadataError> {
        #[derive(Deserialize)]
        struct Signatures {
            signatures: Vec<Signature>,
        }
        let parse = |source| MetadataError::Parse {
            file: file.to_owned(),
            source,
        };
        let message = signed_part(bytes).map_err(parse)?;
        let Signatures { signatures } = serde_json::from_slice(bytes).map_err(parse)?;
        // §4.2: key ids are unique here.
        let mut seen = HashSet::new();
        if let Some(twice) = signatures.iter().find(|s| !seen.insert(&s.keyid)) {
            return Err(MetadataError::SignedTwice {
                file: file.to_owned(),
                key: short(&twice.keyid),
            });
        }
        Ok(Self {
            file,
            bytes,
            message,
            signatures,
        })
    }

    /// Whether enough of the keys of `role` have signed it.
    pub(super) fn judge(&self, role: &str, keys: Keys<'_>) -> Result<(), MetadataError> {
        let (valid, threshold) = (keys.count(&self.message, &self.signatures), keys.threshold);
        if valid >= threshold {
            return Ok(());
        }
        let (file, role) = (self.file.to_owned(), role.to_owned());
        let known = |signature: &Signature| keys.keyids.contains(&signature.keyid);
        if !self.signatures.iter().any(known) {
            let mut names: Vec<String> = self.signatures.iter().map(|s| short(&s.keyid)).collect();
            let more = names.len().saturating_sub(8);
            names.truncate(8);
            let keys = match (names.is_empty(), more) {
                (true, _) => "it has no signature".into(),
                (false, 0) => names.join(", "),
                (false, more) => format!("{} and {more} more", names.join(", ")),
            };
            return Err(MetadataError::UnknownKey { file, role, keys });
        }
        Err(MetadataError::Signature {
            file,
            role,
            valid,
            threshold,
        })
    }

    /// What it says.
    pub(super) fn open<T: Role>(&self) -> Result<T, MetadataError> {
        #[derive(Deserialize)]
        struct File<T> {
            signed: T,
        }
        let parse = |source| MetadataError::Parse {
            file: self.file.to_owned(),
            source,
        };
        let File { signed } = serde_json::from_slice::<File<T>>(self.bytes).map_err(parse)?;
        if signed.kind() != T::NAME {
            let why = format!("it is of the type `{}`, not `{}`", signed.kind(), T::NAME);
            return Err(parse(serde_json::Error::custom(why)));
        }
        let version = signed.spec_version();
        if version.split('.').next() != Some("1") {
            let why = format!("it follows version {version} of TUF, not 1.x");
            return Err(parse(serde_json::Error::custom(why)));
        }
        Ok(signed)
    }
}

/// Whether `metadata` of the role `role` is still good at `now`.
pub(super) fn check_expiry(
    metadata: &impl Role,
    role: &str,
    file: &str,
    now: Timestamp,
) -> Result<(), MetadataError> {
    let expired = metadata.expires();
    if expired > now {
        return Ok(());
    }
    Err(MetadataError::Expired {
        file: file.to_owned(),
        role: role.to_owned(),
        expired,
        now,
    })
}

/// The first eight digits of a key id, for people.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// The first eight hex digits of a key id, for people.
#[cfg(feature = "store")]
pub(crate) fn short_key_id(id: &[u8]) -> String {
    id.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
