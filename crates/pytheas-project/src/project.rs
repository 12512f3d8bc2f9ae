//! A Python project as Pytheas sees it: read from files, never by running them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::{Name, Version};

use crate::{
    manifest::{self, Manifest, ManifestError, closest, listed},
    python::PythonRequest,
    requirements::RequirementsError,
    settings::{Settings, Target},
};

/// Where the requirements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequirementSource {
    /// `[project]` of `pyproject.toml`.
    Pyproject,
    /// `requirements.txt`.
    RequirementsTxt,
}

impl RequirementSource {
    /// The file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Pyproject => "pyproject.toml",
            Self::RequirementsTxt => "requirements.txt",
        }
    }
}

/// A Python project in a folder.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// The app's name: `app` in `[tool.pytheas]`, else `project.name`, else the folder's name.
    pub name: Name,
    /// `project.version`; none when it is dynamic or there is no `[project]`.
    pub version: Option<Version>,
    /// Where the requirements are written.
    pub source: RequirementSource,
    /// `project.requires-python`.
    pub requires_python: Option<PythonRequest>,
    /// `project.dependencies`.
    pub dependencies: Vec<String>,
    /// `project.optional-dependencies`.
    pub optional_dependencies: BTreeMap<String, Vec<String>>,
    /// `[dependency-groups]`, `include-group` followed.
    pub dependency_groups: BTreeMap<String, Vec<String>>,
    /// `project.scripts`.
    pub scripts: BTreeMap<String, String>,
    /// Whether there is a `[build-system]`: the project is a distribution of its own.
    pub has_build_system: bool,
    /// `[tool.pytheas]`.
    pub settings: Settings,
    /// `[tool.uv]` in one spelling; it changes what a resolution gives.
    pub(crate) uv_settings: Option<String>,
}

/// A folder that is no project, or one that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProjectError {
    /// Not a folder.
    #[error("`{}` is not a folder", dir.display())]
    #[diagnostic(
        code(pytheas::project::no_folder),
        help("give the folder of a Python project")
    )]
    NoFolder {
        /// The path.
        dir: PathBuf,
    },
    /// No file that describes a project.
    #[error("no Python project in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::project::none),
        help(
            "looked for `pyproject.toml` and `requirements.txt`; an empty `requirements.txt` beside `main.py` is enough"
        )
    )]
    None {
        /// The folder.
        dir: PathBuf,
    },
    /// `pyproject.toml` cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Manifest(#[from] ManifestError),
    /// `requirements.txt` cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Requirements(#[from] RequirementsError),
    /// `pyproject.toml` has no `[project]`, and there is no `requirements.txt`.
    #[error("`{}` has no `[project]` table", dir.join("pyproject.toml").display())]
    #[diagnostic(
        code(pytheas::project::no_project_table),
        help("add `[project]` with `name`, `version` and `dependencies`, or a `requirements.txt`")
    )]
    NoProjectTable {
        /// The folder.
        dir: PathBuf,
    },
    /// The dependencies are computed by the project's own code.
    #[error("the dependencies of `{name}` are dynamic: they are known only to its own code")]
    #[diagnostic(
        code(pytheas::project::dynamic_dependencies),
        help("write them into `project.dependencies` of `{}`, or into a `requirements.txt` beside it", dir.join("pyproject.toml").display())
    )]
    DynamicDependencies {
        /// The project.
        name: String,
        /// Its folder.
        dir: PathBuf,
    },
    /// A name that no release can have.
    #[error("`{text}` is no usable name for an app")]
    #[diagnostic(
        code(pytheas::project::name),
        help("set `app` in `[tool.pytheas]` or give `--name`: letters, digits, `-`, `_`, `.`")
    )]
    Name {
        /// The text.
        text: String,
    },
    /// A version that no release can have.
    #[error("`{text}` is no usable version")]
    #[diagnostic(code(pytheas::project::version), help("correct `project.version`"))]
    Version {
        /// The text.
        text: String,
    },
    /// An extra or group that does not exist.
    #[error("`{}` has no {what} `{name}`", dir.join("pyproject.toml").display())]
    #[diagnostic(code(pytheas::project::unknown_group), help("{known}"))]
    UnknownGroup {
        /// The folder.
        dir: PathBuf,
        /// `extra` or `dependency group`.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A dependency group that cannot be read.
    #[error("dependency group `{name}` in `{}`: {reason}", dir.join("pyproject.toml").display())]
    #[diagnostic(
        code(pytheas::project::group),
        help("PEP 735: a group is a list of requirements and `{{include-group = \"…\"}}`")
    )]
    Group {
        /// The folder.
        dir: PathBuf,
        /// The group.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A default that the option's own type does not allow.
    #[error("option `{option}` in `{}`: {reason}", dir.join("pyproject.toml").display())]
    #[diagnostic(
        code(pytheas::project::config),
        help("correct its `default` or its `type` in `[tool.pytheas.config]`")
    )]
    Config {
        /// The folder.
        dir: PathBuf,
        /// The option.
        option: String,
        /// What is wrong.
        reason: String,
    },
    /// A target that does not exist.
    #[error("no target `{name}` in `{}`", dir.join("pyproject.toml").display())]
    #[diagnostic(code(pytheas::project::unknown_target), help("{known}"))]
    UnknownTarget {
        /// The folder.
        dir: PathBuf,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
}

impl Project {
    /// Reads the project in `dir`: `pyproject.toml`, `requirements.txt`, or both.
    ///
    /// # Errors
    /// When there is none, or what there is cannot be used; see [`ProjectError`].
    pub fn load(dir: &Path) -> Result<Self, ProjectError> {
        let dir = dir.canonicalize().map_err(|_| ProjectError::NoFolder {
            dir: dir.to_owned(),
        })?;
        if !dir.is_dir() {
            return Err(ProjectError::NoFolder { dir });
        }
        let pyproject = dir.join("pyproject.toml");
        let has_requirements = dir.join("requirements.txt").is_file();
        let manifest = if pyproject.is_file() {
            manifest::read(&pyproject)?
        } else if has_requirements {
            Manifest::default()
        } else {
            return Err(ProjectError::None { dir });
        };
        Self::from_manifest(dir, manifest, has_requirements)
    }

    fn from_manifest(
        dir: PathBuf,
        manifest: Manifest,
        has_requirements: bool,
    ) -> Result<Self, ProjectError> {
        let table = manifest.project;
        let dynamic = |what: &str| {
            table
                .as_ref()
                .is_some_and(|table| table.dynamic.iter().any(|name| name == what))
        };
        let source = match &table {
            Some(table) if dynamic("dependencies") && !has_requirements => {
                return Err(ProjectError::DynamicDependencies {
                    name: table.name.clone(),
                    dir,
                });
            }
            Some(_) if !dynamic("dependencies") => RequirementSource::Pyproject,
            None if !has_requirements => return Err(ProjectError::NoProjectTable { dir }),
            _ => RequirementSource::RequirementsTxt,
        };
        let name = match (&manifest.tool.pytheas.app, &table) {
            (Some(app), _) => app.clone(),
            (None, Some(table)) => table.name.parse().map_err(|_| ProjectError::Name {
                text: table.name.clone(),
            })?,
            (None, None) => name_of_folder(&dir)?,
        };
        let version = match table.as_ref().and_then(|table| table.version.as_ref()) {
            Some(text) => {
                let version = text
                    .parse()
                    .map_err(|_| ProjectError::Version { text: text.clone() })?;
                Some(version)
            }
            None => None,
        };
        let mut project = Self {
            name,
            version,
            source,
            has_build_system: manifest.build_system.is_some() && table.is_some(),
            uv_settings: manifest
                .tool
                .uv
                .map(|table| toml::Value::Table(table).to_string()),
            settings: manifest.tool.pytheas,
            dependency_groups: BTreeMap::new(),
            requires_python: None,
            dependencies: Vec::new(),
            optional_dependencies: BTreeMap::new(),
            scripts: BTreeMap::new(),
            dir,
        };
        for name in manifest.dependency_groups.keys() {
            let mut requirements = Vec::new();
            project.flatten_group(
                name,
                &manifest.dependency_groups,
                &mut Vec::new(),
                &mut requirements,
            )?;
            project.dependency_groups.insert(name.clone(), requirements);
        }
        if let Some(table) = table {
            project.requires_python = table.requires_python;
            project.dependencies = table.dependencies;
            project.optional_dependencies = table.optional_dependencies;
            project.scripts = table.scripts;
        }
        project.check_groups()?;
        for (option, spec) in &project.settings.config {
            spec.check().map_err(|reason| ProjectError::Config {
                dir: project.dir.clone(),
                option: option.clone(),
                reason,
            })?;
        }
        Ok(project)
    }

    /// PEP 735: strings are requirements, `{include-group = "x"}` stands for another group.
    fn flatten_group(
        &self,
        name: &str,
        groups: &BTreeMap<String, Vec<toml::Value>>,
        open: &mut Vec<String>,
        into: &mut Vec<String>,
    ) -> Result<(), ProjectError> {
        let wrong = |reason: String| ProjectError::Group {
            dir: self.dir.clone(),
            name: name.to_owned(),
            reason,
        };
        if open.iter().any(|group| same_name(group, name)) {
            return Err(wrong(format!(
                "includes itself: {} -> {name}",
                open.join(" -> ")
            )));
        }
        let Some(items) = groups
            .iter()
            .find(|(group, _)| same_name(group, name))
            .map(|(_, items)| items)
        else {
            return Err(wrong(
                "does not exist, but another group includes it".to_owned(),
            ));
        };
        open.push(name.to_owned());
        for item in items {
            match item {
                toml::Value::String(requirement) => into.push(requirement.clone()),
                toml::Value::Table(table) => {
                    match table.get("include-group").and_then(toml::Value::as_str) {
                        Some(other) if table.len() == 1 => {
                            self.flatten_group(other, groups, open, into)?
                        }
                        _ => return Err(wrong(format!("`{item}` is not understood"))),
                    }
                }
                _ => return Err(wrong(format!("`{item}` is not understood"))),
            }
        }
        open.pop();
        Ok(())
    }

    /// The extras and groups that the settings name exist.
    fn check_groups(&self) -> Result<(), ProjectError> {
        let check = |what: &'static str, wanted: &[String], known: Vec<&String>| match wanted
            .iter()
            .find(|name| !known.iter().any(|other| same_name(other, name)))
        {
            None => Ok(()),
            Some(name) => Err(ProjectError::UnknownGroup {
                dir: self.dir.clone(),
                what,
                name: name.clone(),
                known: known_help(name, known.iter().map(|name| name.as_str())),
            }),
        };
        check(
            "extra",
            &self.settings.extras,
            self.optional_dependencies.keys().collect(),
        )?;
        check(
            "dependency group",
            &self.settings.groups,
            self.dependency_groups.keys().collect(),
        )
    }

    /// The target `name`; the default target without a name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn target(&self, name: Option<&str>) -> Result<Target, ProjectError> {
        let Some(name) = name else {
            return Ok(Target::default());
        };
        self.settings
            .target
            .get(name)
            .cloned()
            .ok_or_else(|| ProjectError::UnknownTarget {
                dir: self.dir.clone(),
                name: name.to_owned(),
                known: known_help(name, self.settings.target.keys().map(String::as_str)),
            })
    }

    /// The Python that is wanted: `wanted` (a flag or a target), else `python` in
    /// `[tool.pytheas]`, else `.python-version`, else `requires-python`.
    pub fn python(&self, wanted: Option<&PythonRequest>) -> Option<PythonRequest> {
        wanted
            .or(self.settings.python.as_ref())
            .cloned()
            .or_else(|| PythonRequest::from_version_file(&self.dir))
            .or_else(|| self.requires_python.clone())
    }
}

fn known_help<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match closest(wrong, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.clone().next().is_none() => "there are none".to_owned(),
        None => format!("there are {}", listed(known)),
    }
}

/// PEP 503 and 735: case and runs of `-`, `_`, `.` do not matter.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    normalised_name(a) == normalised_name(b)
}

/// A distribution's name as PEP 503 normalises it.
pub fn normalised_name(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if result.ends_with('-') => {}
            '-' | '_' | '.' => result.push('-'),
            c => result.extend(c.to_lowercase()),
        }
    }
    result
}

/// The folder's name with what a name cannot hold replaced by `-`.
fn name_of_folder(dir: &Path) -> Result<Name, ProjectError> {
    let text = dir.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(allowed).collect();
    name.trim_matches(['-', '.', '_'])
        .parse()
        .map_err(|_| ProjectError::Name {
            text: text.into_owned(),
        })
}
