//! The same tests on this machine's CPython, with the project's sources: the environment `.venv` where
//! the project has one, else `python3`.

use std::{path::PathBuf, process::Stdio, time::Instant};

use serde::Deserialize;

use super::{OnReport, OnRequest, closure::Found, error::OnError, place::Place};
use crate::{
    error::io_error,
    scratch::{self, Kind},
    testing::{RUN, TestCase},
};

/// Lines of what a Python that ended early said.
const LAST_WORDS: usize = 20;

#[derive(Default, Deserialize)]
struct Written {
    tests: Vec<TestCase>,
}

/// The Python that a project's own files run on.
pub(super) fn python(request: &OnRequest) -> Result<PathBuf, OnError> {
    let own = request.project.dir.join(".venv/bin/python");
    if own.is_file() {
        return Ok(own);
    }
    let mut dirs = request.environment.search_path().into_iter();
    dirs.find_map(|dir| Some(dir.join("python3")).filter(|path| path.is_file()))
        .ok_or_else(|| OnError::Missing {
            what: "`python3`".to_owned(),
            place: Place::CPython.to_string(),
            help: "run `pytheas sync` to make the project's environment, or install Python",
        })
}

/// Runs them.
pub(super) fn test(
    request: &OnRequest,
    found: &Found,
    roots: &[PathBuf],
    start: Instant,
) -> Result<OnReport, OnError> {
    let python = python(request)?;
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let runner = scratch.path().join("run.py");
    let written = scratch.path().join("result.json");
    scratch::write(&runner, RUN.as_bytes(), Kind::Data).map_err(io_error("write", &runner))?;
    let mut command = request.environment.python(&python);
    command
        .args(["-B", "-X", "faulthandler"])
        .arg(&runner)
        .arg(&written)
        .args(["", "unittest", "discover", "-s"]);
    command.arg(&found.start);
    if found.is_package {
        command.args(["-t", "."]);
    }
    for pattern in &request.patterns {
        command.args(["-k", pattern]);
    }
    if let Ok(path) = std::env::join_paths(roots) {
        command.env("PYTHONPATH", path);
    }
    command
        .env(
            "PYTHEAS_TEST_TIMEOUT",
            request.timeout.as_secs_f64().to_string(),
        )
        .current_dir(&request.project.dir)
        .stdin(Stdio::null())
        // What unittest itself says is in the report.
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let failed = |source| OnError::Start {
        program: python.clone(),
        source,
    };
    let output = command.output().map_err(failed)?;
    let Some(result) = std::fs::read(&written)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Written>(&bytes).ok())
    else {
        return Err(OnError::Ended {
            how: output.status.to_string(),
            said: last_words(&String::from_utf8_lossy(&output.stderr)),
        });
    };
    let version = request
        .environment
        .python(&python)
        .args([
            "-c",
            "import sys; print('CPython %d.%d.%d, %s' % (*sys.version_info[:3], sys.platform))",
        ])
        .output()
        .map_err(failed)?;
    let mut tests = result.tests;
    for test in &mut tests {
        test.name = shared_name(&test.name);
    }
    Ok(OnReport {
        on: Place::CPython.to_string(),
        machine: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
        passed: output.status.success(),
        tests,
        restarts: 0,
        notes: Vec::new(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Where Python was when it crashed, else the end of what it said.
fn last_words(said: &str) -> String {
    let said = said.trim();
    let crash = said.rfind("Fatal Python error").map(|at| &said[at..]);
    let lines: Vec<&str> = crash.unwrap_or(said).lines().collect();
    let shown = match crash {
        Some(_) => &lines[..lines.len().min(LAST_WORDS)],
        None => &lines[lines.len().saturating_sub(LAST_WORDS)..],
    };
    shown.join("\n")
}

/// The name that the other machines have for the same: `setUpClass (test_a.A)` is
/// `test_a.A.setUpClass`, a module that cannot be imported has its own name.
fn shared_name(name: &str) -> String {
    let fixture = name
        .strip_suffix(')')
        .and_then(|name| name.split_once(" ("))
        .filter(|(what, _)| {
            ["setUp", "tearDown"].iter().any(|start| {
                let kind = what.strip_prefix(start);
                kind.is_some_and(|kind| matches!(kind, "Class" | "Module"))
            })
        });
    if let Some((what, of)) = fixture {
        return format!("{of}.{what}");
    }
    [
        "unittest.loader._FailedTest.",
        "unittest.loader.ModuleSkipped.",
    ]
    .iter()
    .find_map(|start| name.strip_prefix(start))
    .unwrap_or(name)
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_told_with_where_python_was() {
        let crashed = format!(
            "{}Fatal Python error: Segmentation fault\n\nthread:\n  File \"t.py\", line 3 in f\n",
            ".".repeat(900)
        );
        let words = last_words(&crashed);
        assert!(
            words.starts_with("Fatal Python error: Seg") && words.ends_with("line 3 in f"),
            "{words}"
        );
        let killed = "line\n".repeat(99) + "the end\n";
        assert_eq!(last_words(&killed).lines().count(), LAST_WORDS);
        assert!(last_words(&killed).ends_with("the end"));
    }

    #[test]
    fn what_is_no_test_is_named_as_on_micropython() {
        for (cpython, shared) in [
            ("setUpClass (test_a.A)", "test_a.A.setUpClass"),
            (
                "tearDownModule (tests.test_a)",
                "tests.test_a.tearDownModule",
            ),
            ("unittest.loader._FailedTest.test_x", "test_x"),
            ("unittest.loader.ModuleSkipped.test_y", "test_y"),
            ("test_a.A.test_sub (i=1)", "test_a.A.test_sub (i=1)"),
            ("test_a.A.test_b", "test_a.A.test_b"),
        ] {
            assert_eq!(shared_name(cpython), shared);
        }
    }
}
