//! What must hold for a resolution before it is stored: no credentials, and conda packages only where they are pure Python.

use std::collections::BTreeMap;

use toml_edit::{Item, Table, Value};

use super::{InputError, redacted};
use crate::{project::Project, pylock::Pylock};

/// Takes all credentials out of a package of a lock.
pub(crate) fn scrub_credentials(package: &mut Table) {
    for key in ["index", "vcs", "archive", "sdist", "wheels"] {
        if let Some(item) = package.get_mut(key) {
            scrub(item);
        }
    }
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
    let refused: BTreeMap<String, String> = lock
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
            refused.into_iter().collect(), // a package may be locked twice, by markers
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out() {
        let mut document: toml_edit::DocumentMut = "[[packages]]\nname = \"a\"\nindex = \"https://u:p@h/simple\"\nsdist = { url = \"https://u:p@h/a.tar.gz\", hashes = { sha256 = \"00\" } }\nwheels = [{ url = \"https://h/a.whl\" }]\n".parse().unwrap();
        for package in document["packages"]
            .as_array_of_tables_mut()
            .unwrap()
            .iter_mut()
        {
            scrub_credentials(package);
        }
        insta::assert_snapshot!(document.to_string(), @r#"
        [[packages]]
        name = "a"
        index = "https://h/simple"
        sdist = { url = "https://h/a.tar.gz", hashes = { sha256 = "00" } }
        wheels = [{ url = "https://h/a.whl" }]
        "#);
    }
}
