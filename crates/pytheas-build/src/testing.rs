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
mod report;
mod run;
mod runner;
mod subject;
mod unpack;

use std::path::{Path, PathBuf};

pub use emulation::Emulation;
pub use error::TestError;
use pytheas_project::{TestRequirements, Uv, lock::LockOptions};
pub use report::{TestCase, TestOutcome, TestReport};
pub use run::Prepared;
use run::scan;

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

/// Builds the artifact unless it is given, and lays tools and tests beside it.
///
/// # Errors
/// See [`TestError`].
pub fn prepare_tests(request: &TestRequest, observer: Observer<'_>) -> Result<Prepared, TestError> {
    let project = &request.build.project;
    let needs = runner::with_runner(
        project,
        TestRequirements::of(project).map_err(BuildError::from)?,
        observer,
    )?;
    let (mode, mut arguments) = runner::command(project.settings.test.command.as_deref(), needs.1)?;
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
