//! Who this device is to its hub: `identity.json`, mode 0600, for it holds the device's secrets.
//!
//! ```json
//! {"check": "6b86b273ff34fce1", "format": 1, "hub": "https://hub.example", "device_id": "gw-1", "platform": "linux-x86_64",
//!  "claim": "<64 hex digits>", "tenant": "default", "token": "…"}
//! ```
//! Without `token` the device has asked to be accepted and waits. `check` is that of
//! [`pytheas_update::checked`]; the same lies in `identity.copy` once more, for a disk that decays.
//! Whoever removes `identity.json` wants the device to forget who it is: then the copy is no use.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_api::DeviceId;
use pytheas_release::Platform;
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

/// The content of `identity.json` (format 1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    /// The hub's address, without a slash at the end.
    pub hub: String,
    /// The device.
    pub device_id: DeviceId,
    /// What runs here.
    pub platform: Platform,
    /// The secret by which the hub knows this device again until it has a token.
    pub claim: String,
    /// First part of the device's DDI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The device's secret, once it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// File of the only certification authorities to trust for `https`, instead of the world's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// An `identity.json` that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum IdentityError {
    /// There is none.
    #[error("this device is not enrolled: there is no `{}`", path.display())]
    #[diagnostic(
        code(pytheas::agent::not_enrolled),
        help("enrol it with `pytheas agent enrol --hub URL --root FILE`")
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON of the expected shape.
    #[error("`{}` does not parse", path.display())]
    #[diagnostic(
        code(pytheas::agent::identity_parse),
        help("restore it from a backup, or remove it and enrol the device again under another id")
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Something in it is not as it was written, and its copy is no better.
    #[error("`{}` is damaged: its check does not match", path.display())]
    #[diagnostic(
        code(pytheas::agent::identity_damaged),
        help("restore it from a backup, or remove it and enrol the device again under another id")
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer agent.
    #[error("`{}` has format {format}; this agent reads format {FORMAT}", path.display())]
    #[diagnostic(help("run the newer agent that wrote it"))]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Not readable or writable.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(help("does the state directory belong to the user that runs the agent?"))]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No randomness for the claim.
    #[error("cannot get random bytes for the device's secret")]
    Random(#[source] getrandom::Error),
}

impl Identity {
    /// A new identity with a fresh claim; the device's id is made of the host's name when none is
    /// given.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn new(
        hub: String,
        device_id: Option<DeviceId>,
        platform: Platform,
        ca: Option<PathBuf>,
    ) -> Result<Self, IdentityError> {
        let mut claim = [0; 32];
        getrandom::fill(&mut claim).map_err(IdentityError::Random)?;
        let claim = hex::encode(claim);
        // Hosts of a fleet often have the same name; six digits keep them apart.
        let device_id = match device_id {
            Some(id) => id,
            None => named_after_host(&crate::host_name(), &claim[..6]),
        };
        let hub = hub.trim_end_matches('/').to_owned();
        Ok(Self {
            format: FORMAT,
            hub,
            device_id,
            platform,
            claim,
            tenant: None,
            token: None,
            ca,
        })
    }

    /// The identity in the file `path`, or in its copy when the file is damaged.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::read(path).or_else(|error| match error {
            IdentityError::Missing { .. } | IdentityError::Format { .. } => Err(error),
            damaged => Self::read(&copy_of(path)).map_err(|_| damaged),
        })
    }

    /// As [`Self::load`], for whoever is the one to write it: what is damaged, and a copy that is
    /// not the same, is written anew.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn load_and_mend(path: &Path) -> Result<Self, IdentityError> {
        let identity = Self::load(path)?;
        let is_same = |path: &Path| Self::read(path).is_ok_and(|found| found == identity);
        let (main, copy) = (is_same(path), is_same(&copy_of(path)));
        if !main {
            tracing::warn!("`{}` is repaired from its copy", path.display());
        }
        if !(main && copy)
            && let Err(error) = identity.save(path)
        {
            tracing::warn!("{error}"); // a full disk: the next start does it
        }
        Ok(identity)
    }

    fn read(path: &Path) -> Result<Self, IdentityError> {
        let path_buf = || path.to_owned();
        let bytes = match crate::paths::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path: path_buf() });
            }
            other => other.map_err(|source| IdentityError::Io {
                what: "read",
                path: path_buf(),
                source,
            })?,
        };
        if pytheas_update::checked::is_damaged(&bytes) {
            return Err(IdentityError::Damaged { path: path_buf() });
        }
        let identity: Self =
            serde_json::from_slice(&bytes).map_err(|source| IdentityError::Parse {
                path: path_buf(),
                source,
            })?;
        if identity.format != FORMAT {
            return Err(IdentityError::Format {
                path: path_buf(),
                format: identity.format,
            });
        }
        Ok(identity)
    }

    /// Writes it to `path` and then to its copy, readable by the owner only.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let json = serde_json::to_vec_pretty(self).expect("all keys are strings");
        let bytes = pytheas_update::checked::seal(json);
        for path in [path, &copy_of(path)] {
            pytheas_durable::replace_private(path, &bytes).map_err(|source| IdentityError::Io {
                what: "write",
                path: path.to_owned(),
                source,
            })?;
            pytheas_durable::faults::point("agent:identity:written");
        }
        Ok(())
    }
}

/// `identity.copy` beside `identity.json`.
fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("copy")
}

/// Without the secrets: it ends up in logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("hub", &self.hub)
            .field("device_id", &self.device_id)
            .field("accepted", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

fn named_after_host(host: &str, suffix: &str) -> DeviceId {
    let host: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(60)
        .collect();
    format!("{}-{suffix}", host.trim_start_matches('-'))
        .parse()
        .or_else(|_| format!("device-{suffix}").parse())
        .expect("letters, digits and dashes that begin with a letter make an id")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn secrets_are_the_owners_alone_and_never_in_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        let platform: Platform = "linux-x86_64".parse().unwrap();
        let mut identity = Identity::new("http://hub/".into(), None, platform, None).unwrap();
        identity.token = Some("very-secret".into());
        identity.save(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(Identity::load(&path).unwrap(), identity);
        let shown = format!("{identity:?}");
        assert!(
            !shown.contains("very-secret") && !shown.contains(&identity.claim),
            "{shown}"
        );
        assert_eq!(identity.hub, "http://hub");
    }

    #[test]
    fn every_host_name_gives_an_id() {
        for (host, id) in [
            ("greenhouse-7", "greenhouse-7-abc123"),
            ("-odd_näme.local", "oddnmelocal-abc123"),
            ("", "device-abc123"),
        ] {
            assert_eq!(named_after_host(host, "abc123").as_str(), id);
        }
    }

    #[test]
    fn what_is_no_identity_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        let shown = |path: &Path| {
            let text = Identity::load(path).unwrap_err().to_string();
            text.replace(&dir.path().display().to_string(), "[STATE]")
        };
        insta::assert_snapshot!(shown(&path), @"this device is not enrolled: there is no `[STATE]/identity.json`");
        pytheas_durable::replace(&path, b"{").unwrap();
        insta::assert_snapshot!(shown(&path), @"`[STATE]/identity.json` does not parse");
    }

    #[test]
    fn no_bit_may_change_and_the_copy_is_as_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        let platform: Platform = "linux-x86_64".parse().unwrap();
        let identity = Identity::new("http://hub".into(), None, platform, None).unwrap();
        identity.save(&path).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            pytheas_durable::replace_private(&path, &bytes).unwrap();
            assert_eq!(Identity::load(&path).unwrap(), identity, "bit {at}");
        }
        assert_eq!(Identity::load_and_mend(&path).unwrap(), identity);
        for file in [&path, &copy_of(&path)] {
            assert_eq!(fs::read(file).unwrap(), good);
            assert_eq!(
                fs::metadata(file).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        // Both: nothing of it is believed. Removed: forgotten.
        for file in [&path, &copy_of(&path)] {
            pytheas_durable::replace_private(file, &good[..good.len() - 9]).unwrap();
        }
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        identity.save(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = Identity::load_and_mend(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
    }

    #[test]
    fn a_bit_in_a_file_without_its_copy_is_no_other_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        let platform: Platform = "linux-x86_64".parse().unwrap();
        let identity = Identity::new("http://hub".into(), None, platform, None).unwrap();
        identity.save(&path).unwrap();
        fs::remove_file(copy_of(&path)).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            pytheas_durable::replace_private(&path, &bytes).unwrap();
            // In the name of the check: then there is none, and all else is right.
            if let Ok(found) = Identity::load(&path) {
                assert_eq!(found, identity, "bit {at}");
            }
        }
    }
}
