//! Poetry's `pyproject.toml`: `[tool.poetry]` as requirements (PEP 508), extras, groups, scripts.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value};

use super::{
    Found, InputError, NamedIndex,
    dependency::{Dependency, location, strings},
    is_public_index,
    ranges::{self, alternatives, python_to_pep440},
};
use crate::project::normalised_name;

/// Reads `[tool.poetry]` of `file`.
pub(crate) fn read(file: &Path, poetry: &Table) -> Result<Found, InputError> {
    let mut reader = Reader {
        file,
        found: Found::default(),
    };
    reader.read(poetry)?;
    Ok(reader.found)
}

struct Reader<'a> {
    file: &'a Path,
    found: Found,
}

impl Reader<'_> {
    fn read(&mut self, poetry: &Table) -> Result<(), InputError> {
        let text = |key: &str| poetry.get(key).and_then(Value::as_str).map(str::to_owned);
        self.found.name = text("name");
        self.found.version = text("version");
        self.found.is_package = poetry.get("package-mode").and_then(Value::as_bool) != Some(false);
        self.sources(poetry);
        let mut optional: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in tables(poetry.get("dependencies")) {
            if name == "python" {
                let text = value.as_str().unwrap_or("*");
                let range = python_to_pep440(text)
                    .map_err(|error| self.wrong("python", text, &error.to_string()))?;
                self.found.requires_python = (!range.is_empty())
                    .then(|| range.parse())
                    .transpose()
                    .map_err(|error: crate::PythonRequestError| {
                        self.wrong("python", text, &error.to_string())
                    })?;
                continue;
            }
            let requirements = self.dependency(name, value)?;
            let is_optional = value
                .as_table()
                .and_then(|table| table.get("optional"))
                .and_then(Value::as_bool)
                .unwrap_or(false);
            if is_optional {
                optional.insert(normalised_name(name), requirements);
            } else {
                self.found.dependencies.extend(requirements);
            }
        }
        for (extra, names) in tables(poetry.get("extras")) {
            let list = strings(Some(names))
                .iter()
                .map(|name| {
                    let name = name.split(['[', ' ', '(']).next().unwrap_or(name);
                    optional
                        .get(&normalised_name(name))
                        .cloned()
                        .ok_or_else(|| {
                            self.wrong(
                                &format!("extras.{extra}"),
                                name,
                                "it is no optional dependency of `[tool.poetry.dependencies]`",
                            )
                        })
                })
                .collect::<Result<Vec<_>, _>>()?;
            self.found.extras.insert(extra.clone(), list.concat());
        }
        if let Some(old) = poetry.get("dev-dependencies") {
            self.group("dev", old)?;
        }
        for (group, table) in tables(poetry.get("group")) {
            if let Some(list) = table.get("dependencies") {
                self.group(group, list)?;
            }
        }
        for (script, value) in tables(poetry.get("scripts")) {
            let callable = match value {
                Value::String(text) => Some(text.as_str()),
                Value::Table(table)
                    if table.get("type").and_then(Value::as_str) != Some("file") =>
                {
                    let field = table.get("reference").or_else(|| table.get("callable"));
                    field.and_then(Value::as_str)
                }
                _ => None,
            };
            if let Some(callable) = callable {
                self.found
                    .scripts
                    .insert(script.clone(), callable.to_owned());
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &str, list: &Value) -> Result<(), InputError> {
        for (name, value) in tables(Some(list)) {
            let requirements = self.dependency(name, value)?;
            let known = self.found.groups.entry(group.to_owned()).or_default();
            known.extend(requirements);
        }
        Ok(())
    }

    /// `[[tool.poetry.source]]`: the index called as the public one is what this machine is
    /// configured for.
    fn sources(&mut self, poetry: &Table) {
        let list = poetry.get("source").and_then(Value::as_array);
        for source in list.into_iter().flatten() {
            let text = |key: &str| source.get(key).and_then(Value::as_str);
            let (Some(name), Some(url)) = (text("name"), text("url")) else {
                continue;
            };
            if is_public_index(url) {
                continue;
            }
            self.found.indexes.push(NamedIndex {
                name: name.to_lowercase(),
                url: url.to_owned(),
                is_default: text("priority") == Some("default"),
                is_explicit: text("priority") == Some("explicit"),
            });
        }
    }

    fn dependency(&mut self, name: &str, value: &Value) -> Result<Vec<String>, InputError> {
        match value {
            Value::String(range) => Ok(vec![
                Dependency {
                    name: name.to_owned(),
                    specifiers: self.range(name, range)?,
                    ..Dependency::default()
                }
                .requirement(),
            ]),
            Value::Table(table) => Ok(vec![self.table(name, table)?]),
            Value::Array(list) => list
                .iter()
                .map(|item| match item {
                    Value::Table(table) => self.table(name, table),
                    other => Err(self.wrong(name, &other.to_string(), "a list holds tables only")),
                })
                .collect(),
            other => Err(self.wrong(name, &other.to_string(), "it is neither text nor table")),
        }
    }

    fn table(&mut self, name: &str, table: &Table) -> Result<String, InputError> {
        let text = |key: &str| table.get(key).and_then(Value::as_str);
        let mut markers = Vec::new();
        if let Some(python) = text("python") {
            markers.extend(
                python_marker(python)
                    .map_err(|error| self.wrong(name, python, &error.to_string()))?,
            );
        }
        if let Some(platform) = text("platform") {
            markers.push(format!("sys_platform == '{}'", platform.replace('\'', "")));
        }
        markers.extend(text("markers").map(str::to_owned));
        let url =
            location(table).map_err(|reason| self.wrong(name, &table.to_string(), &reason))?;
        let specifiers = match (text("version"), &url) {
            (Some(range), None) => self.range(name, range)?,
            (None, None) => {
                return Err(self.wrong(
                    name,
                    &Value::Table(table.clone()).to_string(),
                    "it has neither `version` nor `git`, `path` or `url`",
                ));
            }
            _ => String::new(),
        };
        let dependency = Dependency {
            name: name.to_owned(),
            extras: strings(table.get("extras")),
            specifiers,
            url,
            markers,
            index: text("source").map(str::to_lowercase),
        };
        if table.get("allow-prereleases").and_then(Value::as_bool) == Some(true) {
            self.found.notes.push(format!(
                "`allow-prereleases` of `{name}` has no effect: name the pre-release in its version"
            ));
        }
        if let Some(index) = &dependency.index {
            let known = self.found.indexes.iter().any(|one| one.name == *index);
            if known {
                self.found
                    .pinned_index
                    .insert(normalised_name(name), index.clone());
            }
        }
        Ok(dependency.requirement())
    }

    fn range(&self, name: &str, range: &str) -> Result<String, InputError> {
        ranges::to_pep440(range).map_err(|error| self.wrong(name, range, &error.to_string()))
    }

    fn wrong(&self, name: &str, value: &str, reason: &str) -> InputError {
        InputError::Dependency {
            file: self.file.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn tables(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_table).into_iter().flatten()
}

/// A constraint on Python as a marker; none when any will do.
fn python_marker(text: &str) -> Result<Option<String>, ranges::RangeError> {
    let mut parts = Vec::new();
    for all in alternatives(text)? {
        let comparisons: Vec<String> = all
            .iter()
            .map(|one| {
                // `python_version` has two parts only.
                let dots = one.version.trim_end_matches(".*").matches('.').count();
                let is_short = dots == 1
                    && (matches!(one.operator, ">=" | "<") || one.version.ends_with(".*"));
                if is_short {
                    let version = one.version.trim_end_matches(".*");
                    format!("python_version {} '{version}'", one.operator)
                } else {
                    format!("python_full_version {} '{}'", one.operator, one.version)
                }
            })
            .collect();
        if comparisons.is_empty() {
            return Ok(None);
        }
        parts.push(comparisons.join(" and "));
    }
    Ok(match parts.as_slice() {
        [only] => Some(only.clone()),
        several => {
            let each: Vec<String> = several.iter().map(|one| format!("({one})")).collect();
            Some(each.join(" or "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_poetry_table_is_read() {
        let poetry: Table = r#"
            name = "app"
            version = "1.2"
            [dependencies]
            python = "^3.9"
            flask = "^3.0"
            old = [
                { version = "<=1.9", python = ">=3.6,<3.10" },
                { version = "^2.0", python = "^3.10", markers = "sys_platform == 'linux'" },
            ]
            local = { path = "../local", develop = true }
            repo = { git = "https://h/r.git", branch = "main", extras = ["a"] }
            mqtt = { version = "~2.1", optional = true }
            inner = { version = "*", source = "Corp" }
            [extras]
            mqtt = ["mqtt"]
            [group.prod.dependencies]
            gunicorn = ">=20"
            [dev-dependencies]
            pytest = "7.*"
            [scripts]
            app = "app.cli:main"
            [[source]]
            name = "corp"
            url = "https://corp.example/simple"
            priority = "explicit"
        "#
        .parse()
        .unwrap();
        let found = read(Path::new("pyproject.toml"), &poetry).unwrap();
        insta::assert_debug_snapshot!((&found.dependencies, &found.extras, &found.groups), @r#"
        (
            [
                "flask>=3.0,<4",
                "inner",
                "local @ ../local",
                "old<=1.9 ; python_version >= '3.6' and python_version < '3.10'",
                "old>=2.0,<3 ; (python_version >= '3.10' and python_full_version < '4') and (sys_platform == 'linux')",
                "repo[a] @ git+https://h/r.git@main",
            ],
            {
                "mqtt": [
                    "mqtt>=2.1,<2.2",
                ],
            },
            {
                "dev": [
                    "pytest==7.*",
                ],
                "prod": [
                    "gunicorn>=20",
                ],
            },
        )
        "#);
        assert_eq!(found.requires_python.unwrap().to_string(), ">=3.9,<4");
        assert_eq!(found.pinned_index["inner"], "corp");
        assert!(found.is_package && found.indexes[0].is_explicit);
        assert_eq!(found.scripts["app"], "app.cli:main");
        for text in &found.dependencies {
            let is_path = text.contains(" @ ..");
            assert!(
                is_path || crate::requirements::parse(text).is_some(),
                "{text}"
            );
        }
    }
}
