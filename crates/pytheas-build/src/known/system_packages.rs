//! Which package of this machine a shared library came from, for an interpreter that was taken
//! from the machine: asked of dpkg's own files, without running it. Elsewhere nothing is known.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_release::BuildRecord;

const DATABASE: &str = "/var/lib/dpkg";

/// A package of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) purl: String,
}

/// The machine's packages that own shared libraries, by the library's file name.
#[derive(Debug, Default)]
pub(crate) struct SystemPackages {
    by_library: BTreeMap<String, SystemPackage>,
}

impl SystemPackages {
    /// The packages of this machine, when the interpreter of `record` was taken from it.
    pub(crate) fn of(record: &BuildRecord) -> Self {
        let is_from_here = record
            .interpreter
            .as_ref()
            .is_some_and(|interpreter| interpreter.provider == "host");
        if is_from_here {
            Self::read(Path::new(DATABASE))
        } else {
            Self::default()
        }
    }

    /// The package that owns a library of this name.
    pub(crate) fn owner_of(&self, library: &str) -> Option<&SystemPackage> {
        self.by_library.get(library)
    }

    fn read(database: &Path) -> Self {
        let distribution = distribution_id().unwrap_or_else(|| "debian".to_owned());
        let versions = versions(&fs::read_to_string(database.join("status")).unwrap_or_default());
        let mut by_library = BTreeMap::new();
        let lists = fs::read_dir(database.join("info"));
        let mut lists: Vec<_> = lists
            .into_iter()
            .flatten()
            .flatten()
            .map(|child| child.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "list")
            })
            .collect();
        lists.sort();
        for list in lists {
            let Some(stem) = list.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let name = stem.split(':').next().unwrap_or(stem);
            let Some((version, arch)) = versions.get(name) else {
                continue;
            };
            let text = fs::read_to_string(&list).unwrap_or_default();
            let libraries = text
                .lines()
                .filter_map(|path| path.rsplit('/').next())
                .filter(|file| file.starts_with("lib") && file.contains(".so"));
            for library in libraries {
                let version_in_url = version.replace('+', "%2B").replace(':', "%3A");
                let package = SystemPackage {
                    name: name.to_owned(),
                    version: version.clone(),
                    purl: format!("pkg:deb/{distribution}/{name}@{version_in_url}?arch={arch}"),
                };
                by_library.entry(library.to_owned()).or_insert(package);
            }
        }
        Self { by_library }
    }
}

/// `ID` of the machine's `os-release`.
fn distribution_id() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(line.trim_matches('"').to_owned())
}

/// Version and architecture of the packages in dpkg's `status`.
fn versions(status: &str) -> BTreeMap<String, (String, String)> {
    let mut versions = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        if let (Some(name), Some(version), Some(arch)) =
            (field("Package"), field("Version"), field("Architecture"))
        {
            let value = (version.to_owned(), arch.to_owned());
            versions.insert(name.to_owned(), value);
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's own scratch files")]
    fn a_library_has_the_package_that_owns_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("info")).unwrap();
        std::fs::write(
            dir.path().join("status"),
            "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.17-1~deb12u2\n\nPackage: epoch\nArchitecture: all\nVersion: 1:2+x\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("info/libssl3:amd64.list"),
            "/.\n/usr/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu/libssl.so.3\n",
        )
        .unwrap();
        let packages = SystemPackages::read(dir.path());
        let package = packages.owner_of("libssl.so.3").unwrap();
        assert_eq!(package.name, "libssl3");
        assert_eq!(package.version, "3.0.17-1~deb12u2");
        assert!(
            package
                .purl
                .ends_with("/libssl3@3.0.17-1~deb12u2?arch=amd64")
        );
        assert_eq!(packages.owner_of("libz.so.1"), None);
    }
}
