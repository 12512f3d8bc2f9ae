//! Forms: the ways to make a release tree. Each is a leaf that knows its inputs and the folder to
//! fill; the build around it (lock, interpreter, hashing, the swap into place) is the same for all.

use std::{cell::Cell, path::Path};

use pytheas_project::{Entry, Project, Pylock, Uv};
use pytheas_release::{Name, Platform, Version};

use crate::{
    bundle::Bundle,
    bytecode::kept::Ahead,
    error::BuildError,
    event::{Event, Observer, Phase},
    interpreter::Interpreter,
    wheelhouse::Wheelhouse,
};

/// What a form works with: everything is decided.
pub(crate) struct Job<'a> {
    pub(crate) project: &'a Project,
    pub(crate) name: &'a Name,
    /// As given or as the project says; none when only the app's own build tells.
    pub(crate) version: Option<&'a Version>,
    pub(crate) entry: &'a Entry,
    pub(crate) platform: &'a Platform,
    pub(crate) lock: &'a Pylock,
    pub(crate) lock_path: &'a Path,
    pub(crate) interpreter: &'a Interpreter,
    pub(crate) uv: &'a Uv,
    pub(crate) connectivity: pytheas_project::Connectivity,
    pub(crate) environment: &'a pytheas_project::Environment,
    /// Where the result will lie.
    pub(crate) output: &'a Path,
    /// What a bundle holds of its modules.
    pub(crate) bytecode: pytheas_project::ByteCode,
    /// What `keep` names, when only what the import graph reaches is wanted.
    pub(crate) slim: Option<&'a [String]>,
    /// Byte code of packages that was made while the interpreter was prepared.
    pub(crate) ahead: &'a Cell<Ahead>,
    pub(crate) observer: Observer<'a>,
}

impl Job<'_> {
    pub(crate) fn phase(&self, phase: Phase) {
        (self.observer)(Event::Phase(phase));
    }

    pub(crate) fn warn(&self, text: String) {
        (self.observer)(Event::Warning { text });
    }
}

/// What a form made besides the tree.
pub(crate) struct Made {
    pub(crate) version: Version,
    /// What starts the app, relative to the tree.
    pub(crate) entry: String,
}

/// A way to make a release tree.
pub(crate) trait Form: Sync {
    /// Its name in `form = "…"`.
    fn name(&self) -> &'static str;

    /// Whether the interpreter is part of the tree; else the device has one.
    fn carries_interpreter(&self) -> bool {
        true
    }

    /// Fills the new folder `into`.
    fn make(&self, job: &Job<'_>, into: &Path) -> Result<Made, BuildError>;
}

/// The forms there are.
const FORMS: &[&dyn Form] = &[&Bundle, &Wheelhouse];
/// The forms that have a name but no builder yet.
const PLANNED: &[&str] = &["image", "firmware"];

/// Names of the forms that can be built.
pub fn forms() -> impl Iterator<Item = &'static str> {
    // A wheel is no tree: `distributions` makes it; a board's needs no interpreter: `build_board`.
    FORMS
        .iter()
        .map(|form| form.name())
        .chain(["wheel", crate::micropython::FORM])
}

/// The form `name`.
pub(crate) fn find(name: &str) -> Result<&'static dyn Form, BuildError> {
    FORMS
        .iter()
        .find(|form| form.name() == name)
        .copied()
        .ok_or_else(|| BuildError::Form {
            form: name.to_owned(),
            state: if name == "wheel" || name == crate::micropython::FORM {
                "not built this way"
            } else if PLANNED.contains(&name) {
                "not built yet"
            } else {
                "not known"
            },
            available: forms().collect::<Vec<_>>().join(", "),
        })
}
