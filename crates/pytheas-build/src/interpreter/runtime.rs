//! The compiler's run-time libraries that packages expect on every Linux machine (the manylinux
//! policy allows them to): small devices lack them, so the host's are taken along. Modules find
//! them by the interpreter's `DT_RPATH`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader32, FileHeader64},
    read::elf::{Dyn as _, FileHeader},
};
use walkdir::WalkDir;

use super::{InterpreterError, elf, io_error, ld_cache::LdCache};
use crate::scratch;

const LIBRARIES: &[&str] = &[
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libatomic.so.1",
    "libz.so.1",
];

/// As [`add_for_packages`] for an interpreter with its own C library: from `libraries`, the rest of
/// what its distribution's packages brought. What is not there is the packages' own affair.
pub(crate) fn add_from_folder(
    site: &Path,
    lib: &Path,
    libraries: &Path,
) -> Result<(), InterpreterError> {
    let mut queue = Vec::new();
    for entry in WalkDir::new(site) {
        let entry = entry.map_err(|error| io_error("read", site)(error.into()))?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type().is_file() && (name.ends_with(".so") || name.contains(".so.")) {
            let bytes = std::fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
            queue.extend(needed(&bytes));
        }
    }
    while let Some(name) = queue.pop() {
        let (from, to) = (libraries.join(&name), lib.join(&name));
        if name.contains('/') || to.exists() || !from.is_file() {
            continue;
        }
        scratch::copy(&from, &to).map_err(io_error("copy", &from))?;
        let bytes = std::fs::read(&from).map_err(io_error("read", &from))?;
        queue.extend(needed(&bytes));
    }
    Ok(())
}

/// Copies to `lib` what the packages in `site` need of [`LIBRARIES`] and `lib` does not have; gives
/// those that this machine lacks as well.
pub(crate) fn add_for_packages(site: &Path, lib: &Path) -> Result<Vec<String>, InterpreterError> {
    let mut wanted = BTreeSet::new();
    let mut kind = None;
    for entry in WalkDir::new(site) {
        let entry = entry.map_err(|error| io_error("read", site)(error.into()))?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type().is_file() && (name.ends_with(".so") || name.contains(".so.")) {
            let bytes = std::fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
            kind = kind.or_else(|| elf::kind_of(&bytes));
            wanted.extend(
                needed(&bytes)
                    .into_iter()
                    .filter(|name| LIBRARIES.contains(&name.as_str())),
            );
        }
    }
    let cache = LdCache::read();
    let mut missing = Vec::new();
    let mut queue: Vec<(String, PathBuf)> = wanted
        .into_iter()
        .map(|name| (name, site.join("module.so")))
        .collect();
    while let Some((name, by)) = queue.pop() {
        let target = lib.join(&name);
        if target.exists() {
            continue;
        }
        let Some(path) = cache.find(&name, &by, &[], |path| elf::kind(path) == kind) else {
            missing.push(name);
            continue;
        };
        let path = path.canonicalize().map_err(io_error("read", &path))?;
        scratch::copy(&path, &target).map_err(io_error("copy", &path))?;
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        let also = needed(&bytes)
            .into_iter()
            .filter(|name| LIBRARIES.contains(&name.as_str()));
        queue.extend(also.map(|name| (name, path.clone())));
    }
    Ok(missing)
}

/// Names of the libraries that an ELF file needs; none for other files.
pub(super) fn needed(bytes: &[u8]) -> Vec<String> {
    match elf::kind_of(bytes) {
        Some((1, _)) => needed_of::<FileHeader32<Endianness>>(bytes),
        Some((2, _)) => needed_of::<FileHeader64<Endianness>>(bytes),
        _ => None,
    }
    .unwrap_or_default()
}

fn needed_of<Header: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> Option<Vec<String>> {
    let header = Header::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let (entries, strings) = sections.dynamic(endian, bytes).ok()??;
    let strings = sections.strings(endian, bytes, strings).ok()?;
    let name = |entry: &Header::Dyn| {
        let is_needed = entry.tag(endian) == DT_NEEDED;
        let name = is_needed
            .then(|| entry.string(endian, strings).ok())
            .flatten()?;
        String::from_utf8(name.to_vec()).ok()
    };
    Some(entries.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_what_they_need() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needed(&own);
        assert!(
            names.iter().any(|name| name.starts_with("libc.")),
            "{names:?}"
        );
        assert_eq!(needed(b"#!/bin/sh"), Vec::<String>::new());
        assert_eq!(needed(&own[..100]), Vec::<String>::new());
    }
}
