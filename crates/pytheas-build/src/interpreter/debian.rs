//! The provider `debian`: CPython from Debian's packages with its own C library and loader, so
//! that a bundle for x86-64, aarch64, armv7 or riscv64 runs on any Linux of that CPU, and is made on
//! any.
//!
//! ```text
//! archive key ─▶ InRelease (gpgv) ─SHA-256─▶ Packages.xz ─SHA-256─▶ .deb ─▶ python/
//! python/bin/python3.11     a launcher that starts, through `python/pytheas.launch`,
//! python/lib/ld-linux-*.so  the loader, with the libraries beside it, and
//! python/libexec/python3.11 the program itself
//! python/share/ca-certificates.crt, python/share/zoneinfo/, python/share/doc/PACKAGE/copyright
//! ```
//! `libraries/` beside `python/` in the cache holds what packages may need on top (libstdc++ …).

mod archive;
mod headers;
mod layout;
mod package;
mod release;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use pep440_rs::Version;
use pytheas_project::{Connectivity, http::HttpError};
use pytheas_release::{Platform, Sha256};
use serde::{Deserialize, Serialize};

pub(super) use self::headers::headers;
pub use self::package::Package;
use self::release::Mirror;
use super::{
    Interpreter, InterpreterChoice, InterpreterError, Provider, Wanted,
    prepare::{self, Known, Raw},
};

/// What was chosen from the indexes is believed for this long without asking again.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// The provider `debian`.
pub(super) struct Debian;

/// Names of one CPU.
#[derive(Debug, Clone, Copy)]
struct Cpu {
    /// As in platform names.
    arch: &'static str,
    /// As Debian calls it.
    debian: &'static str,
    /// The folder of libraries.
    multiarch: &'static str,
    /// The loader's file name.
    loader: &'static str,
    /// As `uname -m` and markers call it.
    machine: &'static str,
    /// The release that came with it first, where that is not an old one.
    since: Option<&'static str>,
}

const CPUS: &[Cpu] = &[
    Cpu {
        arch: "x86_64",
        debian: "amd64",
        multiarch: "x86_64-linux-gnu",
        loader: "ld-linux-x86-64.so.2",
        machine: "x86_64",
        since: None,
    },
    Cpu {
        arch: "aarch64",
        debian: "arm64",
        multiarch: "aarch64-linux-gnu",
        loader: "ld-linux-aarch64.so.1",
        machine: "aarch64",
        since: None,
    },
    Cpu {
        arch: "armv7",
        debian: "armhf",
        multiarch: "arm-linux-gnueabihf",
        loader: "ld-linux-armhf.so.3",
        machine: "armv7l",
        since: None,
    },
    Cpu {
        arch: "riscv64",
        debian: "riscv64",
        multiarch: "riscv64-linux-gnu",
        loader: "ld-linux-riscv64-lp64d.so.1",
        machine: "riscv64",
        since: Some("trixie"),
    },
];

/// The CPUs there are packages for, as in platform names.
pub(super) fn architectures() -> impl Iterator<Item = &'static str> {
    CPUS.iter().map(|cpu| cpu.arch)
}

/// The packages of one interpreter, each known by hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Picked {
    /// `3.11`.
    short: String,
    /// `3.11.2`.
    version: String,
    packages: Vec<Package>,
}

impl Provider for Debian {
    fn name(&self) -> &'static str {
        "debian"
    }

    fn provide(&self, wanted: &Wanted<'_>) -> Result<Option<Interpreter>, InterpreterError> {
        let cpu = CPUS.iter().find(|cpu| cpu.arch == wanted.platform.arch());
        // Bundles carry glibc: they run on musl machines as well, but take glibc's wheels.
        let Some(cpu) = cpu.filter(|_| !wanted.platform.is_musl()) else {
            return Ok(None);
        };
        let mirrors = sources::mirrors(wanted.environment, cpu.since);
        if mirrors.is_empty() {
            return if *wanted.choice == InterpreterChoice::Debian {
                Err(InterpreterError::NoDebianMirror)
            } else {
                Ok(None)
            };
        }
        let picked = pick(wanted, &mirrors, cpu)?;
        let hashes: String = picked
            .packages
            .iter()
            .map(|package| package.sha256.to_string())
            .collect();
        let has_compiler = Platform::host().is_ok_and(|host| host.arch() == cpu.arch)
            || super::tool_for(wanted.environment, &picked.version).is_some();
        let state = if has_compiler { "compiled" } else { "plain" };
        let key = prepare::key(&[self.name(), layout::FORMAT, &hashes, state]);
        if let Some(interpreter) = prepare::cached(&wanted.cache(), &key) {
            return Ok(Some(interpreter));
        }
        let scratch = prepare::scratch(&wanted.cache())?;
        let scratch_path = scratch.path().to_owned();
        let mut files = archive::Files::default();
        for (package, bytes) in release::packages(wanted, &mirrors, &picked.packages)? {
            archive::read(&package.name, &bytes, &mut files)
                .map_err(super::io_error("unpack", &PathBuf::from(&package.file)))?;
        }
        let made = layout::write(scratch.path(), files, cpu, &picked.short)?;
        let raw = Raw {
            scratch,
            provider: self.name(),
            origin: PathBuf::from(mirrors[0].shown()),
            sha256: Some(Sha256::of(hashes.as_bytes())),
            missing: made.missing,
        };
        let version: Version = picked.version.parse().map_err(|_| {
            super::io_error("read", &scratch_path)(std::io::Error::other("no version"))
        })?;
        let known = Known {
            version: picked.version.clone(),
            program: made.program,
            site_packages: made.site_packages,
            stdlib: made.stdlib,
            markers: prepare::linux_markers(&version, cpu.machine),
            glibc: glibc(&picked.packages),
            loader: Some(made.loader),
            packages: picked.packages,
        };
        prepare::seal(raw, known, &key, wanted).map(Some)
    }
}

/// The C library's version, from its package's.
fn glibc(packages: &[Package]) -> Option<(u16, u16)> {
    let libc = packages.iter().find(|package| package.name == "libc6")?;
    let (major, rest) = libc.version.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The packages of the newest Python that fits; from an earlier build when that is fresh, or when
/// the network is not to be used.
fn pick(wanted: &Wanted<'_>, mirrors: &[Mirror], cpu: &Cpu) -> Result<Picked, InterpreterError> {
    let wish = format!(
        "{}\0{}\0{mirrors:?}\0{}",
        layout::FORMAT,
        wanted.shown(),
        cpu.debian
    );
    let file = release::cache_dir(wanted).join(format!(
        "picked-{}.json",
        &Sha256::of(wish.as_bytes()).to_string()[..32]
    ));
    let known = std::fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Picked>(&bytes).ok());
    let age = std::fs::metadata(&file).and_then(|metadata| metadata.modified());
    let is_fresh = age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH));
    if let Some(known) = known
        && (is_fresh || wanted.connectivity == Connectivity::Offline)
    {
        return Ok(known);
    }
    let index = release::index(wanted, mirrors, cpu)?;
    let mut best: Option<(Version, String)> = None;
    for package in index.values() {
        let Some(short) = package
            .name
            .strip_prefix("python")
            .and_then(|rest| rest.strip_suffix("-minimal"))
            .filter(|short| short.starts_with("3."))
        else {
            continue;
        };
        let Ok(version) = package.upstream().parse::<Version>() else {
            continue;
        };
        if wanted.accepts(&version) && best.as_ref().is_none_or(|(best, _)| version > *best) {
            best = Some((version, short.to_owned()));
        }
    }
    let Some((version, short)) = best else {
        return Err(none(wanted, mirrors, &index));
    };
    let packages = package::closure(
        &index,
        &[
            &format!("python{short}-minimal"),
            &format!("libpython{short}-stdlib"),
            "libc6",
            "libgcc-s1",
            "libstdc++6",
            "libatomic1",
            "zlib1g",
            "ca-certificates",
            "tzdata",
        ],
    );
    let picked = Picked {
        short,
        version: version.to_string(),
        packages,
    };
    let bytes = serde_json::to_vec_pretty(&picked)
        .map_err(|error| super::io_error("write", &file)(error.into()))?;
    pytheas_durable::replace(&file, &bytes).map_err(super::io_error("write", &file))?;
    Ok(picked)
}

/// That the mirrors have no Python that fits, and which they have.
fn none(
    wanted: &Wanted<'_>,
    mirrors: &[Mirror],
    index: &BTreeMap<String, Package>,
) -> InterpreterError {
    let has: BTreeSet<&str> = index
        .values()
        .filter(|package| package.name.starts_with("python3."))
        .map(Package::upstream)
        .collect();
    let has = has.into_iter().collect::<Vec<_>>().join(", ");
    let suites: BTreeSet<&str> = mirrors.iter().map(|mirror| mirror.suite.as_str()).collect();
    let suites = suites.into_iter().collect::<Vec<_>>().join(", ");
    let base = mirrors.first().map(Mirror::shown).unwrap_or_default();
    let has = if has.is_empty() {
        format!("Debian's {suites} from `{base}` has no Python for this CPU")
    } else {
        format!("Debian's {suites} from `{base}` has Python {has}")
    };
    InterpreterError::None {
        wanted: wanted.shown(),
        platform: wanted.platform.clone(),
        found: vec![
            has,
            "Debian 12 (`bookworm`) has 3.11, Debian 13 (`trixie`) 3.13: `PYTHEAS_DEBIAN_MIRROR=\"ADDRESS SUITE\"` chooses one".to_owned(),
        ],
    }
}

/// A failed download of `file`.
fn network(file: &str, source: HttpError) -> InterpreterError {
    InterpreterError::Network {
        file: file.to_owned(),
        source,
    }
}
