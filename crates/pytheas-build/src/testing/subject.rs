//! What is tested: the artifact, the interpreter in it and where that finds the app.

use std::path::{Path, PathBuf};

use pep440_rs::Version;
use pytheas_project::{PythonRequest, Uv};
use pytheas_release::{BuildRecord, Platform, RECORD_FILE, Sha256};

use super::{TestRequest, emulation::Emulation, error::TestError, step, unpack};
use crate::{
    build::{BuildRequest, build},
    error::{BuildError, io_error},
    event::Observer,
    install::{Installer, WheelFile},
    interpreter::{Interpreter, InterpreterChoice},
    locking::{Decided, Lock, lock_and_interpreter},
    one_file::one_file,
    scratch::{self, Kind},
    wheel_form, wheelhouse,
};

/// The artifact, ready to be run.
#[derive(Debug)]
pub(super) struct Subject {
    /// `bundle`, `wheelhouse` or `wheel`.
    pub(super) form: &'static str,
    /// The same for people.
    pub(super) shown_form: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) platform: String,
    /// Its folder; none for a wheel.
    pub(super) dir: Option<PathBuf>,
    pub(super) python: PathBuf,
    /// `sys.prefix`.
    pub(super) prefix: PathBuf,
    /// Folders whose modules are the artifact's.
    pub(super) roots: Vec<PathBuf>,
    /// What comes first on `sys.path`.
    pub(super) path: Vec<PathBuf>,
    pub(super) is_slim: bool,
}

/// What it was made of.
pub(super) struct Parts {
    pub(super) interpreter: Interpreter,
    pub(super) platform: Platform,
    pub(super) lock: Lock,
    wheel: Option<PathBuf>,
}

/// Builds the artifact, or takes the given one.
pub(super) fn prepare(
    request: &TestRequest,
    root: &Path,
    uv: &Uv,
    observer: Observer<'_>,
) -> Result<(Subject, Parts), TestError> {
    let project = &request.build.project;
    let target = project
        .target(request.build.target.as_deref())
        .map_err(BuildError::from)?;
    if let Some(path) = &request.built {
        let dir = given(path, root, observer)?;
        let record = read_record(&dir, path)?;
        let build = as_built(&request.build, &record);
        let parts = parts(&build, &record.platform, uv, None, observer)?;
        let subject = of_record(&record, dir, path.is_file(), true)?;
        return Ok((subject, parts));
    }
    if wheel_form::is_wheel_form(&request.build)? {
        let build = BuildRequest {
            out: Some(root.join("dist")),
            ..request.build.clone()
        };
        let made = wheel_form::distributions(&build, observer)?;
        let platform = match request.build.platform.as_ref().or(target.platform.as_ref()) {
            Some(platform) => platform.clone(),
            None => Platform::host().map_err(|_| TestError::Form {
                form: "wheel".to_owned(),
            })?,
        };
        let file = made
            .wheel
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut names = file.split('-').map(str::to_owned);
        let subject = Subject {
            form: "wheel",
            shown_form: "wheel",
            name: names.next().unwrap_or_default(),
            version: names.next().unwrap_or_default(),
            platform: platform.to_string(),
            dir: None,
            python: PathBuf::new(),
            prefix: PathBuf::new(),
            roots: Vec::new(),
            path: Vec::new(),
            is_slim: false,
        };
        let parts = parts(&request.build, &platform, uv, Some(made.wheel), observer)?;
        return Ok((subject, parts));
    }
    let build_request = BuildRequest {
        out: Some(root.join("artifact")),
        ..request.build.clone()
    };
    let built = build(&build_request, observer)?;
    let mut dir = built.dir.clone();
    if request.one_file {
        step(observer, "packing and unpacking the one file");
        let file = root.join("one.run");
        one_file(&built.dir, &built.tree, &built.record, &file).map_err(|error| match error {
            crate::one_file::OneFileError::Form { form } => TestError::Form { form },
            other => TestError::Built {
                path: file.clone(),
                reason: other.to_string(),
            },
        })?;
        dir = root.join("unpacked");
        unpack::unpack(&file, &dir)?;
    }
    let subject = of_record(&built.record, dir, request.one_file, target.slim)?;
    let parts = parts(&request.build, &built.record.platform, uv, None, observer)?;
    Ok((subject, parts))
}

/// The folder of what was given.
fn given(path: &Path, root: &Path, observer: Observer<'_>) -> Result<PathBuf, TestError> {
    if path.is_file() {
        step(observer, "unpacking the one file");
        let dir = root.join("artifact");
        unpack::unpack(path, &dir)?;
        return Ok(dir);
    }
    path.canonicalize().map_err(|error| TestError::Built {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn read_record(dir: &Path, path: &Path) -> Result<BuildRecord, TestError> {
    let built = |reason: String| TestError::Built {
        path: path.to_owned(),
        reason,
    };
    let file = dir.join(RECORD_FILE);
    let bytes = std::fs::read(&file).map_err(|_| built(format!("it has no `{RECORD_FILE}`")))?;
    BuildRecord::parse(&bytes).map_err(|error| built(error.to_string()))
}

/// The request that gives the same interpreter and packages again.
fn as_built(request: &BuildRequest, record: &BuildRecord) -> BuildRequest {
    let mut request = BuildRequest {
        platform: Some(record.platform.clone()),
        ..request.clone()
    };
    if let Some(interpreter) = &record.interpreter {
        if request.interpreter == InterpreterChoice::Automatic {
            request.interpreter = interpreter.provider.parse().unwrap_or_default();
        }
        let minor = |version: Version| {
            let release = version.release();
            Some(format!("{}.{}", release.first()?, release.get(1)?))
        };
        request.python = interpreter
            .version
            .parse::<Version>()
            .ok()
            .and_then(minor)
            .and_then(|text| text.parse::<PythonRequest>().ok())
            .or(request.python);
    }
    request
}

fn parts(
    request: &BuildRequest,
    platform: &Platform,
    uv: &Uv,
    wheel: Option<PathBuf>,
    observer: Observer<'_>,
) -> Result<Parts, TestError> {
    let project = &request.project;
    let target = project
        .target(request.target.as_deref())
        .map_err(BuildError::from)?;
    let python = project.python(request.python.as_ref().or(target.python.as_ref()));
    // Phases and warnings were told by the build already.
    let quiet = |event: crate::event::Event| {
        if !matches!(
            event,
            crate::event::Event::Phase(_)
                | crate::event::Event::Warning { .. }
                | crate::event::Event::Interpreter { .. }
        ) {
            observer(event);
        }
    };
    let Decided {
        interpreter, lock, ..
    } = lock_and_interpreter(request, python.as_ref(), platform, uv, false, &quiet)?;
    Ok(Parts {
        interpreter,
        platform: platform.clone(),
        lock,
        wheel,
    })
}

fn of_record(
    record: &BuildRecord,
    dir: PathBuf,
    is_one_file: bool,
    is_slim: bool,
) -> Result<Subject, TestError> {
    let (form, shown_form) = match (record.form.as_str(), is_one_file) {
        ("bundle", false) => ("bundle", "bundle"),
        ("bundle", true) => ("bundle", "one-file bundle"),
        ("wheelhouse", _) => ("wheelhouse", "wheelhouse"),
        (other, _) => {
            return Err(TestError::Form {
                form: other.to_owned(),
            });
        }
    };
    let dir = dir.canonicalize().map_err(io_error("read", &dir))?;
    Ok(Subject {
        form,
        shown_form,
        name: record.name.to_string(),
        version: record.version.to_string(),
        platform: record.platform.to_string(),
        python: dir.join("python/bin/python3"),
        prefix: dir.join("python"),
        roots: vec![dir.clone()],
        // As a started script has it; a slim bundle may have no path file.
        path: ["app", "app/src"]
            .map(|name| dir.join(name))
            .into_iter()
            .filter(|path| path.is_dir() && !path.join("__init__.py").exists())
            .collect(),
        is_slim: is_slim && form == "bundle",
        dir: Some(dir),
    })
}

impl Subject {
    /// Folders of programs.
    pub(super) fn programs(&self) -> Vec<PathBuf> {
        let own = self.dir.as_ref().map(|dir| dir.join("bin"));
        own.into_iter().chain([self.prefix.join("bin")]).collect()
    }

    /// Makes the environment that a device would make of a wheelhouse, or pip of a wheel.
    pub(super) fn make_environment(
        &mut self,
        root: &Path,
        parts: &Parts,
        installer: &Installer<'_>,
        emulation: &Emulation,
    ) -> Result<(), TestError> {
        step(installer.observer, "making the environment");
        let house = match (&self.dir, &parts.wheel) {
            (Some(dir), _) => dir.clone(),
            (None, Some(wheel)) => self::house(root, parts, wheel, installer)?,
            (None, None) => return Ok(()),
        };
        let venv = root.join("venv");
        let failed = |source| TestError::Environment {
            dir: venv.clone(),
            form: self.form,
            source,
        };
        let output = emulation
            .command(installer.environment, &parts.interpreter.python())
            .arg("-I")
            .arg("-B")
            .arg(house.join("install.py"))
            .args([&house, &venv])
            .output()
            .map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(std::io::Error::other(said)));
        }
        let app = house.join("app");
        if app.is_dir() {
            self.path = vec![app.clone()];
            let src = app.join("src");
            if src.is_dir() && !src.join("__init__.py").exists() {
                self.path.push(src);
            }
        }
        self.python = venv.join("bin/python");
        self.roots = vec![venv.join("lib"), app];
        self.prefix = venv;
        Ok(())
    }
}

/// A wheelhouse for a project's wheel.
fn house(
    root: &Path,
    parts: &Parts,
    wheel: &Path,
    installer: &Installer<'_>,
) -> Result<PathBuf, TestError> {
    let mut wheels = installer
        .wheels(&parts.lock.content, &parts.lock.path)
        .map_err(BuildError::from)?;
    let name = wheel
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let bytes = std::fs::read(wheel).map_err(io_error("read", wheel))?;
    wheels.push(WheelFile { name, bytes });
    let house = root.join("house");
    let put = |path: String, bytes: &[u8]| {
        let path = house.join(path);
        scratch::write(&path, bytes, Kind::Data).map_err(io_error("write", &path))
    };
    for wheel in &wheels {
        tracing::debug!(wheel = wheel.name, sha256 = %Sha256::of(&wheel.bytes), "for the tests");
        put(format!("wheels/{}", wheel.name), &wheel.bytes)?;
    }
    put(
        "requirements.txt".to_owned(),
        wheelhouse::requirements(&wheels).as_bytes(),
    )?;
    put("install.py".to_owned(), wheelhouse::INSTALLER.as_bytes())?;
    Ok(house)
}
