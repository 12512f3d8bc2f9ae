//! Asking a Python what it is, without its user's settings.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use pep440_rs::Version;
use pytheas_project::Environment;
use serde::Deserialize;

const SCRIPT: &str = include_str!("probe.py");

/// What a Python says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Probe {
    pub(super) implementation: String,
    pub(super) version: Version,
    /// The program, links followed; of a virtual environment its base.
    pub(super) executable: PathBuf,
    /// The base prefix, links followed.
    pub(super) prefix: PathBuf,
    pub(super) sys_prefix: PathBuf,
    pub(super) stdlib: PathBuf,
    /// Folder of the standard library's compiled modules, as configured.
    pub(super) dynload: PathBuf,
    pub(super) multiarch: String,
    pub(super) libdir: PathBuf,
    /// Folder of the C headers, which need not be there.
    pub(super) include: PathBuf,
    pub(super) site_packages: Vec<PathBuf>,
    pub(super) path: Vec<PathBuf>,
    glibc: String,
    pub(super) free_threaded: bool,
    pub(super) markers: serde_json::Value,
}

impl Probe {
    /// Asks `python`.
    pub(super) fn of(environment: &Environment, python: &Path) -> io::Result<Self> {
        let behind = behind_shim(environment, python);
        let output = environment
            .python(behind.as_deref().unwrap_or(python))
            .args(["-I", "-B", "-X", "utf8", "-c", SCRIPT])
            .current_dir("/")
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last: String = text
                .lines()
                .last()
                .unwrap_or("no message")
                .chars()
                .take(200)
                .collect();
            return Err(io::Error::other(format!(
                "it ended with {}: {last}",
                output.status
            )));
        }
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let text = String::from_utf8_lossy(&output.stdout);
            io::Error::other(format!(
                "it answered `{}`",
                text.trim().chars().take(200).collect::<String>()
            ))
        })
    }

    pub(super) fn is_cpython(&self) -> bool {
        self.implementation == "cpython"
    }

    /// The C library's version on the machine it runs on; none for musl.
    pub(super) fn glibc(&self) -> Option<(u16, u16)> {
        let (major, minor) = self.glibc.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// `3.11`, with `t` for a free-threaded build: the part of file names.
    pub(super) fn short(&self) -> String {
        let release = self.version.release();
        let part = |index: usize| release.get(index).copied().unwrap_or(0);
        format!(
            "{}.{}{}",
            part(0),
            part(1),
            if self.free_threaded { "t" } else { "" }
        )
    }
}

/// The program that pyenv's script at `shim` starts, where that is plain: the one version that its
/// file `version` names. The script takes longer for it than a build for all the rest.
fn behind_shim(environment: &Environment, shim: &Path) -> Option<PathBuf> {
    let dir = shim.parent()?;
    let root = dir.parent()?;
    let is_chosen_otherwise = ["PYENV_VERSION", "PYENV_DIR"]
        .iter()
        .any(|name| environment.get(name).is_some())
        // Asked in `/`, where the script looks for it as well.
        || Path::new("/.python-version").exists();
    if !dir.ends_with("shims") || !root.join("libexec/pyenv").exists() || is_chosen_otherwise {
        return None;
    }
    let text = std::fs::read_to_string(root.join("version")).ok()?;
    let version = text.lines().next()?.trim();
    let is_plain = text.lines().count() == 1
        && !version.is_empty()
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.');
    if !is_plain {
        return None;
    }
    let program = root
        .join("versions")
        .join(version)
        .join("bin")
        .join(shim.file_name()?);
    program.is_file().then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{self, Kind};

    #[test]
    fn a_shim_of_pyenv_is_looked_through_when_one_version_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            scratch::write(&root.join(path), text.as_bytes(), Kind::Program).unwrap();
        };
        put("shims/python3", "#!/bin/sh\n");
        put("shims/python3.9", "#!/bin/sh\n");
        put("libexec/pyenv", "#!/bin/sh\n");
        put("versions/3.11.7/bin/python3", "");
        put("version", "3.11.7\n");
        let none = Environment::default();
        let behind = |name: &str| behind_shim(&none, &root.join("shims").join(name));
        assert_eq!(
            behind("python3"),
            Some(root.join("versions/3.11.7/bin/python3"))
        );
        assert_eq!(behind("python3.9"), None);
        let other = none.clone().with("PYENV_VERSION", "3.9.18");
        assert_eq!(behind_shim(&other, &root.join("shims/python3")), None);
        for text in ["3.11.7\n3.9.18\n", "system\n", "", "../x\n"] {
            put("version", text);
            assert_eq!(behind("python3"), None, "{text}");
        }
    }
}
