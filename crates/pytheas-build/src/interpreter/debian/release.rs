//! From a mirror to verified bytes: the archive's signature over `InRelease`, its hash of each
//! `Packages` index, their hash of each package. Nothing unverified is looked into.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use pytheas_project::{Connectivity, http::Http};
use pytheas_release::Sha256;
use url::Url;

use super::{
    super::{InterpreterError, Wanted, io_error},
    Cpu, network,
    package::{self, Package},
};
use crate::event::Event;

const RELEASE_LIMIT_BYTES: u64 = 16 << 20;
const INDEX_LIMIT_BYTES: u64 = 256 << 20;
const TEXT_LIMIT_BYTES: u64 = 1 << 30;
/// Where Debian keeps its archive's keys.
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// One suite of a mirror: an address or a folder of the usual layout (`dists`, `pool`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    base: String,
    /// E.g. `bookworm-security`.
    pub(super) suite: String,
}

impl Mirror {
    pub(super) fn new(base: &str, suite: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            suite: suite.trim_end_matches('/').to_owned(),
        }
    }

    /// Without credentials.
    pub(super) fn shown(&self) -> String {
        match self.base.parse::<Url>() {
            Ok(mut url) if url.has_host() => {
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.to_string().trim_end_matches('/').to_owned()
            }
            _ => self.base.clone(),
        }
    }

    /// The bytes of `path` below the mirror.
    fn get(
        &self,
        wanted: &Wanted<'_>,
        path: &str,
        limit: u64,
    ) -> Result<Vec<u8>, InterpreterError> {
        let url = format!("{}/{path}", self.base).parse::<Url>();
        match url {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                if wanted.connectivity == Connectivity::Offline {
                    return Err(InterpreterError::DebianOffline {
                        file: path.to_owned(),
                    });
                }
                Http::new(wanted.environment)
                    .get(&url, "*/*", limit)
                    .map(|(bytes, _)| bytes)
                    .map_err(|source| network(path, source))
            }
            url => {
                let file = match url {
                    Ok(url) if url.scheme() == "file" => PathBuf::from(url.path()),
                    _ => Path::new(&self.base).join(path),
                };
                std::fs::read(&file).map_err(io_error("read", &file))
            }
        }
    }
}

/// Where indexes and packages are kept.
pub(super) fn cache_dir(wanted: &Wanted<'_>) -> PathBuf {
    wanted.environment.cache_dir().join("debian")
}

/// The packages of all mirrors for a CPU, by name. A mirror without that CPU is passed over.
pub(super) fn index(
    wanted: &Wanted<'_>,
    mirrors: &[Mirror],
    cpu: &Cpu,
) -> Result<BTreeMap<String, Package>, InterpreterError> {
    let mut known = BTreeMap::new();
    for (number, mirror) in mirrors.iter().enumerate() {
        let dists = format!("dists/{}", mirror.suite);
        (wanted.observer)(Event::Fetching {
            what: format!("{dists} ({})", cpu.debian),
            from: mirror.shown(),
        });
        let signed = mirror.get(wanted, &format!("{dists}/InRelease"), RELEASE_LIMIT_BYTES)?;
        let release = verified(wanted, &signed, mirror)?;
        if let Some(until) = expired(&release) {
            // Held back, on purpose or not; still newer than the release itself.
            let text = format!(
                "Debian's `{}` from {} should have been renewed by {until}; it may lack newer updates",
                mirror.suite,
                mirror.shown()
            );
            (wanted.observer)(Event::Warning { text });
        }
        let path = format!("main/binary-{}/Packages.xz", cpu.debian);
        let Some(sha256) = listed(&release, &path) else {
            continue;
        };
        let by_hash = format!("{dists}/main/binary-{}/by-hash/SHA256/{sha256}", cpu.debian);
        let file = cache_dir(wanted).join(sha256.to_string());
        let fetch = || {
            mirror
                .get(wanted, &by_hash, INDEX_LIMIT_BYTES)
                .or_else(|_| mirror.get(wanted, &format!("{dists}/{path}"), INDEX_LIMIT_BYTES))
        };
        let bytes = match cached_or(&file, sha256, &path, mirror, fetch) {
            Ok(bytes) => bytes,
            // As apt does: a mirror between two states must not stop everything. Only a suite of
            // updates may be missing, and never silently.
            Err(error) if mirror.suite.contains('-') && number > 0 => {
                let text = format!(
                    "Debian's `{}` is left out, the interpreter may lack its updates: {error}",
                    mirror.suite
                );
                (wanted.observer)(Event::Warning { text });
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        lzma_rust2::XzReader::new(&*bytes, false)
            .take(TEXT_LIMIT_BYTES)
            .read_to_end(&mut text)
            .map_err(io_error("unpack", Path::new(&path)))?;
        package::add(&String::from_utf8_lossy(&text), number, &mut known);
    }
    Ok(known)
}

/// Each package with its archive.
pub(super) fn packages<'a>(
    wanted: &Wanted<'_>,
    mirrors: &[Mirror],
    packages: &'a [Package],
) -> Result<Vec<(&'a Package, Vec<u8>)>, InterpreterError> {
    let mut found = Vec::new();
    for package in packages {
        let mirror = mirrors.get(package.mirror).unwrap_or(&mirrors[0]);
        let file = cache_dir(wanted).join(package.sha256.to_string());
        let fetch = || {
            (wanted.observer)(Event::Fetching {
                what: format!("{} {}", package.name, package.version),
                from: mirror.shown(),
            });
            mirror.get(wanted, &package.file, package.size_bytes + 1)
        };
        let bytes = cached_or(&file, package.sha256, &package.file, mirror, fetch)?;
        found.push((package, bytes));
    }
    Ok(found)
}

/// The cached `file`, else what `fetch` brings, which must have the hash.
fn cached_or(
    file: &Path,
    sha256: Sha256,
    name: &str,
    mirror: &Mirror,
    fetch: impl FnOnce() -> Result<Vec<u8>, InterpreterError>,
) -> Result<Vec<u8>, InterpreterError> {
    if let Ok(bytes) = std::fs::read(file)
        && Sha256::of(&bytes) == sha256
    {
        return Ok(bytes);
    }
    let bytes = fetch()?;
    let found = Sha256::of(&bytes);
    if found != sha256 {
        return Err(InterpreterError::Hash {
            file: name.to_owned(),
            from: mirror.shown(),
            found,
            expected: sha256,
            by: "the signed index of the archive",
        });
    }
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(io_error("make", dir))?;
    }
    pytheas_durable::replace(file, &bytes).map_err(io_error("write", file))?;
    Ok(bytes)
}

/// The SHA-256 of `path` in a Release file.
fn listed(release: &str, path: &str) -> Option<Sha256> {
    let mut inside = false;
    for line in release.lines() {
        if !line.starts_with(' ') {
            inside = line.trim_end() == "SHA256:";
            continue;
        }
        let mut words = line.split_whitespace();
        let (hash, _, name) = (words.next(), words.next(), words.next());
        if inside && name == Some(path) {
            return hash?.parse().ok();
        }
    }
    None
}

/// `Valid-Until` of a Release file, when that is over. Not every suite has one.
fn expired(release: &str) -> Option<&str> {
    let text = release
        .lines()
        .find_map(|line| line.strip_prefix("Valid-Until:"))?
        .trim();
    let time = UNIX_EPOCH + Duration::from_secs(seconds(text)?);
    time.elapsed().is_ok().then_some(text)
}

/// Seconds since 1970 of a date as RFC 5322 writes it, in UTC: `Sat, 28 Nov 2026 14:02:33 UTC`.
fn seconds(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next().filter(|name| name.len() == 3)?;
    let month = MONTHS.find(name)? as u64 / 3;
    let year: u64 = words.next()?.parse().ok().filter(|year| *year >= 1970)?;
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let mut part = || time.next()?.ok();
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    // Days of a year that begins in March, so that the leap day is its last.
    let (year, month) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// The text that the archive's key signed. `gpgv` checks: it comes with apt.
fn verified(
    wanted: &Wanted<'_>,
    signed: &[u8],
    mirror: &Mirror,
) -> Result<String, InterpreterError> {
    let environment = wanted.environment;
    let keyring = environment
        .path("PYTHEAS_DEBIAN_KEYRING")
        .or_else(|| {
            KEYRINGS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
        })
        .ok_or(InterpreterError::NoKeyring)?;
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let (input, output) = (
        scratch.path().join("InRelease"),
        scratch.path().join("Release"),
    );
    crate::scratch::write(&input, signed, crate::scratch::Kind::Data)
        .map_err(io_error("write", &input))?;
    let mut command = environment.command(Path::new("gpgv"));
    let result = command
        .args(["--quiet", "--status-fd", "1", "--keyring"])
        .arg(&keyring)
        .arg("--output")
        .arg(&output)
        .arg(&input)
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| InterpreterError::NoGpgv { source })?;
    let status = String::from_utf8_lossy(&result.stdout);
    let has = |word: &str| {
        status
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(word))
    };
    // A suite is signed by several keys; old keyrings do not know the newest.
    if !has("GOODSIG") || !has("VALIDSIG") || has("BADSIG") {
        let text = String::from_utf8_lossy(&result.stderr);
        let last = text.lines().last().unwrap_or("no signature").to_owned();
        return Err(InterpreterError::Signature {
            suite: mirror.suite.clone(),
            from: mirror.shown(),
            keyring,
            source: std::io::Error::other(last),
        });
    }
    let text = std::fs::read_to_string(&output).map_err(io_error("read", &output))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_says_until_when_it_holds() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 UTC", Some(951_868_799)),
            ("Sat, 28 Nov 2026 14:02:33 UTC", Some(1_795_874_553)),
            ("Sat, 28 Nov", None),
            ("Sat, 28 November 2026 14:02:33 UTC", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        let old = "Suite: x\nValid-Until: Tue, 29 Feb 2000 23:59:59 UTC\n";
        assert_eq!(expired(old), Some("Tue, 29 Feb 2000 23:59:59 UTC"));
        assert_eq!(
            expired("Valid-Until: Fri, 01 Jan 2999 00:00:00 UTC\n"),
            None
        );
        assert_eq!(expired("Suite: x\n"), None);
    }

    #[test]
    fn only_the_sha256_section_counts() {
        let (md5, sha) = ("a".repeat(32), "b".repeat(64));
        let text = format!(
            "Suite: stable\nMD5Sum:\n {md5} 12 main/binary-arm64/Packages.xz\nSHA256:\n {sha}  12 main/binary-arm64/Packages.xz\n"
        );
        assert_eq!(
            listed(&text, "main/binary-arm64/Packages.xz"),
            sha.parse().ok()
        );
        assert_eq!(listed(&text, "main/binary-amd64/Packages.xz"), None);
    }
}
