//! What signed metadata says that a file is: its length and its hashes.

use std::collections::HashMap;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

use super::schema::{Metafile, Target};
use crate::fetch::DownloadError;

/// Length and hashes, as far as they are known.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) length: Option<u64>,
    digests: Vec<Digest>,
}

#[derive(Debug)]
struct Digest {
    name: &'static str,
    algorithm: &'static Algorithm,
    /// Hexadecimal, lower case.
    hex: String,
}

/// The hash algorithms we know, the one that is used in file names first.
static KNOWN: [(&str, &str, &Algorithm); 3] = [
    ("sha256", "SHA-256", &SHA256),
    ("sha512", "SHA-512", &SHA512),
    ("sha384", "SHA-384", &SHA384),
];

impl Pin {
    /// What `meta` says of the metadata file `file`.
    pub(super) fn of_metafile(file: &str, meta: &Metafile) -> Result<Self, DownloadError> {
        let digests = match &meta.hashes {
            Some(hashes) => known(file, hashes)?,
            None => Vec::new(),
        };
        Ok(Self {
            length: meta.length,
            digests,
        })
    }

    /// What `target` says of the target `name`.
    pub(super) fn of_target(name: &str, target: &Target) -> Result<Self, DownloadError> {
        Ok(Self {
            length: Some(target.length),
            digests: known(name, &target.hashes)?,
        })
    }

    /// The hash that goes into the name of a file (TUF §6.2).
    pub(super) fn in_names(&self) -> Option<&str> {
        self.digests.first().map(|digest| digest.hex.as_str())
    }

    /// Whether `bytes` is what was signed; every hash we know must be right.
    pub(super) fn check(&self, file: &str, bytes: &[u8]) -> Result<(), DownloadError> {
        let file = file.to_owned();
        let found_bytes = bytes.len() as u64;
        if let Some(expected_bytes) = self.length
            && expected_bytes != found_bytes
        {
            return Err(DownloadError::Truncated {
                file,
                expected_bytes,
                found_bytes,
            });
        }
        for Digest {
            name,
            algorithm,
            hex,
        } in &self.digests
        {
            let found = hex::encode(digest(algorithm, bytes));
            if found != *hex {
                return Err(DownloadError::Mismatch {
                    file,
                    algorithm: name,
                    expected: hex.clone(),
                    found,
                });
            }
        }
        Ok(())
    }
}

/// The hashes we know; it is an error if there are only others.
fn known(file: &str, hashes: &HashMap<String, String>) -> Result<Vec<Digest>, DownloadError> {
    let digests: Vec<Digest> = KNOWN
        .iter()
        .filter_map(|(key, name, algorithm)| {
            let hex = hashes.get(*key)?.to_ascii_lowercase();
            Some(Digest {
                name,
                algorithm,
                hex,
            })
        })
        .collect();
    if digests.is_empty() {
        let mut names: Vec<&str> = hashes.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(DownloadError::NoKnownHash {
            file: file.to_owned(),
            algorithms: names.join(", "),
        });
    }
    // A hash of a wrong length could never be right, and must not get into a path.
    let odd = digests.iter().find(|digest| {
        digest.hex.len() != digest.algorithm.output_len() * 2
            || !digest.hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    match odd {
        Some(odd) => Err(DownloadError::NoKnownHash {
            file: file.to_owned(),
            algorithms: format!("{} of {} digits", odd.name, odd.hex.len()),
        }),
        None => Ok(digests),
    }
}
