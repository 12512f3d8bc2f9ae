//! A lock in pip's requirements format with hashes: for tools that do not read `pylock.toml`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pep508_rs::MarkerTree;
use pytheas_release::Platform;
use toml::{Table, Value};

use crate::source::redacted;

/// A lock that cannot be exported.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ExportError {
    /// The lock file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(pytheas::export::read), help("run `pytheas lock` first"))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("`{}` is no lock file", path.display())]
    #[diagnostic(
        code(pytheas::export::syntax),
        help("run `pytheas lock` to write it again")
    )]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
}

/// A lock as requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The file's content.
    pub text: String,
    /// Number of packages in it.
    pub packages: usize,
    /// Packages without a hash (folders, repositories), which `pip --require-hashes` refuses.
    pub without_hash: Vec<String>,
}

/// The lock at `path` as hashed requirements: with markers for every platform, or without what
/// `platform` never needs.
///
/// # Errors
/// When the lock cannot be read.
pub fn requirements(path: &Path, platform: Option<&Platform>) -> Result<Exported, ExportError> {
    let text = std::fs::read_to_string(path).map_err(|source| ExportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let lock: Table = toml::from_str(&text).map_err(|source| ExportError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let there = platform.and_then(|platform| marker_of(platform).parse::<MarkerTree>().ok());
    let mut exported = Exported {
        text: String::new(),
        packages: 0,
        without_hash: Vec::new(),
    };
    let whom = platform.map_or("every platform".to_owned(), ToString::to_string);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    exported.text = format!("# Written by `pytheas lock --export` from {name}, for {whom}.\n");
    let packages = lock.get("packages").and_then(Value::as_array);
    for folder in folders(packages) {
        exported.text.push_str(&format!("--find-links {folder}\n"));
    }
    for package in packages.into_iter().flatten().filter_map(Value::as_table) {
        let marker = package.get("marker").and_then(Value::as_str);
        if let (Some(there), Some(marker)) = (&there, marker)
            && let Ok(marker) = marker.parse::<MarkerTree>()
            && marker.is_disjoint(there)
        {
            continue;
        }
        exported.packages += 1;
        exported.add(package, marker);
    }
    Ok(exported)
}

/// The folders on this machine that files of the lock lie in (`--find-links`): nobody else would look
/// there.
fn folders(packages: Option<&Vec<Value>>) -> BTreeSet<&str> {
    let packages = packages.into_iter().flatten();
    let files = packages.flat_map(|package| {
        let wheels = package.get("wheels").and_then(Value::as_array);
        wheels.into_iter().flatten().chain(package.get("sdist"))
    });
    files
        .filter_map(|file| file.get("url")?.as_str())
        .filter(|url| url.starts_with("file://"))
        .filter_map(|url| Some(url.rsplit_once('/')?.0))
        .collect()
}

impl Exported {
    fn add(&mut self, package: &Table, marker: Option<&str>) {
        let text =
            |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let part = |key: &str| package.get(key).and_then(Value::as_table);
        let name = text(package, "name").unwrap_or_default();
        let folder = |table: &Table| {
            text(table, "subdirectory").map_or(String::new(), |at| format!("#subdirectory={at}"))
        };
        let line = if let Some(vcs) = part("vcs") {
            let address = text(vcs, "url")
                .or_else(|| text(vcs, "path"))
                .unwrap_or_default();
            let kind = text(vcs, "type").unwrap_or_else(|| "git".to_owned());
            let commit = text(vcs, "commit-id").unwrap_or_default();
            let address = redacted(&address);
            format!("{name} @ {kind}+{address}@{commit}{}", folder(vcs))
        } else if let Some(archive) = part("archive") {
            match text(archive, "url") {
                Some(url) => format!("{name} @ {}{}", redacted(&url), folder(archive)),
                None => here(&text(archive, "path").unwrap_or_default()),
            }
        } else if let Some(directory) = part("directory") {
            here(&text(directory, "path").unwrap_or_default())
        } else {
            format!("{name}=={}", text(package, "version").unwrap_or_default())
        };
        self.text.push_str(&line);
        if let Some(marker) = marker {
            self.text.push_str(&format!(" ; {marker}"));
        }
        let files = package.get("wheels").and_then(Value::as_array);
        let mut hashes: Vec<String> = files
            .into_iter()
            .flatten()
            .filter_map(Value::as_table)
            .chain(part("sdist"))
            .chain(part("archive"))
            .filter_map(|file| text(file.get("hashes")?.as_table()?, "sha256"))
            .collect();
        hashes.sort();
        hashes.dedup();
        if hashes.is_empty() {
            self.without_hash.push(name);
        }
        for hash in hashes {
            self.text
                .push_str(&format!(" \\\n    --hash=sha256:{hash}"));
        }
        self.text.push('\n');
    }
}

/// A path that pip takes for one.
fn here(path: &str) -> String {
    if path.starts_with(['.', '/']) {
        path.to_owned()
    } else {
        format!("./{path}")
    }
}

/// Whether a package with this marker may be needed on `platform`, on whatever Python; one that
/// cannot be parsed may.
pub fn may_need(marker: &str, platform: &Platform) -> bool {
    match (marker.parse::<MarkerTree>(), marker_of(platform).parse()) {
        (Ok(marker), Ok(there)) => !marker.is_disjoint(&there),
        _ => true,
    }
}

/// What is true of a platform whatever its Python.
fn marker_of(platform: &Platform) -> String {
    let machine = match platform.as_str() {
        text if text.contains("aarch64") => "aarch64",
        text if text.contains("armv7") => "armv7l",
        text if text.contains("riscv64") => "riscv64",
        _ => "x86_64",
    };
    format!(
        "sys_platform == 'linux' and os_name == 'posix' and platform_system == 'Linux' and platform_machine == '{machine}' and implementation_name == 'cpython' and platform_python_implementation == 'CPython'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_becomes_requirements_with_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pylock.toml");
        let lock = r#"
lock-version = "1.0"
[[packages]]
name = "a"
version = "1"
sdist = { url = "https://h/a-1.tar.gz", hashes = { sha256 = "00" } }
wheels = [{ url = "https://h/a-1.whl", hashes = { sha256 = "11" } }]
[[packages]]
name = "pywin32"
version = "3"
marker = "sys_platform == 'win32'"
wheels = [{ url = "https://h/p.whl", hashes = { sha256 = "22" } }]
[[packages]]
name = "old"
version = "2"
marker = "python_full_version < '3.12' and sys_platform != 'win32'"
wheels = [{ url = "file:///srv/my%20wheels/o.whl", hashes = { sha256 = "33" } }]
[[packages]]
name = "repo"
vcs = { type = "git", url = "https://u:p@h/r.git", commit-id = "abc" }
[[packages]]
name = "library"
directory = { path = "../library" }
"#;
        pytheas_durable::replace(&path, lock.as_bytes()).unwrap();
        let platform: Platform = "linux-armv7".parse().unwrap();
        let exported = requirements(&path, Some(&platform)).unwrap();
        insta::assert_snapshot!(exported.text, @r"
        # Written by `pytheas lock --export` from pylock.toml, for linux-armv7.
        --find-links file:///srv/my%20wheels
        a==1 \
            --hash=sha256:00 \
            --hash=sha256:11
        old==2 ; python_full_version < '3.12' and sys_platform != 'win32' \
            --hash=sha256:33
        repo @ git+https://h/r.git@abc
        ../library
        ");
        assert_eq!(exported.without_hash, ["repo", "library"]);
        let everywhere = requirements(&path, None).unwrap();
        assert!(
            everywhere
                .text
                .contains("pywin32==3 ; sys_platform == 'win32'")
        );
        assert_eq!((everywhere.packages, exported.packages), (5, 4));
    }
}
