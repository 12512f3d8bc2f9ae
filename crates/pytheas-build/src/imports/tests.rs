//! Tests of what is read of Python's answers, and of a measurement with a real environment.

use std::{fs, os::unix::fs::symlink, path::Path, time::Instant};

use miette::Diagnostic;

use super::{report::modules, run::parse, *};

const SAID: &str = "\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   _io
import time:       300 |        400 | encodings
pytheas: begin
a module speaks
import time:        50 |         50 |     b.c
import time:        20 |         70 |   b
import time:        10 |         10 |   d
import time:         5 |         85 | a
import time:         7 |          7 | e
import time: nonsense
";

#[test]
fn modules_stand_below_what_imported_them_and_the_least_time_of_each_counts() {
    let first = parse(SAID, "spent\t90\nafter\ta\t/x/a.py\t/x/a.pyc\n");
    assert_eq!(first.before.len(), 2);
    assert_eq!(first.files["a"].1, Path::new("/x/a.pyc"));
    let mut second = parse(
        &SAID.replace("50 |", "60 |"),
        "spent\t99\nfailed\tImportError: x\n",
    );
    second.after[1].2 = 9;
    assert_eq!(second.failed.as_deref(), Some("ImportError: x"));
    let row =
        |name: &str, by: Option<&str>, own, all| (name.to_owned(), by.map(str::to_owned), own, all);
    assert_eq!(
        modules(&[first, second]),
        [
            row("b.c", Some("b"), 50, 50),
            row("b", Some("a"), 9, 59),
            row("d", Some("a"), 10, 10),
            row("a", None, 5, 74),
            row("e", None, 7, 7),
        ]
    );
}

/// An environment around the machine's Python, with a package `slow` and the project's script.
fn environment_with(script: &str) -> Option<(tempfile::TempDir, ImportRequest)> {
    let environment = Environment::current();
    let found = environment
        .search_path()
        .iter()
        .map(|dir| dir.join("python3.11"))
        .find(|path| path.is_file());
    let Some(python) = found else {
        testkit::skip("no python3.11 on PATH");
        return None;
    };
    let root = tempfile::tempdir().unwrap();
    let made = environment
        .python(&python)
        .args(["-m", "venv", "--without-pip"])
        .arg(root.path().join(".venv"))
        .status()
        .unwrap();
    assert!(made.success());
    let site = root.path().join(".venv/lib/python3.11/site-packages");
    let put = |path: PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    };
    put(
        site.join("babel.py"),
        "import json.decoder, time\ntime.sleep(0.05)\n",
    );
    put(site.join("babel-2.0.dist-info/RECORD"), "babel.py,,\n");
    put(
        root.path().join("pyproject.toml"),
        "[project]\nname = \"x\"\nversion = \"1\"\n[tool.pytheas]\nentry = \"main.py\"\n",
    );
    put(root.path().join("helper.py"), "import babel\n");
    put(root.path().join("main.py"), script);
    let request = ImportRequest {
        project: Some(Project::load(root.path()).unwrap()),
        dir: root.path().join(".venv"),
        runs: 2,
        timeout: Duration::from_secs(120),
        environment,
    };
    Some((root, request))
}

#[test]
fn a_script_is_measured_by_its_import_statements_and_never_run() {
    let script = "\
import helper
try:
    import not_there
except ImportError:
    import also_not_there
if __name__ == '__main__':
    import wave
    open('ran', 'w')
def later():
    import csv
raise SystemExit(9)
";
    let Some((root, request)) = environment_with(script) else {
        return;
    };
    let report = measure_imports(&request, &|_| {}).unwrap();
    assert_eq!(report.failed, None);
    assert!(!root.path().join("ran").exists());
    let of = |name: &str| report.modules.iter().find(|module| module.module == name);
    let slow = of("babel").unwrap();
    assert_eq!(
        (slow.package.as_str(), slow.by.as_deref()),
        ("babel", Some("helper"))
    );
    assert!(slow.self_us >= 50_000 && report.total_us >= 50_000);
    assert_eq!(of("helper").unwrap().package, "app");
    assert_eq!(of("wave").unwrap().package, "python");
    assert_eq!(of("csv"), None);
    assert_eq!(report.modules[0].module, "babel");
    let texts: Vec<&str> = report.hints.iter().map(|hint| hint.text.as_str()).collect();
    assert!(
        texts.iter().any(|text| text.contains("imported by helper")),
        "{texts:?}"
    );
    assert!(
        texts
            .iter()
            .any(|text| text.starts_with("instead zoneinfo or locale")),
        "{texts:?}"
    );
}

#[test]
fn an_import_that_fails_is_told_and_one_without_end_is_ended() {
    let Some((root, request)) = environment_with("import wave\nimport not_there\n") else {
        return;
    };
    let report = measure_imports(&request, &|_| {}).unwrap();
    insta::assert_snapshot!(report.failed.unwrap(), @"ModuleNotFoundError: No module named 'not_there'");
    let forever = root.path().join("helper.py");
    pytheas_durable::replace(&forever, b"import time\ntime.sleep(1000)\n").unwrap();
    pytheas_durable::replace(&root.path().join("main.py"), b"import helper\n").unwrap();
    let request = ImportRequest {
        timeout: Duration::from_secs(2),
        ..request
    };
    let error = measure_imports(&request, &|_| {}).unwrap_err();
    insta::assert_snapshot!(error, @"importing `main.py` did not end within 2 s");
    pytheas_durable::replace(
        &forever,
        b"import os\nprint('bye', file=__import__('sys').stderr)\nos._exit(3)\n",
    )
    .unwrap();
    let error = measure_imports(&request, &|_| {}).unwrap_err();
    insta::assert_snapshot!(error, @"Python ended with exit status: 3 while importing `main.py`");
    insta::assert_snapshot!(error.help().unwrap(), @"it said: bye");
}

#[test]
fn a_process_that_a_module_starts_does_not_outlive_the_measurement() {
    let Some((root, request)) = environment_with("import helper\n") else {
        return;
    };
    let noted = root.path().join("pid");
    let text = format!(
        "import subprocess\nopen({:?}, 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))\n",
        noted.display().to_string()
    );
    pytheas_durable::replace(&root.path().join("helper.py"), text.as_bytes()).unwrap();
    measure_imports(&request, &|_| {}).unwrap();
    let stat = format!("/proc/{}/stat", fs::read_to_string(&noted).unwrap());
    // What ended and was not waited for yet has the state `Z`.
    let runs = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    let begun = Instant::now();
    while runs() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_folder_that_is_neither_bundle_nor_environment_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("link");
    symlink(root.path(), &link).unwrap();
    let request = ImportRequest {
        project: None,
        dir: link,
        runs: 1,
        timeout: Duration::from_secs(1),
        environment: Environment::current(),
    };
    let error = measure_imports(&request, &|_| {}).unwrap_err();
    assert!(
        matches!(&error, ImportsError::Subject { reason, .. } if reason.contains("virtual environment")),
        "{error}"
    );
}
