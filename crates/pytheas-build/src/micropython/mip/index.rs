//! An index of mip's format: `index.json`, `package/{py|6}/NAME/VERSION.json`, `file/XX/XXXXXXXX`.

use std::collections::BTreeMap;

use pep440_rs::Version;
use pytheas_project::Environment;
use pytheas_release::Sha256;
use serde::Deserialize;

use super::{MipError, fetch::Fetcher};

/// Kinds of packages in the order of preference: source can be compiled for any board, its imports
/// have lines; then `.mpy` of version 6.
const KINDS: [&str; 2] = ["py", "6"];

/// A package's manifest, `package.json` or a document of an index.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Manifest {
    /// Path and the beginning of the SHA-256.
    #[serde(default)]
    pub(super) hashes: Vec<(String, String)>,
    /// Path and address, which may be relative to the manifest's.
    #[serde(default)]
    pub(super) urls: Vec<(String, String)>,
    /// Name or address, and version.
    #[serde(default)]
    pub(super) deps: Vec<Dep>,
    #[serde(default)]
    pub(super) version: String,
}

impl Manifest {
    /// Reads one. A document with nothing of a manifest in it, such as a server's own page about an
    /// error, is none.
    pub(super) fn parse(bytes: &[u8], place: &str) -> Result<Self, MipError> {
        const WHAT: &str = "the package manifest";
        let document: serde_json::Value = parse(bytes, WHAT, place)?;
        if !["hashes", "urls", "deps"]
            .iter()
            .any(|key| document.get(key).is_some())
        {
            return Err(MipError::Document {
                what: WHAT,
                place: place.to_owned(),
                why: "it has neither `hashes` nor `urls` nor `deps`".to_owned(),
            });
        }
        let manifest: Self = parse(bytes, WHAT, place)?;
        let mut paths: Vec<&str> = manifest
            .hashes
            .iter()
            .chain(&manifest.urls)
            .map(|(path, _)| path.as_str())
            .collect();
        paths.sort_unstable();
        match paths.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(manifest),
            Some(twice) => Err(MipError::Document {
                what: WHAT,
                place: place.to_owned(),
                why: format!("it has two files for `{}`", twice[0]),
            }),
        }
    }
}

/// `["name", "version"]`; hand-written manifests leave the version out.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Dep {
    Pair(String, String),
    One([String; 1]),
    Name(String),
}

impl Dep {
    pub(super) fn parts(&self) -> (&str, &str) {
        match self {
            Self::Pair(name, version) => (name, version),
            Self::One([name]) | Self::Name(name) => (name, "latest"),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Listing {
    packages: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    versions: BTreeMap<String, Vec<String>>,
}

/// An index, an address or a folder.
pub(super) struct Index<'a> {
    /// Without a `/` at the end.
    pub(super) place: String,
    fetcher: &'a Fetcher,
    listing: Option<Listing>,
}

impl<'a> Index<'a> {
    /// The index that `PYTHEAS_MIP_INDEX` names, else the project's.
    pub(super) fn place_of(environment: &Environment, setting: Option<&str>) -> Option<String> {
        let place = environment.get("PYTHEAS_MIP_INDEX").or(setting)?;
        Some(place.trim_end_matches('/').to_owned())
    }

    pub(super) fn open(place: String, fetcher: &'a Fetcher) -> Result<Self, MipError> {
        let at = format!("{place}/index.json");
        let listing = match fetcher.get(&at)? {
            None => None,
            Some(bytes) => Some(parse(&bytes, "the index", &at)?),
        };
        Ok(Self {
            place,
            fetcher,
            listing,
        })
    }

    /// Whether it has the package; the names that are like it, else.
    pub(super) fn has(&self, name: &str) -> bool {
        match &self.listing {
            Some(listing) => listing.packages.iter().any(|package| package.name == name),
            // Without a listing, only asking tells.
            None => KINDS.iter().any(|kind| {
                let at = self.manifest_place(kind, name, "latest");
                matches!(self.fetcher.get(&at), Ok(Some(_)))
            }),
        }
    }

    pub(super) fn near(&self, name: &str) -> Option<String> {
        let names = self.listing.as_ref()?.packages.iter();
        pytheas_project::closest(name, names.map(|package| package.name.as_str()))
            .map(str::to_owned)
    }

    /// The versions it lists, highest first; none when it lists nothing.
    pub(super) fn versions(&self, name: &str) -> Vec<(Version, String)> {
        let listed = self
            .listing
            .iter()
            .flat_map(|listing| &listing.packages)
            .find(|package| package.name == name);
        let Some(listed) = listed else {
            return Vec::new();
        };
        let mut versions: Vec<(Version, String)> = KINDS
            .iter()
            .filter_map(|kind| listed.versions.get(*kind))
            .flatten()
            .chain(std::iter::once(&listed.version))
            .filter_map(|text| Some((text.parse().ok()?, text.clone())))
            .collect();
        versions.sort_by(|a, b| b.cmp(a));
        versions.dedup();
        versions
    }

    /// The manifest of this version (`latest` too) and where it is.
    pub(super) fn manifest(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Option<(Manifest, String)>, MipError> {
        for kind in KINDS {
            let at = self.manifest_place(kind, name, version);
            if let Some(bytes) = self.fetcher.get(&at)? {
                return Ok(Some((Manifest::parse(&bytes, &at)?, at)));
            }
        }
        Ok(None)
    }

    fn manifest_place(&self, kind: &str, name: &str, version: &str) -> String {
        format!("{}/package/{kind}/{name}/{version}.json", self.place)
    }
}

/// Where an index keeps the file whose hash begins with `digits`, relative to it.
pub(super) fn file_place(digits: &str) -> Option<String> {
    let is_hash = (8..=64).contains(&digits.len())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hash.then(|| format!("file/{}/{digits}", &digits[..2]))
}

/// Checks the digits that an index has of a file's hash.
pub(super) fn check_digits(
    package: &str,
    path: &str,
    bytes: &[u8],
    digits: &str,
) -> Result<Sha256, MipError> {
    let found = Sha256::of(bytes);
    if found.to_string().starts_with(digits) {
        return Ok(found);
    }
    Err(MipError::Hash {
        package: package.to_owned(),
        file: path.to_owned(),
        found: found.to_string(),
        expected: format!("{digits}…"),
    })
}

pub(super) fn parse<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    what: &'static str,
    place: &str,
) -> Result<T, MipError> {
    serde_json::from_slice(bytes).map_err(|error| MipError::Document {
        what,
        place: place.to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_manifest_is_taken_for_one() {
        let parse = |text: &str| match Manifest::parse(text.as_bytes(), "p.json") {
            Ok(manifest) => format!("{} files", manifest.hashes.len() + manifest.urls.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(parse(r#"{"hashes": [["a.py", "00000000"]]}"#), "1 files");
        assert_eq!(parse(r#"{"deps": []}"#), "0 files");
        for none in ["[]", "{}", r#"{"error": "no such package"}"#, "null", "3"] {
            assert_eq!(
                parse(none),
                "the package manifest at `p.json` is not understood: it has neither `hashes` nor `urls` nor `deps`"
            );
        }
        insta::assert_snapshot!(
            parse(r#"{"urls": [["a.py", "x"], ["a.py", "y"]]}"#),
            @"the package manifest at `p.json` is not understood: it has two files for `a.py`"
        );
    }
}
