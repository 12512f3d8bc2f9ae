//! Where things lie in a repository: plain files below one prefix, any web server can serve them.
//!
//! ```text
//! metadata/N.root.json  N.targets.json  N.snapshot.json  timestamp.json     consistent snapshots
//! metadata/N.TEAM.json                                                      delegated targets
//! targets/greenhouse/1.1.0/linux-x86_64/<sha256>.release.json               TUF targets
//! blobs/ab/<sha256>      tree documents, content indexes, packs, deltas: named by their own hash
//! ```
//! A file is written once and never changed, except `timestamp.json`, which is written last: a
//! reader always sees one whole repository.

use pytheas_release::Sha256;

/// The only file that is ever replaced.
pub const TIMESTAMP: &str = "metadata/timestamp.json";

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

/// Version `version` of the metadata of `role`: `targets`, or the team a delegation names (TUF
/// §7.1; names of teams need no escaping).
pub fn role(role: &str, version: u64) -> String {
    format!("metadata/{version}.{role}.json")
}

/// The file of target `name` (TUF §7.1: the hash goes before the last part of the name).
pub fn target(name: &str, sha256: &Sha256) -> String {
    match name.rsplit_once('/') {
        Some((folder, file)) => format!("targets/{folder}/{sha256}.{file}"),
        None => format!("targets/{sha256}.{name}"),
    }
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
        assert_eq!(root(2), "metadata/2.root.json");
    }
}
