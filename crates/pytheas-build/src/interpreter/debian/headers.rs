//! The C headers of a Debian Python: from the `-dev` package of the very version that the
//! interpreter was made of, verified as every package is.
//!
//! ```text
//! CACHE/native/headers/<sha256 of the package>/Python.h, pyconfig.h …
//!      /debian/headers-<sha256 of the interpreter's package>.json   which package it is
//! ```

use std::{io, path::PathBuf};

use super::{
    super::{Interpreter, InterpreterError, Wanted, io_error},
    CPUS, Package, archive,
    release::{self, cache_dir},
    sources,
};
use crate::scratch::{self, Kind};

/// The folder with the headers of `interpreter`, which this provider made.
pub(in super::super) fn headers(
    wanted: &Wanted<'_>,
    interpreter: &Interpreter,
) -> Result<PathBuf, InterpreterError> {
    let missing = |text: &str| {
        io_error("find the headers of", &interpreter.origin)(io::Error::other(text.to_owned()))
    };
    let cpu = CPUS
        .iter()
        .find(|cpu| cpu.arch == wanted.platform.arch())
        .ok_or_else(|| missing("no such CPU"))?;
    let standard = interpreter
        .packages
        .iter()
        .find(|package| {
            package.name.starts_with("libpython3.") && package.name.ends_with("-stdlib")
        })
        .ok_or_else(|| missing("it has no standard library package"))?;
    let short = standard
        .name
        .trim_start_matches("libpython")
        .trim_end_matches("-stdlib");
    let package = dev_package(wanted, standard, cpu, &format!("libpython{short}-dev"))?;
    let home = wanted
        .environment
        .cache_dir()
        .join("native/headers")
        .join(package.sha256.to_string());
    if home.join("Python.h").is_file() {
        return Ok(home);
    }
    let mirrors = sources::mirrors(wanted.environment, cpu.since);
    if mirrors.is_empty() {
        return Err(InterpreterError::NoDebianMirror);
    }
    let mut files = archive::Files::default();
    let packages = [package];
    for (package, bytes) in release::packages(wanted, &mirrors, &packages)? {
        archive::read(&package.name, &bytes, &mut files)
            .map_err(io_error("unpack", &PathBuf::from(&package.file)))?;
    }
    let parent = home.parent().unwrap_or(&home);
    std::fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    let scratch = scratch::folder(parent, ".new-").map_err(io_error("make a folder in", parent))?;
    let fresh = scratch.path().join("include");
    let common = format!("include/python{short}/");
    // What depends on the CPU lies apart; it comes second, so that it replaces the file that only
    // says where to look.
    let own = format!("include/{}/python{short}/", cpu.multiarch);
    for prefix in [&common, &own] {
        for (path, content) in &files.files {
            if let Some(inside) = path.strip_prefix(prefix.as_str()) {
                let to = fresh.join(inside);
                scratch::write(&to, content, Kind::Data).map_err(io_error("write", &to))?;
            }
        }
    }
    if !fresh.join("Python.h").is_file() || !fresh.join("pyconfig.h").is_file() {
        return Err(missing("the package has no `Python.h` or no `pyconfig.h`"));
    }
    match pytheas_durable::move_dir(&fresh, &home) {
        Err(_) if home.join("Python.h").is_file() => {}
        result => result.map_err(io_error("make", &home))?,
    }
    Ok(home)
}

/// The package `name` of the version of `standard`.
fn dev_package(
    wanted: &Wanted<'_>,
    standard: &Package,
    cpu: &super::Cpu,
    name: &str,
) -> Result<Package, InterpreterError> {
    let file = cache_dir(wanted).join(format!("headers-{}.json", standard.sha256));
    let known = std::fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Package>(&bytes).ok());
    if let Some(known) = known {
        return Ok(known);
    }
    let mirrors = sources::mirrors(wanted.environment, cpu.since);
    if mirrors.is_empty() {
        return Err(InterpreterError::NoDebianMirror);
    }
    let index = release::index(wanted, &mirrors, cpu)?;
    let found = index
        .get(name)
        .filter(|package| package.upstream() == standard.upstream());
    let Some(package) = found else {
        let reason = format!("the archive has no {name} {} any more", standard.version);
        return Err(io_error(
            "find the headers of",
            &PathBuf::from(&standard.name),
        )(io::Error::other(reason)));
    };
    let bytes = serde_json::to_vec_pretty(package)
        .map_err(|error| io_error("write", &file)(error.into()))?;
    pytheas_durable::replace(&file, &bytes).map_err(io_error("write", &file))?;
    Ok(package.clone())
}
