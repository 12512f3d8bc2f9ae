//! The agent's TUF client against a repository simulator: every case of the client conformance
//! suite that we know, and more (`conformance.py`).
//!
//! Needs a Python with `tuf` and `securesystemslib[crypto]`; `PYTHEAS_TEST_PYTUF` names its
//! interpreter (default `/tmp/pytuf/bin/python`). Skips, saying so, without one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Cases there are at least: a runner that runs nothing proves nothing.
const CASES: usize = 209;

fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PYTHEAS_TEST_PYTUF")
        .map_or_else(|| PathBuf::from("/tmp/pytuf/bin/python"), PathBuf::from);
    let ready = Command::new(&python).args(["-c", "import tuf"]).status();
    if ready.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    testkit::skip(&format!(
        "no python-tuf in `{}`; PYTHEAS_TEST_PYTUF names another Python",
        python.display()
    ));
    None
}

/// The example program, which is built with the tests or, by some runners, not yet.
fn client() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let client = profile.join("examples/tuf-conformance-client");
    if !client.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "pytheas-agent", "--example"])
            .arg("tuf-conformance-client")
            .status();
        assert!(built.unwrap().success());
    }
    client
}

#[test]
fn the_client_passes_every_conformance_case() {
    let Some(python) = python() else { return };
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tuf/conformance.py");
    let output = Command::new(python)
        .arg("-B")
        .arg(runner)
        .arg(client())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let last = text.lines().last().unwrap_or_default();
    println!("{last}");
    // `P of N cases passed, S skipped`
    let numbers: Vec<usize> = last
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [passed, all, skipped] = numbers[..] else {
        panic!("no count: {text}\n{errors}")
    };
    assert_eq!(passed + skipped, all, "{text}");
    assert!(all >= CASES, "{text}");
    if skipped > 0 {
        testkit::skip(&format!("{skipped} conformance cases need `faketime`"));
    }
}
