//! Compiled code for a target without a compiler or headers of it on this machine: source
//! distributions and modules of the app become extension modules through `ziglang`.
//!
//! ```text
//! sdist ─▶ build environment (host's Python of the same minor version, build requirements)
//!       ─▶ made to answer as the target would (cross) ─▶ its back end (backend) with zig (zig)
//!       ─▶ checked: machine, C library, names (verify) ─▶ wheel in the cache
//!
//! CACHE/tools/ziglang-VERSION/      the compiler, from the package index, pinned by hash
//!      /native/zig-VERSION/         its own caches, by target: C and C++ libraries, compiled
//!      /native/headers/             headers of Debian's Pythons
//!      /native/wheels/KEY/NAME.whl  what was built; KEY hashes source, target, Python, tools and
//!                                   build requirements with their versions (requirements)
//! ```

pub(crate) mod backend;
pub(crate) mod bench;
pub(crate) mod compile;
mod cross;
mod error;
mod known;
pub(crate) mod own;
mod requirements;
mod sdist;
mod verify;
mod zig;

use std::path::{Path, PathBuf};

use pytheas_project::{Environment, LockedPackage};
use pytheas_release::Sha256;

pub use self::error::{ModulesError, NativeError, Said};
use self::{
    cross::Target,
    error::{Subject, io_error},
    requirements::Record,
};
use crate::{
    event::Event,
    install::Installer,
    scratch::{self, Kind},
    wheel_form,
};

/// Changes with everything that changes what is built from the same source.
const FORMAT: &str = "2";

/// A wheel that was built.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its file name.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Whether the machine's own compiler would do: there is one, and what it makes fits the C library
/// that the bundle gets.
pub(crate) fn host_compiles(installer: &Installer<'_>) -> bool {
    let named = |name| installer.environment.get(name).is_some();
    let on_path = ["cc", "gcc", "clang"].iter().any(|name| {
        let dirs = installer.environment.search_path();
        dirs.iter().any(|dir| dir.join(name).is_file())
    });
    installer.interpreter.runs_here()
        && installer.interpreter.loader.is_none()
        && (named("CC") || on_path)
}

/// Whether the source distribution at `path` holds code for a compiler.
pub(crate) fn has_compiled_code(path: &Path) -> bool {
    sdist::has_compiled_code(path)
}

/// Builds the source distribution at `path` for the installer's platform.
pub(crate) fn wheel_of_sdist(
    installer: &Installer<'_>,
    package: &LockedPackage,
    path: &Path,
) -> Result<Made, NativeError> {
    let subject = Subject {
        package: package.name.clone(),
        version: package.version.clone().unwrap_or_default(),
        platform: installer.platform.clone(),
    };
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    let source = |into: &Path| sdist::unpack(path, &bytes, into);
    let key = Sha256::of(&bytes).to_string();
    let expects_code = sdist::has_compiled_code(path);
    wheel_of(installer, &subject, &key, expects_code, &source)
        .map_err(|error| error.with_wheels(|| error::newest_with_wheel(installer, &subject)))
}

/// Builds what `source` unpacks (and gives the top folder of) for the installer's platform; `key`
/// names its content.
pub(crate) fn wheel_of(
    installer: &Installer<'_>,
    subject: &Subject,
    key: &str,
    expects_code: bool,
    source: &dyn Fn(&Path) -> Result<PathBuf, NativeError>,
) -> Result<Made, NativeError> {
    let target = Target::new(installer)?;
    let home = installer.environment.cache_dir().join("native");
    let parts = [FORMAT, key, &target.key(), zig::VERSION, cross::FORMAT];
    let key = Sha256::of(parts.join("\0").as_bytes()).to_string();
    let scratch = new_scratch(installer.environment)?;
    let dir = scratch.path();
    let unpacked = source(&dir.join("source"))?;
    let system = sdist::build_system(&unpacked)?;
    error::check_tools(&system.requires, target.bits(), subject)?;
    let known = Record::load(&home, &key);
    let more = known.as_ref().map_or(&[][..], |known| &known.more);
    let pinned = requirements::pinned(
        installer,
        &target.python,
        subject,
        &system.requires,
        more,
        known.as_ref(),
        dir,
    )?;
    if known.is_some()
        && let Some(made) = cached(&kept_in(&home, &key, &pinned))
    {
        return Ok(made);
    }
    (installer.observer)(Event::Compiling {
        what: format!("{} {}", subject.package, subject.version),
        platform: installer.platform.clone(),
    });
    known::put_right(&subject.package, &unpacked)?;
    let environment = backend::Builder {
        installer,
        target: &target,
        subject,
        dir,
        source: &unpacked,
        system: &system,
    };
    let wheel = environment.build(&pinned, more)?;
    let said = wheel.said;
    let path = wheel.path;
    let file_name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    let checked = verify::checked(&file_name, &bytes, &target, subject)?;
    if checked.modules == 0 && (expects_code || !checked.name.ends_with("-any.whl")) {
        let reason = error::first_complaint(&said)
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        (installer.observer)(Event::Warning {
            text: format!(
                "`{}` {} was built for `{}` without its compiled modules{reason}",
                subject.package, subject.version, subject.platform
            ),
        });
    }
    let bytes = wheel_form::normalised_wheel(&checked.bytes, wheel_form::EARLIEST)
        .map_err(io_error("read", &path))?;
    let made = Made {
        name: checked.name,
        bytes,
    };
    keep(&kept_in(&home, &key, &wheel.record.pinned), &made)?;
    wheel.record.save(&home, &key)?;
    Ok(made)
}

/// Where what is built with the requirements `pinned` is kept.
fn kept_in(home: &Path, key: &str, pinned: &str) -> PathBuf {
    let key = Sha256::of(format!("{key}\0{pinned}").as_bytes());
    home.join("wheels").join(key.to_string())
}

/// A folder for work in the cache.
pub(crate) fn new_scratch(environment: &Environment) -> Result<scratch::Scratch, NativeError> {
    let home = environment.cache_dir().join("native");
    std::fs::create_dir_all(&home).map_err(io_error("make", &home))?;
    scratch::folder(&home, ".new-").map_err(io_error("make a folder in", &home))
}

/// The wheel that was kept in `dir`, when it is whole.
fn cached(dir: &Path) -> Option<Made> {
    let sum = std::fs::read_to_string(dir.join("sha256")).ok()?;
    let (sha256, name) = sum.trim_end().split_once(' ')?;
    let bytes = std::fs::read(dir.join(name)).ok()?;
    (Sha256::of(&bytes).to_string() == sha256).then(|| Made {
        name: name.to_owned(),
        bytes,
    })
}

/// Keeps a wheel: first it, then what says that it is whole.
fn keep(dir: &Path, made: &Made) -> Result<(), NativeError> {
    std::fs::create_dir_all(dir).map_err(io_error("make", dir))?;
    let path = dir.join(&made.name);
    pytheas_durable::replace(&path, &made.bytes).map_err(io_error("write", &path))?;
    let sum = format!("{} {}\n", Sha256::of(&made.bytes), made.name);
    let path = dir.join("sha256");
    pytheas_durable::replace(&path, sum.as_bytes()).map_err(io_error("write", &path))
}

/// Writes a file of a scratch folder.
fn write(path: &Path, text: &str, kind: Kind) -> Result<(), NativeError> {
    scratch::write(path, text.as_bytes(), kind).map_err(io_error("write", path))
}
