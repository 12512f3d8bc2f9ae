//! What the agent's tests share: a published repository with small shell apps, a hub that speaks
//! the few DDI answers needed, and agents as real processes.

pub(crate) mod hub;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use pytheas_durable::trees;
use pytheas_release::{
    BuildRecord, ConfigOption, Health, Hook, Platform, Ready, TreeId, UpdateRules,
};
use pytheas_repo::{
    keys::{Init, PublisherKeys},
    publish::{Events, Options, Published, publish},
    store::Store,
};
use serde_json::Value;

pub(crate) use hub::TestHub;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `found` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Which app a release is.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) version: String,
    pub(crate) script: String,
    pub(crate) health: Health,
    pub(crate) platform: Platform,
    pub(crate) form: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The app's name.
    pub(crate) name: String,
    pub(crate) update: UpdateRules,
    /// What operators may set.
    pub(crate) config: BTreeMap<String, ConfigOption>,
}

pub(crate) const STAYS: &str = "exec sleep 100000";

impl App {
    /// A release that runs, says what it is, and stays up; `lib/version` differs in each version,
    /// `lib/shared-*` are the same in all.
    pub(crate) fn good(version: &str) -> Self {
        let health = Health {
            ready: Ready::StayUp,
            deadline_ms: 20_000,
            stay_up_ms: 150,
        };
        let mut files = BTreeMap::new();
        for i in 0..8_u64 {
            files.insert(
                format!("lib/shared-{i}"),
                noise(i, 3000 + 5000 * i as usize),
            );
        }
        files.insert("lib/version".into(), format!("{version}\n").into_bytes());
        files.insert("lib/empty.txt".into(), Vec::new());
        // Changes a little with each version, as code does.
        let mut module = noise(99, 40_000);
        module.extend(format!("version {version}").bytes());
        files.insert("lib/module.py".into(), module);
        Self {
            version: version.into(),
            script: STAYS.into(),
            health,
            platform: Platform::host().unwrap(),
            form: "bundle".into(),
            files,
            name: "app".into(),
            update: UpdateRules::default(),
            config: BTreeMap::new(),
        }
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// With a hook that runs `script` in its data folder; it is given up after `timeout_ms`.
    pub(crate) fn hook(mut self, name: &str, timeout_ms: u64, script: &str) -> Self {
        let path = format!("bin/{name}");
        let hook = Some(Hook {
            command: vec![path.clone(), "argument".into()],
            timeout_ms,
        });
        let hooks = &mut self.update.hooks;
        match name {
            "before-update" => hooks.before_update = hook,
            "after-update" => hooks.after_update = hook,
            _ => hooks.after_rollback = hook,
        }
        self.file(&path, format!("#!/bin/sh\n{script}\n").into_bytes())
    }

    pub(crate) fn conflicts(mut self, key: &str, value: &str) -> Self {
        self.update.rules.conflicts.insert(key.into(), value.into());
        self
    }

    pub(crate) fn requires(mut self, key: &str, value: &str) -> Self {
        self.update.rules.requires.insert(key.into(), value.into());
        self
    }

    pub(crate) fn script(mut self, script: &str) -> Self {
        self.script = script.into();
        self
    }

    /// A release that ends before it counts as up, also on a machine with much to do.
    pub(crate) fn crashing(mut self, script: &str) -> Self {
        self.health.stay_up_ms = 15_000;
        self.script(script)
    }

    pub(crate) fn health(mut self, ready: Ready, deadline_ms: u64) -> Self {
        self.health = Health {
            ready,
            deadline_ms,
            stay_up_ms: 150,
        };
        self
    }

    pub(crate) fn file(mut self, path: &str, content: Vec<u8>) -> Self {
        self.files.insert(path.into(), content);
        self
    }

    /// Writes it as a built tree.
    #[expect(
        clippy::disallowed_methods,
        reason = "a tree that lives as long as its publishing"
    )]
    fn build(&self, dir: &Path) {
        let write = |path: &str, mode: u32, bytes: &[u8]| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (path, content) in &self.files {
            let mode = if path.starts_with("bin/") {
                0o755
            } else {
                0o644
            };
            write(path, mode, content);
        }
        // The app says what it is by two of its files, so a mixed tree would show.
        let script = format!(
            "#!/bin/sh\nhere=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")\n\
             echo \"{} $(cat \"$here/lib/version\")\" > \"$PYTHEAS_DATA_DIR/running\"\n{}\n",
            self.version, self.script
        );
        write("bin/app", 0o755, script.as_bytes());
        std::os::unix::fs::symlink("app", dir.join("bin/alias")).unwrap();
        let record = BuildRecord {
            format: 1,
            name: self.name.parse().unwrap(),
            version: self.version.parse().unwrap(),
            form: self.form.clone(),
            platform: self.platform.clone(),
            entry: "bin/app".parse().unwrap(),
            health: self.health.clone(),
            config: self.config.clone(),
            interpreter: None,
            update: self.update.clone(),
        };
        write("pytheas.json", 0o644, &record.encode());
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A repository, a hub that serves it, and room for devices.
pub(crate) struct World {
    pub(crate) tmp: tempfile::TempDir,
    pub(crate) hub: TestHub,
    keys: PublisherKeys,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        let tmp = tempfile::Builder::new().prefix("agent-").tempdir().unwrap();
        let keys_dir = tmp.path().join("keys");
        pytheas_repo::keys::init(&Init {
            dir: &keys_dir,
            passphrase: None,
            now: jiff::Timestamp::now(),
            root_valid: jiff::SignedDuration::from_hours(24 * 365),
        })
        .unwrap();
        let keys = PublisherKeys::load(&keys_dir, &|_| None).unwrap();
        let repo = tmp.path().join("repo");
        fs::create_dir(&repo).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            hub: TestHub::start(repo),
            tmp,
            keys,
            runtime,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.path("keys/root.json")
    }

    /// The keys are other ones now.
    pub(crate) fn reload_keys(&mut self) {
        self.keys = PublisherKeys::load(&self.path("keys"), &|_| None).unwrap();
    }

    pub(crate) fn publish(&self, app: &App) -> Published {
        self.publish_with(
            app,
            &Options {
                level: 3,
                ..Options::at(jiff::Timestamp::now())
            },
        )
    }

    pub(crate) fn publish_with(&self, app: &App, options: &Options) -> Published {
        let dir = tempfile::tempdir_in(self.tmp.path()).unwrap();
        app.build(dir.path());
        let store = Store::folder(&self.repo()).unwrap();
        self.runtime
            .block_on(publish(
                &store,
                &self.keys,
                dir.path(),
                options,
                &Events::none(),
            ))
            .unwrap()
    }

    pub(crate) fn handle(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Publishes several and offers them as one update.
    pub(crate) fn offer_together(&self, published: &[&Published]) -> String {
        let targets: Vec<&str> = published.iter().map(|one| one.target.as_str()).collect();
        self.hub.offer(&targets.join(" "))
    }

    /// A device that is not started yet.
    pub(crate) fn device(&self, name: &str) -> Device {
        Device::new(self, self.path(name))
    }

    /// A device on which `published` runs, committed and reported.
    pub(crate) fn device_with(&self, name: &str, published: &Published) -> Device {
        let mut device = self.device(name);
        device.start();
        let action = self.hub.offer(&published.target);
        assert_eq!(self.hub.closed(&action), Ok(()));
        device.is_idle();
        device
    }
}

/// An agent's state directory and the agent that may run in it.
pub(crate) struct Device {
    pub(crate) state: PathBuf,
    pub(crate) child: Option<Child>,
    hub: String,
    root: PathBuf,
    /// Another agent than the one built with the tests.
    pub(crate) program: Option<PathBuf>,
    pub(crate) args: Vec<String>,
    /// What the agent finds in its environment besides.
    pub(crate) env: Vec<(String, String)>,
}

impl Device {
    pub(crate) fn new(world: &World, state: PathBuf) -> Self {
        Self {
            state,
            child: None,
            hub: world.hub.url(),
            root: world.root_file(),
            program: std::env::var_os("PYTHEAS_AGENT_BIN").map(PathBuf::from),
            args: vec!["--poll-interval".into(), "100ms".into()],
            env: Vec::new(),
        }
    }

    /// The root that it is given.
    pub(crate) fn trusts(&mut self, root: &Path) {
        root.clone_into(&mut self.root);
    }

    /// The hub is reached at this address.
    pub(crate) fn goes_to(&mut self, hub: &str) {
        self.hub = hub.to_owned();
    }

    /// An agent's command on this device.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let built = Path::new(env!("CARGO_BIN_EXE_pytheas-agent"));
        let mut command = Command::new(self.program.as_deref().unwrap_or(built));
        command
            .arg(verb)
            .arg("--state")
            .arg(&self.state)
            .env_remove("PYTHEAS_FAULT");
        command.env("PYTHEAS_LOG", "debug");
        command
    }

    pub(crate) fn output(&self, verb: &str, args: &[&str]) -> Output {
        self.command(verb).args(args).output().unwrap()
    }

    pub(crate) fn start(&mut self) {
        self.start_with(None);
    }

    /// Starts the agent, which is killed at the point `fault`.
    pub(crate) fn start_with(&mut self, fault: Option<&str>) {
        assert!(self.child.is_none(), "it runs already");
        fs::create_dir_all(&self.state).unwrap();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.state.with_extension("log"))
            .unwrap();
        let mut command = self.command("run");
        command
            .args(["--hub", &self.hub, "--id", "dev1", "--root"])
            .arg(&self.root)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(fault) = fault {
            command.env("PYTHEAS_FAULT", format!("kill@{fault}"));
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), rustix::process::Signal::TERM);
        child.wait().unwrap()
    }

    /// Whether the agent ended by itself (or by a fault), and how.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    pub(crate) fn status(&self) -> Value {
        let output = self.output("status", &["--json"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn machine(&self) -> Value {
        let bytes = fs::read(self.state.join("state.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    pub(crate) fn state_name(&self) -> String {
        self.machine()["update"]["state"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    }

    /// Waits until the machine is idle and nothing waits to be told.
    #[track_caller]
    pub(crate) fn is_idle(&self) {
        let quiet = || {
            let machine = self.machine();
            let told = machine["outbox"].as_array().is_some_and(Vec::is_empty);
            (machine["update"]["state"] == "idle" && told).then_some(())
        };
        let deadline = Instant::now() + PATIENCE;
        while quiet().is_none() {
            assert!(
                Instant::now() < deadline,
                "not idle in time: {:#}\n{}",
                self.machine(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the app says that it is, e.g. `1.0.0 1.0.0`.
    pub(crate) fn running(&self) -> String {
        fs::read_to_string(self.state.join("data/running"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Waits until this version runs.
    #[track_caller]
    pub(crate) fn runs(&self, version: &str) {
        let wanted = format!("{version} {version}");
        until(
            &format!("`{version}` runs on {}", self.state.display()),
            || (self.running() == wanted && self.app_pid().is_some_and(alive)).then_some(()),
        );
    }

    pub(crate) fn app_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.state.join("app.pid")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// A further app of this device, as if it were a device of its own.
    pub(crate) fn component(&self, name: &str) -> Self {
        Self {
            state: self.state.join("components").join(name),
            child: None,
            hub: self.hub.clone(),
            root: self.root.clone(),
            program: self.program.clone(),
            env: Vec::new(),
            args: Vec::new(),
        }
    }

    pub(crate) fn data(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.state.join("data").join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The tree that `current` leads to, every byte read.
    pub(crate) fn current(&self) -> Option<TreeId> {
        let slot = fs::canonicalize(self.state.join("current")).ok()?;
        Some(trees::scan(&slot).unwrap().id())
    }

    pub(crate) fn slots(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.state.join("slots"))
            .map(|entries| {
                entries
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.retain(|name| !name.ends_with(".tree"));
        names.sort();
        names
    }

    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.state.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }
}

impl Drop for Device {
    #[expect(clippy::print_stderr, reason = "what a failed test shows")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- {}\n{}\n{:#}",
                self.state.display(),
                self.log(),
                self.machine()
            );
        }
        self.kill();
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
