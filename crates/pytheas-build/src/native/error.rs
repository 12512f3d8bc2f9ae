//! Why something was not compiled for a target, and what would help.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::{Connectivity, UvSaid};
use pytheas_release::Platform;

use crate::install::Installer;

/// Something that cannot be compiled for the target.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum NativeError {
    /// The compiler cannot be had.
    #[error("cannot fetch the C compiler `ziglang` from the package index")]
    #[diagnostic(
        code(pytheas::native::toolchain),
        help(
            "what uv says is above; check the network and index settings, or add `ziglang` to the index"
        )
    )]
    Toolchain {
        /// What uv says.
        source: UvSaid,
    },
    /// Something is to be fetched, but the network is not to be used.
    #[error("what compiling needs is not in the cache, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::native::offline),
        help(
            "build once without `--offline`: the C compiler, headers and build requirements stay in the caches"
        )
    )]
    Offline,
    /// The CPU is not known to the compiler's wrapper.
    #[error("nothing can be compiled for `{platform}`")]
    #[diagnostic(
        code(pytheas::native::platform),
        help(
            "Linux on x86_64, aarch64, armv7 and riscv64 is known; require packages that have wheels"
        )
    )]
    Platform {
        /// What is built for.
        platform: Platform,
    },
    /// No Python of the host runs the build.
    #[error("compiling for Python {short} on `{platform}` needs a Python {short} on this machine")]
    #[diagnostic(
        code(pytheas::native::no_python),
        help(
            "install Python {short} (e.g. with pyenv, uv or the system's packages), or choose another with `--python`"
        )
    )]
    NoPython {
        /// Major and minor version.
        short: String,
        /// What is built for.
        platform: Platform,
    },
    /// The target's Python has no headers.
    #[error("the C headers of Python {version} from `{}` are not to be had", origin.display())]
    #[diagnostic(
        code(pytheas::native::no_headers),
        help(
            "use an interpreter that has them (`--interpreter debian` or `--interpreter pbs`), or install this one's (`python3-dev`, `python3-devel`)"
        )
    )]
    NoHeaders {
        /// Where the interpreter comes from.
        origin: PathBuf,
        /// Its version.
        version: String,
    },
    /// It is built by a tool that does not cross-compile here.
    #[error(
        "`{package}` {version} has no wheel for `{platform}`, and its source is built by {tool}, which is not supported"
    )]
    #[diagnostic(code(pytheas::native::tool))]
    Tool {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What is built for.
        platform: Platform,
        /// What builds it.
        tool: &'static str,
        /// What to do.
        #[help]
        help: String,
    },
    /// A header of a library is missing.
    #[error(
        "`{package}` {version} has no wheel for `{platform}`, and its source needs the header `{header}`"
    )]
    #[diagnostic(code(pytheas::native::header))]
    Header {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What is built for.
        platform: Platform,
        /// The header.
        header: String,
        /// What to do.
        #[help]
        help: String,
        /// What the build says.
        source: Said,
    },
    /// The build failed otherwise.
    #[error("`{package}` {version} cannot be built from its source for `{platform}`")]
    #[diagnostic(code(pytheas::native::build))]
    Build {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What is built for.
        platform: Platform,
        /// What to do.
        #[help]
        help: String,
        /// What the build says.
        source: Said,
    },
    /// What the build needs cannot be installed.
    #[error("what the build of `{package}` {version} needs cannot be installed")]
    #[diagnostic(
        code(pytheas::native::requirements),
        help("its `[build-system]` wants {requires}")
    )]
    Requirements {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What it needs.
        requires: String,
        /// What uv says.
        source: UvSaid,
    },
    /// What was built does not fit the target.
    #[error("`{file}` of `{package}` {version} does not fit `{platform}`: {reason}")]
    #[diagnostic(
        code(pytheas::native::unfit),
        help(
            "its build does not honour the compiler it is given; require a version that has a wheel, or report it to its authors"
        )
    )]
    Unfit {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What is built for.
        platform: Platform,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Modules of the app cannot be compiled.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Modules(#[from] ModulesError),
    /// The interpreter's headers cannot be fetched.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interpreter(#[from] crate::interpreter::InterpreterError),
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::native::io),
        help("check permissions and free space; `PYTHEAS_CACHE_DIR` chooses another cache")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What `[tool.pytheas.compile]` names cannot be compiled.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ModulesError {
    /// No such module.
    #[error("`modules` in `[tool.pytheas.compile]` names `{name}`, which is no module of the app")]
    #[diagnostic(code(pytheas::compile::none))]
    None {
        /// As written.
        name: String,
        /// What to do.
        #[help]
        help: String,
    },
    /// A package, not a module.
    #[error("`modules` in `[tool.pytheas.compile]` names `{name}`, which is a package")]
    #[diagnostic(
        code(pytheas::compile::package),
        help("write `{name}.*` for all modules below it")
    )]
    Package {
        /// As written.
        name: String,
    },
    /// It is started as a program.
    #[error("`{name}` starts the app, so it cannot be compiled")]
    #[diagnostic(
        code(pytheas::compile::entry),
        help(
            "Python starts programs from source only: move what takes time into another module, or start the app by `module:callable`"
        )
    )]
    Entry {
        /// The module.
        name: String,
    },
    /// The compiler complains.
    #[error("{with} cannot compile the app's modules for `{platform}`")]
    #[diagnostic(
        code(pytheas::compile::failed),
        help(
            "correct what it says, or leave the module out of `modules` in `[tool.pytheas.compile]`"
        )
    )]
    Failed {
        /// What compiles.
        with: &'static str,
        /// The target.
        platform: Platform,
        /// What it says.
        source: Said,
    },
    /// A module was not made.
    #[error("{with} made no extension module of `{name}`")]
    #[diagnostic(
        code(pytheas::compile::missing),
        help("the package around it may have no `__init__.py`")
    )]
    Missing {
        /// What compiles.
        with: &'static str,
        /// The module.
        name: String,
    },
}

/// The lines of a build's output that matter.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub String);

/// What is built, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) platform: Platform,
}

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> NativeError + use<> {
    let path = path.to_owned();
    move |source| NativeError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// Tools that build native code in ways that are not supported, by what is required for them.
const TOOLS: &[(&str, &str)] = &[
    ("maturin", "maturin (Rust)"),
    ("setuptools-rust", "setuptools-rust (Rust)"),
    ("puccinialin", "maturin (Rust)"),
    ("meson-python", "meson-python"),
    ("mesonpy", "meson-python"),
    ("scikit-build-core", "scikit-build-core (CMake)"),
    ("scikit-build", "scikit-build (CMake)"),
    ("cmake", "CMake"),
    ("py-build-cmake", "py-build-cmake"),
    ("sip", "SIP"),
];

/// The name of a requirement (PEP 508), normalised.
pub(super) fn requirement_name(text: &str) -> String {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(text.len());
    pytheas_project::normalised_name(&text[..end])
}

/// Refuses what is built by a tool that is not supported.
pub(super) fn check_tools(
    requires: &[String],
    bits: u8,
    subject: &Subject,
) -> Result<(), NativeError> {
    for requirement in requires {
        let name = requirement_name(requirement);
        // Its headers say the sizes of the machine it was made for.
        let numpy =
            (name == "numpy" && bits == 32).then_some("numpy's headers for 64-bit machines");
        let tool = TOOLS.iter().find(|(known, _)| *known == name);
        if let Some(tool) = tool.map(|(_, tool)| *tool).or(numpy) {
            return Err(NativeError::Tool {
                package: subject.package.clone(),
                version: subject.version.clone(),
                platform: subject.platform.clone(),
                tool,
                help: HELP.to_owned(),
            });
        }
    }
    Ok(())
}

const HELP: &str = "require a version that has a wheel for this platform, or put one into an index or `--find-links` folder";

/// Packages of Debian that have a header, by its beginning.
const HEADERS: &[(&str, &str)] = &[
    ("ffi", "libffi"),
    ("openssl/", "OpenSSL"),
    ("libxml", "libxml2"),
    ("libxslt", "libxslt"),
    ("yaml", "libyaml"),
    ("zlib", "zlib"),
    ("jpeglib", "libjpeg"),
    ("png", "libpng"),
    ("libpq", "libpq (PostgreSQL)"),
    ("mysql", "libmariadb"),
    ("sqlite3", "SQLite"),
    ("alsa/", "alsa-lib"),
    ("portaudio", "PortAudio"),
    ("bluetooth/", "BlueZ"),
    ("dbus/", "D-Bus"),
    ("gio/", "GLib"),
    ("glib", "GLib"),
    ("systemd/", "libsystemd"),
    ("libudev", "libudev"),
    ("usb", "libusb"),
    ("pcap", "libpcap"),
    ("lber", "OpenLDAP"),
    ("sasl/", "Cyrus SASL"),
    ("curl/", "libcurl"),
    ("gmp", "GMP"),
    ("snappy", "Snappy"),
    ("lzo", "LZO"),
    ("ncurses", "ncurses"),
    ("readline/", "readline"),
    ("sys/capability", "libcap"),
    ("gpiod", "libgpiod"),
    ("hdf5", "HDF5"),
    ("cups/", "CUPS"),
];

/// The error for a build that wrote `said`.
pub(super) fn failed(said: &str, subject: &Subject) -> NativeError {
    let Subject {
        package,
        version,
        platform,
    } = subject.clone();
    let source = Said(excerpt(said));
    if let Some(header) = missing_header(said) {
        let library = HEADERS
            .iter()
            .find(|(start, _)| header.starts_with(start))
            .map(|(_, library)| format!(" (of {library})"))
            .unwrap_or_default();
        let help = format!(
            "headers of libraries for `{platform}` are not brought along, only Python's and the C library's{library}; {HELP}"
        );
        return NativeError::Header {
            package,
            version,
            platform,
            header,
            help,
            source,
        };
    }
    NativeError::Build {
        package,
        version,
        platform,
        help: HELP.to_owned(),
        source,
    }
}

/// The header that a compiler did not find.
fn missing_header(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let (before, _) = line.split_once("' file not found")?;
        before
            .rsplit_once("fatal error: '")
            .map(|(_, header)| header.to_owned())
    })
}

/// The first line of a compiler's output that complains.
pub(super) fn first_complaint(said: &str) -> Option<&str> {
    said.lines()
        .find(|line| line.contains("error: ") || line.contains("error:\t"))
        .map(str::trim)
}

/// The lines of a build's output that say what is wrong: complaints, else its end.
fn excerpt(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let is_complaint = |line: &&&str| {
        line.contains("error: ")
            || line.contains("Error: ")
            || line.starts_with("error")
            || names_line(line)
    };
    let mut picked: Vec<&str> = lines.iter().filter(is_complaint).take(6).copied().collect();
    if picked.len() < 2 {
        picked = lines[lines.len().saturating_sub(12)..].to_vec();
    }
    let line = |line: &&str| line.trim_end().chars().take(300).collect::<String>();
    picked.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether a line begins with a place in a Python file: `package/module.py:3:`.
fn names_line(line: &str) -> bool {
    line.split_once(".py:").is_some_and(|(file, rest)| {
        !file.contains(' ') && rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

impl NativeError {
    /// The same with the newest version that has a wheel, when there is help to give and `find`
    /// knows one.
    pub(super) fn with_wheels(mut self, find: impl FnOnce() -> Option<String>) -> Self {
        if let Self::Tool { help, .. } | Self::Header { help, .. } | Self::Build { help, .. } =
            &mut self
            && let Some(version) = find()
        {
            *help = format!("version {version} has a wheel that fits; {help}");
        }
        self
    }
}

/// The newest version of a package that has a wheel for the platform, as uv resolves it; uv does
/// not know all platforms.
pub(super) fn newest_with_wheel(installer: &Installer<'_>, subject: &Subject) -> Option<String> {
    let platform = match installer.platform.as_str() {
        "linux-x86_64" => "x86_64-manylinux_2_28",
        "linux-aarch64" => "aarch64-manylinux_2_28",
        "linux-riscv64" => "riscv64-manylinux_2_39",
        "linux-x86_64-musl" => "x86_64-unknown-linux-musl",
        "linux-aarch64-musl" => "aarch64-unknown-linux-musl",
        _ => return None,
    };
    if installer.connectivity == Connectivity::Offline {
        return None;
    }
    let scratch = tempfile::tempdir().ok()?;
    let file = scratch.path().join("requirements.in");
    super::write(
        &file,
        &format!("{}\n", subject.package),
        crate::scratch::Kind::Data,
    )
    .ok()?;
    let mut command = installer.uv.command();
    command
        .args([
            "pip",
            "compile",
            "--no-deps",
            "--no-header",
            "--no-annotate",
            "--quiet",
        ])
        .args(["--only-binary", ":all:", "--python-platform", platform])
        .args(["--python-version", &installer.interpreter.version])
        .arg(&file);
    let (text, _) = installer.uv.run(command).ok()?;
    let line = text.lines().find(|line| line.contains("=="))?;
    let version = line.split_once("==")?.1.split_whitespace().next()?;
    (version != subject.version).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            package: "cffi".to_owned(),
            version: "1.17.1".to_owned(),
            platform: "linux-armv7".parse().unwrap(),
        }
    }

    #[test]
    fn a_missing_header_is_named_with_its_library() {
        let said = "running build_ext\nsrc/c/_cffi_backend.c:15:10: fatal error: 'ffi.h' file not found\n   15 | #include <ffi.h>\n1 error generated.\nerror: command 'cc' failed with exit code 1\n";
        let error = failed(said, &subject());
        insta::assert_snapshot!(format!("{error}\n{}", error.help().unwrap()), @"
        `cffi` 1.17.1 has no wheel for `linux-armv7`, and its source needs the header `ffi.h`
        headers of libraries for `linux-armv7` are not brought along, only Python's and the C library's (of libffi); require a version that has a wheel for this platform, or put one into an index or `--find-links` folder
        ");
    }

    #[test]
    fn rust_is_refused_by_name() {
        let error = check_tools(&["maturin>=1.9,<2".to_owned()], 64, &subject()).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"`cffi` 1.17.1 has no wheel for `linux-armv7`, and its source is built by maturin (Rust), which is not supported");
        assert!(
            check_tools(
                &["setuptools".to_owned(), "Cython".to_owned()],
                64,
                &subject()
            )
            .is_ok()
        );
        assert!(check_tools(&["numpy".to_owned()], 64, &subject()).is_ok());
        assert!(check_tools(&["numpy>=2".to_owned()], 32, &subject()).is_err());
    }
}
