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
    LockMode,
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
/// What a board's line says when a program is over: the end of its traceback, and the prompt. Tests
/// may print it, too, but go on then.
const PROMPT: &[u8] = b"\x04>";
const PROMPT_IS_LAST: Duration = Duration::from_secs(1);
/// Longest line that is waited for, in bytes.
const LONGEST_LINE: usize = 1 << 16;

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
        LockMode::Update,
        &target,
        scratch.path(),
    )?);
    if *place == Place::CPython {
        let closure = closure::files(&request.project, &target, &roots, &found.modules)?;
        let mut report = cpython::test(request, &found, &roots, start)?;
        report.notes = closure.ready_made.iter().map(only_compiled).collect();
        return Ok(report);
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
    // Nothing that a test prints by itself has it.
    let key = scratch
        .path()
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut session = Session {
        closure: &closure,
        mark: format!("{MARK}{key}"),
        output,
        timeout: request.timeout,
        report: OnReport {
            on: place.to_string(),
            machine: String::new(),
            passed: false,
            tests: Vec::new(),
            restarts: 0,
            seconds: 0.0,
            notes: Vec::new(),
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
            &key,
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

fn only_compiled(path: &String) -> String {
    format!(
        "`{path}` is there compiled for MicroPython only: CPython cannot import it, so tests that do fail on `cpython`"
    )
}

/// What the machine runs.
fn code(
    place: &Place,
    root: &str,
    modules: &[String],
    skip: &[String],
    patterns: &[String],
    key: &str,
) -> String {
    // JSON's lists of strings are Python's, too.
    let list = |names: &[String]| serde_json::json!(names).to_string();
    let (modules, skip, patterns) = (list(modules), list(skip), list(patterns));
    let call = match place {
        Place::Wasm => "await pytheas_tests.run_inside",
        _ => "pytheas_tests.run",
    };
    format!(
        "import sys\nsys.path[:] = [{root:?}, \".frozen\", \"/lib\"]\nimport pytheas_tests\n{call}({modules}, {skip}, {patterns}, {key:?})\n"
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
    /// What starts a line of the runner.
    mark: String,
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
            // A test that never stops printing is a hang, too.
            let patience = self.timeout.saturating_sub(since.elapsed());
            let said = match patience.is_zero() {
                true => Said::Silent,
                false => vm.next(patience),
            };
            let bytes = match said {
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
                    byte => self.line.push(byte),
                }
            }
            if vm.is_line() && self.line.ends_with(PROMPT) && !vm.more(PROMPT_IS_LAST) {
                self.fell();
                return Some("the machine gave up".to_owned());
            }
            // Output without line ends.
            if self.line.len() > LONGEST_LINE && !self.line.contains(&(MARK as u8)) {
                self.take_line();
            }
        }
    }

    /// The runner itself ended on a board's line: what stands between its two ends is why.
    fn fell(&mut self) {
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let last = text.split('\x04').map(str::trim_end);
        self.words.extend(
            last.filter(|part| !matches!(*part, "" | ">"))
                .map(str::to_owned),
        );
    }

    /// Reads the line; whether it was the last.
    fn take_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).into_owned();
        let line = line.trim_end_matches('\r');
        // What a test printed may be before it on the line.
        let Some((before, told)) = line.rsplit_once(&self.mark) else {
            if !line.is_empty() {
                self.words.push(line.to_owned());
                if self.words.len() > 2 * LAST_WORDS {
                    self.words.drain(..LAST_WORDS);
                }
            }
            (self.output)(&format!("{line}\n"));
            return false;
        };
        if !before.is_empty() {
            (self.output)(before);
        }
        let Ok(told) = serde_json::from_str::<Told>(told) else {
            return false;
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
