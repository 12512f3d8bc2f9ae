//! The versions that uv is to keep: what a lock file says that it finds in its output's place.
//!
//! The lock of groups (`pylock.dev.toml`) lies beside the app's and has the app's versions first; of
//! what only it holds, its own.

use std::{collections::BTreeSet, path::Path};

use toml_edit::{DocumentMut, Item};

use crate::{
    lock::Upgrade,
    pylock::{Pylock, PylockError},
};

/// The text of the app's lock with the packages that only the lock of groups at `beside` has, but
/// for those that are to be upgraded; none where the app has no lock.
///
/// # Errors
/// When the app's lock cannot be read.
pub(crate) fn versions(
    app: &Path,
    beside: &Path,
    upgrade: &Upgrade,
) -> Result<Option<String>, PylockError> {
    if Pylock::read(app)?.is_none() {
        return Ok(None);
    }
    // It was there a moment ago; without it nothing is kept.
    let Ok(text) = std::fs::read_to_string(app) else {
        return Ok(None);
    };
    // One that cannot be read is made anew.
    let groups = match upgrade {
        Upgrade::Everything => None,
        Upgrade::Nothing | Upgrade::Packages(_) => std::fs::read_to_string(beside).ok(),
    };
    let merged = groups.and_then(|groups| merged(&text, &groups));
    Ok(Some(merged.unwrap_or(text)))
}

/// `app` with the packages of `groups` that it does not have; none when either is no lock.
fn merged(app: &str, groups: &str) -> Option<String> {
    let mut app: DocumentMut = app.parse().ok()?;
    let groups: DocumentMut = groups.parse().ok()?;
    let groups = groups.get("packages").and_then(Item::as_array_of_tables)?;
    // A lock of nothing may say `packages = []`.
    if !app.get("packages").is_some_and(Item::is_array_of_tables) {
        app.insert("packages", Item::ArrayOfTables(Default::default()));
    }
    let packages = app.get_mut("packages")?.as_array_of_tables_mut()?;
    let name = |table: &toml_edit::Table| Some(table.get("name")?.as_str()?.to_owned());
    let known: BTreeSet<String> = packages.iter().filter_map(name).collect();
    for package in groups.iter() {
        if name(package).is_some_and(|name| !known.contains(&name)) {
            packages.push(package.clone());
        }
    }
    Some(app.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_app_come_before_those_of_its_groups() {
        let package = |name: &str, version: &str| {
            format!("[[packages]]\nname = \"{name}\"\nversion = \"{version}\"\n")
        };
        let groups = package("a", "1") + &package("b", "1") + &package("b", "2");
        for (app, expected) in [
            (package("a", "2"), vec![("a", "2"), ("b", "1"), ("b", "2")]),
            (
                "packages = []\n".to_owned(),
                vec![("a", "1"), ("b", "1"), ("b", "2")],
            ),
            (String::new(), vec![("a", "1"), ("b", "1"), ("b", "2")]),
        ] {
            let text = format!("lock-version = \"1.0\"\n{app}");
            let lock: Pylock = toml::from_str(&merged(&text, &groups).unwrap()).unwrap();
            let found: Vec<_> = lock
                .packages
                .iter()
                .map(|package| (package.name.as_str(), package.version.as_deref().unwrap()))
                .collect();
            assert_eq!(found, expected);
        }
        assert_eq!(merged("lock-version = '1.0'\n", "<html>"), None);
    }
}
