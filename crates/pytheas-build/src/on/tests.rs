//! Tests on a machine: started, listened to, started again after a crash or a hang.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{
    OnReport, OnRequest,
    closure::{self, Closure},
    cpython,
    error::OnError,
    place::Place,
    vm::{Machine, Said},
};
use crate::{
    error::io_error,
    testing::{TestCase, TestOutcome},
};

const UNITTEST: &str = include_str!("../../../../micropython/unittest/unittest.py");
const RUNNER: &str = include_str!("../../../../micropython/unittest/pytheas_tests.py");
/// Our own files in tracebacks.
const OURS: [&str; 3] = ["unittest.py", "pytheas_tests.py", "run.py"];
/// What starts a line that is the runner's and not a test's.
const MARK: char = '\x1e';
/// Lines of a crashed machine that are shown.
const LAST_WORDS: usize = 12;

/// Runs the project's tests on `place`. What they print goes to `output` as it comes.
///
/// # Errors
/// See [`OnError`]. Tests that fail are no error.
pub fn test_on(
    request: &OnRequest,
    place: &Place,
    output: &mut dyn FnMut(&str),
) -> Result<OnReport, OnError> {
    let start = Instant::now();
    let target = request.project.target(request.target.as_deref())?;
    let found = closure::tests(&request.project)?;
    let mut roots = closure::roots(&request.project, Some(&found));
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    roots.extend(closure::others(
        &request.project,
        &request.environment,
        request.connectivity,
        scratch.path(),
    )?);
    if *place == Place::CPython {
        return cpython::test(request, &found, &roots, start);
    }
    let mut closure = closure::files(&request.project, &target, &roots, &found.modules)?;
    closure.add("unittest.py", UNITTEST);
    closure.add("pytheas_tests.py", RUNNER);
    let machine = Machine::prepare(
        place,
        &request.environment,
        request.connectivity,
        &closure.files,
        scratch.path(),
    )?;
    let mut session = Session {
        closure: &closure,
        output,
        timeout: request.timeout,
        report: OnReport {
            on: place.to_string(),
            machine: String::new(),
            passed: false,
            tests: Vec::new(),
            restarts: 0,
            seconds: 0.0,
        },
        skip: Vec::new(),
        began: None,
        line: Vec::new(),
        words: Vec::new(),
    };
    loop {
        let code = code(
            place,
            machine.root(),
            &found.modules,
            &session.skip,
            &request.patterns,
        );
        let mut vm = machine.start(&code)?;
        let Some(because) = session.listen(&mut vm) else {
            break;
        };
        drop(vm);
        if !session.give_up_one(&because) {
            break;
        }
        session.report.restarts += 1;
    }
    let mut report = session.report;
    report.seconds = start.elapsed().as_secs_f64();
    report.passed = !report.tests.is_empty()
        && report
            .tests
            .iter()
            .all(|test| matches!(test.outcome, TestOutcome::Passed | TestOutcome::Skipped));
    Ok(report)
}

/// What the machine runs.
fn code(
    place: &Place,
    root: &str,
    modules: &[String],
    skip: &[String],
    patterns: &[String],
) -> String {
    // JSON's lists of strings are Python's, too.
    let list = |names: &[String]| serde_json::json!(names).to_string();
    let (modules, skip, patterns) = (list(modules), list(skip), list(patterns));
    let call = match place {
        Place::Wasm => "await pytheas_tests.run_inside",
        _ => "pytheas_tests.run",
    };
    format!(
        "import sys\nsys.path[:] = [{root:?}, \".frozen\", \"/lib\"]\nimport pytheas_tests\n{call}({modules}, {skip}, {patterns})\n"
    )
}

/// A line of the runner.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    machine: Option<String>,
    #[serde(default)]
    begin: Option<String>,
    #[serde(default)]
    end: bool,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    ms: f64,
    #[serde(default)]
    text: String,
}

struct Session<'a> {
    closure: &'a Closure,
    output: &'a mut dyn FnMut(&str),
    timeout: Duration,
    report: OnReport,
    /// What is not run again after a start.
    skip: Vec<String>,
    /// What runs now.
    began: Option<(String, Instant)>,
    line: Vec<u8>,
    /// What came without being a test's or the runner's: the reason of an end, perhaps.
    words: Vec<String>,
}

impl Session<'_> {
    /// Until the tests are over (none), or the machine is: why.
    fn listen(&mut self, vm: &mut super::vm::Vm) -> Option<String> {
        let mut since = Instant::now();
        loop {
            if let Some((_, began)) = &self.began {
                since = since.max(*began);
            }
            let patience = self.timeout.saturating_sub(since.elapsed());
            let bytes = match vm.next(patience) {
                Said::Bytes(bytes) => bytes,
                Said::Ended(how) => {
                    self.take_line();
                    return Some(format!("the machine stopped ({how})"));
                }
                Said::Silent => {
                    let seconds = self.timeout.as_secs_f64();
                    return Some(format!("it did not end within {seconds} s"));
                }
            };
            for byte in bytes {
                match byte {
                    b'\n' => {
                        if self.take_line() {
                            return None;
                        }
                    }
                    4 if vm.is_line() => {
                        // The runner itself fell: what follows is why.
                        self.take_line();
                        self.words.extend(rest(vm));
                        return Some("the machine gave up".to_owned());
                    }
                    byte => self.line.push(byte),
                }
            }
        }
    }

    /// Reads the line; whether it was the last.
    fn take_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).into_owned();
        let line = line.trim_end_matches('\r');
        let Some((before, told)) = line.split_once(MARK) else {
            if !line.is_empty() {
                self.words.push(line.to_owned());
            }
            (self.output)(&format!("{line}\n"));
            return false;
        };
        if !before.is_empty() {
            (self.output)(before);
        }
        let Ok(told) = serde_json::from_str::<Told>(told) else {
            return false; // a test may print this character
        };
        if let Some(machine) = told.machine {
            self.report.machine = machine;
        }
        if let Some(name) = told.begin {
            self.words.clear();
            self.began = Some((name, Instant::now()));
        }
        if let Some(name) = told.name {
            let outcome = match told.outcome.as_str() {
                "passed" => TestOutcome::Passed,
                "failed" => TestOutcome::Failed,
                "skipped" => TestOutcome::Skipped,
                "error" => TestOutcome::Error,
                // Its subtests said it.
                _ => {
                    self.skip.push(name);
                    return false;
                }
            };
            self.skip.push(name.clone());
            self.report.tests.push(TestCase {
                name,
                outcome,
                seconds: told.ms / 1000.0,
                text: self.closure.translate(&told.text, &OURS),
            });
        }
        told.end
    }

    /// The test that ran is an error; whether there is a point in going on.
    fn give_up_one(&mut self, because: &str) -> bool {
        let (name, began) = match self.began.take() {
            Some((name, began)) if !self.skip.contains(&name) => (name, began),
            // It ended between tests, twice, or before the first one.
            other => (
                other.map_or_else(|| "start".to_owned(), |(name, _)| format!("after {name}")),
                Instant::now(),
            ),
        };
        let is_new = !self.skip.contains(&name);
        self.skip.push(name.clone());
        let from = self.words.len().saturating_sub(LAST_WORDS);
        let words = self.words.split_off(from).join("\n");
        self.words.clear();
        self.line.clear();
        let text = self.closure.translate(&words, &OURS);
        self.report.tests.push(TestCase {
            name: name.clone(),
            outcome: TestOutcome::Error,
            seconds: began.elapsed().as_secs_f64(),
            text: format!("{because}\n{text}").trim_end().to_owned(),
        });
        is_new && name != "start"
    }
}

/// What a board's line still has, up to its prompt.
fn rest(vm: &mut super::vm::Vm) -> Vec<String> {
    let mut text = Vec::new();
    while let Said::Bytes(bytes) = vm.next(Duration::from_secs(1)) {
        let is_end = bytes.ends_with(b">");
        text.extend(bytes);
        if is_end {
            break;
        }
    }
    String::from_utf8_lossy(&text)
        .split(['\n', '\x04'])
        .map(|line| line.trim_end_matches('\r').to_owned())
        .filter(|line| !line.is_empty() && line != ">")
        .collect()
}
