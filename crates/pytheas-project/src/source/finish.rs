//! What must hold for a resolution before it is stored: the hashes that the requirements name, no
//! credentials, and conda packages only where they are pure Python.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{DocumentMut, Item, Value};

use super::{InputError, redacted};
use crate::{
    project::{Project, normalised_name},
    pylock::Pylock,
};

/// A package none of whose files has a hash that the requirements name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashMismatch {
    pub(crate) package: String,
    pub(crate) version: String,
}

/// Takes out of a lock the files without a required hash, and all credentials.
pub(crate) fn check(
    document: &mut DocumentMut,
    hashes: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), HashMismatch> {
    let Some(packages) = document
        .get_mut("packages")
        .and_then(Item::as_array_of_tables_mut)
    else {
        return Ok(());
    };
    for package in packages.iter_mut() {
        let text = |key: &str| {
            package
                .get(key)
                .and_then(Item::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (name, version) = (text("name"), text("version"));
        if let Some(allowed) = hashes.get(&normalised_name(&name)) {
            let mut kept = 0;
            let fits = |file: &Value| {
                let hash = file
                    .as_inline_table()
                    .and_then(|file| file.get("hashes"))
                    .and_then(Value::as_inline_table)
                    .and_then(|hashes| hashes.get("sha256"))
                    .and_then(Value::as_str);
                hash.is_some_and(|hash| allowed.contains(hash))
            };
            if let Some(wheels) = package.get_mut("wheels").and_then(Item::as_array_mut) {
                wheels.retain(fits);
                kept += wheels.len();
            }
            if package
                .get("wheels")
                .and_then(Item::as_array)
                .is_some_and(|list| list.is_empty())
            {
                package.remove("wheels");
            }
            match package.get("sdist").and_then(Item::as_value).map(fits) {
                Some(true) => kept += 1,
                Some(false) => {
                    package.remove("sdist");
                }
                None => {}
            }
            let has_files_elsewhere = ["vcs", "directory", "archive"]
                .iter()
                .any(|key| package.contains_key(key));
            if kept == 0 && !has_files_elsewhere {
                return Err(HashMismatch {
                    package: name,
                    version,
                });
            }
        }
        for key in ["index", "vcs", "archive", "sdist", "wheels"] {
            if let Some(item) = package.get_mut(key) {
                scrub(item);
            }
        }
    }
    Ok(())
}

fn scrub(item: &mut Item) {
    if let Some(value) = item.as_value_mut() {
        scrub_value(value);
    } else if let Some(table) = item.as_table_like_mut() {
        for (_, item) in table.iter_mut() {
            scrub(item);
        }
    }
}

fn scrub_value(value: &mut Value) {
    match value {
        Value::String(text) => {
            let clean = redacted(text.value());
            if clean != *text.value() {
                let decor = text.decor().clone();
                *value = Value::from(clean);
                *value.decor_mut() = decor;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(scrub_value),
        Value::InlineTable(table) => table.iter_mut().for_each(|(_, value)| scrub_value(value)),
        _ => {}
    }
}

/// The conda packages of the project are pure Python on the index, too.
pub(crate) fn dependencies_of_conda(project: &Project, lock: &Pylock) -> Result<(), InputError> {
    let refused: Vec<(String, String)> = lock
        .packages
        .iter()
        .filter(|package| project.found.conda.contains(&package.name))
        .filter(|package| {
            !package
                .wheels
                .iter()
                .any(|file| file.file_name().ends_with("-none-any.whl"))
        })
        .map(|package| (package.name.clone(), "not pure Python".to_owned()))
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(InputError::conda(
            &project.dir.join(&project.input),
            refused,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> DocumentMut {
        "[[packages]]\nname = \"a\"\nversion = \"1\"\nindex = \"https://u:p@h/simple\"\nsdist = { url = \"https://u:p@h/a.tar.gz\", hashes = { sha256 = \"00\" } }\nwheels = [{ url = \"https://h/a.whl\", hashes = { sha256 = \"11\" } }]\n".parse().unwrap()
    }

    #[test]
    fn files_without_a_required_hash_and_credentials_are_taken_out() {
        let hashes =
            |hash: &str| BTreeMap::from([("a".to_owned(), BTreeSet::from([hash.to_owned()]))]);
        let mut whole = document();
        check(&mut whole, &hashes("11")).unwrap();
        insta::assert_snapshot!(whole.to_string(), @r#"
        [[packages]]
        name = "a"
        version = "1"
        index = "https://h/simple"
        wheels = [{ url = "https://h/a.whl", hashes = { sha256 = "11" } }]
        "#);
        let mut whole = document();
        check(&mut whole, &hashes("00")).unwrap();
        assert!(!whole.to_string().contains("wheels") && !whole.to_string().contains("u:p"));
        let error = check(&mut document(), &hashes("22")).unwrap_err();
        assert_eq!(error.package, "a");
    }
}
