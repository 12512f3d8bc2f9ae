//! The files of locked packages, each checked against its full hash.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_project::Project;
use pytheas_release::RelPath;

use super::{
    LockedPackage, MipError, MipLock, MipOptions,
    error::io_error,
    fetch::Fetcher,
    lock::From,
    locking::index_place,
    marker::{self, LeftOut},
    pypi,
    resolve::check_path,
};
use crate::micropython::compile::board_path;

/// A file of a package.
#[derive(Debug, Clone)]
pub(crate) struct PackageFile {
    /// The package.
    pub(crate) package: String,
    /// Its path on the board.
    pub(crate) path: RelPath,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

/// What a board gets of the locked packages.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    /// Their files.
    pub(crate) files: Vec<PackageFile>,
    /// Packages that are not for it.
    pub(crate) left_out: Vec<LeftOut>,
}

/// The files of all packages that boards with this port need; none: boards of any.
pub(crate) fn files(
    project: &Project,
    lock: &MipLock,
    options: &MipOptions,
    port: Option<&str>,
) -> Result<Packages, MipError> {
    let fetcher = Fetcher::new(&options.environment, options.connectivity, &project.dir);
    let index = index_place(project, &options.environment);
    let mut all = Packages::default();
    for package in &lock.packages {
        let marker = package.marker.as_ref();
        if let Some(marker) = marker.filter(|marker| !marker::applies(marker, port)) {
            all.left_out.push(LeftOut {
                name: package.name.clone(),
                version: package.version.clone(),
                marker: marker.clone(),
            });
            continue;
        }
        for (path, bytes) in of(package, project, index.as_deref(), &fetcher)? {
            let why = |error| MipError::Path {
                package: package.name.clone(),
                path: path.clone(),
                why: crate::error::chain(&error),
            };
            all.files.push(PackageFile {
                package: package.name.clone(),
                path: board_path(&path).map_err(why)?,
                bytes,
            });
        }
    }
    Ok(all)
}

/// The files of one package, by path on the board.
pub(super) fn of(
    package: &LockedPackage,
    project: &Project,
    index: Option<&str>,
    fetcher: &Fetcher,
) -> Result<BTreeMap<String, Vec<u8>>, MipError> {
    let places = |url: &str, name: &str| -> Vec<String> {
        let mut places = Vec::new();
        if let Some(index) = index {
            if !url.contains("://") {
                places.push(format!("{index}/{url}"));
            }
            if package.from == From::Pypi && !index.contains("://") {
                places.push(format!("{index}/archive/{name}"));
            }
        }
        if url.contains("://") || url.starts_with('/') || index.is_none() {
            places.push(url.to_owned());
        }
        places
    };
    match package.from {
        From::Folder => folder(&project.dir.join(&package.name), &package.name),
        From::Pypi => {
            let mut files = BTreeMap::new();
            for file in &package.files {
                let places = places(&file.url, &file.path);
                let bytes = fetcher.checked(&package.name, &file.path, &places, file.sha256)?;
                files.extend(pypi::unpack(
                    &package.name,
                    &package.version,
                    &file.path,
                    &bytes,
                )?);
            }
            for path in files.keys() {
                check_path(&package.name, path)?;
            }
            Ok(files)
        }
        From::Mip | From::Url => {
            let mut files = BTreeMap::new();
            for file in &package.files {
                check_path(&package.name, &file.path)?;
                let places = places(&file.url, &file.path);
                let bytes = fetcher.checked(&package.name, &file.path, &places, file.sha256)?;
                files.insert(file.path.clone(), bytes);
            }
            Ok(files)
        }
    }
}

/// The modules and data of a local folder; a folder that is a package keeps its name.
fn folder(dir: &Path, written: &str) -> Result<BTreeMap<String, Vec<u8>>, MipError> {
    let dir = dir.canonicalize().map_err(|_| MipError::Dependency {
        text: written.to_owned(),
        why: format!("`{}` is no folder", dir.display()),
    })?;
    let prefix = if dir.join("__init__.py").is_file() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}/")
    } else {
        String::new()
    };
    let mut files = BTreeMap::new();
    let is_taken = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0
            || !(name.starts_with('.')
                || matches!(
                    name.as_ref(),
                    "__pycache__"
                        | "tests"
                        | "test"
                        | "setup.py"
                        | "pyproject.toml"
                        | "package.json"
                        | "manifest.py"
                ))
    };
    for entry in walkdir::WalkDir::new(&dir)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_taken)
    {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(&dir).to_owned();
            io_error("read", &path)(error.into())
        })?;
        if entry.file_type().is_file() {
            let inside = entry.path().strip_prefix(&dir).unwrap_or(entry.path());
            let bytes = fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
            files.insert(format!("{prefix}{}", inside.display()), bytes);
        }
    }
    Ok(files)
}
