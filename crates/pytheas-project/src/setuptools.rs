//! `pkg_resources` went away with setuptools 82, but published packages that say only `setuptools`
//! mean it: they run with an older one.

use std::collections::BTreeSet;

use pep508_rs::VersionOrUrl;

use crate::{pylock::Pylock, requirements};

/// What is asked for instead: the last releases with `pkg_resources`, as their own notice says.
pub(crate) const LIMIT: &str = "setuptools<81";

/// The first release without `pkg_resources`.
const WITHOUT: u32 = 82;

/// Whether `lock` has a setuptools without `pkg_resources` that nobody chose: the requirements and
/// limits that the project itself writes say nothing of its version.
pub(crate) fn is_too_new(lock: &Pylock, written: &BTreeSet<String>) -> bool {
    let newer = lock
        .packages
        .iter()
        .filter(|package| package.name == "setuptools")
        .filter_map(|package| package.version.as_deref())
        .filter_map(|version| version.split('.').next()?.parse::<u32>().ok())
        .any(|major| major >= WITHOUT);
    newer
        && !written
            .iter()
            .filter_map(|text| requirements::parse(text))
            .any(|requirement| {
                requirement.name.to_string() == "setuptools"
                    && match &requirement.version_or_url {
                        None => false,
                        Some(VersionOrUrl::Url(_)) => true,
                        Some(VersionOrUrl::VersionSpecifier(range)) => !range.is_empty(),
                    }
            })
}

/// What is said when it was done.
pub(crate) fn note() -> String {
    format!(
        "`{LIMIT}` was locked: newer ones have no `pkg_resources`, which packages that require \
         setuptools use; require `setuptools>={WITHOUT}` yourself to have the newest"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(version: &str) -> Pylock {
        toml::from_str(&format!(
            "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"setuptools\"\nversion = \"{version}\"\n"
        ))
        .unwrap()
    }

    fn written(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_a_setuptools_that_nobody_chose_is_too_new() {
        for (version, requirements, expected) in [
            ("84.2.1", &["octoprint==1.10.3"][..], true),
            ("82", &["datasette", "setuptools"], true),
            ("80.9.0", &["octoprint==1.10.3"], false),
            ("84.2.1", &["octoprint", "setuptools>=82"], false),
            ("84.2.1", &["Setuptools==84.2.1"], false),
            (
                "84.2.1",
                &["setuptools @ https://x.example/setuptools.whl"],
                false,
            ),
        ] {
            assert_eq!(
                is_too_new(&lock(version), &written(requirements)),
                expected,
                "{version} {requirements:?}"
            );
        }
    }
}
