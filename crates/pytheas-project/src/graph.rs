//! The import graph of an app: which modules its entry points reach, through which imports.
//!
//! Nothing is run: module names come from file names, imports from the source text. What the text
//! does not show comes from `rules.toml` (well-known packages), from entry points, and from strings
//! that are names of modules; what remains undecided is listed with file and line.
//!
//! ```no_run
//! use pytheas_project::graph::{Graph, Origin, Root, Start};
//!
//! let start = Start {
//!     roots: vec![Root { dir: "app".into(), origin: Origin::App }],
//!     modules: vec!["greenhouse.main".into()],
//!     ..Start::default()
//! };
//! let graph = Graph::build(&start);
//! for (module, reason) in graph.chain("asyncio") {
//!     println!("{module}: {reason:?}");
//! }
//! ```

mod imports;
mod modules;
mod reach;
mod rules;
#[cfg(test)]
mod tests;
mod tokens;

pub use imports::{Import, Source, What, When, is_module_name, read as read_source};
pub use modules::{Kind, Module, Origin, Root};
pub use reach::{Graph, Missing, Plugin, Reason, Start, Undecided};
