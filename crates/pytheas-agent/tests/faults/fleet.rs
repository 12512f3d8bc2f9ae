//! A repository with updates to go through, devices that are about to, and what must hold after a
//! fault.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pytheas_durable::trees;
use pytheas_release::{Health, Ready, TreeId};
use pytheas_repo::publish::{Options, Published};
use serde_json::Value;

use crate::{
    model::{Kept, Record, Recorder},
    proxy::Proxy,
    support::{App, TestHub, World, noise},
};

/// How long an agent without faults may take; it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the message about the worst begins.
const SILENT: &str = "SILENT CORRUPTION";

/// An update that a device is about to go through.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The device before it.
    before: Record,
    from: Option<TreeId>,
    to: TreeId,
    to_version: String,
    target: String,
    /// Whether `to` works; else the device must end where it was.
    pub(crate) works: bool,
    from_version: String,
    /// What is rolled out after it, where a decayed file is to be mended: target and tree.
    next: (String, TreeId),
}

pub(crate) struct Fleet {
    world: World,
    pub(crate) scenarios: Vec<Scenario>,
    /// Where devices' disks are.
    room: tempfile::TempDir,
    stale: Vec<u8>,
}

/// A release with everything that updates meet: files that stay, move, change a little, are new,
/// vanish, are the same twice, become executable; links.
fn app(version: &str, round: u64) -> App {
    let mut app = App::good(version);
    app.health = Health {
        ready: Ready::StayUp,
        deadline_ms: 30_000,
        stay_up_ms: 5,
    };
    app.files
        .retain(|path, _| !path.starts_with("lib/shared-") || path.as_str() < "lib/shared-4");
    app.file(&format!("lib/moved-{round}/data.bin"), noise(7, 9_000))
        .file("lib/twin-a", noise(100 + round, 2_000))
        .file("lib/twin-b", noise(100 + round, 2_000))
        .file(&format!("lib/only-{round}"), noise(200 + round, 3_000))
        .file(
            "lib/table.txt",
            (0..400)
                .fold(String::new(), |text, i| {
                    let value = if i % 97 == round { round } else { 0 };
                    text + &format!("row {i} value {value}\n")
                })
                .into_bytes(),
        )
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let now = || jiff::Timestamp::now();
        let quick = |deltas| Options {
            level: 3,
            deltas: Some(deltas),
            ..Options::at(now())
        };
        let publish = |app: &App, deltas| world.publish_with(app, &quick(deltas));
        let room = match fs::metadata("/dev/shm") {
            Ok(shm) if shm.is_dir() => tempfile::Builder::new()
                .prefix("faults-")
                .tempdir_in("/dev/shm"),
            _ => tempfile::Builder::new().prefix("faults-").tempdir(),
        };
        let room = room.unwrap();
        let fresh = world.device("fresh");
        fs::create_dir_all(&fresh.state).unwrap();
        let enrolled = fresh
            .command("enrol")
            .args(["--hub", &world.hub.url(), "--id", "dev1", "--root"])
            .arg(world.root_file())
            .output()
            .unwrap();
        assert!(enrolled.status.success(), "{enrolled:?}");

        let zero = publish(&app("0.9.0", 0), 0);
        let one = publish(&app("1.0.0", 1), 0);
        let mut device = world.device_with("device", &zero);
        let action = world.hub.offer(&one.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        device.is_idle();
        device.stop();
        let stale = fs::read(world.repo().join("metadata/timestamp.json")).unwrap();
        let two = publish(&app("2.0.0", 2), 1);
        let three = publish(&app("3.0.0", 3), 0);
        let mut bad = app("4.0.0", 4);
        bad.health = Health {
            ready: Ready::Notify,
            deadline_ms: 60,
            stay_up_ms: 5,
        };
        let bad = publish(&bad, 0);
        let scenario =
            |name, device: &Path, from: Option<&Published>, to: &Published, works| Scenario {
                name,
                next: {
                    let next = if name == "content" { &two } else { &three };
                    (next.target.clone(), next.tree)
                },
                before: Recorder::new(device, || {}).finish(),
                from: from.map(|from| from.tree),
                to: to.tree,
                to_version: to.reference.version.to_string(),
                from_version: from
                    .map_or_else(String::new, |from| from.reference.version.to_string()),
                target: to.target.clone(),
                works,
            };
        let scenarios = vec![
            scenario("delta", &device.state, Some(&one), &two, true),
            scenario("content", &device.state, Some(&one), &three, true),
            scenario("first", &fresh.state, None, &one, true),
            scenario("rollback", &device.state, Some(&one), &bad, false),
        ];
        Self {
            scenarios,
            room,
            stale,
            world,
        }
    }

    pub(crate) fn bench(&self, number: usize) -> Bench {
        let hub = TestHub::start(self.world.repo());
        let proxy = Proxy::start(hub.url().trim_start_matches("http://").to_owned());
        proxy.plan().stale.clone_from(&self.stale);
        let room = self.room.path().join(number.to_string());
        fs::create_dir(&room).unwrap();
        let room = fs::canonicalize(room).unwrap();
        Bench {
            state: room.join("state"),
            room,
            hub,
            proxy,
            action: 1000,
        }
    }
}

/// A hub and a device with it, for one case after the other.
pub(crate) struct Bench {
    room: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) hub: TestHub,
    pub(crate) proxy: Proxy,
    action: u32,
}

/// Versions of the trusted root, timestamp, snapshot and targets.
pub(crate) type Trusted = [Option<u64>; 4];

impl Bench {
    /// A device before the update, which the hub offers.
    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        self.put(&scenario.before, 0, Kept::Nothing);
        let mut plan = self.proxy.plan();
        plan.lie = None;
        plan.lied = false;
        plan.seen.clear();
        drop(plan);
        self.offer(&scenario.target);
    }

    fn offer(&mut self, target: &str) {
        self.action += 1;
        let mut talk = self.hub.talk();
        talk.feedback.clear();
        talk.requests.clear();
        talk.offer = Some((self.action.to_string(), target.to_owned(), false));
    }

    /// A device whose power was cut; the hash of what is left.
    pub(crate) fn put(&self, record: &Record, moment: usize, kept: Kept) -> u64 {
        pytheas_durable::remove_tree(&self.state).unwrap();
        let hash = record.after_cut(moment, kept, &self.state);
        let path = self.state.join("identity.json");
        let mut identity: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        identity["hub"] = self.proxy.url().into();
        let bytes = serde_json::to_vec(&identity).unwrap();
        // The copy too, if the cut left one: a device that turns to it would poll another's hub.
        let copy = path.with_extension("copy");
        for path in [Some(path), Some(copy).filter(|copy| copy.exists())] {
            let Some(path) = path else { continue };
            pytheas_durable::replace_private(&path, &bytes).unwrap();
        }
        hash
    }

    /// The agent that goes through the update and ends.
    pub(crate) fn command(&self) -> Command {
        let built = env!("CARGO_BIN_EXE_pytheas-agent").into();
        let mut command = Command::new(std::env::var_os("PYTHEAS_AGENT_BIN").unwrap_or(built));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        command
            .args(["run", "--once", "--poll-interval", "20ms"])
            // The update after a fault goes to whichever release there is.
            .args(["--downgrades", "always", "--state"])
            .arg(&self.state)
            .env_remove("PYTHEAS_FAULT")
            .env("PYTHEAS_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.room.join("log")
    }

    /// What the agents have said since the last time.
    pub(crate) fn take_log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let _none_yet = fs::remove_file(self.log_path());
        text
    }

    /// What is trusted now.
    pub(crate) fn trusted(&self) -> Trusted {
        ["root", "timestamp", "snapshot", "targets"].map(|role| {
            let bytes = fs::read(self.state.join(format!("tuf/{role}.json"))).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()?["signed"]["version"].as_u64()
        })
    }

    /// What must hold at every moment, also before the agent is started again.
    pub(crate) fn must_be_whole(&self, scenario: &Scenario, floor: &Trusted) -> Result<(), String> {
        let runs = self.current()?;
        if runs != scenario.from && runs != Some(scenario.to) {
            return Err(format!("BRICK: `current` leads to {runs:?}"));
        }
        let trusted = self.trusted();
        for (before, now) in floor.iter().zip(&trusted) {
            if before > now {
                return Err(format!("trust went back: from {floor:?} to {trusted:?}"));
            }
        }
        Ok(())
    }

    /// The tree that `current` leads to, every byte read.
    fn current(&self) -> Result<Option<TreeId>, String> {
        let link = self.state.join("current");
        if fs::symlink_metadata(&link).is_err() {
            return Ok(None);
        }
        let slot =
            fs::canonicalize(&link).map_err(|e| format!("BRICK: `current` leads nowhere: {e}"))?;
        let named = slot
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let found = trees::scan(&slot)
            .map_err(|e| format!("BRICK: `current`: {e}"))?
            .id();
        if found.to_string() != named {
            return Err(format!("{SILENT}: the slot {named} holds the tree {found}"));
        }
        Ok(Some(found))
    }

    /// Starts the agent again, without faults: it must bring the update to its end.
    pub(crate) fn recover(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.proxy.plan().lie = None;
        let _not_yet = fs::remove_file(self.state.join("data/running"));
        let floor = self.trusted();
        self.agent_once()?;
        let mut success = self.closed()?;
        if scenario.works && success == Some(false) {
            // The fault was reported as the failure that it was; whoever rolls out tries again.
            self.must_be_whole(scenario, &floor)?;
            self.offer(&scenario.target);
            self.agent_once()?;
            success = self.closed()?;
        }
        self.must_be_whole(scenario, &floor)?;
        let (tree, version) = if scenario.works {
            (Some(scenario.to), &scenario.to_version)
        } else {
            (scenario.from, &scenario.from_version)
        };
        if success.is_some_and(|success| success != scenario.works) {
            let talk = self.hub.talk();
            return Err(format!(
                "the hub was told otherwise: {:#?}",
                talk.feedback.last()
            ));
        }
        if self.current()? != tree {
            return Err(format!(
                "the update did not come to its end: {:?}",
                self.current()?
            ));
        }
        let state: Value = fs::read(self.state.join("state.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or("no state.json")?;
        if state["update"]["state"] != "idle"
            || state["outbox"].as_array().is_none_or(|o| !o.is_empty())
        {
            return Err(format!("not at rest: {state:#}"));
        }
        if let Some(tree) = tree
            && state["current"]["tree"] != tree.to_string()
        {
            return Err(format!("it believes that another release runs: {state:#}"));
        }
        self.app_starts(version)?;
        self.no_litter()
    }

    /// As [`Self::recover`], when a file on the disk has decayed. One of the running release that
    /// decays after it was verified is not seen by an update; `verify` must see it, and the next
    /// update must not take it over.
    pub(crate) fn recover_from_decay(&mut self, scenario: &Scenario) -> Result<(), String> {
        let why = match self.recover(scenario) {
            Err(why) if why.starts_with(SILENT) => why,
            other => return other,
        };
        let mut command = self.command();
        command = Command::new(command.get_program());
        let verified = command
            .arg("verify")
            .arg("--state")
            .arg(&self.state)
            .output()
            .unwrap();
        if verified.status.code() != Some(4) {
            return Err(format!("{why}, and `verify` says {verified:?}"));
        }
        let (target, tree) = &scenario.next;
        self.offer(target);
        self.agent_once()?;
        match (self.closed()?, self.current()?) {
            (Some(true), Some(current)) if current == *tree => self.no_litter(),
            (success, current) => Err(format!(
                "the update after it ended with {success:?}, and {current:?} runs; {why}"
            )),
        }
    }

    /// Whether the action on offer was closed, and as a success; nothing when that was before.
    fn closed(&self) -> Result<Option<bool>, String> {
        let talk = self.hub.talk();
        if let Some((action, ..)) = &talk.offer {
            return Err(format!(
                "action {action} is still open after a poll without faults"
            ));
        }
        Ok(talk.feedback.iter().rev().find_map(|(_, kind, body)| {
            let closed = kind == "deploymentBase" && body["status"]["execution"] == "closed";
            closed.then(|| body["status"]["result"]["finished"] == "success")
        }))
    }

    fn agent_once(&self) -> Result<(), String> {
        let child = self.command().spawn().unwrap();
        match ended(child, PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the agent without faults ended with {status}")),
            None => Err("HANG: the agent without faults does not end".into()),
        }
    }

    /// The app says by two of its files what it is; with `--once` it may not have come to that.
    fn app_starts(&self, version: &str) -> Result<(), String> {
        let wanted = format!("{version} {version}");
        let says = || fs::read_to_string(self.state.join("data/running")).unwrap_or_default();
        if version.is_empty() || says().trim() == wanted {
            return Ok(());
        }
        let mut command = self.command();
        let args: Vec<_> = command
            .get_args()
            .filter(|arg| *arg != "--once")
            .map(ToOwned::to_owned)
            .collect();
        let program = command.get_program().to_owned();
        command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while says().trim() != wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        match says().trim() {
            said if said == wanted => Ok(()),
            said => Err(format!("BRICK: the app does not start: it says `{said}`")),
        }
    }

    /// Nothing is left of the work that was broken off.
    fn no_litter(&self) -> Result<(), String> {
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(self.state.join(folder)).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        for folder in ["staging", "downloads"] {
            if let Some(name) = names(folder).first() {
                return Err(format!("LITTER: {folder}/{name}"));
            }
        }
        for folder in ["", "tuf", "slots"] {
            if let Some(name) = names(folder)
                .iter()
                .find(|name| name.starts_with(".replacing-"))
            {
                return Err(format!("LITTER: {folder}/{name}"));
            }
        }
        match names("slots").len() {
            0..=4 => Ok(()),
            _ => Err(format!("LITTER: {:?}", names("slots"))),
        }
    }

    /// Flips a bit of a file at rest.
    pub(crate) fn rot(&self, path: &Path, at: usize, bit: u32) {
        use std::os::unix::fs::FileExt as _;
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at as u64).unwrap();
        fs::set_permissions(path, mode).unwrap();
    }
}

/// How a process ended; killed and nothing when it does not.
pub(crate) fn ended(
    mut child: std::process::Child,
    patience: Duration,
) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
