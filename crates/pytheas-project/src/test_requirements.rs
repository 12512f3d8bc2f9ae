//! What a project's tests need beside the app: found where projects write it, and locked apart from
//! the app, with the app's own locked versions as limits.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pytheas_release::Sha256;

use crate::{
    event::Observer,
    lock::{self, LockError, LockOptions},
    normalised_name,
    project::{Project, ProjectError, RequirementSource},
    pylock::{PYLOCK_FILE, Pylock},
    requirements,
    uv::Uv,
};

/// Groups and extras that hold nothing but what tests need.
const OWN: [&str; 4] = ["test", "tests", "testing", "pytest"];
/// Groups and extras for everything that developers need.
const COMMON: [&str; 3] = ["dev", "develop", "development"];
/// The same as files, from the project's folder.
const FILES: [&str; 13] = [
    "requirements-test.txt",
    "requirements-tests.txt",
    "requirements_test.txt",
    "test-requirements.txt",
    "test_requirements.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
    "tests/requirements.txt",
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "requirements/dev.txt",
    "requirements/development.txt",
];
/// Tools of developers that no test imports; some have no wheel for a device's CPU.
const NOT_FOR_TESTS: &[&str] = &[
    "autopep8",
    "bandit",
    "black",
    "build",
    "bump2version",
    "bumpversion",
    "codespell",
    "commitizen",
    "flake8",
    "furo",
    "ipdb",
    "ipython",
    "isort",
    "jupyter",
    "jupyterlab",
    "mkdocs",
    "mkdocs-material",
    "mypy",
    "nox",
    "pip-tools",
    "pre-commit",
    "pydocstyle",
    "pylint",
    "pyre-check",
    "pyright",
    "pyupgrade",
    "ruff",
    "sphinx",
    "sphinx-rtd-theme",
    "tox",
    "tox-uv",
    "twine",
    "ty",
    "uv",
    "vulture",
    "yapf",
];

/// What tests need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRequirements {
    /// Requirements (PEP 508).
    pub requirements: Vec<String>,
    /// Files with more of them, absolute.
    pub files: Vec<PathBuf>,
    /// Where they are written, for people.
    pub from: Vec<String>,
    /// Names of developers' tools that were left out.
    pub left_out: Vec<String>,
}

impl TestRequirements {
    /// As the settings say; else the first of a dependency group, an extra or a file that is called
    /// as projects call it.
    ///
    /// # Errors
    /// [`ProjectError::UnknownGroup`] when the settings name one that does not exist.
    pub fn of(project: &Project) -> Result<Self, ProjectError> {
        let spec = &project.settings.test;
        let mut found = Self::default();
        if !spec.groups.is_empty() || !spec.extras.is_empty() {
            let (groups, extras) = (&project.dependency_groups, &project.optional_dependencies);
            for (what, names, table) in [
                ("dependency group", &spec.groups, groups),
                ("extra", &spec.extras, extras),
            ] {
                for name in names {
                    let wanted = normalised_name(name);
                    let list = table
                        .iter()
                        .find(|(other, _)| normalised_name(other) == wanted)
                        .ok_or_else(|| ProjectError::UnknownGroup {
                            dir: project.dir.clone(),
                            what,
                            name: name.clone(),
                            known: known(what, table.keys()),
                        })?;
                    found.take(what, name, list.1, true);
                }
            }
            return Ok(found);
        }
        for names in [OWN.as_slice(), COMMON.as_slice()] {
            let is_own = names == OWN.as_slice();
            for (what, table) in [
                ("dependency group", &project.dependency_groups),
                ("extra", &project.optional_dependencies),
            ] {
                let list = names
                    .iter()
                    .find_map(|name| Some((name, table.get(*name)?)));
                if let Some((name, list)) = list {
                    found.take(what, name, list, is_own);
                    return Ok(found);
                }
            }
        }
        if let Some(name) = FILES.iter().find(|name| project.dir.join(name).is_file()) {
            found.files.push(project.dir.join(name));
            found.from.push(format!("`{name}`"));
        }
        Ok(found)
    }

    fn take(&mut self, what: &str, name: &str, list: &[String], all: bool) {
        self.from.push(format!("{what} `{name}`"));
        for text in list {
            let package = requirements::parse(text)
                .map(|requirement| normalised_name(requirement.name.as_ref()));
            match package {
                Some(package) if !all && is_tool(&package) => self.left_out.push(package),
                _ => self.requirements.push(text.clone()),
            }
        }
    }

    /// Whether one of the requirements, or a line of one of the files, asks for `package`.
    pub fn asks_for(&self, package: &str) -> bool {
        let asks = |text: &str| {
            requirements::parse(text)
                .is_some_and(|requirement| normalised_name(requirement.name.as_ref()) == package)
        };
        self.requirements.iter().any(|text| asks(text))
            || self.files.iter().any(|file| {
                requirements::read(file)
                    .is_ok_and(|found| found.requirements.iter().any(|text| asks(text)))
            })
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && self.files.is_empty()
    }

    /// Locks them for the project's Pythons and platforms; where the app's lock `app` has a package,
    /// its version is the one that is taken. The lock is kept in `cache` under a name made of all
    /// that went into it, so that the same tests run with the same packages.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock(
        &self,
        project: &Project,
        app: &Pylock,
        cache: &Path,
        uv: &Uv,
        options: &LockOptions,
        observer: Observer<'_>,
    ) -> Result<(Pylock, PathBuf), LockError> {
        let mut text: String = self
            .requirements
            .iter()
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut seen = text.clone();
        for file in &self.files {
            text.push_str(&format!("-r {}\n", file.display()));
            let found = requirements::read(file)?;
            seen.push_str(&format!("{found:?}\n"));
        }
        let pins: BTreeSet<String> = app.packages.iter().filter_map(pin).collect();
        let pins: String = pins.iter().flat_map(|pin| [pin, "\n"]).collect();
        let key = format!(
            "1\n{seen}\n{pins}\n{:?}\n{:?}\n{:?}\n{:?}\n",
            options.python_version,
            project.requires_python,
            project.uv_settings,
            project.found.indexes
        );
        let key = Sha256::of(key.as_bytes()).to_string();
        let dir = cache.join("test-locks").join(&key[..32]);
        let path = dir.join(PYLOCK_FILE);
        if let Ok(Some(lock)) = Pylock::read(&path) {
            return Ok((lock, path));
        }
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Write { path, source }
        };
        pytheas_durable::create_dir_all(&dir).map_err(write(&dir))?;
        let constraints = dir.join("constraints.txt");
        pytheas_durable::replace(&constraints, pins.as_bytes()).map_err(write(&constraints))?;
        let file = dir.join("requirements.txt");
        text.push_str("-c constraints.txt\n");
        pytheas_durable::replace(&file, text.as_bytes()).map_err(write(&file))?;
        let mut tests = project.clone();
        tests.source = RequirementSource::RequirementsTxt;
        tests.input = "requirements.txt".to_owned();
        tests.lock_name = None;
        tests.dependencies.clear();
        tests.settings.extras.clear();
        tests.settings.groups.clear();
        tests.dir.clone_from(&dir);
        lock::lock_into(&tests, &path, uv, options, observer)?;
        let lock = Pylock::read(&path)?.ok_or(LockError::Missing { path: path.clone() })?;
        Ok((lock, path))
    }
}

fn is_tool(package: &str) -> bool {
    NOT_FOR_TESTS.contains(&package)
        || ["types-", "sphinx-", "mkdocs-", "flake8-", "pylint-"]
            .iter()
            .any(|start| package.starts_with(start))
}

/// A locked package as a limit for others.
fn pin(package: &crate::LockedPackage) -> Option<String> {
    let version = package.version.as_deref()?;
    let is_released =
        package.vcs.is_none() && package.directory.is_none() && package.archive.is_none();
    is_released.then(|| match &package.marker {
        Some(marker) => format!("{}=={version} ; {marker}", package.name),
        None => format!("{}=={version}", package.name),
    })
}

fn known<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        format!("there is no {what}; `[tool.pytheas.test]` names it")
    } else {
        format!(
            "`[tool.pytheas.test]` names it; there are {}",
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pyproject.toml");
        let text = format!("[project]\nname = \"a\"\nversion = \"1\"\n{text}");
        pytheas_durable::replace(&file, text.as_bytes()).unwrap();
        let project = Project::load(dir.path()).unwrap();
        (dir, project)
    }

    #[test]
    fn a_group_for_tests_comes_before_one_for_developers() {
        let (_dir, project) = project(
            "[dependency-groups]\ndev = [\"ruff\", \"pytest\"]\ntest = [\"pytest>=8\", \"mypy\"]\n",
        );
        let found = TestRequirements::of(&project).unwrap();
        assert_eq!(found.requirements, ["pytest>=8", "mypy"]);
        assert_eq!(found.from, ["dependency group `test`"]);
        assert!(found.asks_for("pytest") && !found.asks_for("ruff"));
    }

    #[test]
    fn tools_of_developers_stay_out_of_their_group() {
        let (_dir, project) = project(
            "[dependency-groups]\ndev = [\"Ruff>=0.6\", \"pytest\", \"types-requests\", \"trio\"]\n",
        );
        let found = TestRequirements::of(&project).unwrap();
        assert_eq!(found.requirements, ["pytest", "trio"]);
        assert_eq!(found.left_out, ["ruff", "types-requests"]);
    }

    #[test]
    fn a_group_that_the_settings_name_must_exist() {
        let (_dir, project) = project(
            "[dependency-groups]\nunit = [\"pytest\"]\n[tool.pytheas.test]\ngroups = [\"units\"]\n",
        );
        let error = TestRequirements::of(&project).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("has no dependency group `units`"),
            "{error}"
        );
        let help = miette::Diagnostic::help(&error).unwrap().to_string();
        assert_eq!(help, "`[tool.pytheas.test]` names it; there are `unit`");
    }
}
