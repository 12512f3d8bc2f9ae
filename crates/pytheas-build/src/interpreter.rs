//! Interpreters: where a bundle's Python comes from. Providers stand behind one trait; each gives
//! a prepared tree in the cache (relocatable, pruned, byte-compiled) that the forms only copy.
//!
//! ```text
//! CACHE/interpreters/<key>/python/bin/python3.11   the program; python3 links to it
//!                         /python/lib/python3.11/  standard library with __pycache__
//!                         /python/lib/*.so*        shared libraries that are not the C library's
//!                         /python/include/         headers for building packages; not copied
//!                         /interpreter.json        what is known about it (Interpreter)
//! ```

mod debian;
mod elf;
mod error;
mod host;
mod ld_cache;
mod pbs;
mod pins;
mod prepare;
mod probe;
mod prune;
mod runtime;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use pep440_rs::Version;
use pytheas_project::{Connectivity, Environment, PythonRequest};
use pytheas_release::{InterpreterRecord, Platform, RelPath, Sha256, TreeId};
use serde::{Deserialize, Serialize};

pub use debian::Package as DebianPackage;
pub use error::InterpreterError;
use error::io_error;

use crate::{
    bytecode::Runner,
    event::{Event, Observer},
    launcher::Record,
    wheel::Site,
};

pub(crate) use prepare::linux_markers;

/// Names of the shared libraries that an ELF file needs; none for other files.
pub(crate) fn needed_libraries(bytes: &[u8]) -> Vec<String> {
    runtime::needed(bytes)
}

/// Whether a shared library is a part of the C library.
pub(crate) fn is_c_library(name: &str) -> bool {
    elf::is_c_library(name)
}

/// A Python of this machine, with this machine's C library, that has the interpreter's minor
/// version: what builds of packages run on.
pub(crate) fn host_tool(environment: &Environment, interpreter: &Interpreter) -> Option<PathBuf> {
    if interpreter.runs_here && interpreter.loader.is_none() {
        return Some(interpreter.python());
    }
    interpreter
        .tool
        .clone()
        .or_else(|| tool_for(environment, &interpreter.version))
}

/// The folder with the interpreter's `Python.h`: its own, else from the distribution it is made
/// of; none when it comes without.
pub(crate) fn headers(
    interpreter: &Interpreter,
    platform: &Platform,
    connectivity: Connectivity,
    environment: &Environment,
    observer: Observer<'_>,
) -> Result<Option<PathBuf>, InterpreterError> {
    let include = interpreter.dir.join(HEADERS);
    let inside = std::fs::read_dir(&include).into_iter().flatten().flatten();
    let own = [include.clone()]
        .into_iter()
        .chain(inside.map(|child| child.path()))
        .find(|dir| dir.join("Python.h").is_file());
    if own.is_some() || interpreter.packages.is_empty() {
        return Ok(own);
    }
    let wanted = Wanted {
        python: None,
        locked: None,
        platform,
        choice: &InterpreterChoice::Debian,
        mirror: None,
        connectivity,
        environment,
        observer,
        foreseen: &|_| {},
    };
    debian::headers(&wanted, interpreter).map(Some)
}

/// The folder with the C headers, relative to `python`.
const HEADERS: &str = "include";

/// A prepared interpreter in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interpreter {
    /// The provider's name.
    pub provider: String,
    /// Its full version, e.g. `3.11.7`.
    pub version: String,
    /// Where it was taken from on this machine; never part of a bundle.
    pub origin: PathBuf,
    /// The SHA-256 of the archive it comes from.
    pub sha256: Option<Sha256>,
    /// The program, relative to `python`.
    pub program: RelPath,
    /// The folder for packages, relative to `python`.
    pub site_packages: RelPath,
    /// The standard library, relative to `python`.
    pub stdlib: RelPath,
    /// The environment markers (PEP 508), as JSON.
    pub markers: serde_json::Value,
    /// The C library's version that it was made on, e.g. `[2, 36]`; none for musl.
    pub glibc: Option<(u16, u16)>,
    /// How its program is started when it brings its own C library.
    #[serde(default)]
    pub loader: Option<Loader>,
    /// The distribution's packages it was made of.
    #[serde(default)]
    pub packages: Vec<DebianPackage>,
    /// Shared libraries that were not found, with the module that needs them.
    pub missing: Vec<String>,
    /// The id of the prepared tree: what lies in the cache is checked before each use.
    pub tree: TreeId,
    /// The prepared tree `python`; filled in when it is read from the cache.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Whether it can be started on this machine; filled in by [`provide`].
    #[serde(skip)]
    runs_here: bool,
    /// A Python of this machine with the same minor version, where it cannot be started here.
    #[serde(skip)]
    tool: Option<PathBuf>,
}

/// How a Python with its own C library is started: by its own loader, whatever the machine has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loader {
    /// The loader, relative to `python`; the libraries lie beside it.
    pub loader: RelPath,
    /// The program that it starts.
    pub program: RelPath,
}

/// Texts that records borrow.
pub(crate) struct LoaderTexts {
    loader: String,
    lib: String,
    program: String,
    certificates: String,
    zones: [String; 2],
    name: Option<String>,
}

impl Loader {
    /// The distribution's certificates, for machines that have none.
    const CERTIFICATES: &str = "share/ca-certificates.crt";
    /// The distribution's time zones, likewise.
    const ZONES: &str = "share/zoneinfo";

    /// The texts for a launch file that calls the interpreter's folder `base` (empty or with `/` at
    /// the end); `name` is what the program is to take for its own path, else how it was started.
    pub(crate) fn texts(&self, base: &str, name: Option<&str>) -> LoaderTexts {
        LoaderTexts {
            loader: format!("{base}{}", self.loader),
            lib: format!("{base}lib"),
            program: format!("{base}{}", self.program),
            // The machine's own come first: its owner may have added or removed some. OpenSSL was
            // built to look in Debian's place only.
            certificates: format!(
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt:/etc/pki/tls/certs/ca-bundle.crt:/etc/ssl/ca-bundle.pem:/etc/ssl/cert.pem:{base}{}",
                Self::CERTIFICATES
            ),
            // For `zoneinfo`, and for the C library where `TZ` names a zone.
            zones: ["PYTHONTZPATH", "TZDIR"].map(|name| {
                format!(
                    "{name}=/usr/share/zoneinfo:/usr/lib/zoneinfo:/usr/share/lib/zoneinfo:/etc/zoneinfo:{base}{}",
                    Self::ZONES
                )
            }),
            name: name.map(|name| format!("{base}{name}")),
        }
    }

    /// The records that start the program; its arguments follow.
    pub(crate) fn records<'a>(&self, texts: &'a LoaderTexts) -> Vec<Record<'a>> {
        vec![
            Record::Program(&texts.loader),
            Record::Default(&texts.certificates),
            Record::Default(&texts.zones[0]),
            Record::Default(&texts.zones[1]),
            // The machine's cache names libraries of its own C library.
            Record::Argument("--inhibit-cache"),
            Record::Argument("--library-path"),
            Record::Path(&texts.lib),
            Record::Argument("--argv0"),
            texts.name.as_deref().map_or(Record::Started, Record::Path),
            Record::Path(&texts.program),
        ]
    }
}

impl Interpreter {
    /// The program in the cache.
    pub fn python(&self) -> PathBuf {
        self.program.under(&self.dir)
    }

    /// Whether it can be started on this machine.
    pub(crate) fn runs_here(&self) -> bool {
        self.runs_here
    }

    /// A Python that runs on this machine and does what this one would: itself, or one with the
    /// same minor version.
    pub(crate) fn tool(&self) -> Option<PathBuf> {
        if self.runs_here {
            Some(self.python())
        } else {
            self.tool.clone()
        }
    }

    /// What compiles byte code for it: a Python of its minor version, else itself in an emulator of
    /// its CPU (qemu-user).
    pub(crate) fn compiler(&self, environment: &Environment) -> Option<Runner> {
        if let Some(tool) = self.tool() {
            return Some(tool.into());
        }
        let loader = self.loader.as_ref()?;
        let cpu = match self.markers.get("platform_machine")?.as_str()? {
            "armv7l" => "arm",
            other => other,
        };
        let program = environment
            .search_path()
            .iter()
            .flat_map(|dir| ["-static", ""].map(|end| dir.join(format!("qemu-{cpu}{end}"))))
            .find(|path| path.is_file())?;
        let arguments = [
            loader.loader.under(&self.dir).into_os_string(),
            "--inhibit-cache".into(),
            "--library-path".into(),
            self.dir.join("lib").into_os_string(),
            "--argv0".into(),
            self.python().into_os_string(),
            loader.program.under(&self.dir).into_os_string(),
        ];
        Some(Runner {
            program,
            arguments: arguments.to_vec(),
        })
    }

    /// How the copy of it in the folder `python` is started on this machine, in an emulator if need
    /// be.
    pub(crate) fn runner_at(&self, python: &Path, environment: &Environment) -> Option<Runner> {
        let mut copy = self.clone();
        copy.dir = python.to_owned();
        copy.tool = None;
        copy.compiler(environment)
    }

    /// Adds to a bundle's `lib` what the packages in `site` need of the system; gives what this
    /// machine does not have.
    pub(crate) fn add_libraries(
        &self,
        site: &Path,
        lib: &Path,
    ) -> Result<Vec<String>, InterpreterError> {
        if self.loader.is_some() {
            let libraries = self.dir.with_file_name("libraries");
            return runtime::add_from_folder(site, lib, &libraries).map(|()| Vec::new());
        }
        if self.runs_here {
            runtime::add_for_packages(site, lib)
        } else {
            Ok(Vec::new())
        }
    }

    /// Where its wheels are to fit.
    pub(crate) fn site<'a>(&self, platform: &'a Platform) -> Site<'a> {
        let version = self.version.parse::<Version>().ok();
        let minor = version
            .as_ref()
            .and_then(|version| version.release().get(1).copied())
            .unwrap_or(0);
        Site {
            platform,
            minor: u8::try_from(minor).unwrap_or(0),
            free_threaded: self.program.as_str().ends_with('t'),
            glibc: self.glibc,
        }
    }

    /// Copies it to the new folder `to`, without what only builds of packages need.
    pub(crate) fn copy_to(&self, to: &Path) -> io::Result<()> {
        crate::scratch::copy_tree_without(&self.dir, to, HEADERS)
    }

    /// What the build record says of it.
    pub fn record(&self) -> InterpreterRecord {
        InterpreterRecord {
            provider: self.provider.clone(),
            implementation: "cpython".to_owned(),
            version: self.version.clone(),
            sha256: self.sha256,
        }
    }
}

/// Where an interpreter is wanted from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum InterpreterChoice {
    /// python-build-standalone where a mirror is configured or one is in the cache, else the host's.
    #[default]
    Automatic,
    /// python-build-standalone.
    PythonBuildStandalone,
    /// Debian's packages, with their own C library.
    Debian,
    /// One of the host's own Pythons.
    Host,
    /// This Python of the host.
    Path(PathBuf),
}

impl FromStr for InterpreterChoice {
    type Err = String;

    /// `auto`, `pbs`, `debian`, `host`, or the path of a Python.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Automatic),
            "pbs" | "python-build-standalone" => Ok(Self::PythonBuildStandalone),
            "debian" => Ok(Self::Debian),
            "host" => Ok(Self::Host),
            _ if text.contains('/') => Ok(Self::Path(PathBuf::from(text))),
            _ => Err(format!(
                "`{text}` is no interpreter provider; known are `auto`, `pbs`, `debian`, `host` and the path of a Python"
            )),
        }
    }
}

impl fmt::Display for InterpreterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Automatic => f.write_str("auto"),
            Self::PythonBuildStandalone => f.write_str("pbs"),
            Self::Debian => f.write_str("debian"),
            Self::Host => f.write_str("host"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// What a provider is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) python: Option<&'a PythonRequest>,
    /// Pythons that the lock was made for, else those that the project supports.
    pub(crate) locked: Option<&'a PythonRequest>,
    pub(crate) platform: &'a Platform,
    pub(crate) choice: &'a InterpreterChoice,
    /// A mirror's address or a folder of archives.
    pub(crate) mirror: Option<&'a str>,
    pub(crate) connectivity: Connectivity,
    pub(crate) environment: &'a Environment,
    pub(crate) observer: Observer<'a>,
    /// Told, by a provider that knows it before the work begins, what it will give.
    pub(crate) foreseen: &'a dyn Fn(Foreseen),
}

/// What is known of an interpreter while it is being made.
#[derive(Debug, Clone)]
pub(crate) struct Foreseen {
    /// Its version, e.g. `3.11.7`.
    pub(crate) version: String,
    /// A program of this machine that is such a Python.
    pub(crate) python: Option<PathBuf>,
    /// What packages are chosen by, when that is known; `python` compiles as it will.
    pub(crate) interpreter: Option<Box<Interpreter>>,
}

impl Wanted<'_> {
    fn accepts(&self, version: &Version) -> bool {
        self.python.is_none_or(|request| request.contains(version))
            && self.locked.is_none_or(|request| request.contains(version))
    }

    /// What is wanted, in words.
    fn shown(&self) -> String {
        match (self.python, self.locked) {
            (Some(python), Some(locked)) if python.to_string() != locked.to_string() => {
                format!("Python {python} (within {locked}, as project and lock file say)")
            }
            (Some(request), _) | (None, Some(request)) => format!("Python {request}"),
            (None, None) => "Python".to_owned(),
        }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.environment.cache_dir().join("interpreters")
    }
}

/// A source of interpreters.
pub(crate) trait Provider: Sync {
    /// Its name in the build record.
    fn name(&self) -> &'static str;

    /// An interpreter that fits; none when this provider has none and another may be asked.
    fn provide(&self, wanted: &Wanted<'_>) -> Result<Option<Interpreter>, InterpreterError>;
}

/// An interpreter as wanted: from the provider that was named, else the first that has one.
pub(crate) fn provide(wanted: &Wanted<'_>) -> Result<Interpreter, InterpreterError> {
    let host = Platform::host().ok();
    let is_host = host.as_ref() == Some(wanted.platform);
    let providers: &[&dyn Provider] = match wanted.choice {
        InterpreterChoice::Automatic if is_host => &[&pbs::PythonBuildStandalone, &host::Host],
        InterpreterChoice::Automatic => &[&pbs::PythonBuildStandalone, &debian::Debian],
        InterpreterChoice::PythonBuildStandalone => &[&pbs::PythonBuildStandalone],
        InterpreterChoice::Debian => &[&debian::Debian],
        InterpreterChoice::Host | InterpreterChoice::Path(_) => &[&host::Host],
    };
    for provider in providers {
        if let Some(mut interpreter) = provider.provide(wanted)? {
            tracing::debug!(
                provider = provider.name(),
                version = interpreter.version,
                "chose interpreter"
            );
            let is_own_cpu = host
                .as_ref()
                .is_some_and(|host| host.arch() == wanted.platform.arch());
            interpreter.runs_here = is_host || (is_own_cpu && interpreter.loader.is_some());
            if !interpreter.runs_here {
                interpreter.tool = tool_for(wanted.environment, &interpreter.version);
            }
            (wanted.observer)(Event::Interpreter {
                provider: interpreter.provider.clone(),
                version: interpreter.version.clone(),
                origin: interpreter.origin.clone(),
            });
            for what in &interpreter.missing {
                (wanted.observer)(Event::Warning { text: what.clone() });
            }
            return Ok(interpreter);
        }
    }
    Err(InterpreterError::None {
        wanted: wanted.shown(),
        platform: wanted.platform.clone(),
        found: vec![match elsewhere(wanted) {
            Some(text) if !is_host => text,
            _ => host::listing(wanted),
        }],
    })
}

/// Where a Python for a platform that is not this machine's comes from.
fn elsewhere(wanted: &Wanted<'_>) -> Option<String> {
    let platform = wanted.platform;
    if *wanted.choice == InterpreterChoice::Host
        || matches!(wanted.choice, InterpreterChoice::Path(_))
    {
        return Some("this machine's own Pythons are for this machine only".to_owned());
    }
    if platform.is_musl() {
        let gnu = platform.as_str().trim_end_matches("-musl");
        return Some(format!(
            "only python-build-standalone has Pythons for musl; on a machine with musl a bundle for `{gnu}` by `--interpreter debian` works as well"
        ));
    }
    let known = debian::architectures().collect::<Vec<_>>();
    (!known.contains(&platform.arch()))
        .then(|| format!("Debian's packages are taken for {} only", known.join(", ")))
}

/// A Python of this machine with the minor version of `version`: byte code is the same for all
/// CPUs and all releases of one.
fn tool_for(environment: &Environment, version: &str) -> Option<PathBuf> {
    let mut parts = version.split('.');
    let short = format!("{}.{}", parts.next()?, parts.next()?);
    let request = short.parse::<PythonRequest>().ok()?;
    host::program(environment, &request)
}
