//! Code of packages that runs to build them (PEP 517 back ends, `setup.py`) runs apart: without a
//! network, a home, secrets or anything to write but its own folders.
//!
//! uv resolves and installs what a build needs, with the network; then it starts Python once for each
//! hook of the back end. Every such Python first finds our `encodings`, the first module that any
//! Python imports, and with it our `sitecustomize`, which starts the hook again in user, mount, process, IPC and network namespaces of its own (or under Landlock and
//! seccomp, where the kernel refuses those), and does so before any code of a package is read.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;

use crate::{environment::Environment, project::Project, settings::BuildNetwork};

const SCRIPT: &str = include_str!("isolate/sitecustomize.py");
const FIRST: &str = include_str!("isolate/encodings.py");
/// The variable with the packages whose builds may use the network, separated by commas; `*` is
/// all of them. `--allow-build-network` sets it.
pub const NETWORK: &str = "PYTHEAS_BUILD_NETWORK";
/// The variable that switches the isolation off (`off`).
pub const SWITCH: &str = "PYTHEAS_BUILD_ISOLATION";
/// For the script: the only folder whose build has the name in [`NAME`].
pub(crate) const OWN: &str = "PYTHEAS_ISOLATE_OWN";
const NAME: &str = "PYTHEAS_ISOLATE_NAME";
const WRITE: &str = "PYTHEAS_ISOLATE_WRITE";
const ROOMS: &str = "PYTHEAS_ISOLATE_ROOMS";
const SHOWN: &str = "PYTHEAS_ISOLATE_SHOWN";
const LOG: &str = "PYTHEAS_ISOLATE_LOG";
/// How the line of the log ends that says that a hook has ended.
pub(crate) const ENDED: &str = "\tended";
const ALLOWED: &str = "PYTHEAS_ISOLATE_NETWORK";

/// What keeps builds apart.
#[derive(Debug, Clone)]
pub struct Isolation {
    room: Option<Arc<TempDir>>,
    allowed: Vec<String>,
    own: Option<(String, PathBuf)>,
}

impl Isolation {
    /// As `environment` says: [`NETWORK`], [`SWITCH`].
    ///
    /// # Errors
    /// When nothing can be written into the temporary folder.
    pub fn new(environment: &Environment) -> io::Result<Self> {
        let allowed = environment.get(NETWORK).unwrap_or_default();
        let room = if environment.get(SWITCH) == Some("off") {
            None
        } else {
            let room = tempfile::Builder::new()
                .prefix("pytheas-isolate-")
                .tempdir()?;
            let script = room.path().join("sitecustomize.py");
            pytheas_durable::replace(&script, SCRIPT.as_bytes())?;
            let first = room.path().join("encodings");
            pytheas_durable::create_dir_all(&first)?;
            pytheas_durable::replace(&first.join("__init__.py"), FIRST.as_bytes())?;
            Some(Arc::new(room))
        };
        Ok(Self {
            room,
            allowed: allowed
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            own: None,
        })
    }

    /// The same with what the settings of `project` allow.
    pub(crate) fn for_project(&self, project: &Project) -> Self {
        let mut isolation = self.clone();
        let own = project.name.to_string();
        match &project.settings.build.network {
            BuildNetwork::Own(false) => {}
            BuildNetwork::Own(true) => isolation.allowed.push(own.clone()),
            BuildNetwork::Packages(names) => isolation.allowed.extend_from_slice(names),
        }
        isolation.own = Some((own, project.dir.clone()));
        isolation
    }

    /// Isolates the back ends that `command`, which is uv or a Python, starts. It ends when we are
    /// killed.
    pub fn apply(&self, command: &mut Command) {
        crate::with_us::end_with_us(command);
        let Some(room) = &self.room else { return };
        command
            .env("PYTHONPATH", room.path())
            .env(LOG, self.log_path(room))
            .env(ALLOWED, self.allowed.join(","))
            .env_remove(WRITE)
            .env_remove(NAME)
            .env_remove(ROOMS)
            .env_remove(SHOWN)
            .env_remove(OWN);
        if let Some((name, dir)) = &self.own {
            command.env(NAME, name).env(OWN, dir);
        }
    }

    /// Says of a command that [`Isolation::apply`] has seen what it builds, and where the result
    /// goes.
    pub fn describe(&self, command: &mut Command, name: &str, out: &Path) {
        if self.room.is_some() {
            command.env(NAME, name).env(WRITE, out).env_remove(OWN);
        }
    }

    /// Isolates `command`, a Python that builds the package `name` without uv: it may write in the
    /// folders `rooms` only, and sees `shown` even where its like is hidden.
    pub fn enclose(&self, command: &mut Command, name: &str, rooms: &[PathBuf], shown: &[PathBuf]) {
        if self.room.is_none() {
            return;
        }
        self.apply(command);
        command.env(NAME, name).env_remove(OWN);
        for (variable, folders) in [(ROOMS, rooms), (SHOWN, shown)] {
            // A folder with the separator in its name would be hidden, and the build say so.
            command.env(variable, std::env::join_paths(folders).unwrap_or_default());
        }
    }

    /// Whether builds are kept apart.
    pub fn is_on(&self) -> bool {
        self.room.is_some()
    }

    /// One line for each hook that ran: the package, `network` or `-`, how it was isolated.
    pub fn hooks(&self) -> Vec<String> {
        let text = self
            .room
            .as_ref()
            .and_then(|room| std::fs::read_to_string(self.log_path(room)).ok());
        let text = text.unwrap_or_default();
        let begun = text.lines().filter(|line| !line.ends_with(ENDED));
        begun.map(str::to_owned).collect()
    }

    /// The file that gets a line when a hook begins, and one when it ends.
    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.room.as_ref().map(|room| self.log_path(room))
    }

    fn log_path(&self, room: &TempDir) -> PathBuf {
        room.path().join("hooks")
    }
}
