//! Which packages weigh most, with measured sizes: of the wheels as the lock says, and installed in
//! a built tree; and what may do as well (`lighter.toml`).

use std::{collections::BTreeMap, sync::LazyLock};

use pytheas_project::Pylock;
use pytheas_release::Platform;
use serde::{Deserialize, Serialize};

use crate::{explain::PartSize, wheel::Tags};

/// Packages below both are not worth a line.
const LEAST_BYTES: u64 = 5_000_000;
const LEAST_WHEEL: u64 = 2_000_000;

/// One package of `lighter.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: String,
    instead: Vec<String>,
    note: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    package: Vec<Known>,
}

static LIGHTER: LazyLock<Vec<Known>> = LazyLock::new(|| {
    // Proof: the file is part of the program, and a test reads it.
    let file: File =
        toml::from_str(include_str!("lighter.toml")).expect("the built-in list parses");
    file.package
});

/// A heavy package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Heavy {
    /// The package.
    pub package: String,
    /// Its size in the built tree; none when it was not built.
    pub size_bytes: Option<u64>,
    /// The largest wheel of it for the platform, as the lock says.
    pub wheel_bytes: Option<u64>,
    /// What may take its place, best first.
    pub instead: Vec<String>,
    /// When it may.
    pub note: Option<String>,
}

/// The packages that are large, or have a known lighter alternative; the heaviest first.
pub(crate) fn heavy(sizes: &[PartSize], lock: Option<&Pylock>, platform: &Platform) -> Vec<Heavy> {
    let mut found: BTreeMap<String, (Option<u64>, Option<u64>)> = BTreeMap::new();
    for part in sizes {
        if !matches!(part.package.as_str(), "python" | "app" | "pytheas") {
            let size = &mut found.entry(part.package.clone()).or_default().0;
            *size = Some(size.unwrap_or(0) + part.size_bytes);
        }
    }
    for package in lock.into_iter().flat_map(|lock| &lock.packages) {
        let largest = package
            .wheels
            .iter()
            .filter(|file| Tags::parse(file.file_name()).is_some_and(|tags| tags.is_for(platform)))
            .filter_map(|file| file.size)
            .max();
        // What the tree does not have, it does not need.
        if let Some(entry) = found.get_mut(&package.name) {
            entry.1 = largest;
        } else if sizes.is_empty() {
            found.insert(package.name.clone(), (None, largest));
        }
    }
    let mut heavy: Vec<Heavy> = found
        .into_iter()
        .filter_map(|(package, (size_bytes, wheel_bytes))| {
            let known = LIGHTER.iter().find(|known| known.name == package);
            let is_large = size_bytes.is_some_and(|size| size >= LEAST_BYTES)
                || size_bytes.is_none() && wheel_bytes.is_some_and(|size| size >= LEAST_WHEEL);
            (is_large || known.is_some()).then(|| Heavy {
                package,
                size_bytes,
                wheel_bytes,
                instead: known.map(|known| known.instead.clone()).unwrap_or_default(),
                note: known.map(|known| known.note.clone()),
            })
        })
        .collect();
    let weight = |heavy: &Heavy| heavy.size_bytes.or(heavy.wheel_bytes).unwrap_or(0);
    heavy.sort_by(|a, b| {
        weight(b)
            .cmp(&weight(a))
            .then_with(|| a.package.cmp(&b.package))
    });
    heavy
}

/// What may take the place of a package, and when, if something is known.
pub(crate) fn lighter(package: &str) -> Option<(&'static [String], &'static str)> {
    let known = LIGHTER.iter().find(|known| known.name == package)?;
    Some((&known.instead, &known.note))
}

/// The heavy packages of a project's lock on a platform, before anything is built.
pub fn heavy_of_lock(lock: &Pylock, platform: &Platform) -> Vec<Heavy> {
    heavy(&[], Some(lock), platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_lighter_packages_parses_and_names_are_normalised() {
        for known in LIGHTER.iter() {
            assert_eq!(known.name, pytheas_project::normalised_name(&known.name));
            assert!(!known.note.is_empty() && !known.instead.contains(&known.name));
        }
    }

    #[test]
    fn large_packages_and_those_with_a_lighter_one_are_told_with_their_sizes() {
        let part = |package: &str, size_bytes| PartSize {
            package: package.to_owned(),
            module: "m".to_owned(),
            size_bytes,
            files: 1,
        };
        let lock: Pylock = toml::from_str(
            r#"
            lock-version = "1.0"
            [[packages]]
            name = "numpy"
            wheels = [
                { name = "numpy-2-cp311-cp311-manylinux_2_17_x86_64.whl", size = 18, hashes = {} },
                { name = "numpy-2-cp311-cp311-win_amd64.whl", size = 99, hashes = {} },
            ]
            [[packages]]
            name = "babel"
            wheels = [{ name = "babel-2-py3-none-any.whl", size = 9000000, hashes = {} }]
            "#,
        )
        .unwrap();
        let platform: Platform = "linux-x86_64".parse().unwrap();
        let sizes = [
            part("python", 90_000_000),
            part("numpy", 4_000_000),
            part("numpy", 4_000_000),
            part("six", 90),
            part("pandas", 10),
        ];
        let found = heavy(&sizes, Some(&lock), &platform);
        let short: Vec<_> = found
            .iter()
            .map(|heavy| (heavy.package.as_str(), heavy.size_bytes, heavy.wheel_bytes))
            .collect();
        assert_eq!(
            short,
            [
                ("numpy", Some(8_000_000), Some(18)),
                ("pandas", Some(10), None)
            ]
        );
        assert_eq!(found[1].instead, ["polars", "csv", "sqlite3"]);
        let unbuilt = heavy_of_lock(&lock, &platform);
        assert_eq!(unbuilt.len(), 1, "{unbuilt:?}");
        assert_eq!(
            (unbuilt[0].package.as_str(), unbuilt[0].size_bytes),
            ("babel", None)
        );
    }
}
