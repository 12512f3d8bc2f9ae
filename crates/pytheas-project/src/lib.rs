//! Reads a Python project and locks it; never runs the user's code.
//!
//! [`Project::load`] reads `pyproject.toml` (PEP 621, PEP 735, `[tool.pytheas]`),
//! `requirements.txt`, or one of the other kinds of `source`; [`lock::lock`] resolves it with uv ([`Uv::find`]) into `pylock.toml`
//! (PEP 751); [`lock::check`] says offline whether that file still holds.
//!
//! ```no_run
//! use pytheas_project::{Connectivity, Environment, Project, Uv, lock};
//!
//! let environment = Environment::current();
//! let project = Project::load("greenhouse".as_ref())?;
//! let uv = Uv::find(&environment, Connectivity::Online, &|_| {})?;
//! let report = lock::lock(&project, &uv, &lock::LockOptions::default(), &|_| {})?;
//! assert!(report.packages > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod as_released;
mod credentials;
mod entry;
mod environment;
mod event;
pub mod export;
pub mod graph;
pub mod http;
mod index;
mod inputs;
pub mod isolate;
mod local_files;
pub mod lock;
mod lock_file;
mod manifest;
mod overridden;
mod preferred;
mod project;
mod pylock;
mod python;
mod pythons;
mod requirements;
mod resolve;
pub mod scratch;
mod settings;
mod setuptools;
mod source;
mod steady;
pub mod sync;
mod test_requirements;
mod uv;
mod uv_builds;
mod uv_fetch;
mod uv_watch;
mod version;
mod with_us;

pub use credentials::{IndexCredentials, ProjectIndexes, login, netrc};
pub use entry::{Entry, EntryError, ParseEntryError};
pub use environment::Environment;
pub use event::{Event, Observer};
pub use index::Index;
pub use inputs::{Change, LockInputs};
pub use isolate::Isolation;
pub use manifest::{ManifestError, closest};
pub use project::{Project, ProjectError, RequirementSource, normalised_name};
pub use pylock::{LockedFile, LockedPackage, PYLOCK_FILE, Pylock, PylockError};
pub use python::{PythonRequest, PythonRequestError};
pub use requirements::{RequirementsError, parse as parse_requirement};
pub use settings::{
    Also, AuditSpec, BuildNetwork, BuildSpec, ByteCode, CompileSpec, CompileWith, ConfigKind,
    ConfigSpec, ConflictsSpec, Day, HealthSpec, HookCommand, HookSpec, HooksSpec, IgnoreSpec,
    LicenceSpec, MicroPythonSpec, Millis, NumbaSpec, ReadySpec, RequiresSpec, Settings, SlimRule,
    Target, TestSpec, VersionFrom, VersionSpec,
};
pub use source::{InputError, ScriptError, Sources};
pub use test_requirements::TestRequirements;
pub use uv::{Connectivity, UV_VERSION, Uv, UvCallError, UvError, UvFailure, UvOrigin, UvSaid};
pub use uv_fetch::FetchError;
pub use version::{VersionError, resolve as resolve_version};
