//! `setup.cfg` and `setup.py` (setuptools): what can be read without running them. The rest is
//! asked from the project's build back end, by uv, in an environment of its own.

use std::{collections::BTreeMap, path::Path};

use super::{Found, InputError, text};

/// What a folder with `setup.py`, `setup.cfg` or both says of its own.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) found: Found,
    /// Whether the requirements are all of them: no code of the project could say otherwise.
    pub(crate) is_static: bool,
}

/// Whether `setup.cfg` describes a distribution; many hold settings of linters only.
pub(crate) fn describes(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("setup.cfg"))
        .is_ok_and(|text| sections(&text).contains_key("metadata"))
}

/// Reads both files, where they are.
pub(crate) fn read(dir: &Path) -> Result<Setup, InputError> {
    let mut setup = Setup::default();
    let code = dir.join("setup.py");
    let is_trivial = if code.is_file() {
        let code = text(&code)?;
        setup.found.scripts = console_scripts(&code);
        setup.found.name = keyword(&code, "name");
        is_trivial(&code)
    } else {
        true
    };
    let config = dir.join("setup.cfg");
    if !config.is_file() {
        return Ok(setup);
    }
    let sections = sections(&text(&config)?);
    let value = |section: &str, key: &str| sections.get(section).and_then(|keys| keys.get(key));
    let is_literal = |value: &&String| !value.contains("attr:") && !value.contains("file:");
    if let Some(name) = value("metadata", "name") {
        setup.found.name = Some(name.trim().to_owned());
    }
    setup.found.version = value("metadata", "version")
        .filter(is_literal)
        .map(|text| text.trim().to_owned());
    let scripts = value("options.entry_points", "console_scripts");
    setup
        .found
        .scripts
        .extend(scripts.into_iter().flat_map(|text| {
            lines(text).filter_map(|line| {
                let (name, entry) = line.split_once('=')?;
                Some((name.trim().to_owned(), entry.trim().to_owned()))
            })
        }));
    let requires = value("options", "install_requires");
    let python = value("options", "python_requires").map(|text| text.trim().parse());
    let points_to_entry_points = value("options", "entry_points").is_some();
    setup.is_static = is_trivial
        && setup.found.name.is_some()
        && requires.as_ref().is_none_or(is_literal)
        && !points_to_entry_points
        && !matches!(python, Some(Err(_)));
    if setup.is_static {
        setup.found.dependencies = requires
            .into_iter()
            .flat_map(|text| requirements(text))
            .collect();
        setup.found.requires_python = python.and_then(Result::ok);
        for (extra, list) in sections.get("options.extras_require").into_iter().flatten() {
            // `extra:marker` is setuptools' older way of writing a marker.
            if extra.contains(':') || !is_literal(&list) {
                setup.is_static = false;
            }
            setup.found.extras.insert(extra.clone(), requirements(list));
        }
    }
    Ok(setup)
}

fn requirements(text: &str) -> Vec<String> {
    lines(text).map(str::to_owned).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split(" #").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Python's `configparser`: `[section]`, `key = value`, deeper lines continue the value.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut result: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    let mut key: Option<String> = None;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let is_deeper = line.starts_with([' ', '\t']);
        match (&key, is_deeper) {
            (Some(key), true) if !trimmed.is_empty() => {
                if let Some(value) = result.get_mut(&section).and_then(|keys| keys.get_mut(key)) {
                    value.push('\n');
                    value.push_str(trimmed);
                }
                continue;
            }
            _ if trimmed.is_empty() => continue,
            _ => {}
        }
        if let Some(name) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.trim().to_owned();
            result.entry(section.clone()).or_default();
            key = None;
        } else if let Some(at) = trimmed.find(['=', ':']) {
            let name = trimmed[..at].trim().to_lowercase().replace('-', "_");
            let name = if section.starts_with("options.extras") {
                trimmed[..at].trim().to_owned()
            } else {
                name
            };
            let value = trimmed[at + 1..].trim().to_owned();
            result
                .entry(section.clone())
                .or_default()
                .insert(name.clone(), value);
            key = Some(name);
        }
    }
    result
}

/// Whether a `setup.py` only calls `setup()`, so that `setup.cfg` says all.
fn is_trivial(code: &str) -> bool {
    let code: Vec<&str> = code
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    let known = [
        "import setuptools",
        "from setuptools import setup",
        "setup()",
        "setuptools.setup()",
        "if __name__ == \"__main__\":",
        "if __name__ == '__main__':",
    ];
    code.iter().all(|line| known.contains(line))
}

/// The literal scripts of a `setup.py`: the strings `name = module:callable` in the list after
/// `console_scripts`. What is computed is not found; the built wheel then tells.
fn console_scripts(code: &str) -> BTreeMap<String, String> {
    let mut result = BTreeMap::new();
    let Some((_, after)) = code.split_once("console_scripts") else {
        return result;
    };
    let Some(list) = after.find('[').map(|at| &after[at + 1..]) else {
        return result;
    };
    let list = list.split(']').next().unwrap_or(list);
    let mut rest = list;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = &rest[at..=at];
        let Some((text, after)) = rest[at + 1..].split_once(quote) else {
            break;
        };
        for line in text.lines() {
            if let Some((name, entry)) = line.split_once('=')
                && entry.trim().parse::<crate::Entry>().is_ok()
            {
                result.insert(name.trim().to_owned(), entry.trim().to_owned());
            }
        }
        rest = after;
    }
    result
}

/// The literal value of the last `name=…` that stands at the start of a line or after `(` or `,`.
fn keyword(code: &str, name: &str) -> Option<String> {
    let mut found = None;
    for (at, _) in code.match_indices(name) {
        let before = code[..at].trim_end_matches([' ', '\t']).chars().next_back();
        if !matches!(before, None | Some('\n' | '(' | ',')) {
            continue;
        }
        let Some(value) = code[at + name.len()..].trim_start().strip_prefix('=') else {
            continue;
        };
        let value = value.trim_start();
        let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            continue;
        };
        found = value[1..].split(quote).next().map(str::to_owned);
    }
    found.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            pytheas_durable::replace(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        read(dir.path()).unwrap()
    }

    const CONFIG: &str = "[metadata]\nname = my-app\nversion = 1.2\n\n[options]\npackages = find:\npython_requires = >=3.9\ninstall_requires =\n    flask>=2\n    # why\n    rich ; python_version < '4'\n\n[options.extras_require]\ntest = pytest\n\n[options.entry_points]\nconsole_scripts =\n    my-app = my_app.cli:main\n";

    #[test]
    fn setup_cfg_alone_is_read_without_running_anything() {
        let setup = read_files(&[
            ("setup.cfg", CONFIG),
            (
                "setup.py",
                "from setuptools import setup\n\nsetup()  # all in setup.cfg\n",
            ),
        ]);
        assert!(setup.is_static);
        assert_eq!(
            setup.found.dependencies,
            ["flask>=2", "rich ; python_version < '4'"]
        );
        assert_eq!(setup.found.scripts["my-app"], "my_app.cli:main");
        assert_eq!(setup.found.extras["test"], ["pytest"]);
        assert_eq!(setup.found.name.as_deref(), Some("my-app"));
        assert_eq!(setup.found.version.as_deref(), Some("1.2"));
    }

    #[test]
    fn a_setup_py_with_code_is_left_to_its_back_end() {
        let code = "from setuptools import setup\nname = open('x').read()\nsetup(\n    name='legacy-app',\n    version=VERSION,\n    entry_points={'console_scripts': ['legacy = legacy:main', \"other=legacy.x:y\"]},\n)\n";
        let setup = read_files(&[("setup.py", code), ("setup.cfg", CONFIG)]);
        assert!(!setup.is_static);
        let setup = read_files(&[("setup.py", code)]);
        assert_eq!(setup.found.name.as_deref(), Some("legacy-app"));
        assert_eq!(setup.found.scripts["legacy"], "legacy:main");
        assert_eq!(setup.found.scripts.len(), 2);
        let files = [(
            "setup.cfg",
            "[metadata]\nname = a\nversion = attr: a.__version__\n[options]\ninstall_requires = file: requirements.txt\n",
        )];
        let setup = read_files(&files);
        assert!(!setup.is_static && setup.found.version.is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]=:a-z_'\"(), \\n#é]{0,120}") {
            sections(&text);
            console_scripts(&format!("console_scripts{text}"));
            keyword(&text, "name");
        }
    }
}
