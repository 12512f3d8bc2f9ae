//! `/repo/*`: the repository as plain files; read by everybody, written by publishers.
//!
//! Nothing here is trusted by devices: they verify every byte under TUF. The checks on writing
//! keep mistakes and half uploads out.

use object_store::path::Path;
use pytheas_release::{Sha256, TreeId};
use pytheas_repo::layout;

pub(crate) mod get;
pub(crate) mod offered;
pub(crate) mod put;

/// A file of the repository, told by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RepoFile {
    /// `metadata/timestamp.json`, the only one that changes.
    Timestamp,
    /// `metadata/3.targets.json`.
    Metadata {
        /// `root`, `targets`, `snapshot`, or the name of a team.
        role: String,
        /// Its version.
        version: u64,
    },
    /// `targets/…/<sha256>.release.json`.
    Target {
        /// The hash in its name.
        sha256: Sha256,
    },
    /// `blobs/ab/<sha256>`.
    Blob {
        /// The hash that is its name.
        sha256: Sha256,
    },
    /// `deltas/<from>-<to>.json`, which the hub writes itself.
    Offered {
        /// The tree that a device has.
        from: TreeId,
        /// The one that it should have.
        to: TreeId,
    },
}

impl RepoFile {
    /// The file with this path, unless no file of a repository has it.
    pub(crate) fn parse(path: &str) -> Option<(Self, Path)> {
        let location = Path::parse(path).ok()?;
        if location.as_ref() != path || path.contains("..") {
            return None;
        }
        let file = match path.split('/').collect::<Vec<_>>()[..] {
            ["metadata", "timestamp.json"] => Self::Timestamp,
            ["metadata", name] => {
                let (version, role) = name.strip_suffix(".json")?.split_once('.')?;
                if role == "timestamp" || !is_role(role) || version.starts_with('0') {
                    return None;
                }
                let digits = version.bytes().all(|b| b.is_ascii_digit());
                let version = version.parse().ok().filter(|_| digits)?;
                Self::Metadata {
                    role: role.to_owned(),
                    version,
                }
            }
            ["blobs", folder, name] if name.starts_with(folder) && folder.len() == 2 => {
                Self::Blob {
                    sha256: name.parse().ok()?,
                }
            }
            ["targets", .., name] => {
                let (sha256, rest) = name.split_once('.')?;
                (!rest.is_empty()).then_some(())?;
                Self::Target {
                    sha256: sha256.parse().ok()?,
                }
            }
            [layout::OFFERED, name] => {
                let (from, to) = layout::offered_trees(name)?;
                Self::Offered { from, to }
            }
            _ => return None,
        };
        Some((file, location))
    }
}

/// Whether a role may be called so: names of teams are small letters, digits and `-`.
fn is_role(name: &str) -> bool {
    let right = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.bytes().all(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_repository_have_a_place() {
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for right in [
            "metadata/timestamp.json".to_owned(),
            "metadata/12.targets.json".to_owned(),
            "metadata/3.greenhouse-team.json".to_owned(),
            format!("blobs/e3/{hash}"),
            format!("deltas/{hash}-{hash}.json"),
            format!("targets/greenhouse/1.1.0+local!x/linux-x86_64/{hash}.release.json"),
        ] {
            assert!(RepoFile::parse(&right).is_some(), "{right}");
        }
        for wrong in [
            "".to_owned(),
            "metadata/1.timestamp.json".to_owned(),
            "metadata/01.root.json".to_owned(),
            "metadata/1.Team.json".to_owned(),
            "metadata/1.a.b.json".to_owned(),
            "metadata/1..json".to_owned(),
            "metadata/+1.root.json".to_owned(),
            "metadata/../hub.db".to_owned(),
            ".publish.lock".to_owned(),
            format!("blobs/ab/{hash}"),
            format!("blobs/e3/{hash}/x"),
            format!("targets/a/{hash}"),
            format!("deltas/{hash}.json"),
            format!("deltas/{hash}-{hash}"),
            format!("deltas/{hash}-{}.json", hash.to_uppercase()),
            format!("targets/../{hash}.x"),
            format!("targets//{hash}.x"),
            format!("targets/a/{}.release.json", hash.to_uppercase()),
        ] {
            assert!(RepoFile::parse(&wrong).is_none(), "{wrong}");
        }
    }
}
