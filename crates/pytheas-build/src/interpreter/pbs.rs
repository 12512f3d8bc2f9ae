//! python-build-standalone: `install_only` archives from a mirror or a folder, checked against the
//! hashes pinned in this program, else against the `SHA256SUMS` that lies beside them.

use std::{
    io,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use pep440_rs::Version;
use pytheas_project::{Connectivity, http::Http};
use pytheas_release::{Platform, RelPath, Sha256};
use url::Url;

use super::{
    HEADERS, Interpreter, InterpreterChoice, InterpreterError, Provider, Wanted, elf, io_error,
    pins::{PINS, RELEASE},
    prepare::{self, Known, Raw},
    prune::is_left_out,
};
use crate::event::Event;

const ARCHIVE_LIMIT_BYTES: u64 = 500 << 20;
const SUMS: &str = "SHA256SUMS";
const SUMS_LIMIT_BYTES: u64 = 4 << 20;

/// The provider `python-build-standalone`.
pub(super) struct PythonBuildStandalone;

impl Provider for PythonBuildStandalone {
    fn name(&self) -> &'static str {
        "python-build-standalone"
    }

    fn provide(&self, wanted: &Wanted<'_>) -> Result<Option<Interpreter>, InterpreterError> {
        let named = *wanted.choice == InterpreterChoice::PythonBuildStandalone;
        let Some(mirror) = wanted.mirror.map(Mirror::parse) else {
            let cached = newest_cached(self.name(), wanted);
            return match (cached, named) {
                (None, true) => Err(InterpreterError::NoMirror),
                (cached, _) => Ok(cached),
            };
        };
        let archives = mirror.archives(wanted)?;
        let fitting = archives
            .iter()
            .filter(|archive| wanted.accepts(&archive.version));
        let Some(archive) =
            fitting.max_by(|a, b| (&a.version, &a.file).cmp(&(&b.version, &b.file)))
        else {
            return if named {
                let found = archives
                    .iter()
                    .map(|archive| archive.version.to_string())
                    .collect::<Vec<_>>()
                    .join(", ");
                let found = if found.is_empty() {
                    "none".to_owned()
                } else {
                    found
                };
                Err(InterpreterError::None {
                    wanted: wanted.shown(),
                    platform: wanted.platform.clone(),
                    found: vec![format!(
                        "`{}` has for this platform: {found}",
                        mirror.shown()
                    )],
                })
            } else {
                Ok(None)
            };
        };
        // The number is raised when more is made of the same archive.
        let key = prepare::key(&[self.name(), "2", &archive.sha256.to_string()]);
        if let Some(interpreter) = prepare::cached(&wanted.cache(), &key) {
            return Ok(Some(interpreter));
        }
        if wanted.connectivity == Connectivity::Offline && matches!(mirror, Mirror::Address(_)) {
            return Ok(newest_cached(self.name(), wanted));
        }
        let bytes = mirror.fetch(archive, wanted)?;
        let found = Sha256::of(&bytes);
        if found != archive.sha256 {
            return Err(InterpreterError::Hash {
                file: archive.file.clone(),
                from: mirror.shown(),
                found,
                expected: archive.sha256,
                by: archive.by,
            });
        }
        let scratch = prepare::scratch(&wanted.cache())?;
        let origin = PathBuf::from(format!(
            "{}/{}",
            mirror.shown().trim_end_matches('/'),
            archive.file
        ));
        let program = unpack(&bytes, scratch.path()).map_err(io_error("unpack", &origin))?;
        drop_unneeded_libpython(scratch.path(), &program)?;
        let raw = Raw {
            scratch,
            provider: self.name(),
            origin,
            sha256: Some(archive.sha256),
            missing: Vec::new(),
        };
        if Platform::host().is_ok_and(|host| host == *wanted.platform) {
            return prepare::finish(raw, &program, &key, wanted).map(Some);
        }
        prepare::link(&program.under(&raw.scratch.path().join("python")))?;
        let known = foreign(archive, program, wanted)?;
        prepare::seal(raw, known, &key, wanted).map(Some)
    }
}

/// What is known of an archive for a CPU that is not this machine's: the layout never changed.
fn foreign(
    archive: &Archive,
    program: RelPath,
    wanted: &Wanted<'_>,
) -> Result<Known, InterpreterError> {
    let relative = |text: String| -> Result<RelPath, InterpreterError> {
        text.parse().map_err(|_| {
            io_error("use", Path::new(&archive.file))(io::Error::other("its version is no name"))
        })
    };
    let name = program.file_name().to_owned();
    let machine = match wanted.platform.arch() {
        "armv7" => "armv7l",
        other => other,
    };
    Ok(Known {
        version: archive.version.to_string(),
        site_packages: relative(format!("lib/{name}/site-packages"))?,
        stdlib: relative(format!("lib/{name}"))?,
        program,
        markers: prepare::linux_markers(&archive.version, machine),
        // The device's C library is not known; Debian 10 and everything newer has this one.
        glibc: (!wanted.platform.is_musl()).then_some((2, 28)),
        loader: None,
        packages: Vec::new(),
    })
}

/// The newest fitting interpreter of this provider that is in the cache.
fn newest_cached(provider: &str, wanted: &Wanted<'_>) -> Option<Interpreter> {
    let cache = wanted.cache();
    let children = std::fs::read_dir(&cache).ok()?.flatten();
    let mut fitting: Vec<(Version, String)> = children
        .filter_map(|child| {
            let key = child.file_name().into_string().ok()?;
            Some((prepare::described(&cache, &key)?, key))
        })
        .filter(|(interpreter, _)| {
            interpreter.provider == provider
                && arch_of(interpreter) == wanted.platform.arch()
                && interpreter.glibc.is_none() == wanted.platform.is_musl()
        })
        .filter_map(|(interpreter, key)| Some((interpreter.version.parse().ok()?, key)))
        .filter(|(version, _)| wanted.accepts(version))
        .collect();
    fitting.sort();
    fitting
        .iter()
        .rev()
        .find_map(|(_, key)| prepare::cached(&cache, key))
}

fn arch_of(interpreter: &Interpreter) -> &str {
    match interpreter
        .markers
        .get("platform_machine")
        .and_then(serde_json::Value::as_str)
    {
        Some("armv7l" | "armv8l") => "armv7",
        Some(other) => other,
        None => "",
    }
}

/// The target triples of python-build-standalone for a platform.
fn triple(platform: &Platform) -> Option<&'static str> {
    Some(match platform.as_str() {
        "linux-x86_64" => "x86_64-unknown-linux-gnu",
        "linux-x86_64-musl" => "x86_64-unknown-linux-musl",
        "linux-aarch64" => "aarch64-unknown-linux-gnu",
        "linux-aarch64-musl" => "aarch64-unknown-linux-musl",
        "linux-armv7" => "armv7-unknown-linux-gnueabihf",
        "linux-riscv64" => "riscv64-unknown-linux-gnu",
        _ => return None,
    })
}

/// One archive, known by hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Archive {
    version: Version,
    /// Its file name, e.g. `cpython-3.11.15+20260414-x86_64-unknown-linux-gnu-install_only.tar.gz`.
    file: String,
    sha256: Sha256,
    /// Who says so.
    by: &'static str,
}

/// Version and triple of an archive's name; none for other files and other flavours.
fn parse_name(file: &str) -> Option<(Version, String)> {
    let rest = file.strip_prefix("cpython-")?;
    let rest = rest
        .strip_suffix("-install_only.tar.gz")
        .or_else(|| rest.strip_suffix("-install_only_stripped.tar.gz"))?;
    let (version, rest) = rest.split_once('+')?;
    let (_, triple) = rest.split_once('-')?;
    Some((version.parse().ok()?, triple.to_owned()))
}

#[derive(Debug)]
enum Mirror {
    Folder(PathBuf),
    Address(Url),
}

impl Mirror {
    fn parse(text: &str) -> Self {
        match text.parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                let mut url = url;
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Self::Address(url)
            }
            Ok(url) if url.scheme() == "file" => Self::Folder(
                url.to_file_path()
                    .unwrap_or_else(|()| PathBuf::from(url.path())),
            ),
            _ => Self::Folder(PathBuf::from(text)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Address(url) => {
                let mut url = url.clone();
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.into()
            }
        }
    }

    /// The archives for the platform whose hash is known.
    fn archives(&self, wanted: &Wanted<'_>) -> Result<Vec<Archive>, InterpreterError> {
        let Some(triple) = triple(wanted.platform) else {
            return Ok(Vec::new());
        };
        let pinned: Vec<Archive> = PINS
            .iter()
            .filter(|(_, of, _)| *of == triple)
            .filter_map(|(version, _, sha256)| {
                Some(Archive {
                    version: version.parse().ok()?,
                    file: format!("cpython-{version}+{RELEASE}-{triple}-install_only.tar.gz"),
                    sha256: sha256.parse().ok()?,
                    by: "pinned in pytheas",
                })
            })
            .collect();
        match self {
            // The pins name what a mirror of the releases has; other versions need its sums.
            Self::Address(url) => {
                if pinned
                    .iter()
                    .any(|archive| wanted.accepts(&archive.version))
                    || wanted.connectivity == Connectivity::Offline
                {
                    return Ok(pinned);
                }
                let http = Http::new(wanted.environment);
                // As on the project's own host, in a folder per release; else flat.
                let sums = [format!("{RELEASE}/{SUMS}"), SUMS.to_owned()]
                    .iter()
                    .filter_map(|path| url.join(path).ok())
                    .find_map(|url| http.get(&url, "*/*", SUMS_LIMIT_BYTES).ok());
                let text = sums
                    .map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned())
                    .unwrap_or_default();
                Ok(listed(&text, triple))
            }
            Self::Folder(dir) => {
                let sums = std::fs::read_to_string(dir.join(SUMS)).unwrap_or_default();
                let mut known = listed(&sums, triple);
                known.extend(pinned);
                let mut found = Vec::new();
                for child in std::fs::read_dir(dir)
                    .map_err(io_error("read", dir))?
                    .flatten()
                {
                    let file = child.file_name().to_string_lossy().into_owned();
                    let Some((version, of)) = parse_name(&file) else {
                        continue;
                    };
                    if of != triple {
                        continue;
                    }
                    // The pin comes first: a folder's own sums cannot overrule it.
                    match known.iter().rev().find(|archive| archive.file == file) {
                        Some(archive) => found.push(archive.clone()),
                        None if wanted.accepts(&version) => {
                            return Err(InterpreterError::NoHash {
                                file,
                                from: self.shown(),
                            });
                        }
                        None => {}
                    }
                }
                Ok(found)
            }
        }
    }

    fn fetch(&self, archive: &Archive, wanted: &Wanted<'_>) -> Result<Vec<u8>, InterpreterError> {
        (wanted.observer)(Event::Fetching {
            what: archive.file.clone(),
            from: self.shown(),
        });
        match self {
            Self::Folder(dir) => {
                let path = dir.join(&archive.file);
                std::fs::read(&path).map_err(io_error("read", &path))
            }
            Self::Address(url) => {
                let network = |source| InterpreterError::Network {
                    file: archive.file.clone(),
                    source,
                };
                let http = Http::new(wanted.environment);
                let at = |path: String| url.join(&path).unwrap_or_else(|_| url.clone());
                let encoded = archive.file.replace('+', "%2B");
                // As on the project's own host, in a folder per release; else flat.
                let release = archive
                    .file
                    .split('+')
                    .nth(1)
                    .and_then(|rest| rest.split('-').next())
                    .unwrap_or(RELEASE);
                match http.get(
                    &at(format!("{release}/{encoded}")),
                    "*/*",
                    ARCHIVE_LIMIT_BYTES,
                ) {
                    Ok((bytes, _)) => Ok(bytes),
                    Err(first) => match http.get(&at(encoded), "*/*", ARCHIVE_LIMIT_BYTES) {
                        Ok((bytes, _)) => Ok(bytes),
                        Err(_) => Err(network(first)),
                    },
                }
            }
        }
    }
}

/// The archives of a `SHA256SUMS` file (`HASH  FILE`, the file perhaps in a folder).
fn listed(text: &str, triple: &str) -> Vec<Archive> {
    text.lines()
        .filter_map(|line| {
            let (hash, file) = line.split_once(char::is_whitespace)?;
            let file = file.trim().trim_start_matches('*').rsplit('/').next()?;
            let (version, of) = parse_name(file)?;
            (of == triple).then_some(())?;
            Some(Archive {
                version,
                file: file.to_owned(),
                sha256: hash.parse().ok()?,
                by: SUMS,
            })
        })
        .collect()
}

/// Unpacks `python/` of the archive into `into`, without what a bundle does not need; gives the
/// interpreter's program.
fn unpack(archive: &[u8], into: &Path) -> io::Result<RelPath> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    archive.set_overwrite(false);
    let mut program = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(inside) = path
            .strip_prefix("python")
            .ok()
            .and_then(|path| path.to_str())
        else {
            continue;
        };
        match wanted_part(inside) {
            Part::Out => continue,
            Part::Program => program = Some(inside.parse().map_err(io::Error::other)?),
            Part::In => {}
        }
        // Refuses members that climb out, also through links.
        if !entry.unpack_in(into)? {
            return Err(io::Error::other(format!(
                "the member `{}` climbs out of it",
                path.display()
            )));
        }
    }
    program.ok_or_else(|| io::Error::other("it has no `python/bin/python3.X`"))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    In,
    Out,
    Program,
}

/// Whether a member, relative to `python`, belongs into a bundle.
fn wanted_part(path: &str) -> Part {
    let is_version = |text: &str| {
        text.strip_prefix("3.")
            .is_some_and(|minor| minor.trim_end_matches('t').parse::<u8>().is_ok())
    };
    if let Some(name) = path.strip_prefix("bin/") {
        return if name.strip_prefix("python").is_some_and(is_version) {
            Part::Program
        } else {
            Part::Out
        };
    }
    if path.split('/').next() == Some(HEADERS) {
        return Part::In;
    }
    let Some(inside) = path.strip_prefix("lib/") else {
        return Part::Out;
    };
    if let Some((_, rest)) = inside
        .split_once('/')
        .filter(|(dir, _)| dir.strip_prefix("python").is_some_and(is_version))
    {
        let mut at = rest.len();
        while at > 0 {
            if is_left_out(&rest[..at]) {
                return Part::Out;
            }
            at = rest[..at].rfind('/').unwrap_or(0);
        }
        return Part::In;
    }
    let library = !inside.contains('/')
        && inside.contains(".so")
        && !inside.starts_with("libtcl")
        && !inside.starts_with("libtk");
    if library { Part::In } else { Part::Out }
}

/// Newer archives link the program statically and carry `libpython` for embedders only.
fn drop_unneeded_libpython(scratch: &Path, program: &RelPath) -> Result<(), InterpreterError> {
    let python = program.under(&scratch.join("python"));
    let needed = elf::read(&python)?
        .map(|elf| elf.needed)
        .unwrap_or_default();
    let lib = scratch.join("python/lib");
    for child in std::fs::read_dir(&lib)
        .map_err(io_error("read", &lib))?
        .flatten()
    {
        let name = child.file_name().to_string_lossy().into_owned();
        let is_needed = needed
            .iter()
            .any(|other| other.rsplit('/').next() == Some(name.as_str()));
        if name.starts_with("libpython") && !is_needed {
            std::fs::remove_file(child.path()).map_err(io_error("remove", &child.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_is_a_hash_of_a_known_platform() {
        for (version, triple, sha256) in PINS {
            assert!(version.parse::<Version>().is_ok(), "{version}");
            assert!(sha256.parse::<Sha256>().is_ok(), "{sha256}");
            assert!(triple.contains("-unknown-linux-"), "{triple}");
        }
    }

    #[test]
    fn sums_are_read_in_both_spellings() {
        let hash = "1".repeat(64);
        let text = format!(
            "{hash}  cpython-3.11.15+20260414-x86_64-unknown-linux-gnu-install_only.tar.gz\n\
             {hash} *20260414/cpython-3.12.1+20260414-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz\n\
             {hash}  cpython-3.12.1+20260414-aarch64-unknown-linux-gnu-install_only.tar.gz\n\
             {hash}  cpython-3.13.1+20260414-x86_64-unknown-linux-gnu-freethreaded+pgo-full.tar.zst\n"
        );
        let versions: Vec<String> = listed(&text, "x86_64-unknown-linux-gnu")
            .iter()
            .map(|archive| archive.version.to_string())
            .collect();
        assert_eq!(versions, ["3.11.15", "3.12.1"]);
    }

    #[test]
    fn only_what_a_bundle_needs_is_unpacked() {
        for (path, expected) in [
            ("bin/python3.11", Part::Program),
            ("bin/python3.13t", Part::Program),
            ("bin/python3", Part::Out),
            ("bin/pip", Part::Out),
            ("lib/python3.11/os.py", Part::In),
            ("lib/python3.11/test/test_os.py", Part::Out),
            ("lib/python3.11/lib2to3/tests/x.py", Part::Out),
            ("lib/python3.11/site-packages/pip/__init__.py", Part::Out),
            ("lib/libpython3.11.so.1.0", Part::In),
            ("lib/tcl8.6/init.tcl", Part::Out),
            ("include/python3.11/Python.h", Part::In),
            ("share/man/x", Part::Out),
        ] {
            assert_eq!(wanted_part(path), expected, "{path}");
        }
    }
}
