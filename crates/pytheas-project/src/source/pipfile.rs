//! pipenv's `Pipfile` (TOML), and `Pipfile.lock` (JSON) where there is no Pipfile.

use std::path::Path;

use toml::{Table, Value};

use super::{
    Found, InputError, NamedIndex,
    dependency::{Dependency, location, strings},
    is_public_index, json, text,
};
use crate::{manifest::explain, project::normalised_name, resolve::PRE};

/// Tables that are no groups of packages.
const NO_GROUPS: &[&str] = &["packages", "source", "requires", "scripts", "pipenv"];
/// PEP 508's variables, which pipenv takes as keys of a package.
const MARKERS: &[&str] = &[
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_version",
    "python_full_version",
    "implementation_name",
    "implementation_version",
];

/// Reads a Pipfile.
pub(crate) fn read(
    file: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Found, InputError> {
    let content = text(file)?;
    let table: Table = toml::from_str(&content).map_err(|error| explain(file, &content, &error))?;
    let mut found = Found::default();
    let list = table.get("source").and_then(Value::as_array);
    let sources = list.into_iter().flatten().filter_map(|source| {
        let text = |key: &str| source.get(key).and_then(Value::as_str);
        Some((text("name").map(str::to_owned), text("url")?.to_owned()))
    });
    indexes(sources, environment, &mut found);
    if let Some(requires) = table.get("requires") {
        let wanted = ["python_full_version", "python_version"]
            .iter()
            .find_map(|key| requires.get(key).and_then(Value::as_str));
        found.requires_python = wanted
            .map(|version| {
                version
                    .parse()
                    .map_err(|error: crate::PythonRequestError| InputError::Dependency {
                        file: file.to_owned(),
                        name: "requires".to_owned(),
                        value: version.to_owned(),
                        reason: error.to_string(),
                    })
            })
            .transpose()?;
    }
    let allows = |key: &str| {
        table
            .get("pipenv")
            .and_then(|pipenv| pipenv.get(key)?.as_bool())
    };
    if allows("allow_prereleases") == Some(true) {
        found.pip_options.push(PRE.to_owned());
    }
    for (group, packages) in &table {
        let Some(packages) = packages.as_table() else {
            continue;
        };
        if group != "packages" && NO_GROUPS.contains(&group.as_str()) {
            continue;
        }
        let mut list = Vec::new();
        for (name, value) in packages {
            list.extend(requirement(file, name, value, &mut found)?);
        }
        match group.as_str() {
            "packages" => found.dependencies = list,
            "dev-packages" => {
                found.groups.insert("dev".to_owned(), list);
            }
            other => {
                found.groups.insert(other.to_owned(), list);
            }
        }
    }
    Ok(found)
}

/// Reads a `Pipfile.lock` as exact requirements.
pub(crate) fn read_lock(
    file: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Found, InputError> {
    let content = text(file)?;
    let value = json(file, &content)?;
    let mut found = Found::default();
    let meta = value.get("_meta");
    let list = meta
        .and_then(|meta| meta.get("sources"))
        .and_then(Value::as_array);
    let sources = list.into_iter().flatten().filter_map(|source| {
        let text = |key: &str| source.get(key).and_then(Value::as_str);
        Some((text("name").map(str::to_owned), text("url")?.to_owned()))
    });
    indexes(sources, environment, &mut found);
    let python = meta
        .and_then(|meta| meta.get("requires"))
        .and_then(|requires| requires.get("python_version"))
        .and_then(Value::as_str);
    found.requires_python = python.and_then(|text| text.parse().ok());
    for (section, group) in [("default", None), ("develop", Some("dev"))] {
        let Some(packages) = value.get(section).and_then(Value::as_table) else {
            continue;
        };
        let mut list = Vec::new();
        for (name, value) in packages {
            list.extend(requirement(file, name, value, &mut found)?);
            let hashes = strings(value.get("hashes"));
            if !hashes.is_empty() {
                let demanded = found.hashes.entry(normalised_name(name)).or_default();
                demanded.extend(hashes.iter().map(|hash| hash.to_ascii_lowercase()));
            }
        }
        match group {
            None => found.dependencies = list,
            Some(group) => {
                found.groups.insert(group.to_owned(), list);
            }
        }
    }
    Ok(found)
}

/// The first source is the default index, unless it is the public one: that is the index that
/// this machine is configured for.
fn indexes(
    sources: impl Iterator<Item = (Option<String>, String)>,
    environment: &dyn Fn(&str) -> Option<String>,
    found: &mut Found,
) {
    for (number, (name, url)) in sources.enumerate() {
        if is_public_index(&url) {
            continue;
        }
        found.indexes.push(NamedIndex {
            name: name
                .unwrap_or_else(|| format!("source-{}", number + 1))
                .to_lowercase(),
            url: expanded(&url, environment),
            is_default: number == 0,
            is_explicit: false,
        });
    }
}

/// `${NAME}` and `$NAME` in addresses, as pipenv expands them; unknown ones stay.
pub(crate) fn expanded(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, end) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match environment(name) {
            Some(value) if !name.is_empty() => result.push_str(&value),
            _ => result.push_str(&rest[at..at + 1 + end]),
        }
        rest = &after[end..];
    }
    result + rest
}

fn requirement(
    file: &Path,
    name: &str,
    value: &Value,
    found: &mut Found,
) -> Result<Option<String>, InputError> {
    let wrong = |value: &str, reason: String| InputError::Dependency {
        file: file.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    };
    let specifiers = |text: &str| {
        let text = text.trim();
        if text.is_empty() || text == "*" {
            return Ok(String::new());
        }
        // pipenv hands the text to pip; a version without an operator means `==`.
        let text = if text.starts_with(|c: char| c.is_ascii_digit()) {
            format!("=={text}")
        } else {
            text.to_owned()
        };
        text.parse::<pep440_rs::VersionSpecifiers>()
            .map(|specifiers| specifiers.to_string().replace(' ', ""))
            .map_err(|_| wrong(&text, "it is no PEP 440 version specifier".to_owned()))
    };
    let table = match value {
        Value::String(text) => {
            let dependency = Dependency {
                name: name.to_owned(),
                specifiers: specifiers(text)?,
                ..Dependency::default()
            };
            return Ok(Some(dependency.requirement()));
        }
        Value::Table(table) => table,
        other => {
            return Err(wrong(
                &other.to_string(),
                "it is neither text nor table".to_owned(),
            ));
        }
    };
    let url = location(table).map_err(|reason| wrong(&table.to_string(), reason))?;
    if url.as_deref() == Some("./.") {
        return Ok(None); // the project itself: its sources are taken along anyway
    }
    let field = |key: &str| table.get(key).and_then(Value::as_str);
    let mut markers: Vec<String> = field("markers").map(str::to_owned).into_iter().collect();
    markers.extend(
        MARKERS
            .iter()
            .filter_map(|key| Some(format!("{key} {}", field(key)?))),
    );
    let index = field("index").map(str::to_lowercase);
    if let Some(index) = index.filter(|index| found.indexes.iter().any(|one| one.name == *index)) {
        found.pinned_index.insert(normalised_name(name), index);
    }
    let dependency = Dependency {
        name: name.to_owned(),
        extras: strings(table.get("extras")),
        specifiers: match (&url, field("version")) {
            (None, Some(text)) => specifiers(text)?,
            _ => String::new(),
        },
        url,
        markers,
        index: None,
    };
    Ok(Some(dependency.requirement()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_addresses_are_expanded() {
        let known = |name: &str| (name == "TOKEN").then(|| "secret".to_owned());
        let check = |text: &str, expected: &str| assert_eq!(expanded(text, &known), expected);
        check("https://me:${TOKEN}@h/s", "https://me:secret@h/s");
        check("https://me:$TOKEN@h/s", "https://me:secret@h/s");
        check("https://h/${NONE}/$NONE/$", "https://h/${NONE}/$NONE/$");
        check("https://h/${open", "https://h/${open");
    }

    #[test]
    fn hashes_of_a_lock_and_leave_for_pre_releases_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Pipfile.lock");
        let content = br#"{"_meta": {"requires": {"python_version": "3.11"}, "sources": []},
            "default": {"Some_Thing": {"version": "==1", "hashes": ["sha256:AA", "sha256:bb"]}},
            "develop": {}}"#;
        pytheas_durable::replace(&file, content).unwrap();
        let found = read_lock(&file, &|_| None).unwrap();
        insta::assert_debug_snapshot!(found.hashes, @r#"
        {
            "some-thing": {
                "sha256:aa",
                "sha256:bb",
            },
        }
        "#);
        assert_eq!(found.requires_python.unwrap().normalised(), "==3.11.*");

        let file = dir.path().join("Pipfile");
        let content = b"[packages]\nx = '*'\n[pipenv]\nallow_prereleases = true\n";
        pytheas_durable::replace(&file, content).unwrap();
        let found = read(&file, &|_| None).unwrap();
        assert_eq!(found.pip_options, ["--pre"]);
    }

    #[test]
    fn a_whole_pipfile_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Pipfile");
        let content = br#"
[[source]]
name = "corp"
url = "https://${USER_NAME}@corp.example/simple"
verify_ssl = true
[requires]
python_version = "3.11"
[packages]
flask = "*"
requests = {version = ">=2.28, <3", extras = ["socks"], markers = "python_version < '4'"}
pywin32 = {version = "*", sys_platform = "== 'win32'"}
inner = {version = "==1.0", index = "corp"}
mine = {path = ".", editable = true}
lib = {path = "./libs/lib", editable = true}
repo = {git = "https://h/r.git", ref = "v1"}
[dev-packages]
pytest = "~=8.0"
"#;
        pytheas_durable::replace(&file, content).unwrap();
        let found = read(&file, &|_| Some("me".to_owned())).unwrap();
        insta::assert_debug_snapshot!((&found.dependencies, &found.groups), @r#"
        (
            [
                "flask",
                "inner==1.0",
                "lib @ ./libs/lib",
                "pywin32 ; sys_platform == 'win32'",
                "repo @ git+https://h/r.git@v1",
                "requests[socks]>=2.28,<3 ; python_version < '4'",
            ],
            {
                "dev": [
                    "pytest~=8.0",
                ],
            },
        )
        "#);
        assert_eq!(found.indexes[0].url, "https://me@corp.example/simple");
        assert_eq!(found.pinned_index["inner"], "corp");
    }
}
