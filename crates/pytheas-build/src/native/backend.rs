//! Running a build back end (PEP 517) in an environment of its own: a virtual environment with the
//! build requirements, made to answer as the target before any code of the package is run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{
    NativeError,
    cross::Target,
    error::{self, Subject, io_error},
    requirements::{self, Record},
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
    /// What it was built with.
    pub(super) record: Record,
}

/// Runs a call into code of a package; gives whether it succeeded and all that it wrote. What it
/// needs is installed before, and it is isolated ([`pytheas_project::Isolation`]).
fn run(mut command: Command) -> std::io::Result<(bool, String)> {
    let output = command
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

    /// Environment, requirements, target, wheel. `pinned` are the requirements' versions, those of
    /// `known_more` included, which the back end asked for before.
    pub(super) fn build(&self, pinned: &str, known_more: &[String]) -> Result<Wheel, NativeError> {
        let mut command = self.installer.uv.command();
        command
            .args(["venv", "--quiet", "--no-project", "--python"])
            .arg(&self.target.python)
            .arg(self.dir.join("env"));
        requirements::run(self.installer, command, self.subject, &[])?;
        self.install(pinned)?;
        // Some projects run the compiler when they are only asked what they need.
        let zig = zig::program(self.installer, &self.target.python)?;
        let host_include = self.host_include()?;
        let tools = self.dir.join("tools");
        zig::write_scripts(&tools, &zig, self.target, self.source, &host_include)?;
        let cache = self.dir.join("zig");
        zig::warm(self.installer, self.target, &tools, self.has_cxx(), &cache)?;
        write(&self.dir.join("backend.py"), SCRIPT, Kind::Data)?;
        let more = self.hook("requires", &self.dir.join("wheels"))?.0;
        let more: Vec<String> = serde_json::from_value(more).unwrap_or_default();
        error::check_tools(&more, self.target.bits(), self.subject)?;
        let mut pinned = pinned.to_owned();
        if more != known_more {
            pinned = requirements::pinned(
                self.installer,
                &self.target.python,
                self.subject,
                &self.system.requires,
                &more,
                None,
                self.dir,
            )?;
            self.install(&pinned)?;
        }

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
        Ok(Wheel {
            path,
            said,
            record: Record { more, pinned },
        })
    }

    /// Whether the source has files in C++, or such as become it.
    fn has_cxx(&self) -> bool {
        let files = walkdir::WalkDir::new(self.source).into_iter().flatten();
        files.map(walkdir::DirEntry::into_path).any(|path| {
            let end = path.extension().and_then(|end| end.to_str());
            matches!(end, Some("cc" | "cpp" | "cxx" | "C" | "c++"))
                || (end == Some("pyx")
                    && std::fs::read(&path).is_ok_and(|text| {
                        String::from_utf8_lossy(&text).contains("language = c++")
                    }))
        })
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
    fn install(&self, pinned: &str) -> Result<(), NativeError> {
        if pinned.is_empty() {
            return Ok(());
        }
        let list = self.dir.join("requirements.txt");
        write(&list, pinned, Kind::Data)?;
        let mut command = self.installer.uv.command();
        command
            .args(["pip", "install", "--quiet", "--no-deps", "--python"])
            .arg(self.python())
            .arg("-r")
            .arg(&list);
        let requires: Vec<&str> = pinned.lines().collect();
        requirements::run(self.installer, command, self.subject, &requires).map(drop)
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
        let cache = self.dir.join("zig");
        let temporary = self.dir.join("tmp");
        std::fs::create_dir_all(&temporary).map_err(io_error("make", &temporary))?;
        command
            .arg(self.dir.join("backend.py"))
            .args([&call, &answer])
            .current_dir(self.source)
            .env("PATH", path)
            .env("VIRTUAL_ENV", self.dir.join("env"))
            .env("CC", &cc)
            .env("CXX", tools.join("c++"))
            .env("AR", tools.join("ar"))
            .env("RANLIB", tools.join("ranlib"))
            .env("STRIP", tools.join("strip"))
            .env("LDSHARED", format!("{cc} -shared"))
            .env("PKG_CONFIG", tools.join("pkg-config"))
            .env("ZIG_GLOBAL_CACHE_DIR", &cache)
            .env("ZIG_LOCAL_CACHE_DIR", &cache)
            .env("SOURCE_DATE_EPOCH", "315532800")
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8");
        let isolation = self.installer.uv.isolation();
        if isolation.is_on() {
            let home = zig::program(self.installer, &self.target.python)?;
            let shown = [home.parent().unwrap_or(&home), &self.target.include];
            isolation.enclose(
                &mut command,
                &self.subject.package,
                &[self.dir.to_owned()],
                &shown.map(Path::to_owned),
            );
        } else {
            command.env("HOME", &temporary).env("TMPDIR", &temporary);
        }
        let (success, said) = run(command).map_err(io_error("start", &python))?;
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
