//! Projects, builds and runs for the tests of this crate.

use std::{
    cell::RefCell,
    error::Error,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use miette::Diagnostic;
use pytheas_build::{BuildError, BuildRequest, Built, Event, build};
use pytheas_project::{Environment, Project};
use tempfile::TempDir;

/// A folder with a project in `project` and room for results beside it.
pub(crate) struct Workspace {
    pub(crate) dir: TempDir,
}

impl Workspace {
    /// A workspace with the project's files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let workspace = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(workspace.project()).unwrap();
        for (name, text) in files {
            workspace.write(name, text);
        }
        workspace
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.root().join("project")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.root().join("out")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    }

    /// The request for a build into `out`, by the Python the tests agree on.
    pub(crate) fn request(&self) -> BuildRequest {
        let mut request = BuildRequest::new(Project::load(&self.project()).unwrap());
        request.out = Some(self.out());
        request.environment = environment();
        request
    }

    pub(crate) fn build(&self) -> Built {
        built(&self.request())
    }
}

/// This process's environment with a cache that the tests share between runs.
pub(crate) fn environment() -> Environment {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytheas-cache");
    Environment::current()
        .with("PYTHEAS_CACHE_DIR", cache)
        .without("PYTHEAS_PYTHON_MIRROR")
}

#[track_caller]
pub(crate) fn built(request: &BuildRequest) -> Built {
    try_build(request).unwrap_or_else(|error| panic!("{}", shown(&error)))
}

pub(crate) fn try_build(request: &BuildRequest) -> Result<Built, BuildError> {
    build(request, &|_| {})
}

/// The events of a build, and its result.
pub(crate) fn events(request: &BuildRequest) -> (Vec<Event>, Result<Built, BuildError>) {
    let events = RefCell::new(Vec::new());
    let result = build(request, &|event| events.borrow_mut().push(event));
    (events.take(), result)
}

/// An error as the command shows it: message, causes, help.
pub(crate) fn shown(error: &dyn Diagnostic) -> String {
    let mut text = format!("error: {error}");
    let mut source: Option<&dyn Error> = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n  cause: {cause}"));
        source = cause.source();
    }
    if let Some(help) = error.help() {
        text.push_str(&format!("\n  help: {help}"));
    }
    text
}

/// Runs a program with nothing in its environment but an empty `PATH`, from `/`.
pub(crate) fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("PATH", "")
        .output()
        .unwrap()
}

/// What a successful run wrote.
#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Python of a bundle.
pub(crate) fn python(dir: &Path) -> PathBuf {
    dir.join("python/bin/python3")
}

pub(crate) use testkit::skip as skipped;

/// A Python of this machine with the minor version; the test is skipped, visibly, without one.
pub(crate) fn host_python(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_file() {
        return Some(path);
    }
    skipped(&format!("there is no `{}`", path.display()));
    None
}

/// Whether this machine lets us make a mount namespace; else says that the test is skipped.
pub(crate) fn can_unshare() -> bool {
    let works = Command::new("unshare")
        .args(["-m", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        skipped("`unshare -m` needs to be run by root");
    }
    works
}

/// A command that runs `program` where no Python of this machine can be read.
pub(crate) fn without_host_pythons(program: &Path, arguments: &[&OsStr]) -> Command {
    let script = r#"
        set -e
        for dir in /root/.pyenv /home /opt /usr/local /usr/lib/python3* /usr/share/python3* "$HOME/.local"; do
            if [ -d "$dir" ]; then mount -t tmpfs none "$dir"; fi
        done
        for file in /usr/bin/python3* /usr/bin/pip*; do
            target=$(readlink -f "$file")
            if [ -f "$target" ] && [ ! -s /proc/self/fd/9 ]; then mount --bind /dev/null "$target"; fi
        done 9</dev/null
        for library in libssl libcrypto libsqlite3 libffi libz libbz2 liblzma libreadline libncursesw libexpat libuuid libgcc_s libstdc++; do
            for file in /usr/lib/*/$library.so*; do
                if [ -f "$file" ]; then mount --bind /dev/null "$(readlink -f "$file")"; fi
            done
        done
        cd /
        exec env -i PATH= "$@"
    "#;
    let mut command = Command::new("unshare");
    command
        .args(["-m", "bash", "-c", script, "hidden"])
        .arg(program)
        .args(arguments);
    command
}
