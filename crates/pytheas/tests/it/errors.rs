//! Bad input, each with the message a person gets: what failed, on what, why, and what to do.

use std::{fs, net::TcpListener, path::Path, process::Command};

use crate::common::{Hub, pytheas, shown};

/// A project folder with these files.
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
    text.chars()
        .flat_map(|c| {
            if c.is_alphanumeric() {
                vec![c]
            } else {
                vec!['\\', c]
            }
        })
        .collect()
}

#[test]
fn no_project_file() {
    let dir = tempfile::tempdir().unwrap();
    check!(dir.path(), pytheas(dir.path()).arg("build").current_dir(&dir), @"
    exit 1
    --- stdout
    --- stderr
    error: no Python project in `[DIR]`
      help: looked for `pyproject.toml`, `setup.py`, `setup.cfg`, `Pipfile`, `requirements.txt`, `environment.yml`, `main.py` and a package's `__init__.py`; a script of another name is given by its path
    ");
}

#[test]
fn unparsable_toml_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("pyproject.toml", "[project]\nname = \"x\"\nversion 1\n")],
    );
    check!(dir.path(), pytheas(dir.path()).arg("lock").current_dir(&dir), @"
    exit 1
    --- stdout
    --- stderr
    error: `[DIR]/pyproject.toml` line 3, column 9: key with no value, expected `=`
      --> [DIR]/pyproject.toml:3:9
         | version 1
         |         ^ here
    ");
}

#[test]
fn a_misspelt_setting() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[(
            "pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\n[tool.pytheas]\nentri = \"x:run\"\n",
        )],
    );
    check!(dir.path(), pytheas(dir.path()).arg("build").current_dir(&dir), @r#"
    exit 1
    --- stdout
    --- stderr
    error: `[DIR]/pyproject.toml` line 5, column 1: unknown key `entri`
      --> [DIR]/pyproject.toml:5:1
         | entri = "x:run"
         | ^^^^^ here
      help: did you mean `entry`?
    "#);
}

#[test]
fn an_unresolvable_dependency_keeps_uvs_explanation() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[
            ("requirements.txt", "idna==3.4\nidna==3.3\n"),
            ("main.py", ""),
        ],
    );
    check!(dir.path(), pytheas(dir.path()).arg("lock").current_dir(&dir), @"
    exit 1
    --- stdout
    --- stderr
    resolving 2 requirements
    error: the requirements in `[DIR]/requirements.txt` cannot be resolved
      cause: error: No solution found when resolving dependencies
          cause: Because you require idna==3.4 and idna==3.3, we can conclude that your requirements are unsatisfiable.
      help: loosen or correct the requirement that is named above
    ");
}

#[test]
fn a_missing_entry_point() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("requirements.txt", ""), ("tool.py", "def run(): pass\n")],
    );
    let build = |entry: &str| {
        let mut command = pytheas(dir.path());
        command.args([
            "build", "-q", "--name", "tool", "-o", "out", "--entry", entry,
        ]);
        command.current_dir(&dir);
        command
    };
    check!(dir.path(), build("tool:start"), @"
    exit 1
    --- stdout
    --- stderr
    error: entry point missing: module `tool` has no `start`
      help: it has `run`
    ");
    check!(dir.path(), build("nothing:run"), @"
    exit 1
    --- stdout
    --- stderr
    error: entry point missing: there is no module `nothing` in the app and its packages
      help: is the package that has it among the requirements?
    ");
}

#[test]
fn no_entry_point_at_all() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("thing/requirements.txt", ""), ("thing/tool.py", "")],
    );
    let mut command = pytheas(dir.path());
    check!(dir.path(), command.args(["build", "-q"]).current_dir(dir.path().join("thing")), @"
    exit 1
    --- stdout
    --- stderr
    error: nothing says what starts `thing` in `[DIR]/thing`
      help: name it with `--entry MODULE:CALLABLE`, or set `entry` in `[tool.pytheas]`; it could be `tool.py`
    ");
}

#[test]
fn a_wheel_that_is_missing_for_the_platform() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("requirements.txt", "pywin32==306\n"), ("main.py", "")],
    );
    let mut command = pytheas(dir.path());
    command
        .args(["build", "-q", "--name", "app", "--python", "3.11"])
        .current_dir(&dir);
    check!(dir.path(), command, @"
    exit 1
    --- stdout
    --- stderr
    error: `pywin32` 306 has no wheel for `linux-x86_64` and Python 3.11.7
      help: it has no source distribution either; wheels exist for `cp311-cp311-win32`, `cp311-cp311-win_amd64`, `cp311-cp311-win_arm64`, `cp312-cp312-win32`, `cp312-cp312-win_amd64`, `cp312-cp312-win_arm64`; require another version, choose another Python with `--python`, or another `--platform`
    ");
}

#[test]
fn no_network() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("requirements.txt", "idna==3.4\n"), ("main.py", "")],
    );
    let mut command = pytheas(dir.path());
    command
        .args(["lock", "-q"])
        .current_dir(&dir)
        .env("UV_CACHE_DIR", dir.path().join("cache"))
        .env("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        .env("UV_HTTP_RETRIES", "0");
    check!(dir.path(), command, @"
    exit 3
    --- stdout
    --- stderr
    error: cannot reach the package index to resolve `[DIR]/requirements.txt`
      cause: error: Failed to fetch: http://[ADDRESS]/simple/idna/
          cause: error sending request for url (http://[ADDRESS]/simple/idna/)
          cause: client error (Connect)
          cause: tcp connect error
          cause: Connection refused (os error [N])
      help: check the network, proxy and index settings; with a lock file and a warm cache, `--offline` builds without a network
    ");
}

#[test]
fn a_stale_lock_names_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    project(
        dir.path(),
        &[("requirements.txt", "idna==3.4\n"), ("main.py", "")],
    );
    crate::common::ok(pytheas(dir.path()).args(["lock", "-q"]).current_dir(&dir));
    crate::common::ok(
        pytheas(dir.path())
            .args(["lock", "--check"])
            .current_dir(&dir),
    );
    project(dir.path(), &[("requirements.txt", "idna>=3.4\ncertifi\n")]);
    let mut command = pytheas(dir.path());
    check!(dir.path(), command.args(["lock", "--check"]).current_dir(&dir), @"
    exit 1
    --- stdout
    --- stderr
    error: `[DIR]/pylock.toml` is stale: added `certifi`, changed `idna==3.4` to `idna>=3.4`
      help: run `pytheas lock`
    ");
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
    project(
        dir.path(),
        &[("p/requirements.txt", ""), ("p/main.py", "print('hi')\n")],
    );
    let mut command = pytheas(dir.path());
    command
        .args(["build", "-q", "--name", "app", "-C"])
        .arg(dir.path().join("p"));
    let output = command.arg("-o").arg(small.join("out")).output().unwrap();
    let left: Vec<_> = fs::read_dir(&small).unwrap().collect();
    let _unmounted = Command::new("umount").arg(&small).status();
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("No space left") || text.contains("disk is full"),
        "{text}"
    );
    assert!(text.contains("help:"), "{text}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = pytheas(dir.path());
    command.args([
        "hub",
        "--listen",
        &taken.local_addr().unwrap().to_string(),
        "--data",
    ]);
    check!(dir.path(), command.arg(dir.path().join("hub")), @"
    exit 3
    --- stdout
    --- stderr
    error: `[ADDRESS]` is in use
      cause: Address already in use (os error [N])
      help: another hub? `ss -ltnp` names the program; choose another place with `--listen`, or `--listen [ADDRESS]` for a free port
    ");
}

#[test]
fn a_hub_that_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = pytheas(dir.path());
    command.args([
        "device",
        "list",
        "--hub",
        "http://127.0.0.1:9",
        "--token",
        "x",
    ]);
    check!(dir.path(), command, @"
    exit 3
    --- stdout
    --- stderr
    error: the hub at `http://[ADDRESS]/` cannot be reached
      cause: io: Connection refused (os error [N])
      help: is it running? `pytheas hub` starts one; another address goes into `--hub` or PYTHEAS_HUB
    ");
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
    check!(dir.path(), list(None), @"
    exit 1
    --- stdout
    --- stderr
    error: the hub at `http://[ADDRESS]/` wants a token and there is none
      help: `pytheas login` stores one; or give `--token` or PYTHEAS_TOKEN
    ");
    check!(dir.path(), list(Some("pyt_wrong")), @"
    exit 1
    --- stdout
    --- stderr
    error: the hub at `http://[ADDRESS]/` does not accept this token
      help: the first token was printed when the hub first started; an admin makes new ones with `pytheas token create`
    ");
    check!(dir.path(), hub.pytheas(&["rollout", "start", "nothing@1.0"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no release `nothing@1.0`
      help: nothing called `nothing` was published
    ");
    check!(dir.path(), hub.pytheas(&["device", "show", "nobody"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no device `nobody`
      help: `pytheas device list` shows them
    ");
}

#[test]
fn a_folder_that_was_not_built() {
    let dir = tempfile::tempdir().unwrap();
    crate::common::ok(
        pytheas(dir.path())
            .args(["keys", "init", "--keys"])
            .arg(dir.path().join("keys")),
    );
    project(dir.path(), &[("plain/file", "")]);
    let mut command = pytheas(dir.path());
    command
        .arg("publish")
        .arg(dir.path().join("plain"))
        .arg("--repo")
        .arg(dir.path().join("repo"));
    check!(dir.path(), command.arg("--keys").arg(dir.path().join("keys")), @"
    exit 1
    --- stdout
    --- stderr
    reading the tree
    error: `[DIR]/plain` was not made by `pytheas build`: it has no `pytheas.json`
      help: build first: `pytheas build -o DIR`, then `pytheas publish DIR`
    ");
}

#[test]
fn keys_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let init = || {
        let mut command = pytheas(dir.path());
        command
            .args(["keys", "init", "--keys"])
            .arg(dir.path().join("keys"));
        command
    };
    crate::common::ok(&mut init());
    check!(dir.path(), init(), @"
    exit 1
    --- stdout
    --- stderr
    error: there are keys in `[DIR]/keys` already: `[DIR]/keys/root.pem` exists
      help: keys are never overwritten, devices would stop trusting you; choose another folder, or use the keys that are there
    ");
}

#[test]
fn exit_codes_tell_a_refusal_from_a_failing_world() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for keys in ["ours", "theirs"] {
        let mut init = pytheas(dir.path());
        crate::common::ok(init.args(["keys", "init", "--keys"]).arg(path(keys)));
    }
    let publish = |keys: &str, repo: &str| {
        let mut command = pytheas(dir.path());
        command.args(["publish", "-q", "--repo", repo, "--keys"]);
        command.arg(path(keys)).arg(path("app")).output().unwrap()
    };
    crate::common::script_tree(&path("app"), "1.0.0", crate::common::GOOD);
    let repo = path("repo").display().to_string();
    assert_eq!(publish("ours", &repo).status.code(), Some(0));
    let refused = publish("theirs", &repo);
    assert_eq!(refused.status.code(), Some(4), "{}", shown(&refused));
    let away = publish("ours", "http://127.0.0.1:9/repo");
    assert_eq!(away.status.code(), Some(3), "{}", shown(&away));
    let changed = path("app").join("lib/module_0.txt");
    fs::write(changed, "changed").unwrap();
    let taken = publish("ours", &repo);
    assert_eq!(taken.status.code(), Some(1), "{}", shown(&taken));
}

#[test]
fn damaged_stored_tokens_are_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), &[("config/pytheas/credentials.json", "{")]);
    for verb in [&["device", "list"][..], &["logout"]] {
        let output = pytheas(dir.path()).args(verb).output().unwrap();
        let text = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("are damaged"), "{text}");
    }
    let left = fs::read_to_string(dir.path().join("config/pytheas/credentials.json"));
    assert_eq!(left.unwrap(), "{");
}

#[test]
fn waiting_for_a_rollout_that_does_not_finish_fails() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    crate::common::ok(&mut hub.pytheas(&["device", "add", "dev1"]));
    project(dir.path(), &[("fw.swu", "firmware")]);
    let file = dir.path().join("fw.swu").display().to_string();
    crate::common::ok(&mut hub.pytheas(&[
        "artifact",
        "upload",
        &file,
        "--name",
        "fw",
        "--version",
        "1",
    ]));
    crate::common::ok(&mut hub.pytheas(&["rollout", "start", "--artifact", "fw@1"]));
    crate::common::ok(&mut hub.pytheas(&["rollout", "abort", "1"]));
    let output = hub
        .pytheas(&["rollout", "status", "1", "--wait", "-q"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
}
