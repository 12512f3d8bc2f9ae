//! Which of a folder's files says what the app needs, and what a file named by the user is.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pytheas_release::Name;

use super::{Found, InputError, Sources, conda, pipfile, poetry, script, setup};
use crate::{
    entry::Entry,
    manifest::{Manifest, listed},
    project::{Project, ProjectError, RequirementSource, normalised_name},
};

/// What was chosen for a folder.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) source: RequirementSource,
    /// The file, relative to the project's folder.
    pub(crate) file: String,
    pub(crate) found: Found,
    /// Whether the folder can be built into a wheel though it has no `[build-system]`.
    pub(crate) is_distribution: bool,
    pub(crate) sources: Sources,
    pub(crate) entry: Option<Entry>,
}

const OTHERS: &[&str] = &[
    "setup.cfg",
    "setup.py",
    "Pipfile",
    "Pipfile.lock",
    "requirements.txt",
    "environment.yml",
    "environment.yaml",
];

/// Chooses in `dir`; `picked` is the file that the user names, if any.
pub(crate) fn choose(
    dir: &Path,
    manifest: &Manifest,
    picked: Option<&str>,
) -> Result<Choice, ProjectError> {
    let is_there = |name: &str| dir.join(name).is_file();
    let table = manifest.project.as_ref();
    let poetry_table = manifest.tool.poetry.as_ref();
    let is_dynamic =
        table.is_some_and(|table| table.dynamic.iter().any(|name| name == "dependencies"));
    let has_setup = is_there("setup.py") || setup::describes(dir);
    let of = |source, file: &str| Choice {
        source,
        file: file.to_owned(),
        ..Choice::default()
    };
    let kind = match picked {
        Some(name) => kind_of(name).ok_or_else(|| InputError::Unknown {
            file: dir.join(name),
        })?,
        None => Kind::Pyproject,
    };
    let mut choice = match (picked, kind) {
        (Some(name), Kind::Requirements) => of(RequirementSource::RequirementsTxt, name),
        (Some(name), Kind::Pipfile) => of(RequirementSource::Pipfile, name),
        (Some(name), Kind::PipfileLock) => of(RequirementSource::PipfileLock, name),
        (Some(name), Kind::Conda) => of(RequirementSource::EnvironmentYml, name),
        (Some(name), Kind::Setup) => of(RequirementSource::SetupCfg, name),
        _ => match (table, poetry_table) {
            (Some(_), _) if !is_dynamic => of(RequirementSource::Pyproject, "pyproject.toml"),
            (_, Some(poetry)) if poetry.contains_key("dependencies") || table.is_none() => {
                of(RequirementSource::Poetry, "pyproject.toml")
            }
            (Some(_), _)
                if picked.is_none()
                    && is_there("requirements.txt")
                    && manifest.has_requirements_txt() =>
            {
                of(RequirementSource::RequirementsTxt, "requirements.txt")
            }
            (Some(_), _) if manifest.build_system.is_some() || has_setup => {
                of(RequirementSource::BuildBackend, "pyproject.toml")
            }
            (Some(table), _) => {
                return Err(ProjectError::DynamicDependencies {
                    name: table.name.clone(),
                    dir: dir.to_owned(),
                });
            }
            (None, _) if picked.is_some() => {
                return Err(ProjectError::NoProjectTable {
                    dir: dir.to_owned(),
                });
            }
            (None, _) if has_setup => {
                let file = if is_there("setup.py") {
                    "setup.py"
                } else {
                    "setup.cfg"
                };
                of(RequirementSource::SetupCfg, file)
            }
            (None, _) => without_distribution(dir)?,
        },
    };
    let file = dir.join(&choice.file);
    let variable = |name: &str| std::env::var(name).ok();
    choice.found = match choice.source {
        RequirementSource::Poetry => {
            let mut found = poetry::read(&file, poetry_table.unwrap_or(&toml::Table::new()))?;
            choice.is_distribution = found.is_package && manifest.build_system.is_some();
            found.name = found.name.filter(|_| table.is_none());
            found
        }
        RequirementSource::SetupCfg => {
            let setup = setup::read(dir)?;
            choice.is_distribution = true;
            if setup.is_static {
                choice.file = "setup.cfg".to_owned();
            } else {
                choice.source = RequirementSource::BuildBackend;
            }
            setup.found
        }
        RequirementSource::Pipfile => pipfile::read(&file, &variable)?,
        RequirementSource::PipfileLock => pipfile::read_lock(&file, &variable)?,
        RequirementSource::EnvironmentYml => conda::read(&file)?,
        _ => std::mem::take(&mut choice.found),
    };
    // setuptools beside a `pyproject.toml` with dynamic dependencies: its scripts may be there, too.
    if choice.source == RequirementSource::BuildBackend && table.is_none() {
        choice.is_distribution = true;
    }
    let read = match choice.source {
        RequirementSource::BuildBackend => crate::local_files::named_files(dir),
        _ => BTreeSet::new(),
    };
    let unused: Vec<&str> = OTHERS
        .iter()
        .copied()
        .filter(|name| is_there(name) && !belongs(name, &choice))
        .filter(|name| !read.contains(Path::new(name)))
        .collect();
    if picked.is_none() && !unused.is_empty() && !choice.file.is_empty() {
        let (what, are) = if unused.len() == 1 {
            ("is", "not")
        } else {
            ("are", "not")
        };
        choice.found.notes.push(format!(
            "requirements are those of `{}`; {} {what} {are} used (`--project FILE` names one)",
            choice.file,
            listed(unused)
        ));
    }
    Ok(choice)
}

/// Whether a file is part of what was chosen rather than another choice.
fn belongs(name: &str, choice: &Choice) -> bool {
    match choice.source {
        RequirementSource::Pyproject | RequirementSource::Poetry => {
            matches!(name, "setup.py" | "setup.cfg")
        }
        RequirementSource::BuildBackend | RequirementSource::SetupCfg => {
            matches!(name, "setup.py" | "setup.cfg")
        }
        RequirementSource::Pipfile => matches!(name, "Pipfile" | "Pipfile.lock" | "setup.cfg"),
        _ => name == choice.file || name == "setup.cfg",
    }
}

fn without_distribution(dir: &Path) -> Result<Choice, ProjectError> {
    let known = [
        (RequirementSource::Pipfile, "Pipfile"),
        (RequirementSource::PipfileLock, "Pipfile.lock"),
        (RequirementSource::RequirementsTxt, "requirements.txt"),
    ];
    let first = known.iter().find(|(_, name)| dir.join(name).is_file());
    let of = |source, file: String| Choice {
        source,
        file,
        ..Choice::default()
    };
    if let Some((source, name)) = first {
        return Ok(of(*source, (*name).to_owned()));
    }
    match requirements_files(dir).as_slice() {
        [] => {}
        [only] => return Ok(of(RequirementSource::RequirementsTxt, only.clone())),
        several => {
            return Err(InputError::Several {
                dir: dir.to_owned(),
                files: listed(several.iter().map(String::as_str)),
            }
            .into());
        }
    }
    for name in ["environment.yml", "environment.yaml"] {
        if dir.join(name).is_file() {
            return Ok(of(RequirementSource::EnvironmentYml, name.to_owned()));
        }
    }
    // `main.py` alone is an app; a package's own is not.
    if dir.join("main.py").is_file() && !dir.join("__init__.py").is_file() {
        let mut choice = of(RequirementSource::Nothing, String::new());
        choice.found.notes.push(
            "nothing says what `main.py` requires: it gets no packages (`requirements.txt` would)"
                .to_owned(),
        );
        return Ok(choice);
    }
    if dir.join("pyproject.toml").is_file() {
        return Err(ProjectError::NoProjectTable {
            dir: dir.to_owned(),
        });
    }
    bare_package(dir).ok_or_else(|| ProjectError::None {
        dir: dir.to_owned(),
    })
}

/// A folder that is a package, or that `python FOLDER` runs.
fn bare_package(dir: &Path) -> Option<Choice> {
    let is_runnable = dir.join("__main__.py").is_file();
    let name = dir.file_name()?.to_str()?.to_owned();
    let mut choice = Choice {
        source: RequirementSource::Nothing,
        ..Choice::default()
    };
    if dir.join("__init__.py").is_file() {
        choice.entry = is_runnable.then(|| Entry::Module(name.clone()));
        choice.sources = Sources::Package(name);
        return Some(choice);
    }
    if is_runnable {
        choice.entry = "__main__.py".parse().ok().map(Entry::Script);
        return Some(choice);
    }
    None
}

fn requirements_files(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| {
            kind_of(name) == Some(Kind::Requirements) && name.starts_with("requirements")
        })
        .collect();
    found.sort();
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pyproject,
    Setup,
    Pipfile,
    PipfileLock,
    Requirements,
    Conda,
    Script,
    Zipapp,
}

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "pyproject.toml" => Kind::Pyproject,
        "setup.py" | "setup.cfg" => Kind::Setup,
        "Pipfile" => Kind::Pipfile,
        "Pipfile.lock" => Kind::PipfileLock,
        _ if name.ends_with(".txt") || name.ends_with(".in") => Kind::Requirements,
        _ if name.ends_with(".yml") || name.ends_with(".yaml") => Kind::Conda,
        _ if name.ends_with(".py") || name.ends_with(".pyw") => Kind::Script,
        _ if name.ends_with(".pyz") || name.ends_with(".pyzw") || name.ends_with(".pex") => {
            Kind::Zipapp
        }
        _ => return None,
    })
}

/// The project that a file named by the user stands for.
pub(crate) fn load_file(path: &Path) -> Result<Project, ProjectError> {
    let path = path
        .canonicalize()
        .map_err(|source| ProjectError::Missing {
            path: path.to_owned(),
            source,
        })?;
    let unknown = || InputError::Unknown { file: path.clone() };
    let (Some(dir), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(unknown().into());
    };
    match kind_of(name).ok_or_else(unknown)? {
        Kind::Script => load_script(&path, dir, name),
        Kind::Zipapp => {
            check_zipapp(&path)?;
            let file = name.parse().map_err(|_| unknown())?;
            let mut project = single(dir, name, RequirementSource::Nothing)?;
            project.settings.entry = Some(Entry::Script(name.parse().map_err(|_| unknown())?));
            project.sources = Sources::File(file);
            Ok(project)
        }
        // `requirements/prod.txt` is a file of the project above.
        Kind::Requirements
            if matches!(
                dir.file_name().and_then(|name| name.to_str()),
                Some("requirements" | "reqs" | "requires")
            ) =>
        {
            let folder: PathBuf = dir
                .file_name()
                .into_iter()
                .chain(path.file_name())
                .collect();
            let (above, file) = (dir.parent().unwrap_or(dir), folder.display().to_string());
            Project::load_picked(above, &file)
        }
        _ => Project::load_picked(dir, name),
    }
}

/// A zip application has a `__main__` (PEP 441); what Python cannot start is not built.
fn check_zipapp(path: &Path) -> Result<(), InputError> {
    let wrong = |reason: &str| InputError::Zipapp {
        file: path.to_owned(),
        reason: reason.to_owned(),
    };
    let file = std::fs::File::open(path).map_err(|error| wrong(&format!("unreadable: {error}")))?;
    let archive =
        zip::ZipArchive::new(file).map_err(|error| wrong(&format!("no zip archive: {error}")))?;
    let is_main = |name: &str| matches!(name, "__main__.py" | "__main__.pyc");
    if archive.file_names().flatten().any(|name| is_main(&name)) {
        Ok(())
    } else {
        Err(wrong("an archive without a `__main__.py` at its top"))
    }
}

fn load_script(path: &Path, dir: &Path, name: &str) -> Result<Project, ProjectError> {
    let script: pytheas_release::RelPath = name.parse().map_err(|_| InputError::Unknown {
        file: path.to_owned(),
    })?;
    let metadata = script::read(path)?;
    let Some(metadata) = metadata else {
        // A script of a project is what starts it.
        if let Ok(mut project) = Project::load(dir)
            && project.source != RequirementSource::Nothing
        {
            project.settings.entry = Some(Entry::Script(script));
            return Ok(project);
        }
        let mut project = single(dir, name, RequirementSource::Nothing)?;
        project.settings.entry = Some(Entry::Script(script.clone()));
        project.sources = Sources::File(script);
        project.notes.push(format!(
            "`{name}` has no `# /// script` block and no project beside it: it gets no packages"
        ));
        return Ok(project);
    };
    let mut project = single(dir, name, RequirementSource::Script)?;
    project.settings = metadata.tool.pytheas;
    if let Some(app) = &project.settings.app {
        project.name = app.clone();
    }
    project.uv_settings = metadata
        .tool
        .uv
        .map(|table| toml::Value::Table(table).to_string());
    project.dependencies = metadata.dependencies;
    project.requires_python = metadata.requires_python;
    project.settings.entry = Some(Entry::Script(script.clone()));
    project.sources = Sources::File(script);
    project.check()?;
    Ok(project)
}

/// A project that is one file.
fn single(dir: &Path, name: &str, source: RequirementSource) -> Result<Project, ProjectError> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let text: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect();
    let app: Name = text
        .trim_matches(['-', '.', '_'])
        .parse()
        .map_err(|_| ProjectError::Name {
            text: stem.to_owned(),
        })?;
    Ok(Project {
        source,
        input: name.to_owned(),
        lock_name: Some(normalised_name(stem)),
        ..Project::empty(dir.to_owned(), app)
    })
}
