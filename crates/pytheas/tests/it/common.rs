//! What end-to-end tests share: the real command, a running hub, an agent, waiting.
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The command under test.
pub(crate) const PYTHEAS: &str = env!("CARGO_BIN_EXE_pytheas");

/// `pytheas ARGS…` with nothing of the developer's own configuration.
pub(crate) fn pytheas(home: &Path) -> Command {
    let mut command = Command::new(PYTHEAS);
    command
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_DATA_HOME", home.join("share"))
        .env("NO_COLOR", "1")
        .env_remove("PYTHEAS_TOKEN")
        .env_remove("PYTHEAS_HUB")
        .env_remove("PYTHEAS_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs a command that has to succeed; its standard output.
#[track_caller]
pub(crate) fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// As [`ok`], the output parsed.
#[track_caller]
pub(crate) fn json(command: &mut Command) -> Value {
    let text = ok(command.arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?}: {error}\n{text}"))
}

/// Exit code and both streams, as snapshots show them.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output
            .status
            .code()
            .map_or("by signal".into(), |code| code.to_string()),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Calls `ready` until it gives something; fails with `what` after `limit`.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let out = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let error = out.try_clone().unwrap();
        Self(
            command
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(error)
                .spawn()
                .unwrap(),
        )
    }

    /// SIGTERM, then waits; SIGKILL after a while.
    pub(crate) fn stop(&mut self) {
        if self.0.try_wait().unwrap().is_some() {
            return;
        }
        let _may_be_gone = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) {
            if self.0.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _may_be_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keys, a hub that serves their repository, and a token for it.
pub(crate) struct Hub {
    pub(crate) home: PathBuf,
    pub(crate) keys: PathBuf,
    pub(crate) repo: PathBuf,
    pub(crate) url: String,
    pub(crate) token: String,
    /// Further arguments of the hub.
    more: Vec<String>,
    /// What is trusted beside the well-known authorities.
    ca: Option<PathBuf>,
    process: Option<Running>,
}

impl Hub {
    /// Makes keys and starts a hub on a free port, everything below `home`.
    pub(crate) fn start(home: &Path) -> Self {
        Self::start_with(home, &[], None)
    }

    /// As [`Self::start`], the hub with further arguments and with a certificate by `ca`.
    pub(crate) fn start_with(home: &Path, more: &[&str], ca: Option<PathBuf>) -> Self {
        let keys = home.join("keys");
        ok(pytheas(home).args(["keys", "init", "--keys"]).arg(&keys));
        let mut hub = Self {
            home: home.to_owned(),
            keys,
            repo: home.join("hub/repo"),
            url: String::new(),
            token: String::new(),
            more: more.iter().map(|&text| text.to_owned()).collect(),
            ca,
            process: None,
        };
        hub.up("127.0.0.1:0");
        hub
    }

    /// Starts the process (again).
    pub(crate) fn up(&mut self, listen: &str) {
        let started = self.home.join("started.json");
        let _none_before = std::fs::remove_file(&started);
        let mut command = pytheas(&self.home);
        command
            .args(["hub", "--listen", listen, "--data"])
            .arg(self.home.join("hub"));
        command.arg("--root").arg(self.keys.join("root.json"));
        command.arg("--online-keys").arg(self.keys.join("online"));
        command.arg("--started-file").arg(&started).args(&self.more);
        let log = self.home.join("hub.log");
        self.process = Some(Running::start(&mut command, &log));
        let text = wait_for("the hub to start", Duration::from_secs(30), || {
            std::fs::read_to_string(&started).ok()
        });
        let value: Value = serde_json::from_str(&text).unwrap();
        self.url = value["address"].as_str().unwrap().to_owned();
        if let Some(token) = value["token"].as_str() {
            self.token = token.to_owned();
        }
    }

    /// Of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    /// Ends the process.
    pub(crate) fn down(&mut self) {
        self.process = None;
    }

    /// `pytheas ARGS…` against this hub.
    pub(crate) fn pytheas(&self, args: &[&str]) -> Command {
        let mut command = pytheas(&self.home);
        command
            .args(args)
            .env("PYTHEAS_HUB", &self.url)
            .env("PYTHEAS_TOKEN", &self.token);
        if let Some(ca) = &self.ca {
            command.env("PYTHEAS_CA", ca);
        }
        command
    }

    /// Publishes the tree in `dir`.
    pub(crate) fn publish(&self, dir: &Path) -> Value {
        let mut command = pytheas(&self.home);
        command
            .arg("publish")
            .arg(dir)
            .arg("--repo")
            .arg(&self.repo);
        json(command.arg("--keys").arg(&self.keys))
    }

    /// Starts an agent that enrols by key.
    pub(crate) fn agent(&self, id: &str, prepare: impl FnOnce(&mut Command)) -> Running {
        let key = json(&mut self.pytheas(&["enrolment-key", "create"]));
        let mut command = pytheas(&self.home);
        command.args([
            "agent",
            "run",
            "--hub",
            &self.url,
            "--id",
            id,
            "--poll-interval",
            "500ms",
        ]);
        command.args(["--key", key["key"].as_str().unwrap()]);
        command.arg("--root").arg(self.keys.join("root.json"));
        command.arg("--state").arg(self.state(id));
        prepare(&mut command);
        Running::start(&mut command, &self.home.join(format!("{id}.log")))
    }

    /// Where an agent of [`Self::agent`] keeps its state.
    pub(crate) fn state(&self, id: &str) -> PathBuf {
        self.home.join("devices").join(id)
    }

    /// What the device says it runs.
    pub(crate) fn runs(&self, id: &str) -> Option<String> {
        let output = self
            .pytheas(&["device", "show", id, "--json"])
            .output()
            .unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        value["device"]["release"].as_str().map(str::to_owned)
    }

    /// Starts a rollout and waits until it is no longer running.
    pub(crate) fn roll_out(&self, args: &[&str]) -> Value {
        let mut start = vec!["rollout", "start"];
        start.extend(args);
        let id = json(&mut self.pytheas(&start))["rollout"]["id"]
            .as_i64()
            .unwrap()
            .to_string();
        wait_for("the rollout", Duration::from_secs(120), || {
            let value = json(&mut self.pytheas(&["rollout", "status", &id]));
            (value["rollout"]["state"] != "running").then_some(value)
        })
    }

    /// Bytes a device moved so far, both directions.
    pub(crate) fn moved(&self, id: &str) -> u64 {
        let value = json(&mut self.pytheas(&["traffic", "--device", id]));
        let kinds = value["devices"][0]["kinds"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        kinds
            .values()
            .map(|k| k["sent_bytes"].as_u64().unwrap() + k["received_bytes"].as_u64().unwrap())
            .sum()
    }
}

/// A tree that `pytheas publish` takes: a shell script as the app, so that tests are fast.
pub(crate) fn script_tree(dir: &Path, version: &str, script: &str) {
    let platform = pytheas_release::Platform::host().unwrap();
    let record = serde_json::json!({
        "format": 1, "name": "app", "version": version, "form": "bundle",
        "platform": platform.as_str(), "entry": "bin/app",
        "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 10_000, "stay_up_ms": 700},
    });
    tree(dir, &record.to_string(), script);
}

/// As [`script_tree`], with this record.
pub(crate) fn tree(dir: &Path, record: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    std::fs::create_dir_all(dir.join("lib")).unwrap();
    std::fs::write(dir.join("pytheas.json"), record).unwrap();
    std::fs::write(dir.join("bin/app"), script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.join("bin/app"), mode).unwrap();
    for number in 0..40 {
        let text = format!("content of module {number}\n").repeat(500);
        std::fs::write(dir.join(format!("lib/module_{number}.txt")), text).unwrap();
    }
}

/// A script that lives until it is told to end.
pub(crate) const GOOD: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n";
