//! Where things lie in a repository: plain files below one prefix, any web server can serve them.
//!
//! ```text
//! metadata/N.root.json  N.targets.json  N.snapshot.json  timestamp.json     consistent snapshots
//! metadata/N.TEAM.json                                                      delegated targets
//! targets/greenhouse/1.1.0/linux-x86_64/<sha256>.release.json               TUF targets
//! blobs/ab/<sha256>      tree documents, content indexes, packs, deltas: named by their own hash
//! deltas/<from>-<to>.json                      where a delta made on demand lies; signed by nobody
//! ```
//! A file is written once and never changed, except `timestamp.json`, which is written last: a
//! reader always sees one whole repository. Deltas made on demand come and go.

use pytheas_release::{Sha256, TreeId};

/// The only file that is ever replaced.
pub const TIMESTAMP: &str = "metadata/timestamp.json";

/// The name under which a root comes with a device.
pub(crate) const ROOT: &str = "root.json";

/// The file name of the role `role`, without a version: what is not a letter, a digit or one of
/// `_.-~` is percent-encoded (RFC 3986 §2.1), as python-tuf and tough do it, so that a role's name
/// can never be another path.
pub fn role_file(role: &str) -> String {
    use std::fmt::Write as _;

    let mut name = String::with_capacity(role.len() + 5);
    for byte in role.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _never_fails = write!(name, "%{byte:02X}");
        }
    }
    name + ".json"
}

/// The metadata of `role`, in version `version` or, without consistent snapshots, in whichever
/// there is.
pub fn role(role: &str, version: Option<u64>) -> String {
    let file = role_file(role);
    match version {
        Some(version) => format!("metadata/{version}.{file}"),
        None => format!("metadata/{file}"),
    }
}

/// Version `version` of the root metadata.
pub fn root(version: u64) -> String {
    format!("metadata/{version}.root.json")
}

/// Version `version` of the snapshot metadata.
pub fn snapshot(version: u64) -> String {
    format!("metadata/{version}.snapshot.json")
}

/// Version `version` of the targets metadata.
pub fn targets(version: u64) -> String {
    format!("metadata/{version}.targets.json")
}

/// The file of target `name` (TUF §7.1: the hash goes before the last part of the name).
pub fn target(name: &str, sha256: &Sha256) -> String {
    hashed_target(name, &sha256.to_string())
}

/// As [`target`], with any hash, in hexadecimal.
pub(crate) fn hashed_target(name: &str, hash: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, file)) => format!("targets/{folder}/{hash}.{file}"),
        None => format!("targets/{hash}.{name}"),
    }
}

/// The folder of [`offered_delta`]s.
pub const OFFERED: &str = "deltas";

/// Longest file that names a delta made on demand, in bytes.
pub const OFFERED_MAX: u64 = 1024;

/// The file that names the delta made on demand from tree `from` to tree `to`: a
/// [`BlobRef`](pytheas_release::BlobRef) as JSON.
pub fn offered_delta(from: TreeId, to: TreeId) -> String {
    format!("{OFFERED}/{from}-{to}.json")
}

/// The trees in the last part of such a file's path.
pub fn offered_trees(file: &str) -> Option<(TreeId, TreeId)> {
    let (from, to) = file.strip_suffix(".json")?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// The file of the content store with this hash.
pub fn blob(sha256: &Sha256) -> String {
    let name = sha256.to_string();
    format!("blobs/{}/{name}", &name[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let hash = Sha256::of(b"");
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            target("a/1/p/release.json", &hash),
            format!("targets/a/1/p/{digits}.release.json")
        );
        assert_eq!(target("one", &hash), format!("targets/{digits}.one"));
        assert_eq!(blob(&hash), format!("blobs/e3/{digits}"));
        let (from, to) = (TreeId(hash), TreeId(Sha256::of(b"b")));
        let offered = offered_delta(from, to);
        assert_eq!(offered, format!("deltas/{from}-{to}.json"));
        let file = offered.rsplit('/').next().unwrap_or_default();
        assert_eq!(offered_trees(file), Some((from, to)));
        assert_eq!(offered_trees(&file.to_uppercase()), None);
        assert_eq!(root(2), "metadata/2.root.json");
        assert_eq!(role("targets", Some(7)), targets(7));
        assert_eq!(role("timestamp", None), TIMESTAMP);
        assert_eq!(role_file("../team é"), "..%2Fteam%20%C3%A9.json");
    }
}
