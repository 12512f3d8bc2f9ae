//! Forms beside the folder, and the environment: wheel to a real index, wheelhouse without a
//! network, one file, `.venv`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::common::{Running, json, ok, pytheas, shown, wait_for};

const PYPROJECT: &str = "[project]\nname = 'demo-app'\nversion = '1.2'\nrequires-python = '>=3.11'\n\
    dependencies = ['idna==3.7']\n[project.scripts]\ndemo = 'demo:main'\n\
    [dependency-groups]\ndev = ['iniconfig==2.0.0']\n\
    [build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n";

/// A project of setuptools with one dependency and a group.
fn project(dir: &Path) -> PathBuf {
    let project = dir.join("project");
    fs::create_dir_all(project.join("src/demo")).unwrap();
    fs::write(project.join("pyproject.toml"), PYPROJECT).unwrap();
    let main = "import sys, idna\ndef main():\n    print('hi', idna.__version__, *sys.argv[1:])\n";
    fs::write(project.join("src/demo/__init__.py"), main).unwrap();
    project
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run_in(dir: &Path, args: &[&str]) -> Command {
    let mut command = pytheas(dir);
    command.args(args).arg("-C").arg(dir.join("project"));
    command
}

/// A Python 3.11 with pip; none, said visibly, where there is none.
fn python() -> Option<PathBuf> {
    let script =
        "import sys, pip, venv; assert sys.version_info[:2] == (3, 11); print(sys.executable)";
    for name in ["python3.11", "python3"] {
        let output = Command::new(name).args(["-c", script]).output().ok()?;
        if output.status.success() {
            return Some(PathBuf::from(text(&output).trim()));
        }
    }
    testkit::skip("there is no Python 3.11 with pip");
    None
}

/// `program` with no network where we may take it away.
fn offline(program: &Path) -> Command {
    let works = Command::new("unshare").args(["-n", "true"]).output();
    let mut command = if works.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("unshare");
        command.arg("-n").arg(program);
        command
    } else {
        testkit::skip("taking the network away needs root; the rest of the test runs");
        Command::new(program)
    };
    command
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/")
        .env_remove("PIP_FIND_LINKS");
    command
}

#[test]
fn the_environment_is_what_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path());
    let environment = project.join(".venv");
    let made = json(&mut run_in(dir.path(), &["sync", "--python", "3.11"]));
    assert_eq!(made["created"], true, "{made}");
    assert_eq!(made["changes"].as_array().unwrap().len(), 3, "{made}");
    let said = Command::new(environment.join("bin/demo"))
        .arg("x")
        .output()
        .unwrap();
    assert_eq!(text(&said), "hi 3.7 x\n");
    // Editable: a change shows at once.
    let module = "def main():\n    print('changed')\n";
    fs::write(project.join("src/demo/__init__.py"), module).unwrap();
    let said = Command::new(environment.join("bin/demo")).output().unwrap();
    assert_eq!(text(&said), "changed\n");

    let again = json(&mut run_in(dir.path(), &["sync", "--offline"]));
    assert_eq!(again["created"], false);
    assert_eq!(again["changes"].as_array().unwrap().len(), 0, "{again}");
    ok(&mut run_in(dir.path(), &["sync", "--check"]));

    let lean = json(&mut run_in(dir.path(), &["sync", "--no-dev", "--offline"]));
    assert_eq!(lean["changes"], serde_json::json!(["- iniconfig==2.0.0"]));
    let output = run_in(dir.path(), &["sync", "--check"]).output().unwrap();
    let said = shown(&output).replace(
        &project.canonicalize().unwrap().display().to_string(),
        "PROJECT",
    );
    insta::assert_snapshot!(said, @r"
    exit 1
    --- stdout
    --- stderr
    error: `PROJECT/.venv` is not what is locked: + iniconfig==2.0.0
      help: run `pytheas sync`
    ");
    // An interpreter that is gone is no reason to stop; a folder of the user's own is.
    fs::remove_file(environment.join("bin/python")).unwrap();
    let healed = json(&mut run_in(dir.path(), &["sync", "--offline"]));
    assert_eq!(healed["created"], true);
    fs::remove_dir_all(&environment).unwrap();
    fs::create_dir(&environment).unwrap();
    fs::write(environment.join("mine.txt"), "").unwrap();
    let output = run_in(dir.path(), &["sync"]).output().unwrap();
    assert!(
        shown(&output).contains("is no virtual environment"),
        "{}",
        shown(&output)
    );
    assert!(environment.join("mine.txt").exists());
    let output = run_in(dir.path(), &["sync", "--group", "docs"])
        .output()
        .unwrap();
    assert!(
        shown(&output).contains("no dependency group `docs`"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_wheelhouse_starts_without_a_network_even_many_at_once() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    let out = dir.path().join("house");
    let args = ["build", "--form", "wheelhouse", "--python", "3.11", "-o"];
    let mut command = pytheas(dir.path());
    command
        .args(args)
        .arg(&out)
        .arg("-C")
        .arg(dir.path().join("project"));
    let built = json(&mut command);
    assert_eq!(built["record"]["form"], "wheelhouse", "{built}");
    // The kernel takes no blanks in the first line of a script.
    let data = dir.path().join("da ta");
    let start = || {
        let mut command = offline(&out.join("bin/demo-app"));
        command
            .env("PYTHEAS_DATA_DIR", &data)
            .env("PYTHEAS_PYTHON", &python);
        command.arg("a b").stdout(std::process::Stdio::piped());
        command
    };
    let starts: Vec<_> = (0..6).map(|_| start().spawn().unwrap()).collect();
    for child in starts {
        assert_eq!(text(&child.wait_with_output().unwrap()), "hi 3.7 a b\n");
    }
    let environment = fs::read_dir(data.join(".pytheas")).unwrap().flatten();
    let program = environment
        .map(|entry| entry.path().join("bin/demo"))
        .find(|path| path.is_file());
    let said = Command::new(program.unwrap()).arg("c  d").output().unwrap();
    assert_eq!(text(&said), "hi 3.7 c  d\n");
    // Killed in the middle: the next start makes it whole.
    for delay_ms in [20, 60, 120, 200, 300] {
        let _all = fs::remove_dir_all(&data);
        let mut child = start().spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(text(&start().output().unwrap()), "hi 3.7 a b\n");
    }
    // As pip does it.
    let venv = dir.path().join("venv");
    let made = Command::new(&python)
        .args(["-m", "venv"])
        .arg(&venv)
        .output()
        .unwrap();
    text(&made);
    let mut command = offline(&venv.join("bin/python"));
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--require-hashes",
    ]);
    command.arg("--find-links").arg(out.join("wheels"));
    text(
        &command
            .arg("-r")
            .arg(out.join("requirements.txt"))
            .output()
            .unwrap(),
    );
    let said = Command::new(venv.join("bin/demo")).output().unwrap();
    assert_eq!(text(&said), "hi 3.7\n");
    // A wheel that was changed is not installed.
    let wheel = fs::read_dir(out.join("wheels"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&wheel).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&wheel, bytes).unwrap();
    fs::remove_dir_all(&data).unwrap();
    let output = start().output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(
        shown(&output).contains("is not the wheel that was built"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_wheelhouses_installer_keeps_to_its_folder_and_says_what_a_python_lacks() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("house");
    fs::create_dir_all(root.join("wheels")).unwrap();
    let installer =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../pytheas-build/src/wheelhouse/install.py");
    let run = |code: &str| {
        let output = Command::new(&python)
            .args(["-I", "-c", code])
            .arg(&root)
            .arg(dir.path().join("made/venv"))
            .output()
            .unwrap();
        shown(&output)
    };
    let run_with = |before: &str| {
        let path = installer.display();
        run(&format!(
            "import runpy, sys\n{before}\nrunpy.run_path('{path}', run_name='__main__')"
        ))
    };
    // A wheel may bring files for the environment, not for the Python that it is made with.
    for place in [
        "stdlib",
        "platstdlib",
        "include",
        "../../evil",
        "scripts/../../../evil",
    ] {
        let code = format!(
            "import hashlib, sys, zipfile\n\
             path = sys.argv[1] + '/wheels/x-1-py3-none-any.whl'\n\
             with zipfile.ZipFile(path, 'w') as out:\n    \
                 out.writestr('x-1.dist-info/WHEEL', 'Root-Is-Purelib: true')\n    \
                 out.writestr('x-1.data/{place}/x', '')\n\
             sha = hashlib.sha256(open(path, 'rb').read()).hexdigest()\n\
             open(sys.argv[1] + '/requirements.txt', 'w').write('x==1 --hash=sha256:' + sha)\n"
        );
        run(&code);
        let said = run_with("");
        assert!(
            said.starts_with("exit 127")
                && (said.contains("no place") || said.contains("leads out")),
            "{place}: {said}"
        );
        assert!(!dir.path().join("made/venv").exists());
    }
    // Debian's `python3-minimal`, for one, has no such module.
    let said = run_with("sys.modules['venv'] = None");
    assert!(
        said.starts_with("exit 127")
            && said.contains("is not whole: import of venv halted")
            && said.contains("help: install all of its standard library"),
        "{said}"
    );
}

#[test]
fn a_wheel_goes_to_a_real_index_once() {
    let Some(python) = python() else { return };
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pypiserver");
    if !tools.join("bin/pypi-server").exists() {
        let script =
            "\"$0\" -m venv \"$1\" && \"$1/bin/pip\" install -q pypiserver==2.3.2 passlib==1.7.4";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&python).arg(&tools);
        if !command.output().is_ok_and(|output| output.status.success()) {
            return testkit::skip("pypiserver cannot be installed (no network?)");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    let build = |out: &str| {
        let mut command = pytheas(dir.path());
        command
            .args(["build", "--form", "wheel", "-o"])
            .arg(dir.path().join(out));
        json(command.arg("-C").arg(dir.path().join("project")))
    };
    let (one, two) = (build("one"), build("two"));
    for kind in ["wheel", "sdist"] {
        let read = |made: &serde_json::Value| fs::read(made[kind].as_str().unwrap()).unwrap();
        assert!(read(&one) == read(&two), "{kind}: same input, same bytes");
        let place =
            |made: &serde_json::Value| format!("{}.provenance.json", made[kind].as_str().unwrap());
        assert!(fs::read(place(&one)).unwrap() == fs::read(place(&two)).unwrap());
        let mut verify = pytheas(dir.path());
        let file = one[kind].as_str().unwrap();
        let output = verify
            .args(["provenance", "verify", file])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", shown(&output));
    }
    let packages = dir.path().join("packages");
    fs::create_dir(&packages).unwrap();
    // apr1 of `secret`, as htpasswd writes it.
    let hash = text(
        &Command::new(tools.join("bin/python"))
            .args([
                "-c",
                "from passlib.hash import apr_md5_crypt as h; print(h.hash('secret'))",
            ])
            .output()
            .unwrap(),
    );
    let passwords = dir.path().join("htpasswd");
    fs::write(&passwords, format!("me:{hash}")).unwrap();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let mut command = Command::new(tools.join("bin/pypi-server"));
    command.args(["run", "-i", "127.0.0.1", "-p", &port, "-a", "update", "-P"]);
    command.arg(&passwords).arg(&packages);
    let log = dir.path().join("server.log");
    let _server = Running::start(&mut command, &log);
    wait_for("the index to start", Duration::from_secs(30), || {
        std::net::TcpStream::connect(("127.0.0.1", port.parse().ok()?)).ok()
    });
    let url = format!("http://127.0.0.1:{port}/");
    let publish = |extra: &[&str]| {
        let mut command = pytheas(dir.path());
        command.args(["publish", "--index", &url]).args(extra);
        command
            .env("TWINE_USERNAME", "me")
            .env("TWINE_PASSWORD", "secret");
        command
            .arg(one["wheel"].as_str().unwrap())
            .arg(one["sdist"].as_str().unwrap());
        command
    };
    let outcomes = |value: &serde_json::Value| {
        let files = value["files"].as_array().unwrap();
        files
            .iter()
            .map(|file| file["outcome"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        outcomes(&json(&mut publish(&["--dry-run"]))),
        ["would-upload"; 2]
    );
    let output = publish(&[])
        .env("TWINE_PASSWORD", "wrong")
        .output()
        .unwrap();
    let said = shown(&output).replace(&port, "PORT");
    assert!(said.contains("error: the index `http://127.0.0.1:PORT/` refuses `demo_app-1.2-py3-none-any.whl`: status 403"), "{said}");
    assert!(said.contains("came from `TWINE_PASSWORD`"), "{said}");
    assert_eq!(outcomes(&json(&mut publish(&[]))), ["uploaded"; 2]);
    assert_eq!(outcomes(&json(&mut publish(&[]))), ["there-before"; 2]);
    // Without a look at the index: it refuses, and that is understood.
    let elsewhere = format!("{url}nothing/");
    assert_eq!(
        outcomes(&json(&mut publish(&["--check-url", &elsewhere]))),
        ["there-before"; 2]
    );

    let venv = dir.path().join("venv");
    text(
        &Command::new(&python)
            .args(["-m", "venv"])
            .arg(&venv)
            .output()
            .unwrap(),
    );
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "-q", "--no-deps", "--index-url"]);
    pip.arg(format!("{url}simple/"))
        .arg("demo-app==1.2")
        .env_remove("PIP_FIND_LINKS");
    text(&pip.output().unwrap());
    assert!(venv.join("bin/demo").exists());

    let output = pytheas(dir.path())
        .args(["publish", "--index", "http://127.0.0.1:9/"])
        .arg(one["wheel"].as_str().unwrap())
        .output()
        .unwrap();
    assert!(
        shown(&output).contains("cannot reach the index `http://127.0.0.1:9/"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_project_without_a_build_system_makes_no_wheel() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("project")).unwrap();
    fs::write(dir.path().join("project/main.py"), "print('hi')\n").unwrap();
    fs::write(dir.path().join("project/requirements.txt"), "").unwrap();
    let output = run_in(dir.path(), &["build", "--form", "wheel"])
        .output()
        .unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("does not say how it is built into a wheel"),
        "{said}"
    );
    assert!(!dir.path().join("project/dist").exists());
}

#[test]
fn one_file_unpacks_once_and_starts_the_app() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    let file = dir.path().join("demo.run");
    let mut command = pytheas(dir.path());
    command
        .args(["build", "--one-file", "--python", "3.11", "-o"])
        .arg(&file);
    let built = json(command.arg("-C").arg(dir.path().join("project")));
    let start = || {
        let mut command = Command::new(&file);
        command
            .env_clear()
            .env("HOME", dir.path())
            .current_dir("/")
            .arg("x");
        command
    };
    assert_eq!(text(&start().output().unwrap()), "hi 3.7 x\n");
    let tree = dir
        .path()
        .join(".cache/pytheas/run")
        .join(built["tree_id"].as_str().unwrap());
    assert!(tree.join("pytheas.json").is_file());
    assert_eq!(text(&start().output().unwrap()), "hi 3.7 x\n");
}
