//! The run itself: the runner is started in the artifact's interpreter, and what `run.py` wrote
//! becomes the report. The artifact must be the same before and after.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pytheas_project::Environment;
use pytheas_release::{Tree, TreeId};
use serde::Deserialize;
use tempfile::TempDir;

use super::{Emulation, TestCase, TestError, TestReport, subject::Subject};
use crate::error::{BuildError, io_error};

/// Everything in place for a run.
#[derive(Debug)]
pub struct Prepared {
    pub(super) scratch: TempDir,
    pub(super) subject: Subject,
    pub(super) emulation: Emulation,
    pub(super) before: Option<Tree>,
    pub(super) mode: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) junit: Option<PathBuf>,
    pub(super) environment: Environment,
    pub(super) python: String,
    /// Where a module that `slim` cut out would lie.
    pub(super) uncut: Vec<PathBuf>,
}

/// What `run.py` writes.
#[derive(Debug, Default, Deserialize)]
struct Written {
    tests: Vec<TestCase>,
    missing: Vec<String>,
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
        // Not there when the run was cut short: `os._exit(0)` in a test is no success.
        let result: Option<Written> = std::fs::read(&written)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_whole = result.is_some();
        let result = result.unwrap_or_default();
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
            passed: code == Some(0) && is_whole,
            is_whole,
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

pub(super) fn scan(dir: &Path) -> Result<Tree, TestError> {
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
