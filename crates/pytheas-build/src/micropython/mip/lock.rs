//! `pytheas.mip.lock`: every package with all its files and their full hashes (TOML).
//!
//! ```toml
//! version = 1
//! inputs = ["index=https://…/v2", "umqtt.simple>=1.3"]
//!
//! [[package]]
//! name = "umqtt.simple"
//! version = "1.4.0"
//! from = "mip"
//!
//! [[package.file]]
//! path = "umqtt/simple.py"
//! url = "file/5d/5d2bd7a1"          # relative to the index
//! sha256 = "5d2bd7a1…"              # 64 digits
//! ```

use std::{fs, path::Path};

use pytheas_release::Sha256;
use serde::{Deserialize, Serialize};

use super::{MipError, error::io_error};

/// The lock file's name.
pub const LOCK_FILE: &str = "pytheas.mip.lock";
const HEADER: &str =
    "# Written by `pytheas lock`: packages for boards. Keep it in version control.\n";

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// An index of mip's format.
    Mip,
    /// The Python package index: one archive.
    Pypi,
    /// Addresses.
    Url,
    /// A folder of this machine, as it is when the app is built.
    Folder,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Its path on the board; of an archive its name.
    pub path: String,
    /// Where it is: an address, or relative to the index.
    pub url: String,
    /// Its hash.
    pub sha256: Sha256,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name; of a folder or an address, that.
    pub name: String,
    /// Its version, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where it comes from.
    pub from: From,
    /// For which environments only (PEP 508); one that is true of no board has no files here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Packages that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Its files.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedFile>,
}

/// The content of the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MipLock {
    /// Format: 1.
    pub version: u32,
    /// What it was made from: the index and the dependencies, sorted.
    pub inputs: Vec<String>,
    /// The packages, by name.
    #[serde(default, rename = "package", skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<LockedPackage>,
}

impl MipLock {
    /// The lock of the project in `dir`; none when there is none.
    ///
    /// # Errors
    /// When it cannot be read or has another format.
    pub fn read(dir: &Path) -> Result<Option<Self>, MipError> {
        let file = dir.join(LOCK_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &file)(error)),
        };
        let wrong = |why: String| MipError::Lock {
            file: file.clone(),
            why,
        };
        let lock: Self =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        if lock.version != 1 {
            let why = format!("it has version {}, this pytheas reads 1", lock.version);
            return Err(wrong(why));
        }
        Ok(Some(lock))
    }

    /// Writes it into `dir`; whether its bytes changed.
    pub(super) fn write(&self, dir: &Path) -> Result<bool, MipError> {
        let file = dir.join(LOCK_FILE);
        let text = toml::to_string(self).map_err(|error| MipError::Lock {
            file: file.clone(),
            why: error.to_string(),
        })?;
        let text = format!("{HEADER}{text}");
        if fs::read(&file).is_ok_and(|before| before == text.as_bytes()) {
            return Ok(false);
        }
        pytheas_durable::replace(&file, text.as_bytes()).map_err(io_error("write", &file))?;
        Ok(true)
    }

    /// The package of this name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.iter().find(|package| package.name == name)
    }
}
