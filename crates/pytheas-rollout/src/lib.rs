//! The fleet's rollout machine: groups that open one after another, gates between them, and what
//! counts as failure.
//!
//! Pure: no clock, no database, no network. The hub feeds it events (a device reported, a person
//! pressed pause, time passed) and carries out the effects it answers; what is written down in
//! between ([`Progress`] and each member's [`Standing`]) is enough to go on after a restart.
//!
//! ```
//! use pytheas_rollout::{Effect, Event, Gates, GroupSize, Plan, Rollout};
//!
//! let plan = Plan::new(vec![GroupSize::Count(1), GroupSize::Percent(100)], Gates::default())?;
//! let rollout = Rollout::new(plan, ["canary", "b", "c"])?;
//! let (rollout, effects) = rollout.step(Event::Begin, 0);
//! assert_eq!(effects, [Effect::Opened { group: 0 }, Effect::Start { device: "canary" }]);
//!
//! let failed = Event::Failed { device: "canary", error: "not ready after 60 s".into() };
//! let (rollout, _) = rollout.step(failed, 90_000);
//! assert_eq!(
//!     rollout.progress().state.reason().unwrap(),
//!     "`canary` failed: not ready after 60 s (group 1: 1 of 1 failed, 0% allowed)"
//! );
//! # Ok::<(), pytheas_rollout::PlanError>(())
//! ```

mod event;
mod machine;
mod plan;
mod reason;
mod state;

pub use event::{Effect, Event};
pub use machine::Rollout;
pub use plan::{Gates, GroupSize, Plan, PlanError};
pub use reason::Reason;
pub use state::{GroupStatus, Member, Progress, RestoreError, Standing, State, Tally};
