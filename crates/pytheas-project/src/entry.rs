//! What starts an app: `module:callable`, a module (`python -m`), or a script.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use miette::Diagnostic;
use pytheas_release::RelPath;
use serde::Deserialize;

use crate::{
    manifest::listed,
    project::{Project, RequirementSource},
    source::Sources,
};

/// What starts an app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Entry {
    /// `datasette.cli:cli`: the module is imported and the callable's result is the exit code.
    Callable {
        /// Dotted name of the module.
        module: String,
        /// Dotted name inside the module.
        callable: String,
    },
    /// `greenhouse`: run as `python -m greenhouse` would.
    Module(String),
    /// `main.py`: run as `python main.py` would.
    Script(RelPath),
}

/// A text that names no entry point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no entry point; write `module:callable`, `module`, or a script such as `main.py`"
)]
pub struct ParseEntryError(String);

fn is_dotted_name(text: &str) -> bool {
    text.split('.').all(|part| {
        let mut chars = part.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    })
}

impl FromStr for Entry {
    type Err = ParseEntryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseEntryError(text.chars().take(120).collect());
        // Entry points of the packaging specification may name extras: `module:callable [extra]`.
        let plain = text.split('[').next().unwrap_or(text).trim();
        match plain.split_once(':') {
            Some((module, callable)) => {
                let (module, callable) = (module.trim(), callable.trim());
                if is_dotted_name(module) && is_dotted_name(callable) {
                    return Ok(Self::Callable {
                        module: module.to_owned(),
                        callable: callable.to_owned(),
                    });
                }
                Err(wrong())
            }
            None if plain.ends_with(".py") || plain.contains('/') => {
                let path = plain.strip_prefix("./").unwrap_or(plain);
                path.parse().map(Self::Script).map_err(|_| wrong())
            }
            // `-m` takes names with `-`, and programs of published packages have them.
            None if is_dotted_name(&plain.replace('-', "_")) && !plain.starts_with('-') => {
                Ok(Self::Module(plain.to_owned()))
            }
            None => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Entry {
    type Error = ParseEntryError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Callable { module, callable } => write!(f, "{module}:{callable}"),
            Self::Module(module) => f.write_str(module),
            Self::Script(path) => write!(f, "{path}"),
        }
    }
}

/// A project whose entry point is not known.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum EntryError {
    /// Nothing says what starts the app.
    #[error("nothing says what starts `{name}` in `{}`", dir.display())]
    #[diagnostic(code(pytheas::project::no_entry))]
    None {
        /// The app.
        name: String,
        /// The project.
        dir: PathBuf,
        /// What to do.
        #[help]
        help: String,
    },
    /// Several scripts, and none is named.
    #[error("`{}` has several scripts", dir.join("pyproject.toml").display())]
    #[diagnostic(
        code(pytheas::project::several_entries),
        help("choose one with `--entry`, or set `entry` in `[tool.pytheas]`: {}", candidates.join(", "))
    )]
    Several {
        /// The project.
        dir: PathBuf,
        /// What could be meant, in backticks.
        candidates: Vec<String>,
    },
    /// `project.scripts` holds something else than an entry point.
    #[error("script `{script}` in `{}` is `{value}`, which is no entry point", dir.join("pyproject.toml").display())]
    #[diagnostic(code(pytheas::project::script), help("write it as `module:callable`"))]
    Script {
        /// The project.
        dir: PathBuf,
        /// The script's name.
        script: String,
        /// What is written.
        value: String,
    },
}

impl Project {
    /// Whether the app's entry may be known only once it, or the package it is, is built or
    /// fetched: its metadata then says it.
    pub fn has_entry_in_metadata(&self) -> bool {
        self.sources == Sources::None || self.source == RequirementSource::BuildBackend
    }

    /// What starts the app: `wanted` (a flag or a target; also the name of a script), else `entry` in `[tool.pytheas]`, else
    /// the only entry of `project.scripts` (or the one that has the app's name), else `main.py`,
    /// else the only package with a `__main__.py`.
    ///
    /// # Errors
    /// When none of these says it; the error lists candidates.
    pub fn entry(&self, wanted: Option<&Entry>) -> Result<Entry, EntryError> {
        if let Some(entry) = wanted.or(self.settings.entry.as_ref()) {
            return Ok(self.named_script(entry).unwrap_or_else(|| entry.clone()));
        }
        if self.sources == Sources::None {
            return Err(EntryError::None {
                name: self.name.to_string(),
                dir: self.dir.clone(),
                help: "name it with `--entry MODULE:CALLABLE`".to_owned(),
            });
        }
        let named = self
            .scripts
            .get_key_value(self.name.as_str())
            .filter(|_| self.scripts.len() > 1);
        let different: BTreeSet<&String> = self.scripts.values().collect();
        match named.into_iter().chain(&self.scripts).next() {
            Some((script, value)) if named.is_some() || different.len() == 1 => {
                return value.parse().map_err(|_| EntryError::Script {
                    dir: self.dir.clone(),
                    script: script.clone(),
                    value: value.clone(),
                });
            }
            Some(_) => {
                let candidates = different.iter().map(|value| format!("`{value}`")).collect();
                return Err(EntryError::Several {
                    dir: self.dir.clone(),
                    candidates,
                });
            }
            None => {}
        }
        if let (true, Ok(path)) = (self.dir.join("main.py").is_file(), "main.py".parse()) {
            return Ok(Entry::Script(path));
        }
        match runnable_packages(&self.dir).as_slice() {
            [only] => Ok(Entry::Module(only.clone())),
            packages => Err(EntryError::None {
                name: self.name.to_string(),
                dir: self.dir.clone(),
                help: suggestion(&self.dir, packages),
            }),
        }
    }

    /// The script that `entry` names, where no module of the project has that name.
    fn named_script(&self, entry: &Entry) -> Option<Entry> {
        let Entry::Module(name) = entry else {
            return None;
        };
        let script = self.scripts.get(name)?.parse().ok()?;
        let is_module = [self.dir.clone(), self.dir.join("src")]
            .iter()
            .any(|dir| dir.join(name).is_dir() || dir.join(format!("{name}.py")).is_file());
        (!is_module).then_some(script)
    }
}

/// Packages of the project, or of its `src` folder, that `python -m` can run.
fn runnable_packages(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = [dir.to_owned(), dir.join("src")]
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
        .filter(|child| child.path().join("__main__.py").is_file())
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| is_dotted_name(name))
        .collect();
    found.sort();
    found
}

fn suggestion(dir: &Path, packages: &[String]) -> String {
    let mut candidates = packages.to_vec();
    let mut scripts: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|child| child.path().is_file())
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| name.ends_with(".py") && name != "setup.py" && name != "conftest.py")
        .collect();
    scripts.sort();
    candidates.extend(scripts);
    candidates.truncate(8);
    let how = "name it with `--entry MODULE:CALLABLE`, or set `entry` in `[tool.pytheas]`";
    if candidates.is_empty() {
        format!("{how}; looked for `project.scripts`, `main.py` and a package with `__main__.py`")
    } else {
        format!(
            "{how}; it could be {}",
            listed(candidates.iter().map(String::as_str))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Entry>) {
        assert_eq!(text.parse::<Entry>().ok(), expected, "{text}");
    }

    #[test]
    fn an_entry_is_a_callable_a_module_or_a_script() {
        let callable = |module: &str, callable: &str| {
            Some(Entry::Callable {
                module: module.into(),
                callable: callable.into(),
            })
        };
        check("datasette.cli:cli", callable("datasette.cli", "cli"));
        check("a:b.c", callable("a", "b.c"));
        check("a.b : c [extra]", callable("a.b", "c"));
        check("httpie.__main__:main", callable("httpie.__main__", "main"));
        check("greenhouse", Some(Entry::Module("greenhouse".into())));
        check("ansible-doc", Some(Entry::Module("ansible-doc".into())));
        check("main.py", Some(Entry::Script("main.py".parse().unwrap())));
        check(
            "./bin/run.py",
            Some(Entry::Script("bin/run.py".parse().unwrap())),
        );
        for wrong in [
            "",
            ":",
            "a:",
            ":b",
            "-a",
            "a-b:c",
            "a:b()",
            "../main.py",
            "/main.py",
            "a..b",
            "a;import os:b",
            "1a",
        ] {
            check(wrong, None);
        }
    }
}
