//! Who this device is to its hub: `identity.json`, mode 0600, for it holds the device's secrets.
//!
//! ```json
//! {"format": 1, "hub": "https://hub.example", "device_id": "gw-1", "platform": "linux-x86_64",
//!  "claim": "<64 hex digits>", "tenant": "default", "token": "…"}
//! ```
//! Without `token` the device has asked to be accepted and waits.

use std::{
    fs, io,
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

    /// The identity in the file `path`.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(|source| IdentityError::Io {
                what: "read",
                path: path.to_owned(),
                source,
            })?,
        };
        let identity: Self =
            serde_json::from_slice(&bytes).map_err(|source| IdentityError::Parse {
                path: path.to_owned(),
                source,
            })?;
        if identity.format != FORMAT {
            return Err(IdentityError::Format {
                path: path.to_owned(),
                format: identity.format,
            });
        }
        Ok(identity)
    }

    /// Writes it to `path`, readable by the owner only.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("all keys are strings");
        bytes.push(b'\n');
        pytheas_durable::replace_private(path, &bytes).map_err(|source| IdentityError::Io {
            what: "write",
            path: path.to_owned(),
            source,
        })
    }
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
    use std::os::unix::fs::PermissionsExt as _;

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
}
