//! Running a build back end (PEP 517) in an environment of its own: a virtual environment with the
//! build requirements, made to answer as the target before any code of the package is run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pytheas_project::{UvCallError, UvFailure};
use serde_json::json;

use super::{
    NativeError,
    cross::Target,
    error::{self, Subject, io_error},
    sdist::BuildSystem,
    write, zig,
};
use crate::{install::Installer, scratch::Kind};

const SCRIPT: &str = include_str!("backend.py");

/// Builds one source.
pub(super) struct Builder<'a> {
    pub(super) installer: &'a Installer<'a>,
    pub(super) target: &'a Target,
    pub(super) subject: &'a Subject,
    /// A scratch folder.
    pub(super) dir: &'a Path,
    /// The unpacked source.
    pub(super) source: &'a Path,
    pub(super) system: &'a BuildSystem,
}

/// A wheel as the back end left it.
pub(super) struct Wheel {
    pub(super) path: PathBuf,
    /// What the build wrote.
    pub(super) said: String,
}

/// One call into code of a package: everything that is run of it goes through [`run`].
pub(crate) struct Call {
    /// The command, with its environment and arguments.
    pub(crate) command: Command,
    /// Where it may write besides its temporary folder.
    pub(crate) writable: Vec<PathBuf>,
}

/// Runs a call; gives whether it succeeded and all that it wrote. The one place where a package's
/// own code is started: what it needs is installed before, so it needs no network.
pub(crate) fn run(mut call: Call) -> std::io::Result<(bool, String)> {
    tracing::debug!(writable = ?call.writable, "running a build back end");
    let output = call
        .command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

impl Builder<'_> {
    fn python(&self) -> PathBuf {
        self.dir.join("env/bin/python")
    }

    /// Environment, requirements, target, wheel.
    pub(super) fn build(&self) -> Result<Wheel, NativeError> {
        error::check_tools(&self.system.requires, self.target.bits(), self.subject)?;
        let mut command = self.installer.uv.command();
        command
            .args(["venv", "--quiet", "--no-project", "--python"])
            .arg(&self.target.python)
            .arg(self.dir.join("env"));
        self.uv(command, &[])?;
        self.install(&self.system.requires)?;
        // Some projects run the compiler when they are only asked what they need.
        let zig = zig::program(self.installer, &self.target.python)?;
        let host_include = self.host_include()?;
        let tools = self.dir.join("tools");
        zig::write_scripts(&tools, &zig, self.target, &host_include)?;
        write(&self.dir.join("backend.py"), SCRIPT, Kind::Data)?;
        let more = self.hook("requires", &self.dir.join("wheels"))?.0;
        let more: Vec<String> = serde_json::from_value(more).unwrap_or_default();
        error::check_tools(&more, self.target.bits(), self.subject)?;
        self.install(&more)?;

        self.target.impose(&self.site_packages()?, &tools)?;
        let wheels = self.dir.join("wheels");
        std::fs::create_dir_all(&wheels).map_err(io_error("make", &wheels))?;
        let (name, said) = self.hook("wheel", &wheels)?;
        let name = name.as_str().unwrap_or_default();
        let path = wheels.join(name);
        if !name.ends_with(".whl") || name.contains('/') || !path.is_file() {
            return Err(error::failed(
                "the build back end made no wheel",
                self.subject,
            ));
        }
        Ok(Wheel { path, said })
    }

    /// The environment's folder for packages.
    fn site_packages(&self) -> Result<PathBuf, NativeError> {
        Ok(PathBuf::from(self.ask("sysconfig.get_path('purelib')")?))
    }

    /// The headers of the Python that runs the build, which must not be used.
    fn host_include(&self) -> Result<String, NativeError> {
        self.ask("sysconfig.get_path('include')")
    }

    fn ask(&self, expression: &str) -> Result<String, NativeError> {
        let python = self.python();
        let output = self
            .installer
            .environment
            .python(&python)
            .args([
                "-I",
                "-c",
                &format!("import sysconfig; print({expression})"),
            ])
            .output()
            .map_err(io_error("start", &python))?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// Installs requirements into the environment.
    fn install(&self, requires: &[String]) -> Result<(), NativeError> {
        if requires.is_empty() {
            return Ok(());
        }
        let mut command = self.installer.uv.command();
        command
            .args(["pip", "install", "--quiet", "--python"])
            .arg(self.python())
            .arg("--")
            .args(requires)
            .current_dir(self.source);
        self.uv(command, requires)
    }

    fn uv(&self, command: Command, requires: &[String]) -> Result<(), NativeError> {
        let uv = self.installer.uv;
        uv.run(command).map(drop).map_err(|error| match error {
            UvCallError::Failed(UvFailure::Offline, _) => NativeError::Offline,
            UvCallError::Failed(_, source) => NativeError::Requirements {
                package: self.subject.package.clone(),
                version: self.subject.version.clone(),
                requires: requires
                    .iter()
                    .map(|text| format!("`{text}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                source,
            },
            UvCallError::Start(source) => io_error("start", &uv.path)(source),
        })
    }

    /// Calls a hook; gives its answer and what it wrote.
    fn hook(&self, hook: &str, out: &Path) -> Result<(serde_json::Value, String), NativeError> {
        let (call, answer) = (self.dir.join("call.json"), self.dir.join("answer.json"));
        let text = json!({
            "hook": hook,
            "backend": self.system.build_backend,
            "path": self.system.backend_path,
            "out": out,
        });
        write(&call, &text.to_string(), Kind::Data)?;
        let python = self.python();
        let environment = self.installer.environment;
        let mut command = environment.python(&python);
        for name in [
            "CFLAGS",
            "CXXFLAGS",
            "CPPFLAGS",
            "LDFLAGS",
            "CPATH",
            "C_INCLUDE_PATH",
            "LIBRARY_PATH",
            "PKG_CONFIG_PATH",
            "ARCHFLAGS",
            "LD_LIBRARY_PATH",
            "UV_PYTHON",
        ] {
            command.env_remove(name);
        }
        let tools = self.dir.join("tools");
        let mut path = vec![self.dir.join("env/bin"), tools.clone()];
        path.extend(environment.search_path());
        let path = std::env::join_paths(path)
            .map_err(|error| io_error("use", self.dir)(std::io::Error::other(error)))?;
        let cc = tools.join("cc").display().to_string();
        let cache = environment.cache_dir().join("native/zig");
        std::fs::create_dir_all(&cache).map_err(io_error("make", &cache))?;
        let temporary = self.dir.join("tmp");
        std::fs::create_dir_all(&temporary).map_err(io_error("make", &temporary))?;
        command
            .arg(self.dir.join("backend.py"))
            .args([&call, &answer])
            .current_dir(self.source)
            .env("PATH", path)
            .env("HOME", &temporary)
            .env("TMPDIR", &temporary)
            .env("VIRTUAL_ENV", self.dir.join("env"))
            .env("CC", &cc)
            .env("CXX", tools.join("c++"))
            .env("AR", tools.join("ar"))
            .env("RANLIB", tools.join("ranlib"))
            .env("STRIP", tools.join("strip"))
            .env("LDSHARED", format!("{cc} -shared"))
            .env("PKG_CONFIG", tools.join("pkg-config"))
            .env("PYTHEAS_BUILD_ROOT", self.source)
            .env("ZIG_GLOBAL_CACHE_DIR", &cache)
            .env("ZIG_LOCAL_CACHE_DIR", &cache)
            .env("SOURCE_DATE_EPOCH", "315532800")
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8");
        let call = Call {
            command,
            writable: vec![self.dir.to_owned(), cache],
        };
        let (success, said) = run(call).map_err(io_error("start", &python))?;
        tracing::debug!(hook, success, said, "the back end ended");
        if !success {
            return Err(error::failed(&said, self.subject));
        }
        let bytes = std::fs::read(&answer).map_err(io_error("read", &answer))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| io_error("read", &answer)(error.into()))?;
        Ok((value, said))
    }
}
