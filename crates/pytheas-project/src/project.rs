//! A Python project as Pytheas sees it: read from files, never by running them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::{Name, Version};

use crate::{
    manifest::{self, Manifest, ManifestError, closest, listed},
    pylock::PYLOCK_FILE,
    python::PythonRequest,
    requirements::RequirementsError,
    settings::{Settings, Target},
    source::{self, Found, InputError, Sources},
};

/// Where the requirements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequirementSource {
    /// `[project]` of `pyproject.toml`.
    #[default]
    Pyproject,
    /// `requirements.txt`, or another file in its format.
    RequirementsTxt,
    /// `[tool.poetry]` of `pyproject.toml`.
    Poetry,
    /// `setup.cfg`, where it says all.
    SetupCfg,
    /// Known to the project's build back end only.
    BuildBackend,
    /// pipenv's `Pipfile`.
    Pipfile,
    /// pipenv's `Pipfile.lock`, without a Pipfile.
    PipfileLock,
    /// conda's `environment.yml`.
    EnvironmentYml,
    /// The inline metadata of a script (PEP 723).
    Script,
    /// A requirement given by the user: a published package.
    Published,
    /// Nowhere: a bare package or a zip application has none.
    Nothing,
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
    /// The file with the requirements, relative to the folder; for a published package the flag
    /// that names it; empty when there is none.
    pub input: String,
    /// The app's own files.
    pub sources: Sources,
    /// The package (normalised name) that is the app, when it is one of the locked packages.
    pub package: Option<String>,
    /// What was decided while reading and should be said.
    pub notes: Vec<String>,
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
    /// What its reader found besides: indexes and the like.
    pub(crate) found: Found,
    /// `NAME` of `pylock.NAME.toml`, where `pylock.toml` would be another's.
    pub(crate) lock_name: Option<String>,
}

/// A folder that is no project, or one that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProjectError {
    /// It cannot be found.
    #[error("cannot find `{}`", path.display())]
    #[diagnostic(
        code(pytheas::project::missing),
        help(
            "check the path: a project's folder, one of its files, a script, or a zip application"
        )
    )]
    Missing {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
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
            "looked for `pyproject.toml`, `setup.py`, `setup.cfg`, `Pipfile`, `requirements.txt`, `environment.yml`, `main.py` and a package's `__init__.py`; a script of another name is given by its path"
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
    /// Another kind of input cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(#[from] InputError),
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
    /// Reads the project in the folder `path`, or the one that the file `path` stands for; the
    /// order in which a folder's files are looked at is that of `source`.
    ///
    /// # Errors
    /// When there is none, or what there is cannot be used; see [`ProjectError`].
    pub fn load(path: &Path) -> Result<Self, ProjectError> {
        if path.is_file() {
            return source::load_file(path);
        }
        let dir = path
            .canonicalize()
            .map_err(|source| ProjectError::Missing {
                path: path.to_owned(),
                source,
            })?;
        if !dir.is_dir() {
            return Err(ProjectError::NoFolder { dir });
        }
        Self::from_folder(dir, None)
    }

    /// The project in `dir` with the requirements of its file `picked`.
    pub(crate) fn load_picked(dir: &Path, picked: &str) -> Result<Self, ProjectError> {
        Self::from_folder(dir.to_owned(), Some(picked))
    }

    /// A project of which nothing is known.
    pub(crate) fn empty(dir: PathBuf, name: Name) -> Self {
        Self {
            dir,
            name,
            version: None,
            source: RequirementSource::default(),
            input: String::new(),
            sources: Sources::default(),
            package: None,
            notes: Vec::new(),
            requires_python: None,
            dependencies: Vec::new(),
            optional_dependencies: BTreeMap::new(),
            dependency_groups: BTreeMap::new(),
            scripts: BTreeMap::new(),
            has_build_system: false,
            settings: Settings::default(),
            uv_settings: None,
            found: Found::default(),
            lock_name: None,
        }
    }

    /// The lock file: `pylock.toml` of the folder; `pylock.NAME.toml` for a script, a zip
    /// application or a published package, which may lie beside other projects.
    pub fn lock_path(&self) -> PathBuf {
        match &self.lock_name {
            Some(name) => self.dir.join(format!("pylock.{name}.toml")),
            None => self.dir.join(PYLOCK_FILE),
        }
    }

    /// What the requirements are read from, for people.
    pub fn input_path(&self) -> PathBuf {
        match self.source {
            RequirementSource::Published => PathBuf::from(&self.input),
            _ if self.input.is_empty() => self.dir.clone(),
            _ => self.dir.join(&self.input),
        }
    }

    fn from_folder(dir: PathBuf, picked: Option<&str>) -> Result<Self, ProjectError> {
        let pyproject = dir.join("pyproject.toml");
        let manifest = if pyproject.is_file() {
            manifest::read(&pyproject)?
        } else {
            Manifest::default()
        };
        let choice = source::choose(&dir, &manifest, picked)?;
        let table = manifest.project;
        let found = choice.found;
        let name = match (&manifest.tool.pytheas.app, &table) {
            (Some(app), _) => app.clone(),
            (None, Some(table)) => table.name.parse().map_err(|_| ProjectError::Name {
                text: table.name.clone(),
            })?,
            (None, None) => match &found.name {
                Some(text) => text
                    .parse()
                    .map_err(|_| ProjectError::Name { text: text.clone() })?,
                None => name_of_folder(&dir)?,
            },
        };
        let version = match table
            .as_ref()
            .map_or(found.version.as_ref(), |table| table.version.as_ref())
        {
            Some(text) => {
                let version = text
                    .parse()
                    .map_err(|_| ProjectError::Version { text: text.clone() })?;
                Some(version)
            }
            None => None,
        };
        let mut project = Self {
            version,
            source: choice.source,
            input: choice.file,
            sources: choice.sources,
            has_build_system: choice.is_distribution
                || manifest.build_system.is_some() && table.is_some(),
            uv_settings: manifest
                .tool
                .uv
                .map(|table| toml::Value::Table(table).to_string()),
            settings: manifest.tool.pytheas,
            notes: found.notes.clone(),
            found,
            ..Self::empty(dir, name)
        };
        if project.settings.entry.is_none() {
            project.settings.entry = choice.entry;
        }
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
            project.optional_dependencies = table.optional_dependencies;
            project.scripts = table.scripts;
            if project.source == RequirementSource::Pyproject {
                project.dependencies = table.dependencies;
            }
        }
        project.take_found();
        project.check()?;
        Ok(project)
    }

    /// Adds what the reader of another kind of input found.
    fn take_found(&mut self) {
        let found = &mut self.found;
        self.requires_python = self.requires_python.take().or(found.requires_python.take());
        self.dependencies.append(&mut found.dependencies);
        self.optional_dependencies.append(&mut found.extras);
        self.dependency_groups.append(&mut found.groups);
        if self.scripts.is_empty() {
            self.scripts = std::mem::take(&mut found.scripts);
        }
    }

    /// The settings name what there is, and defaults fit their types.
    pub(crate) fn check(&self) -> Result<(), ProjectError> {
        let project = self;
        project.check_groups()?;
        for (option, spec) in &project.settings.config {
            spec.check().map_err(|reason| ProjectError::Config {
                dir: project.dir.clone(),
                option: option.clone(),
                reason,
            })?;
        }
        Ok(())
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
    pub(crate) fn check_groups(&self) -> Result<(), ProjectError> {
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

    /// The names of the targets with this form.
    pub fn targets_of_form(&self, form: &str) -> Vec<&str> {
        let targets = self.settings.target.iter();
        targets
            .filter(|(_, target)| target.form.as_deref() == Some(form))
            .map(|(name, _)| name.as_str())
            .collect()
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
