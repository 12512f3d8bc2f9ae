//! A project's own tests inside what is shipped: the artifact's interpreter, the artifact's copy of
//! the app and its packages; beside them, outside of the artifact, the test tools and a copy of the
//! project. Other CPUs are emulated (`emulation`). What tests may import is kept honest by
//! `guard.py`; how they went is written down by `run.py`.
//!
//! ```text
//! SCRATCH/artifact/   what was built, unless it was given (`--built`); an unpacked one-file bundle
//!        /venv/       forms without an interpreter: the environment that a device would make
//!        /tools/      the test requirements, for the artifact's CPU and Python
//!        /whole/      with `slim`: the app's packages uncut, for tests and tools only
//!        /project/    the copy of the project that tests run in
//!        /boot/       guard.py as sitecustomize.py, run.py, how it went
//! ```

mod emulation;
mod error;
mod subject;
mod unpack;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pytheas_project::{Environment, TestRequirements, Uv, lock::LockOptions};
use pytheas_release::{Tree, TreeId};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use emulation::Emulation;
pub use error::TestError;
use subject::Subject;

use crate::{
    app,
    build::BuildRequest,
    bytecode,
    error::{BuildError, io_error},
    event::{Event, Observer},
    install::Installer,
    scratch::{self, Kind},
};

const GUARD: &str = include_str!("testing/guard.py");
pub(crate) const RUN: &str = include_str!("testing/run.py");

/// What to test.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// What is built, or how [`Self::built`] was.
    pub build: BuildRequest,
    /// Something built already: a bundle's or wheelhouse's folder, or a one-file bundle.
    pub built: Option<PathBuf>,
    /// Test the bundle as one file unpacks it.
    pub one_file: bool,
    /// Where a JUnit report goes.
    pub junit: Option<PathBuf>,
    /// Further arguments for the runner.
    pub arguments: Vec<String>,
}

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestOutcome {
    /// As it should.
    Passed,
    /// An assertion does not hold.
    Failed,
    /// It could not be run to its end.
    Error,
    /// It was not run, or was expected to fail.
    Skipped,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// Its name, as the runner calls it.
    pub name: String,
    /// How it went.
    pub outcome: TestOutcome,
    /// How long it took.
    pub seconds: f64,
    /// What it said when it failed.
    #[serde(default)]
    pub text: String,
}

/// How the tests went.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Name and version of the app.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The form that was tested.
    pub form: String,
    /// The platform.
    pub platform: String,
    /// The interpreter's version.
    pub python: String,
    /// The emulator; none on this machine's own CPU.
    pub emulator: Option<PathBuf>,
    /// What was run, e.g. `pytest -q`.
    pub command: String,
    /// The artifact's tree, the same before and after; none for a wheel.
    pub tree_id: Option<String>,
    /// Whether all went well and there was at least one test.
    pub passed: bool,
    /// The runner's exit code; none when a signal ended it.
    pub exit_code: Option<i32>,
    /// Every test; empty for runners that do not tell.
    pub tests: Vec<TestCase>,
    /// Modules that were not found, in the order of their first failure.
    pub missing: Vec<String>,
    /// Those of them that `slim` cut out; `keep` brings them back.
    pub cut: Vec<String>,
    /// How long the run took.
    pub seconds: f64,
}

impl TestReport {
    /// How many went so.
    pub fn count(&self, outcome: &TestOutcome) -> usize {
        self.tests
            .iter()
            .filter(|test| test.outcome == *outcome)
            .count()
    }
}

/// Everything in place for a run.
#[derive(Debug)]
pub struct Prepared {
    scratch: TempDir,
    subject: Subject,
    emulation: Emulation,
    before: Option<Tree>,
    mode: &'static str,
    arguments: Vec<String>,
    junit: Option<PathBuf>,
    environment: Environment,
    python: String,
    /// Where a module that `slim` cut out would lie.
    uncut: Vec<PathBuf>,
}

/// What `run.py` writes.
#[derive(Debug, Default, Deserialize)]
struct Written {
    tests: Vec<TestCase>,
    missing: Vec<String>,
}

/// Builds the artifact unless it is given, and lays tools and tests beside it.
///
/// # Errors
/// See [`TestError`].
pub fn prepare_tests(request: &TestRequest, observer: Observer<'_>) -> Result<Prepared, TestError> {
    let project = &request.build.project;
    let needs = with_runner(
        project,
        TestRequirements::of(project).map_err(BuildError::from)?,
        observer,
    )?;
    let (mode, mut arguments) = command(project.settings.test.command.as_deref(), needs.1)?;
    let needs = needs.0;
    arguments.extend(request.arguments.iter().cloned());
    let junit = request.junit.as_deref().map(absolute).transpose()?;
    if junit.is_some() && mode == "python" {
        return Err(TestError::Junit {
            command: project.settings.test.command.clone().unwrap_or_default(),
        });
    }
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let root = scratch
        .path()
        .canonicalize()
        .map_err(io_error("read", scratch.path()))?;

    let uv = Uv::find(
        &request.build.environment,
        request.build.connectivity,
        &|event| observer(Event::Project(event)),
    )
    .map_err(BuildError::from)?;
    let (mut subject, parts) = subject::prepare(request, &root, &uv, observer)?;
    let installer = Installer {
        interpreter: &parts.interpreter,
        platform: &parts.platform,
        uv: &uv,
        connectivity: request.build.connectivity,
        environment: &request.build.environment,
        observer,
    };
    let emulation = emulation::find(
        &parts.platform,
        &parts.interpreter.python(),
        &request.build.environment,
    )?;
    if subject.dir.is_none() || subject.form == "wheelhouse" {
        subject.make_environment(&root, &parts, &installer, &emulation)?;
    }
    let subject = subject;

    let mut tools = None;
    if !needs.is_empty() {
        step(observer, "installing what the tests need");
        let short = parts
            .interpreter
            .version
            .splitn(3, '.')
            .take(2)
            .collect::<Vec<_>>()
            .join(".");
        let options = LockOptions {
            python_version: Some(short),
            interpreter: parts.interpreter.tool(),
            ..LockOptions::default()
        };
        let cache = request.build.environment.cache_dir();
        let tell = |event| observer(Event::Project(event));
        let (lock, path) = needs
            .lock(project, &parts.lock.content, &cache, &uv, &options, &tell)
            .map_err(BuildError::from)?;
        let site = root.join("tools");
        install(&installer, &uv, &lock, &path, &site)?;
        tools = Some(site);
    }
    let mut borrow: Vec<PathBuf> = tools.iter().cloned().collect();
    let mut uncut = Vec::new();
    if subject.form == "bundle" {
        let stdlib = parts.interpreter.stdlib.under(&parts.interpreter.dir);
        uncut.extend([stdlib.join("lib-dynload"), stdlib]);
        if subject.is_slim && !parts.lock.content.packages.is_empty() {
            let whole = root.join("whole");
            install(
                &installer,
                &uv,
                &parts.lock.content,
                &parts.lock.path,
                &whole,
            )?;
            uncut.push(whole);
        }
        borrow.extend(uncut.iter().cloned());
    }

    step(observer, "copying the project");
    let copy = root.join("project");
    copy_project(project, &copy, subject.dir.as_deref())?;
    let boot = root.join("boot");
    if let Some(compiler) = parts.interpreter.compiler(&request.build.environment) {
        let dirs: Vec<PathBuf> = ["tools", "whole"].map(|name| root.join(name)).to_vec();
        bytecode::compile(&compiler, &request.build.environment, &root, &dirs)?;
    }
    let config = serde_json::json!({
        "boot": boot,
        "copy": copy,
        "roots": subject.roots,
        "prefixes": [subject.prefix],
        "path": subject.path,
        "borrow": borrow,
        "packages": tools.iter().chain(uncut.iter().filter(|path| path.ends_with("whole"))).collect::<Vec<_>>(),
    });
    for (name, text) in [
        (
            "sitecustomize.py",
            GUARD.replace("@CONFIG@", &config.to_string()),
        ),
        ("run.py", RUN.to_owned()),
    ] {
        let file = boot.join(name);
        scratch::write(&file, text.as_bytes(), Kind::Data).map_err(io_error("write", &file))?;
    }
    let before = match &subject.dir {
        Some(dir) => Some(scan(dir)?),
        None => None,
    };
    Ok(Prepared {
        scratch,
        subject,
        emulation,
        before,
        mode,
        arguments,
        junit,
        environment: request.build.environment.clone(),
        python: parts.interpreter.version.clone(),
        uncut,
    })
}

impl Prepared {
    /// What is run, for people.
    pub fn command(&self) -> String {
        std::iter::once(self.mode)
            .chain(self.arguments.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The emulator, when the CPU is another one.
    pub fn emulation(&self) -> &Emulation {
        &self.emulation
    }

    /// Runs the tests; `stdout` is where the runner's standard output goes.
    ///
    /// # Errors
    /// When the interpreter cannot be started, or the tests changed the artifact. Tests that fail
    /// are no error.
    pub fn run(self, stdout: Stdio) -> Result<TestReport, TestError> {
        let root = self
            .scratch
            .path()
            .canonicalize()
            .map_err(io_error("read", self.scratch.path()))?;
        let boot = root.join("boot");
        let written = boot.join("result.json");
        let mut command: Command = self
            .emulation
            .command(&self.environment, &self.subject.python);
        command
            .arg(boot.join("run.py"))
            .arg(&written)
            .arg(self.junit.as_deref().unwrap_or(Path::new("")))
            .arg(self.mode)
            .args(&self.arguments)
            .current_dir(root.join("project"))
            .env("PYTHONPATH", &boot)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // A test that is packaged with the app is taken from the artifact.
            .env("PY_IGNORE_IMPORTMISMATCH", "1")
            .stdout(stdout);
        if let Some(dir) = &self.subject.dir {
            command.env("PYTHEAS_ROOT", dir);
        }
        let mut path = self.subject.programs();
        path.extend(self.environment.search_path());
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
        let start = Instant::now();
        let status = command.status().map_err(|source| TestError::Start {
            program: self.subject.python.clone(),
            source,
        })?;
        let elapsed: Duration = start.elapsed();
        if let (Some(before), Some(dir)) = (&self.before, &self.subject.dir) {
            let after = scan(dir)?;
            if after.id() != before.id() {
                return Err(changed(before, &after, dir));
            }
        }
        let result: Written = std::fs::read(&written)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let cut = result
            .missing
            .iter()
            .filter(|name| self.subject.is_slim && self.was_cut(name))
            .cloned()
            .collect();
        let code = status.code();
        Ok(TestReport {
            name: self.subject.name.clone(),
            version: self.subject.version.clone(),
            form: self.subject.shown_form.to_owned(),
            platform: self.subject.platform.clone(),
            emulator: self.emulation.program().map(Path::to_owned),
            command: self.command(),
            tree_id: self
                .before
                .as_ref()
                .map(Tree::id)
                .map(|id: TreeId| id.to_string()),
            python: self.python,
            passed: code == Some(0),
            exit_code: code,
            tests: result.tests,
            missing: result.missing,
            cut,
            seconds: elapsed.as_secs_f64(),
        })
    }

    /// Whether the uncut artifact would have the module.
    fn was_cut(&self, module: &str) -> bool {
        let path = module.replace('.', "/");
        let copy = self.scratch.path().join("project");
        let places = [copy.join("src"), copy];
        self.uncut.iter().chain(&places).any(|folder| {
            let (parent, name) = match path.rsplit_once('/') {
                Some((parent, name)) => (folder.join(parent), name),
                None => (folder.clone(), path.as_str()),
            };
            parent.join(format!("{name}.py")).is_file()
                || parent.join(name).is_dir()
                || std::fs::read_dir(&parent).is_ok_and(|children| {
                    children.flatten().any(|child| {
                        let file = child.file_name().to_string_lossy().into_owned();
                        file.ends_with(".so") && file.split('.').next() == Some(name)
                    })
                })
        })
    }
}

fn scan(dir: &Path) -> Result<Tree, TestError> {
    pytheas_durable::trees::scan(dir).map_err(|source| BuildError::Tree { source }.into())
}

/// The error that says what the tests did to the artifact.
fn changed(before: &Tree, after: &Tree, dir: &Path) -> TestError {
    let all = |tree: &Tree| -> std::collections::BTreeMap<String, String> {
        tree.iter()
            .map(|(path, entry)| (path.as_str().to_owned(), format!("{entry:?}")))
            .collect()
    };
    let (before, after) = (all(before), all(after));
    let mut paths: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| format!("`{path}`"))
        .collect();
    paths.sort();
    paths.dedup();
    let more = paths.len().saturating_sub(5);
    paths.truncate(5);
    if more > 0 {
        paths.push(format!("{more} more"));
    }
    TestError::Changed {
        dir: dir.to_owned(),
        paths: paths.join(", "),
    }
}

fn step(observer: Observer<'_>, text: &str) {
    observer(Event::Step {
        text: text.to_owned(),
    });
}

fn absolute(path: &Path) -> Result<PathBuf, TestError> {
    Ok(std::path::absolute(path).map_err(io_error("find", path))?)
}

/// Installs a lock's packages into the new folder `site`.
fn install(
    installer: &Installer<'_>,
    uv: &Uv,
    lock: &pytheas_project::Pylock,
    path: &Path,
    site: &Path,
) -> Result<(), TestError> {
    std::fs::create_dir_all(site).map_err(io_error("make", site))?;
    if !lock.packages.is_empty()
        && !installer
            .install_lock(lock, path, site)
            .map_err(BuildError::from)?
    {
        let python = installer.interpreter.python();
        crate::dependencies::install(uv, &python, lock, path, site).map_err(BuildError::from)?;
    }
    Ok(())
}

/// The project as it lies in its folder, without environments, caches, version control and results.
fn copy_project(
    project: &pytheas_project::Project,
    copy: &Path,
    artifact: Option<&Path>,
) -> Result<(), TestError> {
    let output = artifact.unwrap_or(Path::new("/nonexistent"));
    app::copy_for_build(&project.dir, copy, output)?;
    for name in [".git", ".hg", "dist"] {
        let path = copy.join(name);
        pytheas_durable::remove_tree(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Whether the tests are for pytest; it is added to what they need where nothing else asks for it.
fn with_runner(
    project: &pytheas_project::Project,
    mut needs: TestRequirements,
    observer: Observer<'_>,
) -> Result<(TestRequirements, bool), TestError> {
    let command = project.settings.test.command.as_deref().unwrap_or("");
    let says = |word: &str| command.split_whitespace().any(|part| part == word);
    let uses = |name: &str| needs.asks_for(name);
    let known = ["pytest", "pytest-asyncio", "pytest-cov", "pytest-xdist"];
    if known.into_iter().any(uses) {
        if !needs.asks_for("pytest") {
            needs.requirements.push("pytest".to_owned());
        }
        return Ok((needs, true));
    }
    let is_pytest = if command.is_empty() {
        asks_for_pytest(&project.dir)
    } else {
        says("pytest") || says("py.test")
    };
    if is_pytest {
        observer(Event::Warning {
            text: "the tests use pytest, which no dependency group, extra or requirements file for tests names; the newest is taken".to_owned(),
        });
        needs.requirements.push("pytest".to_owned());
    }
    Ok((needs, is_pytest))
}

/// Whether tests in the folder are written for pytest.
fn asks_for_pytest(dir: &Path) -> bool {
    let is_there = |name: &str| dir.join(name).is_file();
    if [
        "pytest.ini",
        ".pytest.ini",
        "conftest.py",
        "tests/conftest.py",
        "test/conftest.py",
    ]
    .into_iter()
    .any(is_there)
    {
        return true;
    }
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if text(&dir.join("pyproject.toml")).contains("[tool.pytest")
        || text(&dir.join("setup.cfg")).contains("[tool:pytest]")
    {
        return true;
    }
    let imports = |path: PathBuf| {
        path.extension().is_some_and(|end| end == "py")
            && text(&path)
                .lines()
                .any(|line| line.starts_with("import pytest") || line.starts_with("from pytest"))
    };
    ["tests", "test", "."].into_iter().any(|folder| {
        std::fs::read_dir(dir.join(folder))
            .is_ok_and(|children| children.flatten().any(|child| imports(child.path())))
    })
}

/// The runner's mode (see `run.py`) and its arguments.
fn command(text: Option<&str>, is_pytest: bool) -> Result<(&'static str, Vec<String>), TestError> {
    let Some(text) = text else {
        return Ok((if is_pytest { "pytest" } else { "unittest" }, Vec::new()));
    };
    let unusable = |reason: &str| TestError::Command {
        text: text.to_owned(),
        reason: reason.to_owned(),
    };
    let mut words = words(text).ok_or_else(|| unusable("a quote is not closed"))?;
    let mut program = if words.is_empty() {
        return Err(unusable("it is empty"));
    } else {
        words.remove(0)
    };
    if matches!(program.as_str(), "python" | "python3") {
        if words.first().is_some_and(|word| word == "-m") && words.len() > 1 {
            words.remove(0);
            program = words.remove(0);
        } else if words.is_empty() {
            return Err(unusable("it does not say what Python is to run"));
        } else {
            return Ok(("python", words));
        }
    }
    Ok(match program.as_str() {
        "pytest" | "py.test" => ("pytest", words),
        "unittest" => ("unittest", words),
        _ if program.contains('/') => return Err(unusable("it must be a module or `python`")),
        _ => (
            "python",
            ["-m".to_owned(), program]
                .into_iter()
                .chain(words)
                .collect(),
        ),
    })
}

/// `text` split into words as a shell does, quotes and backslashes understood; none when a quote is
/// not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        for (text, expected) in [
            ("pytest -q", Some(vec!["pytest", "-q"])),
            (
                "pytest -k 'a or b' \"x \\\" y\"",
                Some(vec!["pytest", "-k", "a or b", "x \" y"]),
            ),
            ("a ''", Some(vec!["a", ""])),
            ("a 'b", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn the_runner_is_what_the_command_starts() {
        for (text, is_pytest, mode, arguments) in [
            (None, true, "pytest", vec![]),
            (None, false, "unittest", vec![]),
            (Some("python -m pytest -x"), false, "pytest", vec!["-x"]),
            (
                Some("python -m unittest -v a"),
                true,
                "unittest",
                vec!["-v", "a"],
            ),
            (
                Some("python tests/run.py 1"),
                true,
                "python",
                vec!["tests/run.py", "1"],
            ),
            (Some("nose2 -v"), true, "python", vec!["-m", "nose2", "-v"]),
        ] {
            let found = command(text, is_pytest).unwrap();
            assert_eq!(
                found,
                (mode, arguments.into_iter().map(str::to_owned).collect())
            );
        }
        assert!(command(Some("./run"), true).is_err());
        assert!(command(Some("python"), true).is_err());
        assert!(command(Some(" "), true).is_err());
    }
}
