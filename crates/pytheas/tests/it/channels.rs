//! Other ways to a release than the hub's network: one file made by `pytheas export`, and signed
//! tags of a git repository that `pytheas follow` builds and publishes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::common::{GOOD, Hub, json, ok, pytheas, script_tree, shown};

/// The error of a command that must fail, and its exit code.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{}", shown(&output));
    (output.status.code().unwrap(), shown(&output))
}

#[test]
fn a_file_from_a_folder_and_one_from_the_hub_are_the_same_and_install() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let path = |name: &str| home.path().join(name);
    for version in ["1.0", "1.1"] {
        script_tree(&path(version), version, GOOD);
        hub.publish(&path(version));
    }
    let export = |repo: &str, out: &str| {
        let mut command = pytheas(home.path());
        command
            .args(["export", "--repo", repo, "-o"])
            .arg(path(out));
        command.env("PYTHEAS_TOKEN", &hub.token);
        command
    };
    let folder = hub.repo.display().to_string();
    let served = format!("{}/repo", hub.url);
    let made = json(export(&folder, "folder.pytheas").arg("app@1.1"));
    assert_eq!(made["releases"][0]["release"], "app@1.1");
    json(export(&served, "hub.pytheas").arg("app"));
    let bytes = |name: &str| fs::read(path(name)).unwrap();
    assert!(bytes("folder.pytheas") == bytes("hub.pytheas"));

    let (code, said) = refused(export(&folder, "x").arg("app@9.9"));
    assert!(code == 1 && said.contains("9.9"), "{code} {said}");
    let (_, said) = refused(export(&folder, "x").args(["app", "--from", "0.1\u{1b}[2J"]));
    assert!(!said.contains('\u{1b}'), "{said}");
    assert!(!path("x").exists());

    // A device that no network ever reached.
    let mut apply = pytheas(home.path());
    apply.args(["agent", "apply"]).arg(path("hub.pytheas"));
    apply.arg("--root").arg(hub.keys.join("root.json"));
    apply.arg("--state").arg(path("device"));
    let done = json(&mut apply);
    assert_eq!(done["release"], "app@1.1", "{done}");
}

/// A git repository with a project, and the key that signs its tags.
struct Work(PathBuf);

impl Work {
    /// Nothing when a program is missing.
    fn new(home: &Path) -> Option<Self> {
        let there = |program: &str, arg: &str| Command::new(program).arg(arg).output().is_ok();
        if !there("git", "--version") || !there("ssh-keygen", "-?") {
            testkit::skip("git and ssh-keygen are needed (Debian: git openssh-client)");
            return None;
        }
        let work = Self(home.to_owned());
        let key = work.0.join("alice");
        let mut keygen = Command::new("ssh-keygen");
        ok(keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key));
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        fs::write(work.0.join("signers"), format!("alice@example {public}")).unwrap();
        fs::create_dir(work.repo()).unwrap();
        work.git(&["init", "--quiet", "--initial-branch=main"]);
        fs::write(work.repo().join("main.py"), "print('hello')\n").unwrap();
        fs::write(
            work.repo().join("pyproject.toml"),
            "[project]\nname = 'app'\nversion = '0'\nrequires-python = '>=3.9'\n[tool.pytheas]\nentry = 'main.py'\n",
        )
        .unwrap();
        Some(work)
    }

    fn repo(&self) -> PathBuf {
        self.0.join("work")
    }

    fn git(&self, args: &[&str]) {
        let mut git = Command::new("git");
        git.current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=Alice", "-c", "user.email=alice@example"])
            .args(["-c", "gpg.format=ssh", "-c"])
            .arg(format!(
                "user.signingkey={}",
                self.0.join("alice").display()
            ));
        ok(git.args(args));
    }

    fn tag(&self, how: &str, name: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", name]);
        self.git(&["tag", how, name, "-m", name]);
    }

    fn follow(&self) -> Command {
        let mut follow = pytheas(&self.0);
        follow
            .arg("follow")
            .arg(self.repo())
            .arg("--allowed-signers");
        follow.arg(self.0.join("signers"));
        follow.arg("--repo").arg(self.0.join("repository"));
        follow.arg("--keys").arg(self.0.join("keys"));
        follow.arg("--work").arg(self.0.join("follow"));
        follow.args(["--once", "--json"]);
        follow
    }
}

/// The objects that a command printed, one after the other.
fn objects(text: &str) -> Vec<Value> {
    let all = serde_json::Deserializer::from_str(text).into_iter();
    all.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_signed_tag_becomes_a_release_and_a_hostile_one_runs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let Some(work) = Work::new(home.path()) else {
        return;
    };
    ok(pytheas(home.path())
        .args(["keys", "init", "--keys"])
        .arg(home.path().join("keys")));
    let slim = ["--", "--python", "3.11", "--slim"];
    // Whatever a repository may say of filters and hooks, nothing of it is run.
    let ran = home.path().join("ran");
    let run = format!("touch {}", ran.display());
    fs::write(work.repo().join(".gitattributes"), "*.py filter=evil\n").unwrap();
    for name in [
        "filter.evil.smudge",
        "filter.evil.process",
        "core.fsmonitor",
    ] {
        work.git(&["config", name, &run]);
    }
    let hook = work.repo().join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{run}\n")).unwrap();
    let before = fs::read(work.repo().join("main.py")).unwrap();
    work.git(&["config", "--unset", "filter.evil.process"]);
    work.git(&["config", "--unset", "core.fsmonitor"]);
    work.tag("-s", "v1.0.0");
    assert_eq!(fs::read(work.repo().join("main.py")).unwrap(), before);
    let _by_our_own_git = fs::remove_file(&ran);
    let shown = objects(&ok(work.follow().args(slim)));
    assert_eq!(
        (&shown[0]["outcome"], &shown[0]["version"]),
        (&"released".into(), &"1.0.0".into()),
        "{shown:?}"
    );
    assert!(!ran.exists());
    assert_eq!(ok(work.follow().args(slim)), "", "nothing is new");

    work.tag("-a", "v1.1.0");
    let output = work.follow().args(slim).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(4),
        "{}",
        crate::common::shown(&output)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(objects(&text)[0]["outcome"], "refused", "{text}");

    let mut export = pytheas(home.path());
    export
        .args(["export", "app", "-o"])
        .arg(home.path().join("file"));
    let made = json(export.arg("--repo").arg(home.path().join("repository")));
    assert_eq!(made["releases"][0]["release"], "app@1.0.0");
}
