//! Bad input, each with the message a person gets: what failed, on what, why, and what to do.

mod common;

use std::{fs, net::TcpListener, path::Path, process::Command};

use common::{Hub, pytheas, shown};

/// A project folder with these files.
#[expect(clippy::disallowed_methods, reason = "test input; nothing to lose")]
fn project(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Runs `command` and checks its streams and exit code; places and numbers that vary are named.
macro_rules! check {
    ($dir:expr, $command:expr, @$snapshot:literal) => {
        let dir = $dir.to_str().unwrap().to_owned();
        insta::with_settings!({ filters => vec![
            (regex_escape(&dir).as_str(), "[DIR]"),
            (r"127\.0\.0\.1:\d+", "[ADDRESS]"),
            (r"process \d+", "process [PID]"),
            (r"\(os error \d+\)", "(os error [N])"),
        ] }, {
            insta::assert_snapshot!(shown(&$command.output().unwrap()), @$snapshot);
        });
    };
}

fn regex_escape(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_alphanumeric() { vec![c] } else { vec!['\\', c] }).collect()
}

#[test]
fn no_project_file() {
    let dir = tempfile::tempdir().unwrap();
    check!(dir.path(), pytheas(dir.path()).arg("build").current_dir(&dir), @"");
}

#[test]
fn unparsable_toml_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("pyproject.toml", "[project]\nname = \"x\"\nversion 1\n")]);
    check!(dir.path(), pytheas(dir.path()).arg("lock").current_dir(&dir), @"");
}

#[test]
fn a_misspelt_setting() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[(
        "pyproject.toml",
        "[project]\nname = \"x\"\nversion = \"1\"\n[tool.pytheas]\nentri = \"x:run\"\n",
    )]);
    check!(dir.path(), pytheas(dir.path()).arg("build").current_dir(&dir), @"");
}

#[test]
fn an_unresolvable_dependency_keeps_uvs_explanation() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", "idna==3.4\nidna==3.3\n"), ("main.py", "")]);
    check!(dir.path(), pytheas(dir.path()).arg("lock").current_dir(&dir), @"");
}

#[test]
fn a_missing_entry_point() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", ""), ("tool.py", "def run(): pass\n")]);
    let build = |entry: &str| {
        let mut command = pytheas(dir.path());
        command.args(["build", "-q", "--name", "tool", "-o", "out", "--entry", entry]);
        command.current_dir(&dir);
        command
    };
    check!(dir.path(), build("tool:start"), @"");
    check!(dir.path(), build("nothing:run"), @"");
}

#[test]
fn no_entry_point_at_all() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", ""), ("tool.py", "")]);
    check!(dir.path(), pytheas(dir.path()).args(["build", "-q"]).current_dir(dir.path()), @"");
}

#[test]
fn a_wheel_that_is_missing_for_the_platform() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", "pywin32==306\n"), ("main.py", "")]);
    let mut command = pytheas(dir.path());
    command.args(["build", "-q", "--name", "app", "--python", "3.11"]).current_dir(&dir);
    check!(dir.path(), command, @"");
}

#[test]
fn no_network() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", "idna==3.4\n"), ("main.py", "")]);
    let mut command = pytheas(dir.path());
    command
        .args(["lock", "-q"])
        .current_dir(&dir)
        .env("UV_CACHE_DIR", dir.path().join("cache"))
        .env("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        .env("UV_HTTP_RETRIES", "0");
    check!(dir.path(), command, @"");
}

#[test]
fn a_stale_lock_names_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("requirements.txt", "idna==3.4\n"), ("main.py", "")]);
    common::ok(pytheas(dir.path()).args(["lock", "-q"]).current_dir(&dir));
    common::ok(pytheas(dir.path()).args(["lock", "--check"]).current_dir(&dir));
    project(dir.path(), &[("requirements.txt", "idna>=3.4\ncertifi\n")]);
    let mut command = pytheas(dir.path());
    check!(dir.path(), command.args(["lock", "--check"]).current_dir(&dir), @"");
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir_all(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&small)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        return testkit::skip("mounting a small file system needs root");
    }
    project(dir.path(), &[("p/requirements.txt", ""), ("p/main.py", "print('hi')\n")]);
    let mut command = pytheas(dir.path());
    command.args(["build", "-q", "--name", "app", "-C"]).arg(dir.path().join("p"));
    let output = command.arg("-o").arg(small.join("out")).output().unwrap();
    let left: Vec<_> = fs::read_dir(&small).unwrap().collect();
    let _unmounted = Command::new("umount").arg(&small).status();
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left") || text.contains("disk is full"), "{text}");
    assert!(text.contains("help:"), "{text}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = pytheas(dir.path());
    command.args(["hub", "--listen", &taken.local_addr().unwrap().to_string(), "--data"]);
    check!(dir.path(), command.arg(dir.path().join("hub")), @"");
}

#[test]
fn a_hub_that_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = pytheas(dir.path());
    command.args(["device", "list", "--hub", "http://127.0.0.1:9", "--token", "x"]);
    check!(dir.path(), command, @"");
}

#[test]
fn no_token_and_a_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let list = |token: Option<&str>| {
        let mut command = pytheas(dir.path());
        command.args(["device", "list", "--hub", &hub.url]);
        command.args(token.iter().flat_map(|token| ["--token", token]));
        command
    };
    check!(dir.path(), list(None), @"");
    check!(dir.path(), list(Some("pyt_wrong")), @"");
    check!(dir.path(), hub.pytheas(&["rollout", "start", "nothing@1.0"]), @"");
    check!(dir.path(), hub.pytheas(&["device", "show", "nobody"]), @"");
}

#[test]
fn a_folder_that_was_not_built() {
    let dir = tempfile::tempdir().unwrap();
    common::ok(pytheas(dir.path()).args(["keys", "init", "--keys"]).arg(dir.path().join("keys")));
    project(dir.path(), &[("plain/file", "")]);
    let mut command = pytheas(dir.path());
    command.arg("publish").arg(dir.path().join("plain")).arg("--repo").arg(dir.path().join("repo"));
    check!(dir.path(), command.arg("--keys").arg(dir.path().join("keys")), @"");
}

#[test]
fn keys_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let init = || {
        let mut command = pytheas(dir.path());
        command.args(["keys", "init", "--keys"]).arg(dir.path().join("keys"));
        command
    };
    common::ok(&mut init());
    check!(dir.path(), init(), @"");
}
