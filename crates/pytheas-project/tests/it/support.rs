//! Projects in temporary folders, and errors as the command shows them.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::{Connectivity, Environment, Project, ProjectError, Uv};
use tempfile::TempDir;

pub(crate) struct Workspace {
    pub(crate) dir: TempDir,
}

impl Workspace {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let workspace = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(workspace.root()).unwrap();
        for (name, text) in files {
            workspace.write(name, text);
        }
        workspace
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("project")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    }

    pub(crate) fn load(&self) -> Result<Project, ProjectError> {
        Project::load(&self.root())
    }

    #[track_caller]
    pub(crate) fn project(&self) -> Project {
        self.load()
            .unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    /// The error of loading it, its folder replaced by `DIR`.
    #[track_caller]
    pub(crate) fn failure(&self) -> String {
        self.filtered(&shown(&self.load().unwrap_err()))
    }

    pub(crate) fn filtered(&self, text: &str) -> String {
        text.replace(&self.root().display().to_string(), "DIR")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root().join(name)).unwrap()
    }
}

/// This process's environment with a cache that the tests share between runs.
pub(crate) fn environment() -> Environment {
    Environment::current().with(
        "PYTHEAS_CACHE_DIR",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytheas-cache"),
    )
}

pub(crate) fn uv() -> Uv {
    Uv::find(&environment(), Connectivity::Online, &|_| {})
        .unwrap_or_else(|error| panic!("{}", shown(&error)))
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
