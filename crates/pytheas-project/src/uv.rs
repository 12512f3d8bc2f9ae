//! uv, our resolver, installer and build front end: found on this machine or fetched, then called
//! by its documented command line.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use miette::Diagnostic;
use pep440_rs::Version;

use crate::{
    credentials::ProjectIndexes,
    environment::Environment,
    event::Observer,
    index::Index,
    isolate::Isolation,
    project::Project,
    source::redacted,
    uv_builds::Builds,
    uv_fetch::{self, FetchError},
    uv_watch::{self, Limits, TooLarge},
};

/// The version that is fetched, and that the tests run with.
pub const UV_VERSION: &str = "0.13.8";
/// Versions on `PATH` that are used: from the first whose `pylock.toml` support we rely on, to
/// before the next major version.
const SUPPORTED: (&str, &str) = ("0.9.0", "1");

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connectivity {
    /// It may.
    #[default]
    Online,
    /// Only what is on this machine.
    Offline,
}

/// Where uv was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UvOrigin {
    /// `PYTHEAS_UV`.
    Variable,
    /// `PATH`.
    SearchPath,
    /// The cache, fetched now or earlier.
    Cache,
}

/// A uv that runs.
#[derive(Debug, Clone)]
pub struct Uv {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Where it was found.
    pub origin: UvOrigin,
    environment: Environment,
    connectivity: Connectivity,
    isolation: Isolation,
    indexes: ProjectIndexes,
    /// What it may unpack.
    pub(crate) limits: Limits,
}

/// No uv.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum UvError {
    /// `PYTHEAS_UV` names something else.
    #[error("`PYTHEAS_UV` names `{}`, which does not run as uv", path.display())]
    #[diagnostic(
        code(pytheas::uv::variable),
        help("set it to the path of a uv program, or unset it")
    )]
    Variable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no room for what isolates builds.
    #[error("cannot make a folder in `{}`", std::env::temp_dir().display())]
    #[diagnostic(
        code(pytheas::uv::temporary),
        help("check its permissions and free space, or name another with `TMPDIR`")
    )]
    Temporary(#[source] io::Error),
    /// It cannot be fetched.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fetch(#[from] FetchError),
}

/// What uv wrote when it failed, verbatim.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct UvSaid(pub String);

/// Why a call of uv failed, as far as its words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UvFailure {
    /// No versions fit together, or a package does not exist.
    Unresolvable,
    /// The network or the index does not answer.
    Network,
    /// The index does not know who asks.
    Credentials,
    /// Something is not in the cache, and the network is not to be used.
    Offline,
    /// A file does not have the locked hash.
    Hash,
    /// The disk is full.
    DiskFull,
    /// A source distribution cannot be built.
    Build,
    /// A package unpacks to more than any should; uv was ended.
    TooLarge,
    /// Anything else.
    Other,
}

/// A call of uv that did not succeed.
#[derive(Debug)]
pub enum UvCallError {
    /// It cannot be started.
    Start(io::Error),
    /// It ended with an error.
    Failed(UvFailure, UvSaid),
}

impl Uv {
    /// uv from `PYTHEAS_UV`, else in a supported version from `PATH`, else the pinned version
    /// from the cache, else fetched into the cache.
    ///
    /// # Errors
    /// When `PYTHEAS_UV` is wrong, or none is found and fetching fails.
    pub fn find(
        environment: &Environment,
        connectivity: Connectivity,
        observer: Observer<'_>,
    ) -> Result<Self, UvError> {
        let isolation = Isolation::new(environment).map_err(UvError::Temporary)?;
        let found = |path: PathBuf, version, origin| Self {
            path,
            version,
            origin,
            environment: environment.clone(),
            connectivity,
            isolation: isolation.clone(),
            indexes: ProjectIndexes::default(),
            limits: Limits::default(),
        };
        if let Some(path) = environment.path("PYTHEAS_UV") {
            let version = version_of(environment, &path).map_err(|source| UvError::Variable {
                path: path.clone(),
                source,
            })?;
            return Ok(found(path, version, UvOrigin::Variable));
        }
        for path in environment
            .search_path()
            .into_iter()
            .map(|dir| dir.join("uv"))
            .filter(|path| path.is_file())
        {
            match version_of(environment, &path) {
                Ok(version) if is_supported(&version) => {
                    return Ok(found(path, version, UvOrigin::SearchPath));
                }
                Ok(version) => {
                    tracing::debug!(path = %path.display(), %version, "passed over unsupported uv")
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "passed over broken uv")
                }
            }
        }
        let (path, version) = uv_fetch::cached_or_fetched(environment, connectivity, observer)?;
        Ok(found(path, version, UvOrigin::Cache))
    }

    /// The same for work on `project`: builds may use the network as its settings say.
    #[must_use]
    pub fn for_project(&self, project: &Project) -> Self {
        let mut uv = self.clone();
        uv.isolation = self.isolation.for_project(project);
        uv.indexes = ProjectIndexes::of(project, &self.environment);
        uv
    }

    /// The indexes that the project's requirements name.
    pub fn indexes(&self) -> &ProjectIndexes {
        &self.indexes
    }

    /// What keeps the code of packages that are built apart.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// A variable of the environment that uv is run in.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.environment.get(name)
    }

    /// A command that runs uv without progress bars, colours, prompts or downloads of Pythons.
    /// Back ends that uv calls run isolated ([`Isolation`]).
    pub fn command(&self) -> Command {
        let mut command = self.command_without_pip_index();
        // uv does not read pip's settings; whoever has set an index for pip means this one, too.
        if let Some(index) = Index::of_pip(&self.environment) {
            command.env("UV_DEFAULT_INDEX", index.url.as_str());
        }
        command
    }

    /// As [`Uv::command`], for a project that names its indexes itself.
    pub(crate) fn command_without_pip_index(&self) -> Command {
        let mut command = self.environment.command(&self.path);
        for name in [
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "UV_PYTHON",
            "UV_SYSTEM_PYTHON",
            "PYTHONPATH",
            "PYTHONHOME",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command
            .env("NO_COLOR", "1")
            .env("UV_NO_PROGRESS", "1")
            .env("UV_PYTHON_DOWNLOADS", "never");
        if let (None, Some(file)) = (
            self.environment.get("SSL_CERT_FILE"),
            self.environment.get("PIP_CERT"),
        ) {
            command.env("SSL_CERT_FILE", file);
        }
        // uv leaves its locks of source folders there, one for each name; with ours they go.
        if self.environment.get("TMPDIR") == std::env::var("TMPDIR").ok().as_deref() {
            command.env("TMPDIR", tempfile::env::temp_dir());
        }
        if self.connectivity == Connectivity::Offline {
            command.env("UV_OFFLINE", "1");
        }
        self.isolation.apply(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command made by [`Uv::command`]; gives what it wrote to standard output and error.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed.
    pub fn run(&self, mut command: Command) -> Result<(String, String), UvCallError> {
        // Not the whole command: its environment holds secrets.
        let arguments = command
            .get_args()
            .map(|argument| redacted(&argument.to_string_lossy()));
        tracing::debug!(arguments = ?arguments.collect::<Vec<_>>(), "running uv");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(UvCallError::Start)?;
        self.outcome(child)
    }

    /// As [`Uv::run`], with `input` on its standard input.
    pub(crate) fn run_with_input(
        &self,
        mut command: Command,
        input: &str,
    ) -> Result<(String, String), UvCallError> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(UvCallError::Start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that has ended early says why in its own words.
            let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        }
        self.outcome(child)
    }

    /// Waits for a started uv, watching what it unpacks.
    fn outcome(&self, child: Child) -> Result<(String, String), UvCallError> {
        let (output, too_large) =
            uv_watch::wait(child, self.limits, Builds::of(self.isolation.log()))
                .map_err(UvCallError::Start)?;
        if let Some(TooLarge { package, limit }) = too_large {
            let said = format!(
                "`{package}` unpacks to more than {limit}; uv was stopped, and what it had unpacked removed"
            );
            return Err(UvCallError::Failed(UvFailure::TooLarge, UvSaid(said)));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok((text(&output.stdout), redacted(&text(&output.stderr))));
        }
        let said = redacted(&without_chatter(&text(&output.stderr)));
        let said = if said.is_empty() {
            format!("uv ended with {}", output.status)
        } else {
            said
        };
        Err(UvCallError::Failed(classify(&said), UvSaid(said)))
    }
}

/// uv's errors without the lines on its way to them.
fn without_chatter(text: &str) -> String {
    let chatter = [
        "Using CPython",
        "Using Python",
        "Resolved ",
        "Prepared ",
        "Downloading ",
        "Downloaded ",
        "Building ",
        "Built ",
        "Updating ",
        "Updated ",
    ];
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            !chatter
                .iter()
                .any(|start| line.trim_start().starts_with(start))
        })
        .collect();
    lines.join("\n").trim_end().to_owned()
}

fn classify(said: &str) -> UvFailure {
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["No space left on device", "os error 28"]) {
        UvFailure::DiskFull
    } else if has(&[
        "network was disabled",
        "network is disabled",
        "Network connectivity is disabled",
    ]) {
        UvFailure::Offline
    } else if has(&["Hash mismatch", "hash mismatch"]) {
        UvFailure::Hash
    } else if has(&["Failed to build", "Build backend"]) {
        UvFailure::Build
    // uv then also says that the package does not exist.
    } else if has(&[
        "(401 Unauthorized)",
        "(403 Forbidden)",
        "a 403 Forbidden error",
    ]) {
        UvFailure::Credentials
    } else if has(&["No solution found", "not found in the package registry"]) {
        UvFailure::Unresolvable
    } else if has(&[
        "error sending request",
        "dns error",
        "client error (Connect)",
        "Failed to fetch",
        "operation timed out",
        "Request failed",
    ]) {
        UvFailure::Network
    } else {
        UvFailure::Other
    }
}

fn is_supported(version: &Version) -> bool {
    let bound = |text: &str| text.parse::<Version>().ok();
    bound(SUPPORTED.0).is_some_and(|low| *version >= low)
        && bound(SUPPORTED.1).is_some_and(|high| *version < high)
}

/// What `uv --version` says.
pub(crate) fn version_of(environment: &Environment, path: &Path) -> io::Result<Version> {
    let output = environment
        .command(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    match (
        words.next(),
        words.next().and_then(|word| word.parse().ok()),
    ) {
        (Some("uv"), Some(version)) if output.status.success() => Ok(version),
        _ => Err(io::Error::other(format!(
            "`uv --version` was answered with `{}`",
            text.trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_uvs_words() {
        let check = |said: &str, expected| assert_eq!(classify(said), expected, "{said}");
        check(
            "error: No solution found when resolving dependencies\n  cause: …",
            UvFailure::Unresolvable,
        );
        check(
            "error: Request failed after 3 retries in 8.2s\n  cause: Failed to fetch: …\n  cause: dns error",
            UvFailure::Network,
        );
        check(
            "error: No solution found\n\nhint: Packages were unavailable because the network was disabled.",
            UvFailure::Offline,
        );
        check(
            "error: failed to write\n  cause: No space left on device (os error 28)",
            UvFailure::DiskFull,
        );
        check("error: Hash mismatch for `a==1`", UvFailure::Hash);
        for said in [
            "error: No solution found …\n\nhint: An index URL (https://x/) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)",
            "error: No solution found …\n\nhint: An index (https://x/) returned a 403 Forbidden error. Check …",
            "error: Failed to download `a`\n  cause: Failed to fetch: https://x/a\n  cause: HTTP status client error (401 Unauthorized) for url (https://x/a)",
        ] {
            check(said, UvFailure::Credentials);
        }
    }

    #[test]
    fn versions_outside_the_range_are_passed_over() {
        let supported = |text: &str| is_supported(&text.parse().unwrap());
        assert!(supported(UV_VERSION) && supported("0.9.0"));
        assert!(!supported("0.8.22") && !supported("1.0.0"));
    }
}
