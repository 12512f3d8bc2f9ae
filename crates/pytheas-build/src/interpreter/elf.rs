//! Shared libraries and programs (ELF): what they need, and making them relocatable.
//!
//! The interpreter gets `DT_RPATH`, not `DT_RUNPATH`: only the first also serves the libraries of
//! modules that are loaded later (ld.so(8)), and comes before `LD_LIBRARY_PATH`. For the same
//! reason a `RUNPATH` of a copied module or library is deleted: it would switch that off.

use std::{collections::HashSet, os::unix::fs::PermissionsExt, path::Path};

use object_rewrite::Rewriter;

use super::{InterpreterError, io_error};
use crate::scratch::Kind;

/// What of an ELF file matters for copying it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// Class and machine: both must be equal for files that are loaded together.
    pub(super) kind: (u8, u16),
    /// Names of the libraries it needs.
    pub(super) needed: Vec<String>,
    /// Folders of RPATH or RUNPATH.
    pub(super) search: Vec<String>,
    /// Its loader, when it is a program.
    pub(super) loader: Option<String>,
    has_debug: bool,
}

/// Class and machine of an ELF file; none for other files.
pub(super) fn kind(path: &Path) -> Option<(u8, u16)> {
    let mut head = [0; 20];
    std::io::Read::read_exact(&mut std::fs::File::open(path).ok()?, &mut head).ok()?;
    kind_of(&head)
}

pub(super) fn kind_of(bytes: &[u8]) -> Option<(u8, u16)> {
    let little = *bytes.get(5)? == 1;
    let machine: [u8; 2] = bytes.get(18..20)?.try_into().ok()?;
    let machine = if little {
        u16::from_le_bytes(machine)
    } else {
        u16::from_be_bytes(machine)
    };
    bytes.starts_with(b"\x7fELF").then_some((bytes[4], machine))
}

/// Reads `path`; none when it is no ELF file.
pub(super) fn read(path: &Path) -> Result<Option<Elf>, InterpreterError> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    let Some(kind) = kind_of(&bytes) else {
        return Ok(None);
    };
    let rewriter = Rewriter::read(&bytes).map_err(|source| InterpreterError::Elf {
        path: path.to_owned(),
        source,
    })?;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_end_matches('\0')
            .to_owned()
    };
    let search = rewriter.elf_runpath().map(text).unwrap_or_default();
    Ok(Some(Elf {
        kind,
        needed: rewriter.elf_needed().map(text).collect(),
        search: search
            .split(':')
            .filter(|dir| !dir.is_empty())
            .map(str::to_owned)
            .collect(),
        loader: rewriter.elf_interpreter().map(text),
        has_debug: bytes.windows(11).any(|window| window == b".debug_info"),
    }))
}

/// How a copied file finds the libraries it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// By this `DT_RPATH`: for the interpreter.
    Rpath(&'static str),
    /// By the interpreter's: for modules and libraries.
    Inherited,
}

/// Rewrites the file at `path` so that it finds libraries by `search`; debug information is
/// dropped. Files that need neither stay as they are.
pub(super) fn relocate(path: &Path, elf: &Elf, search: Search) -> Result<(), InterpreterError> {
    let wrong = |source| InterpreterError::Elf {
        path: path.to_owned(),
        source,
    };
    let relative = |dir: &String| dir.starts_with("$ORIGIN") || dir.starts_with("${ORIGIN}");
    let keep = match search {
        Search::Rpath(_) => false,
        Search::Inherited => elf.search.is_empty() || elf.search.iter().all(relative),
    };
    if keep && !elf.has_debug {
        return Ok(());
    }
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    let mut rewriter = Rewriter::read(&bytes).map_err(wrong)?;
    match search {
        Search::Rpath(rpath) => {
            rewriter
                .elf_set_runpath(rpath.as_bytes().to_vec())
                .map_err(wrong)?;
            rewriter.elf_use_rpath().map_err(wrong)?;
        }
        Search::Inherited if !keep => rewriter.elf_delete_runpath().map_err(wrong)?,
        Search::Inherited => {}
    }
    if elf.has_debug {
        rewriter.delete_sections(&debug_sections());
    }
    let mut rewritten = Vec::with_capacity(bytes.len());
    rewriter.write(&mut rewritten).map_err(wrong)?;
    let mode = std::fs::metadata(path)
        .map_err(io_error("read", path))?
        .permissions()
        .mode();
    let kind = if mode & 0o111 != 0 {
        Kind::Program
    } else {
        Kind::Data
    };
    crate::scratch::write(path, &rewritten, kind).map_err(io_error("write", path))
}

/// Sections with debug information (DWARF 5, appendix G, and the split and compressed forms).
fn debug_sections() -> HashSet<Vec<u8>> {
    let names = [
        "info",
        "abbrev",
        "aranges",
        "line",
        "line_str",
        "str",
        "str_offsets",
        "loc",
        "loclists",
        "ranges",
        "rnglists",
        "frame",
        "macro",
        "macinfo",
        "pubnames",
        "pubtypes",
        "types",
        "addr",
        "names",
    ];
    names
        .iter()
        .map(|name| format!(".debug_{name}").into_bytes())
        .chain([b".gdb_index".to_vec()])
        .collect()
}

/// Whether `name` belongs to the C library, which is the device's: its parts must be of one
/// version with the loader and the kernel's expectations.
pub(super) fn is_c_library(name: &str) -> bool {
    const GLIBC: &[&str] = &[
        "libc.so",
        "libm.so",
        "libpthread.so",
        "libdl.so",
        "librt.so",
        "libutil.so",
        "libresolv.so",
        "libanl.so",
        "libmvec.so",
        "libthread_db.so",
        "libBrokenLocale.so",
        "libnss_",
        "ld-linux",
        "ld64.so",
        "linux-vdso",
        "linux-gate",
        "libc.musl",
        "ld-musl",
    ];
    GLIBC.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_the_devices() {
        for theirs in [
            "libc.so.6",
            "libm.so.6",
            "ld-linux-x86-64.so.2",
            "libc.musl-x86_64.so.1",
            "libnss_dns.so.2",
        ] {
            assert!(is_c_library(theirs), "{theirs}");
        }
        for ours in [
            "libcrypt.so.1",
            "libcrypto.so.3",
            "libz.so.1",
            "libmpdec.so.3",
            "libutil_x.so",
            "libgcc_s.so.1",
        ] {
            assert!(!is_c_library(ours), "{ours}");
        }
    }

    #[test]
    fn a_text_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        pytheas_durable::replace(&path, b"#!/bin/sh\n").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(kind(&path), None);
    }
}
