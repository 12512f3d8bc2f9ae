//! The device's update machine: which step of an update comes next, and nothing else.
//!
//! Pure: no files, no network, no clock. The agent keeps the [`Machine`] on disk, saves it before
//! each effect begins, performs [`Machine::effect`] and feeds what happened back as an [`Event`].
//!
//! ```text
//! idle ─▶ checking ─▶ fetching ─▶ staging ─▶ verifying ─▶ switching ─▶ probation ─▶ committed ─▶ idle
//!           │            │           │        │  ▲             │           │
//!           └────────────┴───────────┴────────┴──┼─▶ idle      └──▶ rolling-back ─▶ idle
//!                                     operator: roll back
//!
//! with hooks or data to set aside:
//! verifying ─▶ preparing ─▶ snapshotting ─▶ switching ─▶ migrating ─▶ probation ─▶ …
//!                  └──────────────┴─▶ idle                  └─▶ rolling-back ─▶ idle
//! ```
//!
//! An update moves one component or several; those go through every state together, and are
//! committed or rolled back together.
//!
//! What holds at every moment, crashes included (tested by random histories in `tests/`):
//! - `current` names a release whose tree was verified, byte by byte, before it was ever switched to;
//! - a release that fails its probation does not stay current;
//! - an action that was taken up ends in a closing report, kept until the hub has acknowledged it.
//!
//! ```
//! use pytheas_update::{Effect, Event, Machine, Offer};
//!
//! let machine = Machine::default().step(Event::Wanted {
//!     action: Some("7".parse()?),
//!     offer: Offer::one("greenhouse/1.1.0/linux-x86_64/release.json"),
//! });
//! assert!(matches!(machine.effect(), Effect::Check { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
pub mod checked;
mod components;
mod event;
mod machine;
mod report;
mod state;
mod stored;

pub use action::{ActionId, ParseActionIdError};
pub use components::{AGENT, Component};
pub use event::{Effect, Event};
pub use machine::Machine;
pub use report::{Failure, Outcome, Reason, Refusal, Report};
pub use state::{Found, Installed, Job, Offer, PROBATION_STARTS, Part, State};
pub use stored::StoredStateError;
