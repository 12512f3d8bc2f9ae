//! The device agent: polls its hub, verifies, stages, switches, supervises, rolls back.
//!
//! ```text
//! cli ─▶ device (the loop) ─┬─▶ pytheas-update   which step comes next
//!                           ├─▶ hub, http        DDI and `/repo/`
//!                           ├─▶ check, content   TUF, delta or objects
//!                           ├─▶ slots            stage, verify, switch, tidy
//!                           └─▶ supervisor       the app
//! ```
//! Invariants: the machine's state is on disk before an effect begins; `current` leads only to
//! trees of which every byte was verified; of what the hub says only a target's *name* is
//! believed, everything else comes by TUF; the app never outlives the agent.
//!
//! No async runtime, no Python; the builder, the project reader and the hub are never linked.
//!
//! ```no_run
//! use clap::Parser;
//! use pytheas_agent::cli::{AgentCommand, execute};
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(subcommand)]
//!     command: AgentCommand,
//! }
//! let code = execute(&Cli::parse().command, &mut std::io::stdout())?;
//! # Ok::<(), pytheas_agent::AgentError>(())
//! ```

mod app_config;
pub mod apply;
pub mod attributes;
mod backoff;
mod boards;
mod by_delta;
mod check;
pub mod cli;
mod clock;
mod confirm;
mod content;
mod cores;
mod data;
pub mod device;
pub mod enrol;
mod error;
mod failure;
pub mod follow;
pub mod git;
pub mod history;
mod hold;
mod http;
mod hub;
mod identity;
mod interrupt;
mod launcher;
mod local;
mod memory;
mod model;
mod offline;
mod paths;
pub mod peers;
mod remove;
mod request;
mod scrub;
mod service;
pub mod settings;
mod slots;
mod status;
pub mod supervisor;
mod written;

pub use error::{AgentError, exit};
pub use http::{CaError, HttpError};
pub use identity::{Identity, IdentityError};
pub use paths::StateDir;
pub use slots::SlotError;
pub use status::Status;

/// The host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
