//! What a start spends on imports, measured in what is shipped: the app's own Python imports what
//! its entry point imports, several times, and tells of each module how long it took
//! (`-X importtime`). Nothing else of the app is called: see `imports/probe.py`.
//!
//! Of each module the least time of all runs counts, because whatever else the machine does only
//! adds to it. A module's time stands where it was imported first.

mod error;
mod hints;
mod report;
mod run;
mod subject;

use std::{path::PathBuf, time::Duration};

pub use error::ImportsError;
use error::io_error;
pub use hints::ImportHint;
use pytheas_project::{Environment, Project};
use pytheas_release::RECORD_FILE;
use report::report;
pub use report::{ImportReport, ImportedModule, ImportedPackage};
use run::run;

const PROBE: &str = include_str!("imports/probe.py");

/// What to measure.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The project, whose entry point a virtual environment starts.
    pub project: Option<Project>,
    /// A bundle's folder, or a virtual environment.
    pub dir: PathBuf,
    /// How often.
    pub runs: u32,
    /// How long one run may take.
    pub timeout: Duration,
    /// The environment.
    pub environment: Environment,
}

/// Measures.
///
/// # Errors
/// See [`ImportsError`]. An import of the app that fails is told in the report.
pub fn measure_imports(
    request: &ImportRequest,
    step: &dyn Fn(String),
) -> Result<ImportReport, ImportsError> {
    let dir = request
        .dir
        .canonicalize()
        .map_err(io_error("find", &request.dir))?;
    let subject = if dir.join(RECORD_FILE).is_file() {
        subject::bundle(&dir)?
    } else {
        subject::environment(&dir, request)?
    };
    let room = tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let probe = room.path().join("probe.py");
    pytheas_durable::replace(&probe, PROBE.as_bytes()).map_err(io_error("write", &probe))?;
    let mut runs = Vec::new();
    for number in 1..=request.runs.max(1) {
        step(format!(
            "importing {} ({number} of {})",
            subject.entry, request.runs
        ));
        runs.push(run(&subject, request, room.path(), &probe)?);
    }
    Ok(report(&subject, &runs, request.project.as_ref()))
}

#[cfg(test)]
mod tests;
