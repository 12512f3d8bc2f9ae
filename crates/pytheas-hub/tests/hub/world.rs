//! A hub with a clock that tests move, its first token, and devices that speak DDI.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use pytheas_hub::{Clock, Config, Hub};
use pytheas_release::{BuildRecord, Health};
use pytheas_repo::{
    keys::{self, Init, PublisherKeys},
    publish::{Events, Options, publish},
    store::Store,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::wire::{Call, Reply};

pub(crate) const PLATFORM: &str = "linux-x86_64";

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) runtime: Runtime,
    pub(crate) admin: String,
    pub(crate) config: Config,
    hub: Option<Hub>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(1_780_000_000_000));
        let mut config = Config::new(dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.clock = Clock::Manual(clock.clone());
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let hub = runtime.block_on(Hub::start(config.clone())).unwrap();
        let admin = hub.first_token().unwrap().to_owned();
        Self {
            dir,
            clock,
            runtime,
            admin,
            config,
            hub: Some(hub),
        }
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.hub.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.hub().address()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(hub) = self.hub.take() {
            self.runtime.block_on(hub.shutdown());
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.hub = Some(
            self.runtime
                .block_on(Hub::start(self.config.clone()))
                .unwrap(),
        );
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.address(), method, path)
    }

    /// As the administrator.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call("GET", path).bearer(&self.admin).send()
    }

    /// As the administrator.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path)
            .bearer(&self.admin)
            .json(body)
            .send()
    }

    pub(crate) fn token(&self, role: &str) -> String {
        let body = json!({"name": role, "role": role});
        let answer = self.post("/api/v1/tokens", &body).expect(201).json();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A device that somebody made; it speaks DDI.
    pub(crate) fn device(&self, id: &str) -> Device<'_> {
        self.device_of(id, None)
    }

    pub(crate) fn device_of(&self, id: &str, platform: Option<&str>) -> Device<'_> {
        let body = json!({"device_id": id, "platform": platform});
        let answer = self.post("/api/v1/devices", &body).expect(201).json();
        let token = answer["token"].as_str().unwrap().to_owned();
        Device {
            world: self,
            id: id.to_owned(),
            token,
            tenant: "default",
        }
    }

    /// An artifact `NAME@VERSION` with one file.
    pub(crate) fn artifact(&self, name: &str, version: &str, bytes: &[u8]) {
        self.call(
            "POST",
            &format!("/api/v1/artifacts/{name}/{version}/{name}.swu"),
        )
        .bearer(&self.admin)
        .body(bytes)
        .send()
        .expect(201);
    }

    /// Starts a rollout; its number.
    pub(crate) fn rollout(&self, body: &Value) -> i64 {
        let answer = self.post("/api/v1/rollouts", body).expect(201).json();
        answer["rollout"]["id"].as_i64().unwrap()
    }

    pub(crate) fn rollout_state(&self, id: i64) -> (String, String) {
        let rollout = &self
            .get(&format!("/api/v1/rollouts/{id}"))
            .expect(200)
            .json()["rollout"];
        let text = |key: &str| rollout[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    /// Waits for what a job of the hub does within seconds.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(
                begin.elapsed() < Duration::from_secs(15),
                "waited in vain: {what}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.load(Ordering::Relaxed)).unwrap()
    }

    /// A developer's keys.
    pub(crate) fn keys(&self) -> PublisherKeys {
        let dir = self.dir.path().join("keys");
        if !dir.exists() {
            let root_valid = SignedDuration::from_hours(24 * 365);
            let init = Init {
                dir: &dir,
                passphrase: None,
                now: self.now(),
                root_valid,
            };
            keys::init(&init).unwrap();
        }
        PublisherKeys::load(&dir, &|_| None).unwrap()
    }

    /// A built tree of `app@VERSION`.
    pub(crate) fn tree(&self, version: &str) -> PathBuf {
        let dir = self.dir.path().join(format!("tree-{version}"));
        let record = BuildRecord {
            format: 1,
            name: "app".parse().unwrap(),
            version: version.parse().unwrap(),
            form: "bundle".into(),
            platform: PLATFORM.parse().unwrap(),
            entry: "bin/app".parse().unwrap(),
            health: Health::default(),
            config: BTreeMap::new(),
            interpreter: None,
            update: pytheas_release::UpdateRules::default(),
        };
        let main = format!("print('version {version}')\n").repeat(50);
        write(&dir.join("bin/app"), b"#!/bin/sh\n", 0o755);
        write(&dir.join("app/main.py"), main.as_bytes(), 0o644);
        write(&dir.join("pytheas.json"), &record.encode(), 0o644);
        dir
    }

    /// Publishes `app@VERSION` into this store.
    pub(crate) fn publish_to(&self, store: &Store, version: &str) {
        let (keys, tree) = (self.keys(), self.tree(version));
        let (options, events) = (Options::at(self.now()), Events::none());
        let done = publish(store, &keys, &tree, &options, &events);
        self.runtime.block_on(done).unwrap();
    }

    /// Publishes `app@VERSION` into the hub's folder.
    pub(crate) fn publish(&self, version: &str) {
        let store = Store::folder(&self.dir.path().join("data/repo")).unwrap();
        self.publish_to(&store, version);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A device that speaks DDI.
pub(crate) struct Device<'w> {
    pub(crate) world: &'w World,
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) tenant: &'static str,
}

impl Device<'_> {
    /// A call below its DDI address.
    pub(crate) fn call(&self, method: &str, below: &str) -> Call {
        let path = format!("/{}/controller/v1/{}{below}", self.tenant, self.id);
        let token = format!("TargetToken {}", self.token);
        self.world
            .call(method, &path)
            .header("authorization", &token)
    }

    pub(crate) fn get(&self, below: &str) -> Reply {
        self.call("GET", below).send()
    }

    pub(crate) fn poll(&self) -> Value {
        self.get("").expect(200).json()
    }

    /// What the poll links to under `rel`, below its DDI address.
    pub(crate) fn link(&self, rel: &str) -> Option<String> {
        let poll = self.poll();
        let href = poll["_links"][rel]["href"].as_str()?;
        let root = format!(
            "http://hub.test:8470/{}/controller/v1/{}",
            self.tenant, self.id
        );
        Some(
            href.strip_prefix(&root)
                .unwrap_or_else(|| panic!("{href}"))
                .to_owned(),
        )
    }

    /// The number of the action it is to do.
    pub(crate) fn action(&self) -> i64 {
        let link = self.link("deploymentBase").expect("something to do");
        let number = link
            .strip_prefix("/deploymentBase/")
            .unwrap()
            .split('?')
            .next()
            .unwrap();
        number.parse().unwrap()
    }

    pub(crate) fn report(&self, action: i64, execution: &str, finished: &str, text: &str) -> Reply {
        self.send_report("deploymentBase", action, execution, finished, text)
    }

    pub(crate) fn report_cancel(&self, action: i64, execution: &str, finished: &str) -> Reply {
        self.send_report("cancelAction", action, execution, finished, "")
    }

    fn send_report(
        &self,
        base: &str,
        action: i64,
        execution: &str,
        finished: &str,
        text: &str,
    ) -> Reply {
        let details: Vec<&str> = text.lines().collect();
        let body = json!({"id": action.to_string(), "status": {
            "execution": execution, "result": {"finished": finished}, "details": details}});
        self.call("POST", &format!("/{base}/{action}/feedback"))
            .json(&body)
            .send()
    }

    /// Retrieves, installs and succeeds.
    pub(crate) fn succeed(&self) -> i64 {
        let action = self.action();
        self.get(&format!("/deploymentBase/{action}")).expect(200);
        self.report(action, "proceeding", "none", "installing")
            .expect(200);
        self.report(action, "closed", "success", "installed")
            .expect(200);
        action
    }

    /// Retrieves and fails.
    pub(crate) fn fail(&self, text: &str) -> i64 {
        let action = self.action();
        self.get(&format!("/deploymentBase/{action}")).expect(200);
        self.report(action, "closed", "failure", text).expect(200);
        action
    }
}
