//! The host's own CPython, copied: program, standard library, and every shared library that is not
//! the C library's. Works for pyenv's, Debian's and uv's Pythons; of a virtual environment the
//! base is taken.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pytheas_project::{Environment, PythonRequest};
use pytheas_release::{Platform, RelPath, Sha256, TreeId};
use walkdir::WalkDir;

use super::{
    Foreseen, HEADERS, Interpreter, InterpreterChoice, InterpreterError, Provider, Wanted,
    elf::{self, Search},
    io_error,
    ld_cache::LdCache,
    prepare::{self, Raw},
    probe::Probe,
    prune::is_left_out,
};
use crate::scratch;

/// The provider `host`.
pub(super) struct Host;

impl Provider for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn provide(&self, wanted: &Wanted<'_>) -> Result<Option<Interpreter>, InterpreterError> {
        if Platform::host().ok().as_ref() != Some(wanted.platform) {
            return Ok(None);
        }
        let probe = match wanted.choice {
            InterpreterChoice::Path(path) => named(path, wanted)?,
            _ => match find(wanted) {
                Some(probe) => probe,
                None => return Ok(None),
            },
        };
        let cache = wanted.cache();
        let key = prepare::key(&[&identity(&probe)]);
        if let Some(interpreter) = prepare::cached(&cache, &key) {
            return Ok(Some(interpreter));
        }
        (wanted.foreseen)(Foreseen {
            version: probe.version.to_string(),
            python: Some(probe.executable.clone()),
            interpreter: foreseen(&probe),
        });
        let (raw, program) = copy(&probe, &cache)?;
        prepare::finish(raw, &program, &key, wanted).map(Some)
    }
}

/// What will be made of the Python, as far as packages are chosen and compiled by it; none for one
/// that lies otherwise than most.
fn foreseen(probe: &Probe) -> Option<Box<Interpreter>> {
    let inside =
        |path: &Path, prefix: &Path| RelPath::from_path(path.strip_prefix(prefix).ok()?).ok();
    let site = probe
        .site_packages
        .iter()
        .filter_map(|dir| inside(dir, &probe.sys_prefix))
        .find(|dir| !dir.as_str().split('/').any(|part| part == "local"))?;
    Some(Box::new(Interpreter {
        provider: "host".to_owned(),
        version: probe.version.to_string(),
        origin: probe.executable.clone(),
        sha256: None,
        program: format!("bin/python{}", probe.short()).parse().ok()?,
        site_packages: site,
        stdlib: inside(&probe.stdlib, &probe.prefix)?,
        glibc: probe.glibc(),
        markers: probe.markers.clone(),
        loader: None,
        packages: Vec::new(),
        missing: Vec::new(),
        tree: TreeId(Sha256::of(b"")),
        dir: probe.prefix.clone(),
        runs_here: true,
        tool: Some(probe.executable.clone()),
    }))
}

/// The Python that the user named.
fn named(path: &Path, wanted: &Wanted<'_>) -> Result<Probe, InterpreterError> {
    let unusable = |source| InterpreterError::Unusable {
        path: path.to_owned(),
        source,
    };
    let probe = Probe::of(wanted.environment, path).map_err(unusable)?;
    if !probe.is_cpython() {
        return Err(unusable(std::io::Error::other(format!(
            "it is {}",
            probe.implementation
        ))));
    }
    if !wanted.accepts(&probe.version) {
        return Err(InterpreterError::Version {
            path: path.to_owned(),
            version: probe.version.to_string(),
            wanted: wanted.shown(),
        });
    }
    Ok(probe)
}

/// `python3` of `PATH` if it fits, the one its user means; else the newest that fits.
fn find(wanted: &Wanted<'_>) -> Option<Probe> {
    let mut best: Option<Probe> = None;
    for (index, path) in candidates(wanted.environment).into_iter().enumerate() {
        let probe = match Probe::of(wanted.environment, &path) {
            Ok(probe) if probe.is_cpython() && wanted.accepts(&probe.version) => probe,
            Ok(probe) => {
                tracing::debug!(path = %path.display(), version = %probe.version, "passed over Python");
                continue;
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "passed over Python that does not run");
                continue;
            }
        };
        if index == 0 {
            return Some(probe);
        }
        if best
            .as_ref()
            .is_none_or(|best| probe.version > best.version)
        {
            best = Some(probe);
        }
    }
    best
}

/// The program of a host's Python that fits `request`.
pub(super) fn program(environment: &Environment, request: &PythonRequest) -> Option<PathBuf> {
    candidates(environment)
        .iter()
        .filter_map(|path| Probe::of(environment, path).ok())
        .find(|probe| probe.is_cpython() && request.contains(&probe.version))
        .map(|probe| probe.executable)
}

/// What the host has, for a message.
pub(super) fn listing(wanted: &Wanted<'_>) -> String {
    let found: BTreeMap<_, _> = candidates(wanted.environment)
        .iter()
        .filter_map(|path| Probe::of(wanted.environment, path).ok())
        .map(|probe| (probe.version, probe.executable))
        .collect();
    if found.is_empty() {
        return "this machine has no Python".to_owned();
    }
    let list: Vec<String> = found
        .iter()
        .map(|(version, path)| format!("{version} (`{}`)", path.display()))
        .collect();
    format!("this machine has Python {}", list.join(", "))
}

/// Programs that may be Pythons: `PATH`, pyenv's, uv's, the system's. Each file once.
fn candidates(environment: &Environment) -> Vec<PathBuf> {
    let home = environment.home();
    let mut found: Vec<PathBuf> = Vec::new();
    let dirs = environment.search_path();
    found.extend(
        dirs.iter()
            .map(|dir| dir.join("python3"))
            .filter(|path| path.is_file())
            .take(1),
    );
    let system = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    for dir in dirs.iter().chain(&system) {
        found.extend((8..30).map(|minor| dir.join(format!("python3.{minor}"))));
        found.push(dir.join("python3"));
    }
    let data = environment
        .path("XDG_DATA_HOME")
        .or_else(|| home.as_ref().map(|home| home.join(".local/share")));
    let uv = environment
        .path("UV_PYTHON_INSTALL_DIR")
        .or_else(|| data.map(|data| data.join("uv/python")));
    let pyenv = environment
        .path("PYENV_ROOT")
        .or_else(|| home.map(|home| home.join(".pyenv")));
    for versions in pyenv
        .map(|root| root.join("versions"))
        .into_iter()
        .chain(uv)
    {
        let children = fs::read_dir(versions).into_iter().flatten().flatten();
        found.extend(children.map(|child| child.path().join("bin/python3")));
    }
    let mut seen = BTreeSet::new();
    // A link to the same program is the same Python, but a shim is a script: each name counts.
    let same = |path: &PathBuf| {
        let target = path.canonicalize().ok()?;
        let is_program = elf::kind(&target).is_some();
        Some(if is_program { target } else { path.clone() })
    };
    found.retain(|path| path.is_file() && same(path).is_some_and(|target| seen.insert(target)));
    found
}

/// What a copy depends on: the files by path, size and time. Only the cache's key is made of it;
/// the copy holds none of it.
fn identity(probe: &Probe) -> String {
    let mut text = format!("{} {}", probe.version, probe.prefix.display());
    let library = probe
        .libdir
        .join(format!("libpython{}.so.1.0", probe.short()));
    for path in [
        &probe.executable,
        &library,
        &probe.stdlib,
        &probe.stdlib.join("lib-dynload"),
        &probe.stdlib.join("os.py"),
    ] {
        if let Ok(metadata) = fs::metadata(path) {
            let (size, seconds, nanos) = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
            text.push_str(&format!("\n{} {size} {seconds}.{nanos}", path.display()));
        }
    }
    text
}

/// Copies the interpreter into a scratch folder of the cache.
fn copy(probe: &Probe, cache: &Path) -> Result<(Raw, RelPath), InterpreterError> {
    let unusable = |reason: String| InterpreterError::Unusable {
        path: probe.executable.clone(),
        source: std::io::Error::other(reason),
    };
    let scratch = prepare::scratch(cache)?;
    let root = scratch.path().join("python");
    let name = format!("python{}", probe.short());
    let program: RelPath = format!("bin/{name}")
        .parse()
        .map_err(|_| unusable(format!("its version is `{name}`")))?;
    let python = program.under(&root);
    scratch::copy(&probe.executable, &python).map_err(io_error("copy", &probe.executable))?;

    let inside = probe.stdlib.strip_prefix(&probe.prefix).map_err(|_| {
        unusable(format!(
            "its standard library `{}` lies outside of `{}`",
            probe.stdlib.display(),
            probe.prefix.display()
        ))
    })?;
    let stdlib = root.join(inside);
    copy_stdlib(&probe.stdlib, &stdlib, &probe.prefix)?;
    let dynload = stdlib.join("lib-dynload");
    if !dynload.is_dir() && probe.dynload.is_dir() {
        copy_stdlib(&probe.dynload, &dynload, &probe.prefix)?;
    }
    // Where `sysconfig` of the copy will look for them.
    if let (true, Ok(inside)) = (
        probe.include.is_dir(),
        probe.include.strip_prefix(probe.prefix.join(HEADERS)),
    ) {
        scratch::copy_tree(&probe.include, &root.join(HEADERS).join(inside))
            .map_err(io_error("copy", &probe.include))?;
    }
    let missing = copy_libraries(probe, &root, &python, &dynload)?;
    let raw = Raw {
        scratch,
        provider: "host",
        origin: probe.executable.clone(),
        sha256: None,
        missing,
    };
    Ok((raw, program))
}

/// Copies a standard library without what a bundle does not need; links are followed.
fn copy_stdlib(from: &Path, to: &Path, prefix: &Path) -> Result<(), InterpreterError> {
    let relative = |path: &Path| {
        path.strip_prefix(from)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    };
    let mut files = Vec::new();
    let walk = WalkDir::new(from)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter();
    for entry in
        walk.filter_entry(|entry| entry.depth() == 0 || !is_left_out(&relative(entry.path())))
    {
        let entry = match entry {
            Ok(entry) => entry,
            // A link to nothing, e.g. to a package of the distribution that is not installed.
            Err(error)
                if error
                    .io_error()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) =>
            {
                continue;
            }
            Err(error) => return Err(io_error("read", from)(error.into())),
        };
        if entry.file_type().is_file() {
            files.push((entry.path().to_owned(), to.join(relative(entry.path()))));
        }
    }
    let copied = scratch::in_parallel(&files, |(path, target)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("_sysconfigdata") && name.ends_with(".py") {
            return copy_sysconfig_data(path, target, prefix);
        }
        scratch::copy(path, target).map_err(io_error("copy", path))
    });
    copied.into_iter().collect()
}

/// The build settings of the original name its place on this machine; `sysconfig` replaces
/// `prefix` at run time, so a neutral one will do.
fn copy_sysconfig_data(from: &Path, to: &Path, prefix: &Path) -> Result<(), InterpreterError> {
    let text = fs::read_to_string(from).map_err(io_error("read", from))?;
    let prefix = prefix.display().to_string();
    let text = if prefix == "/usr" {
        text
    } else {
        text.replace(&prefix, "/install")
    };
    scratch::write(to, text.as_bytes(), scratch::Kind::Data).map_err(io_error("write", to))
}

/// Copies the libraries that the program and the modules need, and those that they need in turn,
/// and makes all of them find each other. A module whose library is missing is left out: it could
/// not be imported on this machine either. Gives a line for each.
fn copy_libraries(
    probe: &Probe,
    root: &Path,
    python: &Path,
    dynload: &Path,
) -> Result<Vec<String>, InterpreterError> {
    let cache = LdCache::read();
    let lib = root.join("lib");
    let mut missing = Vec::new();
    let mut program = None;
    let mut copied: BTreeMap<String, PathBuf> = BTreeMap::new();
    // What is looked at: the copy, the place it was copied from (for $ORIGIN), what it is.
    let mut queue: VecDeque<(PathBuf, PathBuf)> =
        VecDeque::from([(python.to_owned(), probe.executable.clone())]);
    let mut modules: Vec<PathBuf> = fs::read_dir(dynload)
        .into_iter()
        .flatten()
        .flatten()
        .map(|child| child.path())
        .collect();
    modules.sort();
    for module in modules {
        let original = probe
            .stdlib
            .join("lib-dynload")
            .join(module.file_name().unwrap_or_default());
        queue.push_back((module, original));
    }
    while let Some((copy, original)) = queue.pop_front() {
        let Some(elf) = elf::read(&copy)? else {
            continue;
        };
        let mut found = Vec::new();
        let mut lost = None;
        for name in elf
            .needed
            .iter()
            .filter(|name| !elf::is_c_library(name.rsplit('/').next().unwrap_or(name)))
        {
            let fits = |path: &Path| elf::kind(path) == Some(elf.kind);
            let mut search = elf.search.clone();
            search.push(probe.libdir.display().to_string());
            search.push(probe.libdir.join(&probe.multiarch).display().to_string());
            match cache.find(name, &original, &search, fits) {
                Some(path) => found.push((name.clone(), path)),
                None => lost = Some(name.clone()),
            }
        }
        if let Some(name) = lost {
            let module = copy
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !copy.starts_with(dynload) {
                return Err(InterpreterError::Unusable {
                    path: probe.executable.clone(),
                    source: std::io::Error::other(format!(
                        "`{module}` needs `{name}`, which is not on this machine"
                    )),
                });
            }
            fs::remove_file(&copy).map_err(io_error("remove", &copy))?;
            missing.push(format!("left out Python's module `{module}`: it needs `{name}`, which is not on this machine"));
            continue;
        }
        for (name, path) in found {
            let file = name.rsplit('/').next().unwrap_or(&name).to_owned();
            if copied.contains_key(&file) {
                continue;
            }
            let path = path.canonicalize().map_err(io_error("read", &path))?;
            let target = lib.join(&file);
            scratch::copy(&path, &target).map_err(io_error("copy", &path))?;
            queue.push_back((target.clone(), path));
            copied.insert(file, target);
        }
        if copy == python {
            program = Some(elf);
        } else {
            elf::relocate(&copy, &elf, Search::Inherited)?;
        }
    }
    // A static program that is already relative (python-build-standalone, so uv's) stays as it is.
    if let Some(elf) = program
        .filter(|elf| !copied.is_empty() || !elf.search.iter().any(|dir| dir == "$ORIGIN/../lib"))
    {
        elf::relocate(python, &elf, Search::Rpath("$ORIGIN/../lib"))?;
    }
    Ok(missing)
}
