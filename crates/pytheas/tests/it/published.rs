//! Published applications, given by name alone, are built, moved elsewhere and do their real work:
//! `bench/apps.py` has them and their smoke runs.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::common::{PYTHEAS, shown};

/// Builds and tries the applications `names` (all when empty) in `forms`.
#[track_caller]
fn work(names: &[&str], forms: &str) {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new("python3.11");
    command
        .arg(root.join("bench/apps.py"))
        .args(["--runs", "0", "--forms", forms, "--work"])
        .arg(dir.path())
        .env("PYTHEAS", PYTHEAS);
    if !names.is_empty() {
        command.args(["--only", &names.join(",")]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let text = std::fs::read_to_string(dir.path().join("results.json")).unwrap();
    let results: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let failed: Vec<String> = results
        .iter()
        .filter(|(_, result)| result["works"] != true)
        .map(|(name, result)| format!("{name}: {}", result["error"].as_str().unwrap_or("?")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(results.len() >= names.len().max(1), "{text}");
}

/// One with dependencies of its day, one with a compiled module and processes, one that serves.
#[test]
fn a_few_published_applications_do_their_work() {
    work(&["datasette", "black", "gunicorn"], "default");
}

#[test]
fn all_listed_published_applications_do_their_work() {
    if std::env::var_os("PYTHEAS_TEST_ALL").is_none() {
        testkit::skip("builds thirty applications; `cargo xtask test --all` does it");
        return;
    }
    work(&[], "default");
}
