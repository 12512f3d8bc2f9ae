//! `pylock.toml` (PEP 751, lock-version 1.0) as far as the builder looks into it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::Sha256;
use serde::Deserialize;

use crate::{
    inputs::LockInputs,
    manifest::{ManifestError, explain},
};

/// The lock file's name.
pub const PYLOCK_FILE: &str = "pylock.toml";

/// A lock file's content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pylock {
    /// The format, `1.0`.
    pub lock_version: String,
    /// Pythons it was made for.
    pub requires_python: Option<String>,
    /// The packages, by name.
    #[serde(default)]
    pub packages: Vec<LockedPackage>,
    /// `[tool]`.
    #[serde(default)]
    tool: ToolTable,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ToolTable {
    pytheas: Option<LockInputs>,
}

/// One `[[packages]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LockedPackage {
    /// Normalised name.
    pub name: String,
    /// Version; none for some that come from a folder.
    pub version: Option<String>,
    /// When it is installed (PEP 508); always when absent.
    pub marker: Option<String>,
    /// Pythons it is for, where the lock says.
    pub requires_python: Option<String>,
    /// Its wheels, of all platforms.
    #[serde(default)]
    pub wheels: Vec<LockedFile>,
    /// Its source distribution.
    pub sdist: Option<LockedFile>,
    /// It comes from version control.
    pub vcs: Option<toml::Table>,
    /// It comes from a folder.
    pub directory: Option<toml::Table>,
    /// It comes from one archive.
    pub archive: Option<toml::Table>,
}

impl LockedPackage {
    /// A requirement may name a file by its address: then that is the package's one wheel or source
    /// distribution, and is taken like an index's.
    fn sort_archive(&mut self) {
        let Some(archive) = &self.archive else {
            return;
        };
        let is_part = archive.contains_key("subdirectory");
        let Ok(file) = archive.clone().try_into::<LockedFile>() else {
            return;
        };
        let name = file.file_name();
        if name.ends_with(".whl") {
            self.wheels.push(file);
        } else if name.ends_with(".tar.gz") && !is_part {
            self.sdist = Some(file);
        }
    }
}

/// A file of a package.
#[derive(Debug, Clone, Deserialize)]
pub struct LockedFile {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    /// In bytes, where the lock says.
    pub size: Option<u64>,
    /// Hex digests by algorithm.
    #[serde(default)]
    pub hashes: BTreeMap<String, String>,
}

impl LockedFile {
    /// Its address; none for a file on this machine.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Its place, relative to the lock file; none for a file with an address.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Its SHA-256, where the lock has one.
    pub fn sha256(&self) -> Option<Sha256> {
        self.hashes.get("sha256")?.parse().ok()
    }

    /// The file's name: as written, else the last part of its address or path.
    pub fn file_name(&self) -> &str {
        let last = |text: &'_ str| {
            text.split(['?', '#'])
                .next()
                .unwrap_or(text)
                .rsplit('/')
                .next()
                .unwrap_or(text)
                .len()
        };
        match (&self.name, &self.url, &self.path) {
            (Some(name), _, _) => name,
            (None, Some(at), _) | (None, None, Some(at)) => {
                let end = at.find(['?', '#']).unwrap_or(at.len());
                &at[end - last(at)..end]
            }
            (None, None, None) => "",
        }
    }
}

/// A lock file that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PylockError {
    /// It cannot be read, or is no TOML.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] ManifestError),
    /// A format of the future.
    #[error("`{}` has lock-version `{version}`; this version of pytheas reads 1.x", path.display())]
    #[diagnostic(
        code(pytheas::lock::version),
        help("install a newer pytheas, or run `pytheas lock` to write it again")
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
}

impl Pylock {
    /// Reads the lock file `path`; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read or is not understood.
    pub fn read(path: &Path) -> Result<Option<Self>, PylockError> {
        let content = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ManifestError::Read {
                    path: path.to_owned(),
                    source,
                }
                .into());
            }
            Ok(content) => content,
        };
        let mut lock: Self =
            toml::from_str(&content).map_err(|error| damaged(path, &content, &error))?;
        if lock.lock_version.split('.').next() != Some("1") {
            return Err(PylockError::Version {
                path: path.to_owned(),
                version: lock.lock_version,
            });
        }
        lock.packages
            .iter_mut()
            .for_each(LockedPackage::sort_archive);
        Ok(Some(lock))
    }

    /// What it was made from; none when another tool made it.
    pub fn inputs(&self) -> Option<&LockInputs> {
        self.tool.pytheas.as_ref()
    }
}

/// The parser's error, with the way out: this file can be made again.
fn damaged(path: &Path, content: &str, error: &toml::de::Error) -> ManifestError {
    let mut error = explain(path, content, error);
    if let ManifestError::Toml { help, .. } = &mut error {
        *help = Some("correct it, or remove it and run `pytheas lock`".to_owned());
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_given_by_its_address_is_the_packages_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pylock.toml");
        let package = |name: &str, file: &str| {
            format!(
                "[[packages]]\nname = \"{name}\"\narchive = {{ path = \"{file}\", hashes = {{}} }}\n"
            )
        };
        let text = format!(
            "lock-version = \"1.0\"\n{}{}{}",
            package("a", "../a-1-py3-none-any.whl"),
            package("b", "b-1.tar.gz"),
            package("c", "c.zip"),
        );
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        let lock = Pylock::read(&path).unwrap().unwrap();
        let files = |package: &LockedPackage| (package.wheels.len(), package.sdist.is_some());
        let found: Vec<_> = lock.packages.iter().map(files).collect();
        assert_eq!(found, [(1, false), (0, true), (0, false)]);
    }

    #[test]
    fn a_file_is_named_by_its_address() {
        let file = |url: &str| LockedFile {
            name: None,
            url: Some(url.to_owned()),
            path: None,
            size: None,
            hashes: BTreeMap::new(),
        };
        assert_eq!(
            file("https://h/p/a-1-py3-none-any.whl").file_name(),
            "a-1-py3-none-any.whl"
        );
        assert_eq!(
            file("https://h/p/a-1.tar.gz?x=1/2#sha256=0").file_name(),
            "a-1.tar.gz"
        );
    }
}
