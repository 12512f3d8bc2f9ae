//! Versions that another tool has locked (`Pipfile.lock`, `poetry.lock`, `uv.lock`, `pdm.lock`):
//! they are preferred when a project is locked for the first time, so that changing to Pytheas
//! changes no versions.

use std::{collections::BTreeMap, path::Path};

/// Locked versions, by normalised name; where a lock has several of one package, none is
/// preferred.
pub(crate) fn of(dir: &Path) -> Option<(&'static str, BTreeMap<String, String>)> {
    for file in ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"] {
        let Ok(text) = std::fs::read_to_string(dir.join(file)) else {
            continue;
        };
        let pins = if file == "Pipfile.lock" {
            of_pipenv(&text)
        } else {
            of_packages(&text)
        };
        if let Some(pins) = pins.filter(|pins| !pins.is_empty()) {
            return Some((file, pins));
        }
    }
    None
}

fn of_packages(text: &str) -> Option<BTreeMap<String, String>> {
    let table: toml::Table = text.parse().ok()?;
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in table.get("package")?.as_array()? {
        let field = |name: &str| package.get(name).and_then(toml::Value::as_str);
        // uv writes the project itself and folders beside it without an address to fetch from.
        let is_local = package.get("source").is_some_and(|source| {
            ["editable", "virtual", "directory", "path"]
                .iter()
                .any(|kind| source.get(kind).is_some())
        });
        if let (Some(name), Some(version), false) = (field("name"), field("version"), is_local) {
            let name = crate::project::normalised_name(name);
            versions.entry(name).or_default().push(version.to_owned());
        }
    }
    let single = |(name, mut list): (String, Vec<String>)| {
        list.dedup();
        (list.len() == 1).then(|| (name, list.remove(0)))
    };
    Some(versions.into_iter().filter_map(single).collect())
}

fn of_pipenv(text: &str) -> Option<BTreeMap<String, String>> {
    let value: serde_json::Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let mut pins = BTreeMap::new();
    for section in ["develop", "default"] {
        for (name, package) in value.get(section)?.as_object()? {
            let version = package.get("version").and_then(serde_json::Value::as_str);
            if let Some(version) = version.and_then(|text| text.strip_prefix("==")) {
                pins.insert(crate::project::normalised_name(name), version.to_owned());
            }
        }
    }
    Some(pins)
}

/// The pins as the smallest lock file from which uv takes its preferences.
pub(crate) fn as_pylock(pins: &BTreeMap<String, String>) -> String {
    let mut text = "lock-version = \"1.0\"\ncreated-by = \"pytheas\"\n".to_owned();
    for (name, version) in pins {
        let (name, version) = (
            toml_edit::Value::from(name),
            toml_edit::Value::from(version),
        );
        text.push_str(&format!(
            "\n[[packages]]\nname ={name}\nversion ={version}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tools_lock_gives_its_versions() {
        let poetry = "[[package]]\nname = \"Flask\"\nversion = \"3.0.0\"\n[[package]]\nname = \"a\"\nversion = \"1\"\n[[package]]\nname = \"a\"\nversion = \"2\"\n";
        let pins = of_packages(poetry).unwrap();
        assert_eq!(
            pins,
            BTreeMap::from([("flask".to_owned(), "3.0.0".to_owned())])
        );
        let pipenv = r#"{"_meta":{},"default":{"flask":{"version":"==3.0.1"},"x":{"git":"g"}},"develop":{"flask":{"version":"==2"}}}"#;
        assert_eq!(of_pipenv(pipenv).unwrap()["flask"], "3.0.1");
        let lock: crate::Pylock = toml::from_str(&as_pylock(&pins)).unwrap();
        assert_eq!(lock.packages[0].version.as_deref(), Some("3.0.0"));
    }
}
