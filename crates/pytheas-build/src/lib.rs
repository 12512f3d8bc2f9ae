//! Builds a Python project into a release tree: interpreter, packages and app for one platform.
//!
//! ```no_run
//! use pytheas_build::{BuildRequest, build};
//! use pytheas_project::Project;
//!
//! let project = Project::load("greenhouse".as_ref())?;
//! let built = build(&BuildRequest::new(project), &|event| eprintln!("{event:?}"))?;
//! println!("{} in {}", built.tree_id, built.dir.display());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Forms ([`forms`]) and interpreter providers are leaves behind one trait each; a build tells
//! what it does as [`Event`]s and never prints.

mod ahead;
mod app;
mod app_packages;
mod budget;
mod build;
mod bundle;
mod bytecode;
mod cache;
mod complete;
mod dependencies;
mod entry_check;
mod error;
mod event;
mod explain;
mod form;
mod gaps;
mod heavy;
mod hooks;
mod imports;
mod install;
mod installed_entry;
mod interpreter;
mod known;
mod launcher;
mod locking;
pub mod micropython;
mod native;
mod numba;
mod on;
mod one_file;
mod output;
mod scratch;
mod slim;
mod start;
mod startup;
mod strip;
mod testing;
mod tools;
mod treemap;
mod trim;
mod upload;
mod wheel;
mod wheel_form;
mod wheelhouse;

pub use app::AppError;
pub use build::{BuildRequest, Built, LockMode, build};
pub use cache::{
    CacheError, CacheInfo, CacheOwner, CachePart, Collect, Collected, cache_info, collect_cache,
    parse_size, use_cache,
};
pub use dependencies::DependencyError;
pub use entry_check::EntryCheckError;
pub use error::BuildError;
pub use event::{Event, Observer, Phase};
pub use explain::{Check, CheckError, PartSize, Undeclared, check, import_graph};
pub use form::forms;
pub use gaps::{Gap, GapKind, PlatformGaps, platform_gaps, target_platforms};
pub use heavy::{Heavy, heavy_of_lock};
pub use hooks::HookError;
pub use imports::{
    ImportHint, ImportReport, ImportRequest, ImportedModule, ImportedPackage, ImportsError,
    measure_imports,
};
pub use install::InstallError;
pub use installed_entry::InstalledEntryError;
pub use interpreter::{DebianPackage, Interpreter, InterpreterChoice, InterpreterError, Loader};
pub use known::{
    Audit, AuditSubject, Database, DatabaseError, Finding, Ignore, OSV_API, ParseSeverityError,
    Part, PartKind, Severity, SubjectError, audit,
};
pub use known::{
    BUILD_TYPE, Provenance, ProvenanceError, provenance_path, write_provenance,
    write_wheel_provenance,
};
pub use known::{
    Distribution, Inventory, InventoryError, Licence, LicencePolicy, LicenceSource, Metadata,
    NotReproducible, SBOM_FILE, check_reproducible, check_wheel_reproducible, sbom,
};
pub use native::bench::{BenchError, BenchReport, BenchRequest, Times, bench};
pub use native::{ModulesError, NativeError, Said};
pub use on::{
    OnError, OnReport, OnRequest, ParsePlaceError, Place, Run, prepare_run, test_on, write_junit,
};
pub use one_file::{OneFile, OneFileError, one_file, one_file_cached};
pub use output::OutputError;
pub use testing::{
    Emulation, Prepared, TestCase, TestError, TestOutcome, TestReport, TestRequest, prepare_tests,
};
pub use tools::ToolsError;
pub use treemap::treemap;
pub use upload::{
    AttestationError, Credentials, Distribution as UploadFile, Given, Sending,
    Target as UploadTarget, UPLOAD_PAUSES, UploadError, Uploaded, attestations_of,
};
pub use wheel_form::{Distributions, WheelFormError, distributions, is_wheel_form};
