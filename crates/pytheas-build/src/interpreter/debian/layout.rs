//! The interpreter's folder made of the packages' files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pytheas_release::RelPath;

use super::{
    super::{InterpreterError, Loader, elf, io_error, prune::is_left_out, runtime},
    Cpu,
    archive::{Files, is_zone},
};
use crate::{
    launcher::{self, LAUNCH_FILE, Record},
    scratch::{self, Kind},
};

/// Part of the cache's key: raised when the layout changes.
pub(super) const FORMAT: &str = "2";
/// The folder for libraries that only some packages need, beside `python`.
pub(in super::super) const LIBRARIES: &str = "libraries";
/// Parts of the C library that old programs ask for by name; all but empty since glibc 2.34.
const C_LIBRARY: &[&str] = &[
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
];

/// A written interpreter.
pub(super) struct Made {
    pub(super) program: RelPath,
    pub(super) stdlib: RelPath,
    pub(super) site_packages: RelPath,
    pub(super) loader: Loader,
    pub(super) missing: Vec<String>,
}

/// Writes `python` and `libraries` into the folder `root`.
pub(super) fn write(
    root: &Path,
    files: Files,
    cpu: &Cpu,
    short: &str,
) -> Result<Made, InterpreterError> {
    let home = root.join("python");
    let unusable = |reason: &str| InterpreterError::Unusable {
        path: PathBuf::from(format!("python{short}")),
        source: std::io::Error::other(reason.to_owned()),
    };
    let put = |path: &Path, content: &[u8], kind: Kind| {
        scratch::write(path, content, kind).map_err(io_error("write", path))
    };
    let relative = |text: String| -> Result<RelPath, InterpreterError> {
        text.parse().map_err(|_| unusable("its version is no name"))
    };
    let program_file = files
        .get(&format!("bin/python{short}"))
        .ok_or_else(|| unusable("its packages hold no program"))?;
    let loader = Loader {
        loader: relative(format!("lib/{}", cpu.loader))?,
        program: relative(format!("libexec/python{short}"))?,
    };
    put(&loader.program.under(&home), program_file, Kind::Program)?;

    let mut needed: Vec<String> = runtime::needed(program_file);
    needed.extend(C_LIBRARY.iter().map(|name| (*name).to_owned()));
    needed.push(cpu.loader.to_owned());
    let stdlib = relative(format!("lib/python{short}"))?;
    let mut missing = Vec::new();
    let library = |name: &str| {
        files
            .get(&format!("lib/{}/{name}", cpu.multiarch))
            .or_else(|| files.get(&format!("lib/{name}")))
    };
    let prefix = format!("{stdlib}/");
    for path in files.files.keys().chain(files.links.keys()) {
        let Some(inside) = path.strip_prefix(&prefix) else {
            continue;
        };
        let Some(content) = files.get(path).filter(|_| !is_out(inside)) else {
            continue;
        };
        let wants = runtime::needed(content);
        if let Some(name) = wants.iter().find(|name| library(name).is_none()) {
            tracing::debug!(module = inside, library = name, "left out a module");
            missing.push(format!(
                "left out Python's module `{inside}`: it needs `{name}`, which its packages do not bring"
            ));
            continue;
        }
        needed.extend(wants);
        put(&stdlib.under(&home).join(inside), content, Kind::Data)?;
    }

    let lib = home.join("lib");
    let mut copied = BTreeSet::new();
    while let Some(name) = needed.pop() {
        if !copied.insert(name.clone()) {
            continue;
        }
        let content = library(&name).ok_or_else(|| unusable(&format!("it needs `{name}`")))?;
        let kind = if name == cpu.loader {
            Kind::Program
        } else {
            Kind::Data
        };
        put(&lib.join(&name), content, kind)?;
        needed.extend(runtime::needed(content));
    }
    // What only wheels may ask for.
    for path in files.files.keys().chain(files.links.keys()) {
        let Some((dir, name)) = path.rsplit_once('/') else {
            continue;
        };
        let is_library = dir == format!("lib/{}", cpu.multiarch) && name.contains(".so.");
        if let Some(content) = files
            .get(path)
            .filter(|_| is_library && !copied.contains(name))
            && elf::kind_of(content).is_some()
        {
            put(&root.join(LIBRARIES).join(name), content, Kind::Data)?;
        }
    }

    let mut certificates = Vec::new();
    for (path, content) in &files.files {
        if path.starts_with("share/ca-certificates/") {
            certificates.extend_from_slice(content);
            if !content.ends_with(b"\n") {
                certificates.push(b'\n');
            }
        }
        if path.starts_with("share/doc/") {
            put(&home.join(path), content, Kind::Data)?;
        }
    }
    let zones = files.files.keys().chain(files.links.keys());
    for path in zones.filter(|path| is_zone(path)) {
        if let Some(content) = files.get(path) {
            put(&home.join(path), content, Kind::Data)?;
        }
    }
    if !certificates.is_empty() {
        put(&home.join(Loader::CERTIFICATES), &certificates, Kind::Data)?;
    }

    let program = relative(format!("bin/python{short}"))?;
    let code = launcher::machine_code(cpu.arch)
        .ok_or_else(|| unusable("there is no launcher for its CPU"))?;
    put(&program.under(&home), &code, Kind::Program)?;
    let texts = loader.texts("", None);
    let mut records = loader.records(&texts);
    records.push(Record::KeepRoot);
    put(
        &home.join(LAUNCH_FILE),
        &launcher::encode(&records),
        Kind::Data,
    )?;
    let link = home.join("bin/python3");
    std::os::unix::fs::symlink(program.file_name(), &link).map_err(io_error("make", &link))?;
    let site_packages = relative("lib/python3/dist-packages".to_owned())?;
    let dir = site_packages.under(&home);
    std::fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
    Ok(Made {
        program,
        stdlib,
        site_packages,
        loader,
        missing,
    })
}

/// Whether a file of the standard library, or a folder above it, stays out.
fn is_out(inside: &str) -> bool {
    inside
        .match_indices('/')
        .map(|(at, _)| &inside[..at])
        .chain([inside])
        .any(is_left_out)
}
