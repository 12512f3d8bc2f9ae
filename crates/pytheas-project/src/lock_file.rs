//! What uv wrote, made into the `pylock.toml` that is stored: only files whose hash is demanded,
//! no paths of this machine, and what it was made from.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use crate::{
    inputs::LockInputs, local_files, lock::LockError, project::Project, requirements::normalise,
    source,
};

const HEADER: &str =
    "# Written by `pytheas lock` from {source}; run it again instead of editing.\n";

/// The file as it is stored: header, uv's lock with paths relative to the project, our table.
pub(crate) fn finish(
    text: &str,
    project: &Project,
    inputs: &LockInputs,
    scratch: &Path,
    to: &Path,
    uv_version: &str,
) -> Result<String, LockError> {
    #[derive(Serialize)]
    struct File {
        tool: Tool,
    }
    #[derive(Serialize)]
    struct Tool {
        pytheas: LockInputs,
    }
    let mut document: DocumentMut = text.parse().map_err(|source| LockError::Format {
        version: uv_version.to_owned(),
        source: Box::new(source),
    })?;
    document.remove("tool");
    let mut local = BTreeSet::new();
    if let Some(packages) = document
        .get_mut("packages")
        .and_then(Item::as_array_of_tables_mut)
    {
        for package in packages.iter_mut() {
            keep_demanded(package, project, inputs)?;
            source::scrub_credentials(package);
            for kind in ["directory", "archive", "vcs"] {
                if let Some(path) = package.get_mut(kind).and_then(|item| item.get_mut("path")) {
                    relocate(path, scratch, to);
                    local.extend(path.as_str().map(str::to_owned));
                }
            }
        }
    }
    let tool = toml::to_string_pretty(&File {
        tool: Tool {
            pytheas: LockInputs {
                files: local_files::hashes(project, to, &local),
                ..inputs.clone()
            },
        },
    })
    .expect("inputs are strings, numbers and lists of strings");
    let body = document.to_string();
    let body = body
        .trim_start_matches(|c: char| c.is_whitespace())
        .trim_end();
    Ok(format!(
        "{}{body}\n\n{}",
        HEADER.replace(
            "{source}",
            if project.input.is_empty() {
                "nothing"
            } else {
                &project.input
            }
        ),
        tool.trim_start()
    ))
}

/// Leaves only files whose hash a requirements file demands: uv does not compare them when it
/// locks, and later only knows the lock.
fn keep_demanded(
    package: &mut Table,
    project: &Project,
    inputs: &LockInputs,
) -> Result<(), LockError> {
    let text = |key: &str| {
        let value = package.get(key).and_then(Item::as_str);
        value.unwrap_or_default().to_owned()
    };
    let (name, version) = (text("name"), text("version"));
    let address = package
        .get("archive")
        .and_then(|archive| archive.get("url")?.as_str())
        .map(normalise);
    let by_address = address.and_then(|address| inputs.hashes.get(&address));
    let Some(demanded) = inputs.hashes.get(&name).or(by_address) else {
        return Ok(());
    };
    let fits = |file: Option<&dyn TableLike>| {
        let hash = file
            .and_then(|file| file.get("hashes")?.as_table_like()?.get("sha256")?.as_str())
            .unwrap_or_default();
        demanded.contains(&format!("sha256:{hash}"))
    };
    if let Some(wheels) = package.get_mut("wheels").and_then(Item::as_array_mut) {
        wheels.retain(|wheel| fits(wheel.as_inline_table().map(|table| table as &dyn TableLike)));
        if wheels.is_empty() {
            package.remove("wheels");
        }
    }
    for key in ["sdist", "archive"] {
        if package
            .get(key)
            .is_some_and(|file| !fits(file.as_table_like()))
        {
            package.remove(key);
        }
    }
    if ["wheels", "sdist", "archive"]
        .iter()
        .all(|key| !package.contains_key(key))
    {
        return Err(LockError::Hash {
            file: project.input_path(),
            package: name,
            version,
        });
    }
    Ok(())
}

/// A path relative to `from` written relative to `to`.
fn relocate(item: &mut Item, from: &Path, to: &Path) {
    let Some(text) = item.as_str() else { return };
    let from = from.canonicalize().unwrap_or_else(|_| from.to_owned());
    let absolute = normalised(&from.join(text));
    let common = absolute
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = to.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(absolute.components().skip(common)).collect();
    let path = if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path
    };
    if let Some(path) = path.to_str() {
        *item = Item::Value(Value::from(path));
    }
}

/// The path with `.` and `..` resolved by their words.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}
