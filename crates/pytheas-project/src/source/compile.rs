//! What uv is given to resolve: the project's own file where uv reads it, else a `pyproject.toml`
//! made of what was found.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::{
    project::{Project, RequirementSource, same_name},
    requirements,
};

/// The arguments of `uv pip compile` that name the requirements.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// Where uv is to run.
    pub(crate) dir: PathBuf,
    /// The file and what belongs to it.
    pub(crate) arguments: Vec<String>,
}

/// Prepares `project` for uv; files that it needs go into `scratch`.
pub(crate) fn prepare(project: &Project, scratch: &Path) -> io::Result<Prepared> {
    let own = |arguments: Vec<String>| Prepared {
        dir: project.dir.clone(),
        arguments,
    };
    let mut groups: Vec<String> = Vec::new();
    for group in &project.settings.groups {
        groups.extend(["--group".to_owned(), format!("pyproject.toml:{group}")]);
    }
    let mut extras: Vec<String> = Vec::new();
    for extra in &project.settings.extras {
        extras.extend(["--extra".to_owned(), extra.clone()]);
    }
    Ok(match project.source {
        RequirementSource::Pyproject | RequirementSource::BuildBackend => {
            let mut arguments = vec![project.input.clone()];
            arguments.extend(extras);
            arguments.extend(groups);
            own(arguments)
        }
        RequirementSource::RequirementsTxt => {
            // Read once before: what cannot be read was told then.
            let plain = requirements::read(&project.dir.join(&project.input))
                .map_err(io::Error::other)?
                .plain;
            let file = scratch.join("requirements.txt");
            pytheas_durable::replace(&file, plain.requirements.as_bytes())?;
            let mut arguments = vec![file.display().to_string()];
            if !plain.constraints.is_empty() {
                let file = scratch.join("constraints.txt");
                pytheas_durable::replace(&file, plain.constraints.as_bytes())?;
                arguments.extend(["--constraints".to_owned(), file.display().to_string()]);
            }
            arguments.extend(groups);
            own(arguments)
        }
        RequirementSource::Script => match script_sources(project) {
            None => own(vec![project.input.clone()]),
            Some(uv) => {
                let mut document = made(project);
                document["tool"]["uv"] = uv;
                let file = scratch.join("pyproject.toml");
                pytheas_durable::replace(&file, document.to_string().as_bytes())?;
                Prepared {
                    dir: scratch.to_owned(),
                    arguments: vec!["pyproject.toml".to_owned()],
                }
            }
        },
        _ => {
            let file = scratch.join("pyproject.toml");
            pytheas_durable::replace(&file, made(project).to_string().as_bytes())?;
            let mut arguments = vec!["pyproject.toml".to_owned()];
            if !project.found.pip_options.is_empty() {
                let options = scratch.join("options.txt");
                let text: String = project
                    .found
                    .pip_options
                    .iter()
                    .map(|line| format!("{}\n", absolute(line, &project.dir)))
                    .collect();
                pytheas_durable::replace(&options, text.as_bytes())?;
                arguments.push("options.txt".to_owned());
            }
            Prepared {
                dir: scratch.to_owned(),
                arguments,
            }
        }
    })
}

/// `-r file`, `-c file` and `-e folder` of another folder's text.
fn absolute(line: &str, dir: &Path) -> String {
    let line = requirements::without_checkout(line);
    for option in [
        "-r",
        "-c",
        "-e",
        "--requirement",
        "--constraint",
        "--editable",
        "--find-links",
        "-f",
    ] {
        if let Some(rest) = line.strip_prefix(option)
            && rest.starts_with([' ', '='])
            && !rest.contains("://")
        {
            let path = dir.join(rest[1..].trim());
            return format!("{option} {}", path.display());
        }
    }
    line.to_owned()
}

/// Everything that the app needs, extras and groups included, as written.
pub(crate) fn wanted(project: &Project) -> Vec<String> {
    let chosen = |names: &[String], from: &std::collections::BTreeMap<String, Vec<String>>| {
        from.iter()
            .filter(|(name, _)| names.iter().any(|wanted| same_name(wanted, name)))
            .flat_map(|(_, list)| list.clone())
            .collect::<Vec<String>>()
    };
    let mut list = project.dependencies.clone();
    list.extend(chosen(
        &project.settings.extras,
        &project.optional_dependencies,
    ));
    list.extend(chosen(&project.settings.groups, &project.dependency_groups));
    list
}

/// A `pyproject.toml` with the requirements, indexes and choices of index.
fn made(project: &Project) -> DocumentMut {
    let mut document = DocumentMut::new();
    let mut table = Table::new();
    table.insert("name", value("pytheas-request"));
    table.insert("version", value("0"));
    if let Some(python) = project.python(None) {
        table.insert("requires-python", value(python.normalised()));
    }
    let requirements: Array = wanted(project)
        .iter()
        .map(|text| with_absolute_path(text, &project.dir))
        .collect();
    table.insert("dependencies", value(requirements));
    document.insert("project", Item::Table(table));
    if project.found.indexes.is_empty() {
        return document;
    }
    let mut uv = Table::new();
    let mut indexes = toml_edit::ArrayOfTables::new();
    for index in &project.found.indexes {
        let mut one = Table::new();
        one.insert("name", value(index_name(&index.name)));
        one.insert("url", value(&index.url));
        if index.is_default {
            one.insert("default", value(true));
        }
        if index.is_explicit {
            one.insert("explicit", value(true));
        }
        indexes.push(one);
    }
    uv.insert("index", Item::ArrayOfTables(indexes));
    let mut sources = Table::new();
    for (package, index) in &project.found.pinned_index {
        let mut source = InlineTable::new();
        source.insert("index", Value::from(index_name(index)));
        sources.insert(package, value(source));
    }
    uv.insert("sources", Item::Table(sources));
    let mut tool = Table::new();
    tool.set_implicit(true);
    tool.insert("uv", Item::Table(uv));
    document.insert("tool", Item::Table(tool));
    document
}

/// `[tool.uv]` of a script that says where packages come from, which uv respects in projects only;
/// paths are made absolute.
fn script_sources(project: &Project) -> Option<Item> {
    let text = format!("uv = {}", project.uv_settings.as_deref()?);
    let mut document: DocumentMut = text.parse().ok()?;
    let mut uv = document.remove("uv")?;
    let absolute = |item: &mut Value| {
        if let Some(path) = item
            .as_inline_table_mut()
            .and_then(|table| table.get_mut("path"))
            && let Some(text) = path.as_str()
        {
            let whole = crate::lock_file::normalised(&project.dir.join(text));
            *path = Value::from(whole.display().to_string());
        }
    };
    let sources = uv.get_mut("sources")?.as_table_like_mut()?;
    for (_, source) in sources.iter_mut() {
        match source.as_value_mut() {
            Some(Value::Array(several)) => several.iter_mut().for_each(absolute),
            Some(one) => absolute(one),
            None => {}
        }
    }
    Some(uv)
}

/// uv's names of indexes: letters, digits, `-`, `_`, `.`.
fn index_name(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// `name @ ./folder` with the folder's whole address.
fn with_absolute_path(text: &str, dir: &Path) -> String {
    let Some((name, rest)) = text.split_once(" @ ") else {
        return text.to_owned();
    };
    let (path, marker) = rest
        .split_once(" ; ")
        .map_or((rest, None), |(path, marker)| (path, Some(marker)));
    if !path.starts_with('.') {
        return text.to_owned();
    }
    let whole = crate::lock_file::normalised(&dir.join(path));
    let Ok(url) = url::Url::from_file_path(&whole) else {
        return text.to_owned();
    };
    let marker = marker.map_or(String::new(), |marker| format!(" ; {marker}"));
    format!("{name} @ {url}{marker}")
}
