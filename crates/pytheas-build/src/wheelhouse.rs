//! The form `wheelhouse`: wheels and lock for a device that has Python; the virtual environment is
//! made there, offline, at the first start.
//!
//! ```text
//! bin/<app>           a shell script: makes the environment if needed, then starts the app in it
//! wheels/*.whl        every locked wheel for the platform, and the app's own
//! requirements.txt    the same with hashes, for `pip install --no-index --require-hashes`
//! pylock.toml         the lock they were chosen by
//! install.py          makes the environment; Python's standard library only, no pip
//! app/                the app's sources when it has no build back end
//! pytheas.json        the build record (written by the build around it)
//! ```
//!
//! The environment lies in `$PYTHEAS_DATA_DIR/.pytheas/`, else `$XDG_CACHE_HOME/pytheas/venvs/`,
//! else `~/.cache/pytheas/venvs/`, in a folder named by the hash of what is in it. It is complete
//! when the file `complete` is in it, which is written last and under a lock; anything else is made
//! anew, so a kill or power cut in the middle, or many first starts at once, do no harm.

use std::path::Path;

use pytheas_project::Entry;
use pytheas_release::{Sha256, Version};

use crate::{
    app,
    error::{BuildError, io_error},
    event::Phase,
    form::{Form, Job, Made},
    install::{Installer, WheelFile},
    scratch::{self, Kind},
    wheel_form,
};

pub(crate) const INSTALLER: &str = include_str!("wheelhouse/install.py");
const LAUNCHER: &str = include_str!("wheelhouse/launch.sh");

/// The form `wheelhouse`.
pub(crate) struct Wheelhouse;

impl Form for Wheelhouse {
    fn name(&self) -> &'static str {
        "wheelhouse"
    }

    fn carries_interpreter(&self) -> bool {
        false
    }

    fn make(&self, job: &Job<'_>, into: &Path) -> Result<Made, BuildError> {
        job.phase(Phase::Dependencies);
        let installer = Installer {
            interpreter: job.interpreter,
            platform: job.platform,
            uv: job.uv,
            connectivity: job.connectivity,
            environment: job.environment,
            observer: job.observer,
        };
        let mut wheels = installer.wheels(job.lock, job.lock_path)?;
        job.phase(Phase::App);
        let built = add_app(job, &installer, into, &mut wheels)?;
        wheels.sort_by(|a, b| a.name.cmp(&b.name));
        for wheel in &wheels {
            put(
                into,
                &format!("wheels/{}", wheel.name),
                &wheel.bytes,
                Kind::Data,
            )?;
        }
        let requirements = requirements(&wheels);
        put(
            into,
            "requirements.txt",
            requirements.as_bytes(),
            Kind::Data,
        )?;
        let lock = std::fs::read(job.lock_path).map_err(io_error("read", job.lock_path))?;
        put(into, "pylock.toml", &lock, Kind::Data)?;
        put(into, "install.py", INSTALLER.as_bytes(), Kind::Data)?;
        let script = launcher(job, &requirements);
        put(
            into,
            &format!("bin/{}", job.name),
            script.as_bytes(),
            Kind::Program,
        )?;
        Ok(Made {
            version: version(job, built)?,
            entry: format!("bin/{}", job.name),
        })
    }
}

fn put(into: &Path, path: &str, bytes: &[u8], kind: Kind) -> Result<(), BuildError> {
    let path = into.join(path);
    scratch::write(&path, bytes, kind).map_err(io_error("write", &path))
}

/// Adds the app's own wheel, or its sources; gives the version its build tells.
fn add_app(
    job: &Job<'_>,
    installer: &Installer<'_>,
    into: &Path,
    wheels: &mut Vec<WheelFile>,
) -> Result<Option<String>, BuildError> {
    let app = into.join("app");
    if !job.project.has_build_system {
        app::copy_sources(job.project, &app, job.output)?;
        return Ok(None);
    }
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let python = job.interpreter.tool().unwrap_or(job.interpreter.python());
    let path =
        crate::native::own::wheel(installer, job.project, &python, scratch.path(), job.output)?;
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    let bytes = wheel_form::normalised_wheel(&bytes, wheel_form::EARLIEST)
        .map_err(io_error("read", &path))?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    wheels.push(WheelFile { name, bytes });
    if let Entry::Script(script) = job.entry {
        let from = script.under(&job.project.dir);
        if from.is_file() {
            scratch::copy(&from, &script.under(&app)).map_err(io_error("copy", &from))?;
        }
    }
    Ok(app::version_of_wheel(&path))
}

/// `requirements.txt` with one hash for each wheel.
pub(crate) fn requirements(wheels: &[WheelFile]) -> String {
    let line = |wheel: &WheelFile| {
        let mut parts = wheel.name.split('-');
        let name = pytheas_project::normalised_name(parts.next().unwrap_or_default());
        let version = parts.next().unwrap_or_default();
        let hash = Sha256::of(&wheel.bytes);
        format!("{name}=={version} --hash=sha256:{hash}\n")
    };
    wheels.iter().map(line).collect()
}

/// `bin/<app>`. A device's Python must have the minor version that the wheels were chosen for.
fn launcher(job: &Job<'_>, requirements: &str) -> String {
    let python = job
        .interpreter
        .version
        .splitn(3, '.')
        .take(2)
        .collect::<Vec<_>>()
        .join(".");
    let start = match job.entry {
        Entry::Script(script) => format!("\"$root/app/{script}\""),
        Entry::Module(module) => format!(
            "-c 'import os, runpy, sys; sys.path.insert(0, os.path.join(os.environ[\"PYTHEAS_ROOT\"], \"app\")); runpy.run_module(\"{module}\", run_name=\"__main__\", alter_sys=True)'"
        ),
        Entry::Callable { module, callable } => format!(
            "-c 'import os, sys; root = os.environ[\"PYTHEAS_ROOT\"]; sys.path.insert(0, os.path.join(root, \"app\")); sys.argv[0] = os.path.join(root, \"bin\", \"{}\"); sys.exit({})'",
            job.name,
            crate::start::call(module, callable)
        ),
    };
    let key = Sha256::of(format!("{python}\n{requirements}").as_bytes()).to_string();
    LAUNCHER
        .replace("@APP@", job.name.as_str())
        .replace("@KEY@", &key[..16])
        .replace("@PYTHON@", &python)
        .replace("@START@", &start)
}

fn version(job: &Job<'_>, built: Option<String>) -> Result<Version, BuildError> {
    if let Some(version) = job.version {
        return Ok(version.clone());
    }
    let name = pytheas_project::normalised_name(job.name.as_str());
    let locked = job
        .lock
        .packages
        .iter()
        .find(|package| package.name == name);
    let text = built
        .or_else(|| locked?.version.clone())
        .unwrap_or_else(|| "0.0.0".to_owned());
    text.parse()
        .map_err(|_| pytheas_project::ProjectError::Version { text }.into())
}
