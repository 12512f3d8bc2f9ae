//! From a raw interpreter tree to a prepared one in the cache: byte-compiled, checked to run where
//! it lies, and described by `interpreter.json`.

use std::{
    io,
    path::{Path, PathBuf},
};

use pep440_rs::Version;
use pytheas_release::{Platform, RelPath, Sha256, TreeId};

use super::{DebianPackage, Interpreter, InterpreterError, Loader, Wanted, io_error, probe::Probe};
use crate::{
    bytecode::{self, Runner},
    scratch::{self, Kind},
};

const DESCRIPTION: &str = "interpreter.json";
/// Part of every key: raised when a prepared tree has another content than before.
const FORMAT: &str = "5";

/// A raw tree `python` in a scratch folder of the cache.
pub(super) struct Raw {
    pub(super) scratch: scratch::Scratch,
    pub(super) provider: &'static str,
    pub(super) origin: PathBuf,
    pub(super) sha256: Option<Sha256>,
    pub(super) missing: Vec<String>,
}

/// The name in the cache of what is made of `parts`.
pub(super) fn key(parts: &[&str]) -> String {
    let joined = [&[FORMAT, env!("CARGO_PKG_VERSION")], parts]
        .concat()
        .join("\0");
    Sha256::of(joined.as_bytes()).to_string()[..32].to_owned()
}

/// The interpreter `key` from the cache; none when it is not there or not as it was made: a
/// damaged disk or a curious hand must not get into releases.
pub(super) fn cached(cache: &Path, key: &str) -> Option<Interpreter> {
    let interpreter = described(cache, key)?;
    let tree = pytheas_durable::trees::scan(&interpreter.dir).ok()?;
    if tree.id() == interpreter.tree {
        return Some(interpreter);
    }
    tracing::info!(path = %interpreter.dir.display(), "the cached interpreter is damaged; it is made again");
    None
}

/// The interpreter `key` as the cache describes it, not looked into.
pub(super) fn described(cache: &Path, key: &str) -> Option<Interpreter> {
    let home = cache.join(key);
    let text = std::fs::read(home.join(DESCRIPTION)).ok()?;
    let mut interpreter: Interpreter = serde_json::from_slice(&text).ok()?;
    interpreter.dir = home.join("python");
    Some(interpreter)
}

/// A new scratch folder in the cache.
pub(super) fn scratch(cache: &Path) -> Result<scratch::Scratch, InterpreterError> {
    std::fs::create_dir_all(cache).map_err(io_error("make", cache))?;
    scratch::folder(cache, ".new-").map_err(io_error("make a folder in", cache))
}

/// What is known of an interpreter without starting it.
pub(super) struct Known {
    pub(super) version: String,
    pub(super) program: RelPath,
    pub(super) site_packages: RelPath,
    pub(super) stdlib: RelPath,
    pub(super) markers: serde_json::Value,
    pub(super) glibc: Option<(u16, u16)>,
    pub(super) loader: Option<Loader>,
    pub(super) packages: Vec<DebianPackage>,
}

/// The environment markers (PEP 508) of CPython `version` on a Linux `machine`.
pub(crate) fn linux_markers(version: &Version, machine: &str) -> serde_json::Value {
    let release = version.release();
    let part = |index: usize| release.get(index).copied().unwrap_or(0);
    serde_json::json!({
        "implementation_name": "cpython",
        "implementation_version": version.to_string(),
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": version.to_string(),
        "python_version": format!("{}.{}", part(0), part(1)),
        "sys_platform": "linux",
    })
}

/// Compiles a raw tree, describes it and puts it into the cache under `key`.
pub(super) fn seal(
    raw: Raw,
    known: Known,
    key: &str,
    wanted: &Wanted<'_>,
) -> Result<Interpreter, InterpreterError> {
    seal_but(raw, known, None, key, wanted)
}

/// As [`seal`], but the standard library in `compiled` has its byte code.
fn seal_but(
    raw: Raw,
    known: Known,
    compiled: Option<&Path>,
    key: &str,
    wanted: &Wanted<'_>,
) -> Result<Interpreter, InterpreterError> {
    let dir = raw.scratch.path().join("python");
    let broken = |source| InterpreterError::Broken {
        origin: raw.origin.clone(),
        source,
    };
    let host = Platform::host().ok();
    let is_own_cpu = host
        .as_ref()
        .is_some_and(|host| host.arch() == wanted.platform.arch());
    let runs_here =
        host.as_ref() == Some(wanted.platform) || (is_own_cpu && known.loader.is_some());
    let tool = if runs_here {
        None
    } else {
        super::tool_for(wanted.environment, &known.version)
    };
    let interpreter = Interpreter {
        provider: raw.provider.to_owned(),
        version: known.version,
        origin: raw.origin.clone(),
        sha256: raw.sha256,
        program: known.program,
        site_packages: known.site_packages,
        stdlib: known.stdlib,
        markers: known.markers,
        glibc: known.glibc,
        loader: known.loader,
        packages: known.packages,
        missing: raw.missing.clone(),
        tree: TreeId(Sha256::of(b"")),
        dir,
        runs_here,
        tool,
    };
    let stdlib = interpreter.stdlib.under(&interpreter.dir);
    if compiled != Some(stdlib.as_path())
        && let Some(compiler) = interpreter.compiler(wanted.environment)
    {
        compile(&raw, &compiler, stdlib, wanted)?;
    }
    let dir = &interpreter.dir;
    // Here once, not in each bundle: there is nothing left to strip then.
    crate::strip::tree(dir)
        .map_err(|error| broken(io::Error::other(crate::error::chain(&error))))?;
    pytheas_durable::trees::set_modes(dir, 0).map_err(io_error("set modes in", dir))?;
    let tree = pytheas_durable::trees::scan(dir)
        .map_err(|error| io_error("read", dir)(io::Error::other(error)))?;
    let interpreter = Interpreter {
        tree: tree.id(),
        ..interpreter
    };
    put(raw, &interpreter, key, wanted)
}

/// Compiles the standard library of a raw tree.
fn compile(
    raw: &Raw,
    compiler: &Runner,
    stdlib: PathBuf,
    wanted: &Wanted<'_>,
) -> Result<(), InterpreterError> {
    let failed = bytecode::compile(compiler, wanted.environment, raw.scratch.path(), &[stdlib])
        .map_err(|error| InterpreterError::Broken {
            origin: raw.origin.clone(),
            source: io::Error::other(crate::error::chain(&error)),
        })?;
    for file in &failed {
        tracing::debug!(
            path = file.path,
            reason = file.reason,
            "left without byte code"
        );
    }
    Ok(())
}

/// Gives the program `python` its usual name `python3` as well.
pub(super) fn link(python: &Path) -> Result<(), InterpreterError> {
    let link = python.with_file_name("python3");
    let name = python.file_name().unwrap_or_default();
    if link.exists() || link == python {
        return Ok(());
    }
    std::os::unix::fs::symlink(name, &link).map_err(io_error("make", &link))
}

/// Starts a raw tree's interpreter to learn about it, compiles it and puts it into the cache under
/// `key`.
pub(super) fn finish(
    raw: Raw,
    program: &RelPath,
    key: &str,
    wanted: &Wanted<'_>,
) -> Result<Interpreter, InterpreterError> {
    let dir = raw.scratch.path().join("python");
    let broken = |source| InterpreterError::Broken {
        origin: raw.origin.clone(),
        source,
    };
    let python = program.under(&dir);
    link(&python)?;
    // Where it is but on a few distributions. What starts after this starts with byte code.
    let lib = dir.join("lib").join(program.file_name());
    let compiled = lib.join("os.py").is_file().then_some(lib.as_path());
    if let Some(stdlib) = compiled {
        compile(&raw, &python.clone().into(), stdlib.to_owned(), wanted)?;
    }
    // `site` puts folders on the path that are there.
    let usual = lib.join("site-packages");
    let is_new = compiled.is_some() && !usual.exists();
    if is_new {
        std::fs::create_dir(&usual).map_err(io_error("make", &usual))?;
    }
    let probe = Probe::of(wanted.environment, &python).map_err(broken)?;
    let here = dir.canonicalize().map_err(io_error("read", &dir))?;
    if probe.prefix != here || !probe.stdlib.starts_with(&here) {
        let text = format!(
            "it looks for its standard library in `{}`",
            probe.stdlib.display()
        );
        return Err(broken(io::Error::other(text)));
    }
    let relative = |path: &Path| -> Result<RelPath, InterpreterError> {
        let inside = path
            .strip_prefix(&here)
            .or_else(|_| path.strip_prefix(&dir))
            .unwrap_or(path);
        RelPath::from_path(inside)
            .map_err(|reason| broken(io::Error::other(format!("`{}` {reason}", path.display()))))
    };
    let site_packages = site_packages(wanted, &python, &probe).map_err(broken)?;
    if is_new && relative(&site_packages)?.under(&dir) != usual {
        std::fs::remove_dir(&usual).map_err(io_error("remove", &usual))?;
    }
    let stdlib = relative(&probe.stdlib)?;
    let known = Known {
        version: probe.version.to_string(),
        program: program.clone(),
        site_packages: relative(&site_packages)?,
        stdlib,
        glibc: probe.glibc(),
        markers: probe.markers,
        loader: None,
        packages: Vec::new(),
    };
    seal_but(raw, known, compiled, key, wanted)
}

/// Describes a finished tree and moves it into the cache.
fn put(
    raw: Raw,
    interpreter: &Interpreter,
    key: &str,
    wanted: &Wanted<'_>,
) -> Result<Interpreter, InterpreterError> {
    let broken = |source| InterpreterError::Broken {
        origin: raw.origin.clone(),
        source,
    };
    let description = raw.scratch.path().join(DESCRIPTION);
    let bytes =
        serde_json::to_vec_pretty(interpreter).map_err(|error| broken(io::Error::other(error)))?;
    scratch::write(&description, &bytes, Kind::Data).map_err(io_error("write", &description))?;
    let cache = wanted.cache();
    let home = cache.join(key);
    if home.exists() && cached(&cache, key).is_none() {
        pytheas_durable::remove_tree(&home).map_err(io_error("remove", &home))?;
    }
    match move_into(raw.scratch.path(), &home) {
        // Two builds at once: the other one was first, its result is the same.
        Err(error) if cached(&cache, key).is_none() => return Err(io_error("make", &home)(error)),
        Err(_) => {}
        Ok(()) => {
            let _moved_away = raw.scratch.keep();
            // Hashed a moment ago.
            if let Some(interpreter) = described(&cache, key) {
                return Ok(interpreter);
            }
        }
    }
    cached(&cache, key).ok_or_else(|| io_error("read", &home)(io::Error::other("it is not whole")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a cache: the tree is hashed before each use, so nothing is synced"
)]
fn move_into(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// The folder that this Python looks into for packages, preferably none under `local`: it must be
/// one that its `site` module puts on the path.
fn site_packages(wanted: &Wanted<'_>, python: &Path, probe: &Probe) -> io::Result<PathBuf> {
    let mut candidates: Vec<&PathBuf> = probe
        .site_packages
        .iter()
        .filter(|dir| dir.starts_with(&probe.sys_prefix))
        .collect();
    candidates.sort_by_key(|dir| dir.components().any(|part| part.as_os_str() == "local"));
    for candidate in candidates {
        if probe.path.contains(candidate) && candidate.is_dir() {
            return Ok(candidate.clone());
        }
        std::fs::create_dir_all(candidate)?;
        if Probe::of(wanted.environment, python)?
            .path
            .iter()
            .any(|entry| entry == candidate)
        {
            return Ok(candidate.clone());
        }
        std::fs::remove_dir(candidate)?;
    }
    Err(io::Error::other("it has no folder for packages"))
}
