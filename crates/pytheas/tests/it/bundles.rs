//! Real projects become folders that run elsewhere: moved, with an empty environment, with no
//! Python to be found.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::common::{json, pytheas, shown, wait_for};

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Builds the project in `dir/project` and moves the result to another place; its program.
fn built_and_moved(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let mut command = pytheas(dir);
    command
        .args(["build", "--python", "3.11", "-o"])
        .arg(dir.join("out"))
        .args(args);
    let built = json(command.arg("-C").arg(dir.join("project")));
    assert!(built["files"].as_u64().unwrap() > 100, "{built}");
    let moved = dir.join("some where/élse");
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::rename(dir.join("out"), &moved).unwrap();
    moved.join("bin").join(name)
}

/// A command with an empty environment, and every Python of the machine out of sight when we may.
fn bare(program: &Path) -> Command {
    let mut command = if can_hide() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", HIDE]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env_clear().env("PATH", "");
    // `sh` and `mount` are found before PATH is emptied for the program itself.
    if can_hide() {
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Hides the Pythons there are, checks that they are hidden, then runs the program without PATH.
const HIDE: &str = "
set -e
for d in /root/.pyenv /usr/local/lib/python3* /usr/lib/python3* /opt/python* /root/.local/share/uv; do
    if [ -d \"$d\" ]; then mount -t tmpfs none \"$d\"; fi
done
for f in /usr/bin/python3* /usr/local/bin/python3*; do
    if [ -e \"$f\" ]; then mount --bind /dev/null \"$f\"; fi
done
if python3 -c 'import os' 2>/dev/null; then echo 'a Python is still there' >&2; exit 99; fi
program=$0
PATH= exec \"$program\" \"$@\"
";

fn can_hide() -> bool {
    Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn note_hiding() {
    if !can_hide() {
        testkit::skip("hiding the machine's Pythons needs root; the rest of the test runs");
    }
}

#[test]
fn a_fastapi_folder_with_no_configuration() {
    note_hiding();
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("project/requirements.txt"),
        "fastapi==0.115.0\nuvicorn==0.30.6\n",
    );
    write(
        &dir.path().join("project/main.py"),
        "import sys\nimport fastapi\nimport uvicorn\n\napp = fastapi.FastAPI()\n\n\n\
         @app.get('/')\ndef hello():\n    return {'hello': 'edge', 'python': sys.executable}\n\n\n\
         if __name__ == '__main__':\n    uvicorn.run(app, port=int(sys.argv[1]))\n",
    );
    let program = built_and_moved(dir.path(), "project", &[]);
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let log = dir.path().join("log");
    let mut command = bare(&program);
    let _server = crate::common::Running::start(command.arg(port.to_string()), &log);
    let answer = wait_for("the server to answer", Duration::from_secs(30), || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    });
    assert!(answer.contains("\"hello\":\"edge\""), "{answer}");
    assert!(
        answer.contains("some where/élse/python/bin/python3"),
        "{answer}"
    );
}

#[test]
fn published_applications_given_by_one_line() {
    note_hiding();
    let dir = tempfile::tempdir().unwrap();
    for (name, requirement, entry, argument, wanted) in [
        (
            "datasette",
            "datasette==0.65.5",
            "datasette.cli:cli",
            "--version",
            "datasette, version 0.65.5",
        ),
        (
            "http",
            "httpie==3.2.4",
            "httpie.__main__:main",
            "--version",
            "3.2.4",
        ),
    ] {
        let dir = dir.path().join(name);
        write(
            &dir.join("project/requirements.txt"),
            &format!("{requirement}\n"),
        );
        let program = built_and_moved(&dir, name, &["--name", name, "--entry", entry]);
        let output = bare(&program).arg(argument).output().unwrap();
        let text = good(&output);
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn greenhouse_builds_the_same_bytes_anywhere() {
    note_hiding();
    let dir = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/greenhouse");
    let mut ids = Vec::new();
    for place in ["one", "two/deeper"] {
        let dir = dir.path().join(place);
        fs::create_dir_all(dir.join("project")).unwrap();
        let copied = Command::new("sh")
            .args([
                "-c",
                "cp -r \"$0/.\" \"$1\" && rm -rf \"$1\"/.venv \"$1\"/data",
            ])
            .arg(&example)
            .arg(dir.join("project"))
            .status()
            .unwrap();
        assert!(copied.success());
        let mut command = pytheas(&dir);
        command.args(["build", "--target", "gateway", "--python", "3.11", "-o"]);
        let built = json(
            command
                .arg(dir.join("out"))
                .arg("-C")
                .arg(dir.join("project")),
        );
        ids.push(built["tree_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1], "same input, same bytes");
    let program = dir.path().join("one/out/bin/greenhouse");
    let text = good(&bare(&program).arg("--version").output().unwrap());
    assert!(text.contains("1.0.0"), "{text}");
}
