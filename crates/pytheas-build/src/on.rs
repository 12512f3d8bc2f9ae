//! The project's code and tests on other machines than what is shipped for Linux: on MicroPython
//! (this machine's port, the wasm port, an emulated board, a board on a line), and the same tests on
//! this machine's CPython beside them.
//!
//! ```text
//! tests ──import graph──▶ files (`closure`) ──▶ a started MicroPython (`vm`) ──lines──▶ report (`tests`)
//!                                               unittest.py, pytheas_tests.py beside them
//! ```
//! A machine that stops, hangs or runs out of memory is started again; the test that ran then is an
//! error, the others go on.

mod closure;
mod cpython;
mod error;
mod junit;
mod line;
mod place;
mod run;
mod tests;
mod vm;

use std::time::Duration;

use pytheas_project::{Connectivity, Environment, Project};
use serde::Serialize;

pub use error::OnError;
pub use junit::write_junit;
pub use place::{ParsePlaceError, Place};
pub use run::{Run, prepare_run};
pub use tests::test_on;

use crate::testing::{TestCase, TestOutcome};

/// What to test, and where.
#[derive(Debug, Clone)]
pub struct OnRequest {
    /// The project.
    pub project: Project,
    /// A target of it: its entry and `keep` count.
    pub target: Option<String>,
    /// How long a test may take.
    pub timeout: Duration,
    /// Only tests whose name contains one of these (`*` stands for anything); all, when empty.
    pub patterns: Vec<String>,
    /// Whether packages and tools may be fetched.
    pub connectivity: Connectivity,
    /// Where programs are looked for.
    pub environment: Environment,
}

/// How the tests went on one machine.
#[derive(Debug, Clone, Serialize)]
pub struct OnReport {
    /// The machine, as it was named: `unix`, `/dev/ttyACM0`.
    pub on: String,
    /// What it says it is, e.g. `MicroPython 1.25.0, linux`.
    pub machine: String,
    /// Whether all went well and there was at least one test.
    pub passed: bool,
    /// Every test.
    pub tests: Vec<TestCase>,
    /// How often it had to be started again.
    pub restarts: u32,
    /// How long it took.
    pub seconds: f64,
    /// What should be known of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl OnReport {
    /// Of a machine that no test was run on: one error, named `start`, that says why.
    pub fn not_run(place: &Place, why: String) -> Self {
        Self {
            on: place.to_string(),
            machine: "not run".to_owned(),
            passed: false,
            tests: vec![TestCase {
                name: "start".to_owned(),
                outcome: TestOutcome::Error,
                seconds: 0.0,
                text: why,
            }],
            restarts: 0,
            seconds: 0.0,
            notes: Vec::new(),
        }
    }

    /// How many went so.
    pub fn count(&self, outcome: &TestOutcome) -> usize {
        self.tests
            .iter()
            .filter(|test| test.outcome == *outcome)
            .count()
    }
}
