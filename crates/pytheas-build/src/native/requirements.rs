//! Build requirements with their versions: sources name ranges only, so the versions of one day are
//! resolved, belong to the key of what is built with them, and are kept beside it.
//!
//! ```text
//! CACHE/native/requires/KEY   JSON: what the back end asked for besides, and the versions; KEY
//!                             hashes source, target, Python and tools
//! ```
//! `UV_EXCLUDE_NEWER` and `UV_BUILD_CONSTRAINT` choose them, as they do for uv's own builds.

use std::path::{Path, PathBuf};

use pytheas_project::{Connectivity, UvCallError, UvFailure};
use serde::{Deserialize, Serialize};

use super::{
    NativeError,
    error::{Subject, io_error},
    write,
};
use crate::{install::Installer, scratch::Kind};

/// What a source was last built with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What `get_requires_for_build_wheel` answered.
    pub(super) more: Vec<String>,
    /// All requirements and theirs, one `name==version` a line, sorted by name.
    pub(super) pinned: String,
}

impl Record {
    fn path(home: &Path, key: &str) -> PathBuf {
        home.join("requires").join(key)
    }

    /// The record of an earlier build.
    pub(super) fn load(home: &Path, key: &str) -> Option<Self> {
        let bytes = std::fs::read(Self::path(home, key)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn save(&self, home: &Path, key: &str) -> Result<(), NativeError> {
        let path = Self::path(home, key);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        }
        let text =
            serde_json::to_string(self).map_err(|error| io_error("write", &path)(error.into()))?;
        pytheas_durable::replace(&path, text.as_bytes()).map_err(io_error("write", &path))
    }
}

/// The versions that `requires` and `more` resolve to now, on this machine; without the network those
/// of the earlier build `known`, if they were asked for the same.
pub(super) fn pinned(
    installer: &Installer<'_>,
    python: &Path,
    subject: &Subject,
    requires: &[String],
    more: &[String],
    known: Option<&Record>,
    dir: &Path,
) -> Result<String, NativeError> {
    if let (Connectivity::Offline, Some(known)) = (installer.connectivity, known)
        && known.more == more
    {
        return Ok(known.pinned.clone());
    }
    let all: Vec<&str> = requires.iter().chain(more).map(String::as_str).collect();
    if all.is_empty() {
        return Ok(String::new());
    }
    let list = dir.join("requires.in");
    write(&list, &format!("{}\n", all.join("\n")), Kind::Data)?;
    let mut command = installer.uv.command();
    command
        .args(["pip", "compile", "--quiet", "--no-header", "--no-annotate"])
        .arg("--python")
        .arg(python);
    if let Some(constraints) = installer.environment.get("UV_BUILD_CONSTRAINT") {
        for file in constraints.split_whitespace() {
            command.arg("--constraint").arg(file);
        }
    }
    command.arg(&list);
    let (text, _) = run(installer, command, subject, &all)?;
    let lines = text.lines().map(str::trim);
    Ok(lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// Runs uv for the requirements `requires`.
pub(super) fn run(
    installer: &Installer<'_>,
    command: std::process::Command,
    subject: &Subject,
    requires: &[&str],
) -> Result<(String, String), NativeError> {
    let uv = installer.uv;
    uv.run(command).map_err(|error| match error {
        UvCallError::Failed(UvFailure::Offline, _) => NativeError::Offline,
        UvCallError::Failed(_, source) => NativeError::Requirements {
            package: subject.package.clone(),
            version: subject.version.clone(),
            requires: requires
                .iter()
                .map(|text| format!("`{text}`"))
                .collect::<Vec<_>>()
                .join(", "),
            source,
        },
        UvCallError::Start(source) => io_error("start", &uv.path)(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_was_built_with_is_kept() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(home.path(), "a"), None);
        let record = Record {
            more: vec!["wheel".to_owned()],
            pinned: "setuptools==84.2.1\nwheel==1.0\n".to_owned(),
        };
        record.save(home.path(), "a").unwrap();
        assert_eq!(Record::load(home.path(), "a"), Some(record));
    }
}
