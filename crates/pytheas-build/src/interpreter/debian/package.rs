//! Debian packages as their index describes them (deb-control(5)), their versions' order
//! (deb-version(7)), and what an interpreter needs of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use pytheas_release::Sha256;
use serde::{Deserialize, Serialize};

/// A package of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its full version, e.g. `3.11.2-6+deb12u6`.
    pub version: String,
    /// The archive's place below the mirror.
    pub file: String,
    /// The archive's size.
    pub size_bytes: u64,
    /// The archive's hash.
    pub sha256: Sha256,
    /// Names of what it depends on, each with its alternatives.
    #[serde(skip)]
    pub(super) depends: Vec<Vec<String>>,
    /// Which mirror has it.
    #[serde(default)]
    pub(super) mirror: usize,
}

impl Package {
    /// The version of what is packaged: without epoch and Debian's revision.
    pub(super) fn upstream(&self) -> &str {
        let (_, upstream, _) = split(&self.version);
        upstream
    }
}

/// Packages that bring what no bundle has: NIS.
const LEFT_OUT: &[&str] = &["libnsl2", "libtirpc3", "libtirpc3t64"];

/// Whether a package can matter to an interpreter.
fn is_of_interest(name: &str) -> bool {
    (name.starts_with("lib")
        || name.starts_with("zlib1g")
        || matches!(name, "ca-certificates" | "tzdata"))
        || (name.starts_with("python3.") && name.ends_with("-minimal"))
}

/// Adds the packages of the index `text` to `known`; a newer version replaces an older one.
pub(super) fn add(text: &str, mirror: usize, known: &mut BTreeMap<String, Package>) {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                (key == name).then_some(value)
            })
        };
        let Some(name) = field("Package").filter(|name| is_of_interest(name)) else {
            continue;
        };
        let package = || {
            Some(Package {
                name: name.to_owned(),
                version: field("Version")?.to_owned(),
                file: field("Filename")?.to_owned(),
                size_bytes: field("Size")?.parse().ok()?,
                sha256: field("SHA256")?.parse().ok()?,
                depends: [field("Pre-Depends"), field("Depends")]
                    .into_iter()
                    .flatten()
                    .flat_map(|list| list.split(','))
                    .map(alternatives)
                    .collect(),
                mirror,
            })
        };
        let Some(package) = package() else { continue };
        let is_newer = known
            .get(name)
            .is_none_or(|other| compare(&package.version, &other.version) == Ordering::Greater);
        if is_newer {
            known.insert(name.to_owned(), package);
        }
    }
}

/// `a (>= 1) | b:any` as names.
fn alternatives(text: &str) -> Vec<String> {
    text.split('|')
        .filter_map(|one| one.trim().split([' ', '(', ':']).next())
        .map(str::to_owned)
        .collect()
}

/// The packages `roots` and the libraries they need, by name.
pub(super) fn closure(index: &BTreeMap<String, Package>, roots: &[&str]) -> Vec<Package> {
    let mut seen = BTreeSet::new();
    let mut queue: Vec<&str> = roots.to_vec();
    while let Some(name) = queue.pop() {
        let Some(package) = index.get(name) else {
            continue;
        };
        if LEFT_OUT.contains(&name) || !seen.insert(name) {
            continue;
        }
        if matches!(name, "ca-certificates" | "tzdata") {
            continue; // only its files are wanted
        }
        for alternatives in &package.depends {
            let first = alternatives.iter().find(|name| index.contains_key(*name));
            queue.extend(first.map(String::as_str));
        }
    }
    seen.into_iter()
        .filter_map(|name| index.get(name).cloned())
        .collect()
}

/// Epoch, upstream version, revision.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// The order of versions (deb-version(7)).
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0)
        .then_with(|| compare_part(a.1, b.1))
        .then_with(|| compare_part(a.2, b.2))
}

/// Parts without digits by characters (`~` before the end, letters before others), parts of digits
/// by value.
fn compare_part(a: &str, b: &str) -> Ordering {
    let order = |byte: Option<&u8>| match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        while a.first().is_some_and(|byte| !byte.is_ascii_digit())
            || b.first().is_some_and(|byte| !byte.is_ascii_digit())
        {
            let result = order(a.first()).cmp(&order(b.first()));
            if result != Ordering::Equal {
                return result;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (first, second) = (a.split_at(digits(a)), b.split_at(digits(b)));
        let value = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
            (digits.len() - zeros, digits[zeros..].to_vec())
        };
        let result = value(first.0).cmp(&value(second.0));
        if result != Ordering::Equal {
            return result;
        }
        (a, b) = (first.1, second.1);
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_debians_order() {
        let ascending = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+deb12u1",
            "1.0-1+deb12u10",
            "1.0a-1",
            "1.0+x-1",
            "1.0.1-1",
            "1.2-1",
            "1.10-1",
            "1:0.1-1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.00-1", "1.0-1"), Ordering::Equal);
    }

    proptest::proptest! {
        #[test]
        fn the_order_has_a_direction(a in "[0-9a-z.+~:-]{0,12}", b in "[0-9a-z.+~:-]{0,12}") {
            assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    #[test]
    fn libraries_are_followed_and_other_packages_are_not() {
        let hash = "0".repeat(64);
        let stanza = |name: &str, depends: &str| {
            format!(
                "Package: {name}\nVersion: 3.11.2-6\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {hash}\nDepends: {depends}\n\n"
            )
        };
        let text = [
            stanza(
                "python3.11-minimal",
                "libpython3.11-minimal (= 1), libexpat1 (>= 2.1~beta3), media-types | mime-support",
            ),
            stanza(
                "libpython3.11-minimal",
                "libgone9 | libssl3 (>= 3), libnsl2",
            ),
            stanza("libexpat1", "libc6"),
            stanza("libssl3", "libc6:any, debconf"),
            stanza("libnsl2", "libkrb5-3"),
            stanza("libkrb5-3", ""),
            stanza("debconf", ""),
        ]
        .concat();
        let mut index = BTreeMap::new();
        add(&text, 0, &mut index);
        let names: Vec<String> = closure(&index, &["python3.11-minimal"])
            .into_iter()
            .map(|package| package.name)
            .collect();
        assert_eq!(
            names,
            [
                "libexpat1",
                "libpython3.11-minimal",
                "libssl3",
                "python3.11-minimal"
            ]
        );
    }
}
