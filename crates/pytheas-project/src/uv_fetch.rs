//! Fetching uv: the pinned wheel from the configured package index, or through the machine's pip
//! (which knows its default index), checked against the hashes below and unpacked into the cache.

use std::{
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use miette::Diagnostic;
use pep440_rs::Version;
use pytheas_release::{Platform, Sha256};

use crate::{
    environment::Environment,
    event::{Event, Observer},
    http::{Http, HttpError},
    index::Index,
    uv::{Connectivity, UV_VERSION, version_of},
};

/// Wheels of uv [`UV_VERSION`] by CPU and C library; the first of a row is fetched, pip may choose
/// another. File names leave out the `uv-VERSION-py3-none-` in front.
const WHEELS: &[(&str, &[(&str, &str)])] = &[
    (
        "linux-x86_64",
        &[(
            "manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
        )],
    ),
    (
        "linux-x86_64-musl",
        &[(
            "musllinux_1_1_x86_64.whl",
            "29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a",
        )],
    ),
    ("linux-aarch64", AARCH64),
    ("linux-aarch64-musl", AARCH64),
    ("linux-armv7", ARMV7),
    ("linux-armv7-musl", ARMV7),
];
/// Statically linked, so that it serves both C libraries; then the one that pip prefers on glibc.
const AARCH64: &[(&str, &str)] = &[
    (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
    ),
    (
        "manylinux_2_28_aarch64.whl",
        "5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203",
    ),
];
const ARMV7: &[(&str, &str)] = &[
    (
        "manylinux_2_17_armv7l.manylinux2014_armv7l.musllinux_1_1_armv7l.whl",
        "9cf0b7b12f13da6ab1c85694ab618d97a2bbd0c904cdea7f0172fb1dd768b9d5",
    ),
    (
        "manylinux_2_17_armv7l.manylinux2014_armv7l.whl",
        "86f1319f851e645bc295bb921e6be19beae7e69216c75ae809010ca7817393aa",
    ),
];
const WHEEL_LIMIT_BYTES: u64 = 200 << 20;
const BINARY_LIMIT_BYTES: u64 = 400 << 20;

/// uv could not be fetched.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum FetchError {
    /// No way led to it.
    #[error("uv {UV_VERSION} is not on this machine and cannot be fetched")]
    #[diagnostic(
        code(pytheas::uv::not_found),
        help("tried: {}\ninstall uv and put it on `PATH`, or name it with `PYTHEAS_UV`; an index other than pip's default is named with `PIP_INDEX_URL`", tried.join("; "))
    )]
    NotFound {
        /// What was tried.
        tried: Vec<String>,
    },
    /// Only the network has it.
    #[error("uv {UV_VERSION} is not on this machine, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::uv::offline),
        help("run once without `--offline`, or name an installed uv with `PYTHEAS_UV`")
    )]
    Offline,
    /// The index has another file under this name.
    #[error("`{file}` from {from} is not the file it should be")]
    #[diagnostic(
        code(pytheas::uv::hash),
        help(
            "its SHA-256 is {found}, expected {expected}; the index or the way to it is not to be trusted"
        )
    )]
    Hash {
        /// The file's name.
        file: String,
        /// Where it came from.
        from: String,
        /// Its hash.
        found: Sha256,
        /// The hash it should have.
        expected: String,
    },
    /// The index does not have it.
    #[error("the index `{index}` has no `{file}`")]
    #[diagnostic(
        code(pytheas::uv::no_wheel),
        help(
            "the index is configured by {configured_by}; install uv yourself and name it with `PYTHEAS_UV`"
        )
    )]
    NotOnIndex {
        /// The index.
        index: String,
        /// The file's name.
        file: String,
        /// What configures the index.
        configured_by: String,
    },
    /// The index does not answer.
    #[error("cannot fetch uv {UV_VERSION}")]
    #[diagnostic(
        code(pytheas::uv::network),
        help(
            "the index is configured by {configured_by}; check the network, or name an installed uv with `PYTHEAS_UV`"
        )
    )]
    Network {
        /// What configures the index.
        configured_by: String,
        /// Why.
        source: HttpError,
    },
    /// No wheel of uv for this machine.
    #[error("there is no uv for `{platform}`")]
    #[diagnostic(
        code(pytheas::uv::platform),
        help("build uv yourself and name it with `PYTHEAS_UV`")
    )]
    Platform {
        /// This machine.
        platform: String,
    },
    /// The cache cannot be written.
    #[error("cannot put uv into the cache `{}`", path.display())]
    #[diagnostic(
        code(pytheas::uv::cache),
        help("check the folder and its free space, or choose another with `PYTHEAS_CACHE_DIR`")
    )]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// uv from the cache, fetched first when it is not there.
pub(crate) fn cached_or_fetched(
    environment: &Environment,
    connectivity: Connectivity,
    observer: Observer<'_>,
) -> Result<(PathBuf, Version), FetchError> {
    let platform = Platform::host().map_err(|_| FetchError::Platform {
        platform: std::env::consts::ARCH.to_owned(),
    })?;
    let tools = environment.cache_dir().join("tools");
    let home = tools.join(format!("uv-{UV_VERSION}-{platform}"));
    let program = home.join("uv");
    if let Ok(version) = version_of(environment, &program) {
        return Ok((program, version));
    }
    if connectivity == Connectivity::Offline {
        return Err(FetchError::Offline);
    }
    let Some((_, wheels)) = WHEELS.iter().find(|(name, _)| *name == platform.as_str()) else {
        return Err(FetchError::Platform {
            platform: platform.to_string(),
        });
    };
    let cache = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Cache { path, source }
    };
    pytheas_durable::create_dir_all(&tools).map_err(cache(&tools))?;
    let scratch = crate::scratch::folder(&tools, ".uv-").map_err(cache(&tools))?;
    let wheel = match Index::configured(environment) {
        Some(index) => from_index(environment, &index, wheels, observer)?,
        None => from_pip(environment, wheels, scratch.path(), observer)?,
    };
    let fresh = scratch.path().join("fresh");
    unpack(&wheel, &fresh).map_err(cache(&fresh))?;
    // Two processes at once: the second finds the first's result, which is the same. A damaged
    // old one is moved out of the way first.
    if home.exists() && version_of(environment, &program).is_err() {
        pytheas_durable::remove_tree(&home).map_err(cache(&home))?;
    }
    match pytheas_durable::move_dir(&fresh, &home) {
        Err(error) if !program.is_file() => return Err(cache(&home)(error)),
        _ => {}
    }
    let version = version_of(environment, &program).map_err(cache(&program))?;
    observer(Event::FetchedUv {
        path: program.clone(),
    });
    Ok((program, version))
}

fn file_name(suffix: &str) -> String {
    format!("uv-{UV_VERSION}-py3-none-{suffix}")
}

/// The bytes, if one of the pinned wheels has their hash.
fn checked(
    bytes: Vec<u8>,
    file: &str,
    from: &str,
    wheels: &[(&str, &str)],
) -> Result<Vec<u8>, FetchError> {
    let found = Sha256::of(&bytes);
    let pinned = |(_, hash): &&(&str, &str)| found.to_string() == *hash;
    if wheels.iter().find(pinned).is_some() {
        return Ok(bytes);
    }
    let expected = wheels
        .iter()
        .find(|(suffix, _)| file_name(suffix) == file)
        .or(wheels.first());
    Err(FetchError::Hash {
        file: file.to_owned(),
        from: from.to_owned(),
        found,
        expected: expected.map_or("", |(_, hash)| hash).to_owned(),
    })
}

fn from_index(
    environment: &Environment,
    index: &Index,
    wheels: &[(&str, &str)],
    observer: Observer<'_>,
) -> Result<Vec<u8>, FetchError> {
    let network = |source| FetchError::Network {
        configured_by: index.configured_by.clone(),
        source,
    };
    observer(Event::FetchingUv {
        version: UV_VERSION.to_owned(),
        from: index.shown(),
    });
    let http = Http::new(environment);
    let file = file_name(wheels.first().map_or("", |(suffix, _)| suffix));
    let Some(url) = index.find(&http, "uv", &file).map_err(network)? else {
        return Err(FetchError::NotOnIndex {
            index: index.shown(),
            file,
            configured_by: index.configured_by.clone(),
        });
    };
    let (bytes, _) = http.get(&url, "*/*", WHEEL_LIMIT_BYTES).map_err(network)?;
    checked(bytes, &file, &format!("`{}`", index.shown()), wheels)
}

fn from_pip(
    environment: &Environment,
    wheels: &[(&str, &str)],
    scratch: &Path,
    observer: Observer<'_>,
) -> Result<Vec<u8>, FetchError> {
    observer(Event::FetchingUv {
        version: UV_VERSION.to_owned(),
        from: "pip".to_owned(),
    });
    let cache = |path: PathBuf| move |source| FetchError::Cache { path, source };
    let requirements = scratch.join("requirements.txt");
    let hashes: String = wheels
        .iter()
        .map(|(_, hash)| format!(" --hash=sha256:{hash}"))
        .collect();
    let line = format!("uv=={UV_VERSION}{hashes}\n");
    pytheas_durable::replace(&requirements, line.as_bytes())
        .map_err(cache(requirements.clone()))?;
    let mut tried = Vec::new();
    for (program, arguments) in pips(environment) {
        let shown = format!(
            "`{}`",
            [program.display().to_string()]
                .into_iter()
                .chain(arguments.iter().map(ToString::to_string))
                .collect::<Vec<_>>()
                .join(" ")
        );
        let output = environment
            .python(&program)
            .args(arguments)
            .args([
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
                "--no-input",
                "--quiet",
            ])
            .args(["--disable-pip-version-check", "--no-color"])
            .arg("--dest")
            .arg(scratch)
            .arg("-r")
            .arg(&requirements)
            .current_dir(scratch)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => {
                if let Some(path) = wheel_in(scratch) {
                    let bytes = std::fs::read(&path).map_err(cache(path.clone()))?;
                    let file = path
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    return checked(bytes, &file, &shown, wheels);
                }
                tried.push(format!("{shown}: downloaded nothing"));
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let line = text
                    .lines()
                    .rev()
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or("no message");
                tried.push(format!("{shown}: {}", line.trim()));
            }
            Err(error) => tried.push(format!("{shown}: {error}")),
        }
    }
    if tried.is_empty() {
        tried.push("no index is configured and there is no Python with pip on `PATH`".to_owned());
    }
    Err(FetchError::NotFound { tried })
}

/// Ways to call a pip, without repetitions; at most a handful, since a failing network makes each
/// of them slow.
fn pips(environment: &Environment) -> Vec<(PathBuf, &'static [&'static str])> {
    let mut found: Vec<(PathBuf, &'static [&'static str])> = Vec::new();
    let dirs = environment.search_path();
    for (name, arguments) in [
        ("python3", &["-m", "pip"][..]),
        ("pip3", &[]),
        ("pip", &[]),
        ("python", &["-m", "pip"]),
    ] {
        for dir in &dirs {
            let program = dir.join(name);
            let known = found
                .iter()
                .any(|(other, _)| other.canonicalize().ok() == program.canonicalize().ok());
            if program.is_file() && !known {
                found.push((program, arguments));
            }
        }
    }
    found.truncate(4);
    found
}

fn wheel_in(dir: &Path) -> Option<PathBuf> {
    let children = std::fs::read_dir(dir).ok()?.flatten();
    children
        .map(|child| child.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// Writes the program `uv` of the wheel into the new folder `into`.
fn unpack(wheel: &[u8], into: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(wheel)).map_err(io::Error::other)?;
    let member = archive
        .by_name(&format!("uv-{UV_VERSION}.data/scripts/uv"))
        .map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    member.take(BINARY_LIMIT_BYTES).read_to_end(&mut bytes)?;
    std::fs::create_dir(into)?;
    let program = into.join("uv");
    pytheas_durable::replace_with(&program, 0o755, |file| io::Write::write_all(file, &bytes))?;
    std::fs::set_permissions(into, std::fs::Permissions::from_mode(0o755))
}
