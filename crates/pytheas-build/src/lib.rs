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

mod app;
mod budget;
mod build;
mod bundle;
mod bytecode;
mod dependencies;
mod entry_check;
mod error;
mod event;
mod form;
mod interpreter;
mod launcher;
mod output;
mod scratch;
mod wheel;

pub use app::AppError;
pub use build::{BuildRequest, Built, LockMode, build};
pub use dependencies::DependencyError;
pub use entry_check::EntryCheckError;
pub use error::BuildError;
pub use event::{Event, Observer, Phase};
pub use form::forms;
pub use interpreter::{Interpreter, InterpreterChoice, InterpreterError};
pub use output::OutputError;
