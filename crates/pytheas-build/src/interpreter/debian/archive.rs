//! Reading a `.deb` (deb(5)): an `ar` archive with `data.tar.xz` or `data.tar.zst`. Files are kept
//! in memory by their path without `usr/` in front (Debian merged the two); nothing is run, no
//! maintainer script, and links are remembered as text.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

const MEMBER_LIMIT_BYTES: u64 = 256 << 20;
const DATA_LIMIT_BYTES: u64 = 1 << 30;

/// The files of some packages.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Content by path.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Targets of links by path.
    pub(super) links: BTreeMap<String, String>,
}

impl Files {
    /// The content at `path`, links followed.
    pub(super) fn get(&self, path: &str) -> Option<&Vec<u8>> {
        let mut path = path.to_owned();
        for _ in 0..10 {
            if let Some(content) = self.files.get(&path) {
                return Some(content);
            }
            let target = self.links.get(&path)?;
            path = if let Some(absolute) = target.strip_prefix('/') {
                merged(absolute).to_owned()
            } else {
                let mut parts: Vec<&str> = path.split('/').collect();
                parts.pop();
                for part in target.split('/') {
                    match part {
                        "." | "" => {}
                        ".." => drop(parts.pop()),
                        part => parts.push(part),
                    }
                }
                parts.join("/")
            };
        }
        None
    }
}

/// `usr/lib/x` and `lib/x` are one place.
fn merged(path: &str) -> &str {
    let path = path.trim_start_matches("./");
    path.strip_prefix("usr/").unwrap_or(path)
}

/// What of a package is of use: programs, libraries, headers, certificates, licences.
fn is_of_use(path: &str) -> bool {
    path.starts_with("bin/python3.")
        || path.starts_with("include/")
        || path.starts_with("lib/")
        || (path.starts_with("share/ca-certificates/") && path.ends_with(".crt"))
        || (path.starts_with("share/doc/") && path.ends_with("/copyright"))
        || is_zone(path)
}

/// Time zones; `right/` counts leap seconds and `posix/` is the same once more.
pub(super) fn is_zone(path: &str) -> bool {
    path.strip_prefix("share/zoneinfo/")
        .is_some_and(|name| !name.starts_with("right/") && !name.starts_with("posix/"))
}

/// Adds the files of the package `name` in `deb`.
pub(super) fn read(name: &str, deb: &[u8], files: &mut Files) -> io::Result<()> {
    let (member, data) = data_member(deb)?;
    let reader: Box<dyn Read + '_> = match member.as_str() {
        "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(data, true)),
        "data.tar.zst" => Box::new(zstd::stream::read::Decoder::new(data)?),
        "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(data)),
        "data.tar" => Box::new(data),
        other => {
            return Err(io::Error::other(format!(
                "`{other}` in `{name}` is compressed in an unknown way"
            )));
        }
    };
    let mut archive = tar::Archive::new(reader.take(DATA_LIMIT_BYTES));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let raw = entry.path()?.to_string_lossy().into_owned();
        let path = merged(&raw).to_owned();
        if !is_of_use(&path) || path.split('/').any(|part| part == "..") {
            continue;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                if entry.size() > MEMBER_LIMIT_BYTES {
                    return Err(io::Error::other(format!(
                        "`{path}` in `{name}` is too large"
                    )));
                }
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                files.files.insert(path, content);
            }
            tar::EntryType::Symlink => {
                if let Some(target) = entry.link_name()? {
                    files
                        .links
                        .insert(path, target.to_string_lossy().into_owned());
                }
            }
            tar::EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    let target = format!("/{}", merged(&target.to_string_lossy()));
                    files.links.insert(path, target);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Name and bytes of the member `data.tar*` (ar(5), the common format).
fn data_member(deb: &[u8]) -> io::Result<(String, &[u8])> {
    let damaged = || io::Error::other("it is no Debian package, or damaged");
    let mut rest = deb.strip_prefix(b"!<arch>\n").ok_or_else(damaged)?;
    while rest.len() >= 60 {
        let (header, body) = rest.split_at(60);
        let field = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim().to_owned()
        };
        if &header[58..60] != b"`\n" {
            return Err(damaged());
        }
        let size: usize = field(48..58).parse().map_err(|_| damaged())?;
        let content = body.get(..size).ok_or_else(damaged)?;
        let name = field(0..16).trim_end_matches('/').to_owned();
        if name.starts_with("data.tar") {
            return Ok((name, content));
        }
        rest = body.get(size + size % 2..).unwrap_or_default();
    }
    Err(damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_packages() {
        let mut files = Files::default();
        files
            .files
            .insert("lib/x/libz.so.1.2".into(), b"z".to_vec());
        files
            .links
            .insert("lib/x/libz.so.1".into(), "libz.so.1.2".into());
        files
            .links
            .insert("lib/ld.so".into(), "/usr/lib/x/libz.so.1".into());
        files.links.insert("lib/a".into(), "a".into());
        assert_eq!(files.get("lib/ld.so"), Some(&b"z".to_vec()));
        assert_eq!(files.get("lib/a"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(0_u8.., 0..300)) {
            bytes.splice(0..0, *b"!<arch>\n");
            let _ = read("x", &bytes, &mut Files::default());
        }
    }
}
