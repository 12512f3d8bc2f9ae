//! Source distributions: unpacked with nothing of them run, what builds them (PEP 518), and whether
//! a compiler is needed.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde::Deserialize;
use walkdir::WalkDir;

use super::{NativeError, error::io_error};

/// No source distribution holds more.
const TOTAL_MAX: u64 = 2 << 30;
/// Nor more files and folders.
const ENTRIES_MAX: usize = 200_000;

/// The table `[build-system]` of `pyproject.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BuildSystem {
    /// What the back end needs.
    #[serde(default)]
    pub(crate) requires: Vec<String>,
    /// The back end's object.
    #[serde(default = "legacy")]
    pub(crate) build_backend: String,
    /// Folders of a back end that comes with the source.
    #[serde(default)]
    pub(crate) backend_path: Vec<String>,
}

fn legacy() -> String {
    "setuptools.build_meta:__legacy__".to_owned()
}

/// What builds the project in `dir`; PEP 517's defaults where it does not say.
pub(super) fn build_system(dir: &Path) -> Result<BuildSystem, NativeError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct PyProject {
        build_system: Option<BuildSystem>,
    }
    let path = dir.join("pyproject.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let parsed: PyProject = toml::from_str(&text)
        .map_err(|error| io_error("read", &path)(io::Error::other(error.message().to_owned())))?;
    Ok(parsed.build_system.unwrap_or_else(|| BuildSystem {
        requires: vec!["setuptools".to_owned(), "wheel".to_owned()],
        build_backend: legacy(),
        backend_path: Vec::new(),
    }))
}

/// Whether a file of this name is for a compiler.
fn is_code(name: &str) -> bool {
    [
        ".c", ".cc", ".cpp", ".cxx", ".pyx", ".rs", ".s", ".f", ".f90", ".zig",
    ]
    .iter()
    .any(|end| name.to_ascii_lowercase().ends_with(end))
}

/// Whether the file at this path is code of the package itself: no test, documentation or example.
pub(super) fn counts(path: &str) -> bool {
    let aside = |part| matches!(part, "tests" | "test" | "docs" | "doc" | "examples");
    is_code(path) && !path.split('/').any(aside)
}

/// Whether the archive holds code for a compiler, tests and documentation aside; an unreadable one
/// does not.
pub(super) fn has_compiled_code(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else {
        return false;
    };
    if path.extension().is_some_and(|end| end == "zip") {
        return zip::ZipArchive::new(io::Cursor::new(&bytes)).is_ok_and(|archive| {
            archive
                .file_names()
                .any(|name| name.is_ok_and(|name| counts(&name)))
        });
    }
    let mut archive = tar::Archive::new(GzDecoder::new(&*bytes).take(TOTAL_MAX));
    let Ok(entries) = archive.entries() else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .path()
            .is_ok_and(|path| path.to_str().is_some_and(counts))
    })
}

/// Unpacks the archive `path` into the new folder `into`; gives its top folder.
pub(super) fn unpack(path: &Path, bytes: &[u8], into: &Path) -> Result<PathBuf, NativeError> {
    let wrong = io_error("unpack", path);
    std::fs::create_dir_all(into).map_err(io_error("make", into))?;
    if path.extension().is_some_and(|end| end == "zip") {
        unpack_zip(bytes, into).map_err(&wrong)?;
    } else {
        let mut archive = tar::Archive::new(GzDecoder::new(bytes).take(TOTAL_MAX));
        archive.set_overwrite(false);
        archive.set_preserve_permissions(false);
        let mut left = TOTAL_MAX;
        for (index, entry) in archive.entries().map_err(&wrong)?.enumerate() {
            let mut entry = entry.map_err(&wrong)?;
            let rest = left.checked_sub(entry.size());
            left = rest
                .filter(|_| index < ENTRIES_MAX)
                .ok_or_else(|| wrong(too_large()))?;
            let kind = entry.header().entry_type();
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
                continue;
            }
            let name = entry.path().map_err(&wrong)?.display().to_string();
            // Refuses members that climb out, also through links.
            if !entry.unpack_in(into).map_err(&wrong)? {
                return Err(wrong(io::Error::other(format!(
                    "the member `{name}` climbs out of it"
                ))));
            }
        }
    }
    let top = WalkDir::new(into)
        .min_depth(1)
        .max_depth(1)
        .sort_by_file_name();
    let top = top.into_iter().flatten().find(|entry| {
        let dir = entry.path();
        dir.join("pyproject.toml").is_file() || dir.join("setup.py").is_file()
    });
    top.map(walkdir::DirEntry::into_path)
        .ok_or_else(|| wrong(io::Error::other("it has no `pyproject.toml` or `setup.py`")))
}

fn too_large() -> io::Error {
    io::Error::other(format!(
        "it would unpack to more than 2 GiB or {ENTRIES_MAX} files; require another version of the package"
    ))
}

fn unpack_zip(bytes: &[u8], into: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(bytes)).map_err(io::Error::other)?;
    let mut left = TOTAL_MAX;
    if archive.len() > ENTRIES_MAX {
        return Err(too_large());
    }
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(io::Error::other)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().map_err(io::Error::other)?.into_owned();
        let path: pytheas_release::RelPath = name.parse().map_err(|reason| {
            io::Error::other(format!("the name `{}` {reason}", name.escape_debug()))
        })?;
        let mut content = Vec::new();
        entry.take(left + 1).read_to_end(&mut content)?;
        left = left
            .checked_sub(content.len() as u64)
            .ok_or_else(too_large)?;
        crate::scratch::write(&path.under(into), &content, crate::scratch::Kind::Data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_says_nothing_is_built_by_setuptools() {
        let dir = tempfile::tempdir().unwrap();
        let system = build_system(dir.path()).unwrap();
        assert_eq!(system.build_backend, "setuptools.build_meta:__legacy__");
        let text = b"[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n";
        pytheas_durable::replace(&dir.path().join("pyproject.toml"), text).unwrap();
        let system = build_system(dir.path()).unwrap();
        assert_eq!(
            (system.requires, system.build_backend),
            (vec!["hatchling".to_owned()], "hatchling.build".to_owned())
        );
    }

    #[test]
    fn an_archive_that_says_it_holds_too_much_is_not_unpacked() {
        let mut header = tar::Header::new_gnu();
        header.set_path("x-1/zeros").unwrap();
        header.set_size(TOTAL_MAX + 1);
        header.set_mode(0o644);
        header.set_cksum();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut packed, header.as_bytes()).unwrap();
        let bytes = packed.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        let error = unpack(Path::new("x-1.tar.gz"), &bytes, &into).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("more than 2 GiB"), "{source}");
        assert!(!into.join("x-1").exists());
    }

    #[test]
    fn code_is_known_by_its_name() {
        for (name, expected) in [
            ("a/src/x.c", true),
            ("a/x.CPP", true),
            ("a/x.pyx", true),
            ("a/x.py", false),
            ("a/x.cfg", false),
            ("a/x.css", false),
        ] {
            assert_eq!(is_code(name), expected, "{name}");
        }
    }
}
