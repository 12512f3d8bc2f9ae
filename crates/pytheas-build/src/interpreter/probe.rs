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
        let output = environment
            .python(python)
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
