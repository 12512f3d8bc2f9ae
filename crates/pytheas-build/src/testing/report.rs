//! How the tests went.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestOutcome {
    /// As it should.
    Passed,
    /// An assertion does not hold.
    Failed,
    /// It could not be run to its end.
    Error,
    /// It was not run, or was expected to fail.
    Skipped,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// Its name, as the runner calls it.
    pub name: String,
    /// How it went.
    pub outcome: TestOutcome,
    /// How long it took.
    pub seconds: f64,
    /// What it said when it failed.
    #[serde(default)]
    pub text: String,
}

/// How the tests went.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Name and version of the app.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The form that was tested.
    pub form: String,
    /// The platform.
    pub platform: String,
    /// The interpreter's version.
    pub python: String,
    /// The emulator; none on this machine's own CPU.
    pub emulator: Option<PathBuf>,
    /// What was run, e.g. `pytest -q`.
    pub command: String,
    /// The artifact's tree, the same before and after; none for a wheel.
    pub tree_id: Option<String>,
    /// Whether all went well and there was at least one test.
    pub passed: bool,
    /// Whether the runner came to its end; else it was ended in the middle.
    #[serde(rename = "whole")]
    pub is_whole: bool,
    /// The runner's exit code; none when a signal ended it.
    pub exit_code: Option<i32>,
    /// Every test; empty for runners that do not tell.
    pub tests: Vec<TestCase>,
    /// Modules that were not found, in the order of their first failure.
    pub missing: Vec<String>,
    /// Those of them that `slim` cut out; `keep` brings them back.
    pub cut: Vec<String>,
    /// How long the run took.
    pub seconds: f64,
}

impl TestReport {
    /// How many went so.
    pub fn count(&self, outcome: &TestOutcome) -> usize {
        self.tests
            .iter()
            .filter(|test| test.outcome == *outcome)
            .count()
    }
}
