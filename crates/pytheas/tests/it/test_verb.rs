//! `pytheas test`: the project's own tests inside what is shipped, and what it says of them.

use std::{fs, path::Path, process::Command};

use crate::common::{json, pytheas, shown};

const PYPROJECT: &str = "[project]\nname = 'meter'\nversion = '1.2'\nrequires-python = '>=3.11'\n\
    dependencies = ['idna==3.7']\n[project.scripts]\nmeter = 'meter:main'\n\
    [dependency-groups]\ntest = ['pytest>=8', 'packaging']\n\
    [build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n\
    [tool.hatch.build.targets.wheel]\npackages = ['meter']\n";

const APP: &str = "import sys, idna\nPLACE = __file__\ndef main():\n    print(idna.__version__)\n\
    def undeclared():\n    import packaging.version\n\
    def plugin():\n    import importlib\n    return importlib.import_module('packaging.version')\n";

/// The project's root holds the sources: `pytest` puts it on the path, as `tests` is a package.
fn project(dir: &Path, tests: &str) -> std::path::PathBuf {
    let project = dir.join("project");
    for folder in ["meter", "tests"] {
        fs::create_dir_all(project.join(folder)).unwrap();
    }
    fs::write(project.join("pyproject.toml"), PYPROJECT).unwrap();
    fs::write(project.join("meter/__init__.py"), APP).unwrap();
    fs::write(project.join("tests/__init__.py"), "").unwrap();
    fs::write(project.join("tests/data.txt"), "data").unwrap();
    fs::write(project.join("tests/test_meter.py"), tests).unwrap();
    project
}

fn verb(dir: &Path, args: &[&str]) -> Command {
    let mut command = pytheas(dir);
    command
        .arg("test")
        .arg("-C")
        .arg(dir.join("project"))
        .args(args);
    command
}

const TESTS: &str = r#"
import subprocess, sys
from pathlib import Path
import packaging.version
import pytest
import meter

def test_it_is_the_packaged_copy():
    assert "/project/" not in meter.PLACE, meter.PLACE

def test_data_and_folder():
    assert Path("tests/data.txt").read_text() == "data"

def test_what_only_the_tests_bring_is_missing_for_the_app():
    for use in (meter.undeclared, meter.plugin):
        with pytest.raises(ModuleNotFoundError, match="No module named 'packaging"):
            use()

def test_child_processes_have_the_packaged_copy_as_well():
    code = "import meter; print(meter.PLACE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == meter.PLACE + "\n"
    done = subprocess.run(["meter"], capture_output=True, text=True, check=True)
    assert done.stdout == "3.7\n"
"#;

#[test]
fn every_form_is_tested_as_it_is_shipped() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), TESTS);
    let junit = dir.path().join("report.xml");
    for (form, args) in [
        ("bundle", vec!["--form", "bundle"]),
        ("one-file bundle", vec!["--one-file"]),
        ("wheelhouse", vec!["--form", "wheelhouse"]),
        ("wheel", vec!["--form", "wheel"]),
    ] {
        let mut command = verb(dir.path(), &args);
        command.arg("--junit").arg(&junit);
        let report = json(&mut command);
        assert_eq!(report["passed"], true, "{report}");
        assert_eq!(report["form"], form);
        let skipped = u64::from(report["skipped_tests"].as_u64().unwrap() > 0);
        assert_eq!(
            (report["passed_tests"].as_u64(), skipped),
            (Some(4), 0),
            "{report}"
        );
        let text = fs::read_to_string(&junit).unwrap();
        assert!(text.contains("tests=\"4\""), "{text}");
        fs::remove_file(&junit).unwrap();
    }
}

#[test]
fn a_failing_test_an_unknown_module_and_no_tests_are_said_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(
        dir.path(),
        "import meter\ndef test_a():\n    meter.undeclared()\ndef test_b():\n    assert meter.PLACE\n",
    );
    let output = verb(dir.path(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("`packaging` is not in what is shipped"),
        "{said}"
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 passed, 1 failed"), "{text}");

    let output = verb(dir.path(), &["--", "-k", "test_b", "-q"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));

    fs::remove_file(project.join("tests/test_meter.py")).unwrap();
    let output = verb(dir.path(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no tests were found"), "{said}");
}

#[test]
fn a_run_that_is_ended_in_the_middle_is_no_success_and_repeated_tests_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(
        dir.path(),
        "import pytest\nTRIES = []\n@pytest.mark.flaky(reruns=2)\ndef test_a():\n    TRIES.append(1)\n    assert len(TRIES) > 1\n",
    );
    let text = PYPROJECT.replace("'packaging'", "'packaging', 'pytest-rerunfailures'");
    fs::write(project.join("pyproject.toml"), text).unwrap();
    let report = json(&mut verb(dir.path(), &[]));
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(
        (&report["passed_tests"], &report["whole"]),
        (&1.into(), &true.into())
    );

    let tests = "import os\ndef test_a(): pass\ndef test_b(): os._exit(0)\n";
    fs::write(project.join("tests/test_meter.py"), tests).unwrap();
    let output = verb(dir.path(), &["--locked"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("was ended in the middle of the tests"),
        "{said}"
    );
}

#[test]
fn tests_that_write_into_the_artifact_count_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        "import meter\nfrom pathlib import Path\ndef test_a():\n    Path(meter.PLACE).with_name('left').touch()\n",
    );
    let output = verb(dir.path(), &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("the tests changed `"),
        "{said}"
    );
    assert!(said.contains("/meter/left`"), "{said}");
}

#[test]
fn unittest_runs_without_any_test_requirement_in_a_slim_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("project");
    fs::create_dir_all(project.join("tests")).unwrap();
    let text = "[project]\nname = 'plain'\nversion = '1'\n[tool.pytheas]\nentry = 'main.py'\n\
        [tool.pytheas.target.small]\nslim = true\n";
    fs::write(project.join("pyproject.toml"), text).unwrap();
    let main = "import sys\nNAME = ''.join(['wa', 've'])\ndef load():\n    import importlib\n    return importlib.import_module(NAME)\n";
    fs::write(project.join("main.py"), main).unwrap();
    let tests = "import unittest, main\n\
        class T(unittest.TestCase):\n    def test_a(self):\n        self.assertIn('/app/', main.__file__)\n    \
        def test_b(self):\n        main.load()\n";
    fs::write(project.join("tests/test_main.py"), tests).unwrap();
    let output = verb(dir.path(), &["--target", "small"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(said.contains("`slim` cut out `wave`"), "{said}");
    assert!(said.contains("keep = [\"wave\"]"), "{said}");

    let kept = text.replace("slim = true", "slim = true\nkeep = ['wave']");
    fs::write(project.join("pyproject.toml"), kept).unwrap();
    let report = json(&mut verb(dir.path(), &["--target", "small"]));
    assert_eq!(report["passed_tests"], 2, "{report}");
    assert_eq!(report["command"], "unittest");
}
