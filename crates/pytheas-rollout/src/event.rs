//! What happens to a rollout, and what follows from it.

use crate::Standing;

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<D> {
    /// It starts.
    Begin,
    /// A device reported on its action, and goes on.
    Heard {
        /// Which.
        device: D,
    },
    /// A device runs the release.
    Succeeded {
        /// Which.
        device: D,
    },
    /// A device does not, and said why.
    Failed {
        /// Which.
        device: D,
        /// Why.
        error: String,
    },
    /// A device was taken out: removed, or a newer rollout has it.
    Cancelled {
        /// Which.
        device: D,
    },
    /// Time passed.
    Tick,
    /// A person pauses it.
    Pause {
        /// Who.
        by: String,
    },
    /// A person lets it go on, accepting the failures so far.
    Resume,
    /// A person takes it back.
    Abort {
        /// Who.
        by: String,
    },
}

/// What is to be done; each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<D> {
    /// A group opened.
    Opened {
        /// Counted from 0.
        group: usize,
    },
    /// Assign the release to this device.
    Start {
        /// Which.
        device: D,
    },
    /// Write down how this device ended.
    Ended {
        /// Which.
        device: D,
        /// How.
        standing: Standing,
    },
    /// Close this device's action as failed: it was silent for too long.
    GiveUp {
        /// Which.
        device: D,
        /// For so long.
        silent_ms: u64,
    },
    /// Take this device's action back.
    Withdraw {
        /// Which.
        device: D,
    },
    /// The rollout's state is another: tell it.
    StateChanged,
}
