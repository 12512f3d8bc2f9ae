//! Signed tags as releases: real git, ssh-keygen and gpg.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pytheas_agent::git::{Channel, GitError, Polled};

use crate::support::{App, World};

/// Whether what the tests need is there.
fn tools() -> bool {
    let there = |program: &str, arg: &str| Command::new(program).arg(arg).output().is_ok();
    let all = there("git", "--version") && there("ssh-keygen", "-?") && there("gpg", "--version");
    if !all {
        testkit::skip("git, ssh-keygen and gpg are needed (Debian: git openssh-client gpg)");
    }
    all
}

/// A repository somebody works in, and whoever follows it.
struct Work {
    tmp: tempfile::TempDir,
}

impl Work {
    fn new() -> Self {
        let work = Self {
            tmp: tempfile::Builder::new().prefix("git-").tempdir().unwrap(),
        };
        work.git(&["init", "--quiet", "--initial-branch=main"]);
        for key in ["alice", "mallory"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"])
                .arg(work.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        work.allow(&["alice"]);
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    #[track_caller]
    fn git(&self, args: &[&str]) {
        fs::create_dir_all(self.repo()).unwrap();
        let output = Command::new("git")
            .current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GNUPGHOME", self.path("gnupg"))
            .args(["-c", "user.name=Alice", "-c", "user.email=alice@example"])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }

    fn allow(&self, keys: &[&str]) {
        let lines: String = keys
            .iter()
            .map(|key| {
                let public = fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
                format!("{key}@example {public}")
            })
            .collect();
        pytheas_durable::replace(&self.path("signers"), lines.as_bytes()).unwrap();
    }

    fn commit(&self, content: &str) {
        pytheas_durable::replace(&self.repo().join("file"), content.as_bytes()).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", content]);
    }

    /// A tag on what is there now, signed with the SSH key `key`.
    fn tag(&self, key: &str, name: &str) {
        let key = format!("user.signingkey={}", self.path(key).display());
        self.git(&[
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "tag",
            "--force",
            "-s",
            "-m",
            name,
            name,
        ]);
    }

    fn released(&self, name: &str) {
        self.commit(name);
        self.tag("alice", name);
    }

    fn channel(&self) -> Channel {
        Channel {
            url: self.repo().display().to_string(),
            tags: "v*".into(),
            allowed_signers: Some(self.path("signers")),
            openpgp_keys: None,
            any_history: false,
            dir: self.path("follow"),
        }
    }
}

fn names(polled: &Polled) -> Vec<&str> {
    polled
        .accepted
        .iter()
        .map(|tag| tag.name.as_str())
        .collect()
}

/// The only tag accepted is this one; it is released.
#[track_caller]
fn takes(channel: &Channel, name: &str) {
    let polled = channel.poll().unwrap();
    assert_eq!(names(&polled), [name], "{:?}", polled.refused);
    channel.done(&polled.accepted[0]).unwrap();
}

/// Nothing is accepted, and this is said about the tag, as news once.
#[track_caller]
fn refuses(channel: &Channel, name: &str, why: &str) {
    for news in [true, false] {
        let polled = channel.poll().unwrap();
        assert_eq!(names(&polled), Vec::<&str>::new());
        let (_, refusal, said) = polled
            .refused
            .iter()
            .find(|(tag, _, _)| tag == name)
            .unwrap_or_else(|| panic!("{name} is not refused: {:?}", polled.refused));
        assert!(refusal.to_string().contains(why), "{refusal}");
        assert_eq!(*said, news, "{refusal}");
    }
}

#[test]
fn new_signed_tags_are_taken_in_order_and_each_once() {
    if !tools() {
        return;
    }
    let work = Work::new();
    let channel = work.channel();
    assert_eq!(names(&channel.poll().unwrap()), Vec::<&str>::new());
    for name in ["v0.9.0", "v0.10.0-rc1", "v0.10.0"] {
        work.released(name);
    }
    // The past is not asked for; what was not done is offered again.
    assert_eq!(names(&channel.poll().unwrap()), ["v0.10.0"]);
    takes(&channel, "v0.10.0");
    let polled = channel.poll().unwrap();
    assert_eq!((names(&polled).len(), polled.refused.len()), (0, 0));
    for name in ["v1.0.0", "v1.1.0"] {
        work.released(name);
    }
    let polled = channel.poll().unwrap();
    assert_eq!(names(&polled), ["v1.0.0", "v1.1.0"]);
    assert_eq!(polled.accepted[1].version.as_str(), "1.1.0");
    assert!(
        polled.accepted[1].signed.contains("alice@example"),
        "{polled:?}"
    );
    let tree = work.path("tree");
    channel.checkout(&polled.accepted[0], &tree, None).unwrap();
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "v1.0.0");
    assert_eq!(fs::read_dir(&tree).unwrap().count(), 1, "no .git in it");
}

#[test]
fn tags_that_nobody_allowed_has_signed_are_refused() {
    if !tools() {
        return;
    }
    let work = Work::new();
    let channel = work.channel();
    work.commit("first");
    work.git(&["tag", "v1.0.0"]);
    refuses(&channel, "v1.0.0", "not an annotated tag");
    work.git(&["tag", "-a", "-m", "x", "v1.1.0"]);
    refuses(&channel, "v1.1.0", "it is not signed");
    work.tag("mallory", "v1.2.0");
    refuses(&channel, "v1.2.0", "not a good one by an allowed key");
    for name in ["vanity/case", "vnext"] {
        work.tag("alice", name);
        refuses(&channel, name, "holds no version");
    }
    // A signed tag, changed: its message is not what was signed.
    work.tag("alice", "v1.3.0");
    let forged = Command::new("sh")
        .current_dir(work.repo())
        .args([
            "-c",
            "git cat-file tag v1.3.0 | sed 's/^v1.3.0$/evil/' | git hash-object -t tag -w --stdin",
        ])
        .output()
        .unwrap();
    let forged = String::from_utf8(forged.stdout).unwrap();
    work.git(&["update-ref", "refs/tags/v1.3.0", forged.trim()]);
    refuses(&channel, "v1.3.0", "not a good one by an allowed key");
    // One signed tag shown as another.
    work.tag("alice", "v0.1.0");
    work.git(&["update-ref", "refs/tags/v2.0.0", "refs/tags/v0.1.0"]);
    work.git(&["tag", "--delete", "v0.1.0"]);
    refuses(&channel, "v2.0.0", "it was signed as `v0.1.0`");
    // The same tag signed again by someone who may is taken.
    work.tag("alice", "v1.2.0");
    takes(&channel, "v1.2.0");
    // No longer.
    work.allow(&["mallory"]);
    work.released("v1.4.0");
    refuses(&channel, "v1.4.0", "not a good one by an allowed key");
    let nobody = Channel {
        allowed_signers: None,
        ..channel
    };
    assert!(matches!(nobody.poll(), Err(GitError::NoKeys)));
}

#[test]
fn tags_that_move_or_go_back_and_histories_that_change_are_refused() {
    if !tools() {
        return;
    }
    let work = Work::new();
    let channel = work.channel();
    work.released("v1.0.0");
    work.released("v1.1.0");
    takes(&channel, "v1.1.0");
    work.commit("more");
    work.tag("alice", "v1.1.0");
    refuses(&channel, "v1.1.0", "it was moved: it was commit ");
    work.git(&["tag", "--delete", "v1.1.0"]);
    work.tag("alice", "v1.0.5");
    refuses(&channel, "v1.0.5", "not newer than `v1.1.0`");
    // Pushed with force: the released commit is gone.
    work.git(&["checkout", "--quiet", "--orphan", "other"]);
    work.commit("another history");
    work.tag("alice", "v1.2.0");
    refuses(&channel, "v1.2.0", "its history does not contain `v1.1.0`");
    let any = Channel {
        any_history: true,
        ..channel.clone()
    };
    takes(&any, "v1.2.0");
    // The ledger is the memory: damaged, it is not forgotten silently.
    let ledger = work.path("follow/follow.json");
    pytheas_durable::replace(&ledger, b"{").unwrap();
    assert!(matches!(channel.poll(), Err(GitError::Ledger { .. })));
}

#[test]
fn openpgp_signatures_count_by_the_given_keys_alone() {
    if !tools() {
        return;
    }
    let work = Work::new();
    let home = work.path("gnupg");
    fs::create_dir_all(&home).unwrap();
    let gpg = |args: &[&str]| {
        let output = Command::new("gpg")
            .args(["--batch", "--quiet", "--homedir"])
            .arg(&home)
            .args(["--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    for name in ["alice@example", "mallory@example"] {
        gpg(&["--quick-generate-key", name, "ed25519", "sign", "never"]);
    }
    let keys = work.path("keys.asc");
    pytheas_durable::replace(&keys, &gpg(&["--armor", "--export", "alice@example"])).unwrap();
    let channel = Channel {
        allowed_signers: None,
        openpgp_keys: Some(keys),
        ..work.channel()
    };
    work.commit("first");
    work.git(&["tag", "-s", "-u", "mallory@example", "-m", "x", "v1.0.0"]);
    refuses(&channel, "v1.0.0", "not a good one by an allowed key");
    work.tag("alice", "v1.1.0");
    refuses(&channel, "v1.1.0", "no SSH keys are allowed");
    work.git(&["tag", "-s", "-u", "alice@example", "-m", "x", "v1.2.0"]);
    takes(&channel, "v1.2.0");
    // And not those of the user, when only SSH keys are allowed.
    work.commit("second");
    work.git(&["tag", "--delete", "v1.1.0"]);
    work.git(&["tag", "-s", "-u", "alice@example", "-m", "x", "v1.3.0"]);
    let ssh = Channel {
        dir: work.path("other"),
        ..work.channel()
    };
    refuses(&ssh, "v1.3.0", "no OpenPGP keys are allowed");
    let _ended = Command::new("gpgconf")
        .arg("--homedir")
        .arg(&home)
        .args(["--kill", "all"])
        .status();
}

#[test]
fn what_a_repository_configures_is_not_run() {
    if !tools() {
        return;
    }
    let work = Work::new();
    pytheas_durable::create_dir_all(&work.repo()).unwrap();
    let evil = work.path("evil");
    pytheas_durable::replace(&work.repo().join(".gitattributes"), b"* filter=evil\n").unwrap();
    let command = format!("touch {}; cat", evil.display());
    work.git(&["config", "filter.evil.smudge", &command]);
    std::os::unix::fs::symlink("/etc/passwd", work.repo().join("link")).unwrap();
    let hook = work.repo().join(".git/hooks/post-checkout");
    pytheas_durable::replace_with(&hook, 0o755, |file| {
        use std::io::Write as _;
        write!(file, "#!/bin/sh\ntouch {}\n", evil.display())
    })
    .unwrap();
    work.released("v1.0.0");
    let channel = work.channel();
    let polled = channel.poll().unwrap();
    let tree = work.path("tree");
    channel.checkout(&polled.accepted[0], &tree, None).unwrap();
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "v1.0.0");
    assert!(!evil.exists());
    let programs = Channel {
        url: format!("ext::touch {}", evil.display()),
        dir: work.path("ext"),
        ..channel.clone()
    };
    assert!(matches!(programs.poll(), Err(GitError::Failed { .. })));
    let option = Channel {
        url: format!("--upload-pack=touch {}", evil.display()),
        dir: work.path("option"),
        ..channel
    };
    assert!(option.poll().is_err());
    assert!(!evil.exists());
}

#[test]
fn a_device_follows_the_signed_tags_of_a_repository_that_holds_releases() {
    if !tools() {
        return;
    }
    let world = World::new();
    let work = Work::new();
    let copy = |to: &Path| {
        let _fresh = fs::remove_dir_all(to);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(world.repo())
            .arg(to)
            .status();
        assert!(copied.unwrap().success());
    };
    let first = world.publish(&App::good("1.0.0"));
    copy(&work.repo().join("repo"));
    work.released("v1.0.0");
    let device = world.device("device");
    let (url, signers, root) = (work.repo(), work.path("signers"), world.root_file());
    let follow = |expected: i32| {
        let output = device.output(
            "follow",
            &[
                url.to_str().unwrap(),
                "--once",
                "--allowed-signers",
                signers.to_str().unwrap(),
                "--root",
                root.to_str().unwrap(),
            ],
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{text}");
        text
    };
    let text = follow(0);
    assert!(text.contains("`app@1.0.0` runs and is committed"), "{text}");
    assert_eq!(device.current(), Some(first.tree));

    // Signed by an allowed key, but the release in it is not what was signed there.
    let second = world.publish(&App::good("1.1.0"));
    copy(&work.repo().join("repo"));
    let timestamp = work.repo().join("repo/metadata/timestamp.json");
    let good = fs::read_to_string(&timestamp).unwrap();
    let bad = good.replace("\"expires\": \"20", "\"expires\": \"21");
    assert_ne!(good, bad);
    pytheas_durable::replace(&timestamp, bad.as_bytes()).unwrap();
    work.released("v1.1.0");
    let text = follow(4);
    assert!(
        text.contains("0 valid signatures of the role `timestamp`"),
        "{text}"
    );
    assert_eq!(device.current(), Some(first.tree));

    pytheas_durable::replace(&timestamp, good.as_bytes()).unwrap();
    work.commit("mended");
    work.git(&["tag", "-a", "-m", "x", "v1.1.1"]);
    let text = follow(4);
    assert!(
        text.contains("refused tag `v1.1.1`: it is not signed"),
        "{text}"
    );
    assert_eq!(device.current(), Some(first.tree));
    let third = world.publish(&App::good("1.2.0"));
    copy(&work.repo().join("repo"));
    work.released("v1.2.0");
    follow(0);
    assert_eq!(device.current(), Some(third.tree));
    assert_ne!(second.tree, third.tree);
    // Nothing new.
    follow(0);

    // Nobody stands beside it: a hold holds it, with and without an agent.
    let mut device = device;
    assert!(device.output("hold", &[]).status.success());
    let fourth = world.publish(&App::good("1.3.0"));
    copy(&work.repo().join("repo"));
    work.released("v1.3.0");
    let follow = |device: &crate::support::Device| {
        let (url, signers) = (url.to_str().unwrap(), signers.to_str().unwrap());
        let args = [url, "--once", "--allowed-signers", signers];
        let output = device.output("follow", &args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    };
    for _ in 0..2 {
        let text = follow(&device);
        assert!(text.contains("waits: updates are held"), "{text}");
        assert_eq!(device.current(), Some(third.tree));
        if device.child.is_none() {
            device.start();
        }
    }
    assert!(device.output("release", &[]).status.success());
    crate::support::until("it goes on", || {
        (device.current() == Some(fourth.tree)).then_some(())
    });
    device.is_idle();
    let text = follow(&device);
    assert!(text.contains("`app@1.3.0` runs and is committed"), "{text}");
}
