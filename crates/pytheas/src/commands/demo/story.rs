//! The demo's steps, each a real command's work, timed and counted.

mod board;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use miette::{IntoDiagnostic, miette};
use pytheas_api::{
    DeviceDetail, DeviceView, EnrolmentKey, EnrolmentKeyRequest, GroupSize, RolloutDetail,
    RolloutRequest, RolloutState, TrafficReport, TrafficSums,
};
use pytheas_release::ReleaseRef;
use serde::Serialize;

use super::{DemoArgs, processes::Process, versions};
use crate::{
    commands::{build, publish, rollout},
    context::Context,
    hub_client::{HubArgs, HubClient},
    output::{Paint, Show, bytes, duration},
};

/// What the demo found, for `--json` and for the exit code.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Device → the release it ended in.
    devices: BTreeMap<String, String>,
    /// Bytes each device moved for a first install, in both directions.
    install_bytes_per_device: u64,
    /// Bytes each device moved for the update by delta, metadata included.
    update_bytes_per_device: u64,
    /// Whether the broken release rolled back and its rollout paused.
    rolled_back: bool,
    /// What the canary said.
    reason: String,
    /// Where the dashboard is.
    dashboard: String,
    /// Seconds it all took.
    seconds: u64,
}

impl Show for Outcome {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.line("")?;
        for (device, release) in &self.devices {
            out.fact(device, format!("runs {release}"))?;
        }
        out.fact(
            "first install",
            format!("{} a device", bytes(self.install_bytes_per_device)),
        )?;
        out.fact(
            "update",
            format!("{} a device", bytes(self.update_bytes_per_device)),
        )?;
        out.fact("took", duration(Duration::from_secs(self.seconds)))
    }
}

pub(super) fn tell(args: &DemoArgs, dir: &Path, context: &Context) -> miette::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    crate::signals::set(&stop)?;
    let inner = Context {
        steps: false,
        ..context.clone()
    };
    let mut story = Story {
        args,
        dir,
        context,
        inner,
        stop,
        begun: Instant::now(),
        number: 0,
    };
    story.run()
}

struct Story<'a> {
    args: &'a DemoArgs,
    dir: &'a Path,
    context: &'a Context,
    /// For the verbs inside the story: no step lines of their own.
    inner: Context,
    stop: Arc<AtomicBool>,
    begun: Instant,
    number: u32,
}

/// What stays the same once the hub is up.
struct Stage {
    hub: HubClient,
    token: String,
    keys: PathBuf,
    processes: Vec<Process>,
}

impl Story<'_> {
    fn run(&mut self) -> miette::Result<ExitCode> {
        let source = self.dir.join("greenhouse");
        self.context
            .note(format!("working in {}", self.dir.display()));

        self.chapter("lock and build greenhouse 1.0.0 with its own interpreter")?;
        versions::unpack(&source)?;
        let first = self.build(&source, "1.0.0")?;

        self.chapter("make signing keys; start the hub and the devices")?;
        let mut stage = self.set_up()?;

        self.chapter("sign and publish 1.0.0, roll it out to every device")?;
        self.publish(&stage, &first)?;
        let before = traffic(&stage.hub)?;
        let rollout = self.roll_out(&mut stage, "greenhouse@1.0.0", &["100%"])?;
        expect(&rollout, RolloutState::Finished)?;
        let install = self.told_bytes(&stage, &before)?;

        self.chapter("publish 1.1.0 and update by delta: one canary first, then the rest")?;
        self.next_version(&source, "1.1.0")?;
        let second = self.build(&source, "1.1.0")?;
        self.publish(&stage, &second)?;
        let before = traffic(&stage.hub)?;
        let rollout = self.roll_out(&mut stage, "greenhouse@1.1.0", &["1", "100%"])?;
        expect(&rollout, RolloutState::Finished)?;
        let update = self.told_bytes(&stage, &before)?;

        self.chapter("publish the broken 1.2.0: the canary rolls back, the rollout pauses")?;
        self.next_version(&source, "1.2.0")?;
        let third = self.build(&source, "1.2.0")?;
        self.publish(&stage, &third)?;
        let rollout = self.roll_out(&mut stage, "greenhouse@1.2.0", &["1", "100%"])?;
        expect(&rollout, RolloutState::Paused)?;
        let reason = rollout.rollout.reason.clone().unwrap_or_default();
        self.say(format!("paused: {reason}"));
        self.say_why(&stage, "gateway-1")?;
        let mut devices = self.settled(&mut stage, "greenhouse@1.1.0")?;
        let mut good = devices
            .values()
            .all(|release| release == "greenhouse@1.1.0");

        let board = self.board(&mut stage)?;
        if let Some((_, release)) = &board {
            good &= release == "sensor-node@1.1.0";
            devices.insert(board::BOARD.to_owned(), release.clone());
        }
        let outcome = Outcome {
            rolled_back: rollout::failed(&rollout),
            devices,
            install_bytes_per_device: install,
            update_bytes_per_device: update,
            reason,
            dashboard: stage.hub.url().to_string(),
            seconds: self.begun.elapsed().as_secs(),
        };
        self.context.show(&outcome)?;
        if !self.args.once {
            self.stay(&mut stage)?;
        }
        Ok(if good && outcome.rolled_back {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn chapter(&mut self, title: &str) -> miette::Result<()> {
        self.check_stop()?;
        self.number += 1;
        self.context.note(format!("\n{}. {title}", self.number));
        Ok(())
    }

    fn say(&self, text: impl std::fmt::Display) {
        self.context.note(format!("   {text}"));
    }

    fn build(&self, source: &Path, version: &str) -> miette::Result<PathBuf> {
        let begun = Instant::now();
        let out = self.dir.join("dist").join(version);
        let built = build::bundle(source, &out, &self.args.build, &self.inner)?;
        self.say(format!(
            "built {version}: {}, {} files, tree {}, {} with {}",
            bytes(built.size_bytes),
            built.file_count,
            built.tree_id.short(),
            duration(begun.elapsed()),
            build::interpreter(&built.record),
        ));
        Ok(out)
    }

    fn next_version(&self, source: &Path, version: &str) -> miette::Result<()> {
        let changed = versions::patch(source, version)?;
        let names: Vec<_> = changed
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        self.say(format!("changed {}", names.join(", ")));
        Ok(())
    }

    fn set_up(&self) -> miette::Result<Stage> {
        let keys = self.dir.join("keys");
        publish::make_keys(&keys)?;
        let hub_log = self.dir.join("hub.log");
        let started = self.dir.join("hub-started.json");
        let mut hub_process = Process::start("hub", &hub_log, |command| {
            command.args(["hub", "--json", "--listen", &self.args.listen]);
            // Boards ask as often as the hub says.
            command.args(["--poll-interval", "1s"]);
            command.arg("--data").arg(self.dir.join("hub"));
            command.arg("--root").arg(keys.join("root.json"));
            command.arg("--online-keys").arg(keys.join("online"));
            command.arg("--started-file").arg(&started);
        })?;
        let (address, token) = self.hub_started(&started, &mut hub_process)?;
        self.say(format!("the hub listens on {address}"));
        let hub = HubClient::new(&HubArgs {
            hub: address.parse().into_diagnostic()?,
            token: Some(token.clone()),
            ca: None,
        })?;
        let key: EnrolmentKey = hub.post(
            "enrolment-keys",
            &EnrolmentKeyRequest {
                name: "demo".into(),
                ..Default::default()
            },
        )?;

        let mut processes = vec![hub_process];
        for number in 1..=self.args.devices {
            let id = format!("gateway-{number}");
            let log = self.dir.join(format!("{id}.log"));
            processes.push(Process::start(&id.clone(), &log, |command| {
                command.args(["agent", "run", "--poll-interval", "1s", "--hub", &address]);
                command.arg("--root").arg(keys.join("root.json"));
                command.args(["--key", &key.key, "--id", &id]);
                command
                    .arg("--state")
                    .arg(self.dir.join("devices").join(&id));
                // Several gateways on one machine: each app finds a free port.
                command.env("GREENHOUSE_HTTP_PORT", "0");
            })?);
        }
        let mut stage = Stage {
            hub,
            token,
            keys,
            processes,
        };
        let wanted = self.args.devices as usize;
        self.wait(
            &mut stage,
            "the devices to enrol",
            Duration::from_secs(60),
            |hub| {
                let devices: Vec<DeviceView> = hub.get("devices")?;
                Ok(
                    (devices.iter().filter(|d| d.last_seen_ms.is_some()).count() == wanted)
                        .then_some(()),
                )
            },
        )?;
        self.say(format!("{wanted} devices enrolled and poll"));
        Ok(stage)
    }

    fn hub_started(&self, file: &Path, hub: &mut Process) -> miette::Result<(String, String)> {
        #[derive(serde::Deserialize)]
        struct Started {
            address: String,
            token: Option<String>,
        }
        let begun = Instant::now();
        loop {
            hub.check()?;
            self.check_stop()?;
            if let Ok(text) = std::fs::read(file) {
                let started: Started = serde_json::from_slice(&text).into_diagnostic()?;
                let token = started
                    .token
                    .ok_or_else(|| miette!("the hub made no first token"))?;
                return Ok((started.address, token));
            }
            if begun.elapsed() > Duration::from_secs(30) {
                return Err(miette!("the hub did not start:\n{}", hub.last_words()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn publish(&self, stage: &Stage, bundle: &Path) -> miette::Result<()> {
        let begun = Instant::now();
        let repo = self.dir.join("hub").join("repo");
        let published = publish::publish(
            bundle,
            &repo.display().to_string(),
            &stage.keys,
            &self.inner,
        )?;
        self.say(format!(
            "published {} in {}: {}",
            published.reference,
            duration(begun.elapsed()),
            publish::summary(&published)
        ));
        Ok(())
    }

    fn roll_out(
        &self,
        stage: &mut Stage,
        release: &str,
        groups: &[&str],
    ) -> miette::Result<RolloutDetail> {
        let begun = Instant::now();
        let release: ReleaseRef = release.parse().into_diagnostic()?;
        let groups: Result<Vec<GroupSize>, _> = groups.iter().map(|size| size.parse()).collect();
        let request = RolloutRequest {
            groups: groups.into_diagnostic()?,
            ..RolloutRequest::release(release)
        };
        let started: RolloutDetail = stage.hub.post("rollouts", &request)?;
        let rollout = &started.rollout;
        let id = rollout.id;
        let detail = self.wait(stage, "the rollout", Duration::from_secs(300), |hub| {
            let detail: RolloutDetail = hub.get(&format!("rollouts/{id}"))?;
            Ok((detail.rollout.state != RolloutState::Running).then_some(detail))
        })?;
        self.say(format!(
            "rollout {} {} after {}: {} of {} devices done, {} failed",
            rollout.release,
            detail.rollout.state.as_str(),
            duration(begun.elapsed()),
            detail.rollout.sum(|group| group.succeeded),
            detail.rollout.sum(|group| group.total),
            detail.rollout.sum(|group| group.failed),
        ));
        Ok(detail)
    }

    /// Says the bytes moved since `before` and returns the most of any device.
    fn told_bytes(
        &self,
        stage: &Stage,
        before: &BTreeMap<String, TrafficSums>,
    ) -> miette::Result<u64> {
        let mut most = 0;
        for (device, sums) in traffic(&stage.hub)? {
            let moved = sums.since(&before.get(&device).copied().unwrap_or_default());
            self.say(format!(
                "{device} moved {} in {} requests",
                bytes(moved.total_bytes()),
                moved.requests
            ));
            most = most.max(moved.total_bytes());
        }
        Ok(most)
    }

    /// What the device said of its failed update, its app's last words included.
    fn say_why(&self, stage: &Stage, device: &str) -> miette::Result<()> {
        let detail: DeviceDetail = stage.hub.get(&format!("devices/{device}"))?;
        let messages = detail
            .history
            .first()
            .map(|action| &action.messages[..])
            .unwrap_or_default();
        for text in messages
            .last()
            .map(|message| &message.details[..])
            .unwrap_or_default()
        {
            self.say(format!("{device}: {text}"));
        }
        Ok(())
    }

    /// What the devices run, by their own agents' word, once all run `release` with the app up
    /// (or after a while, whatever they run).
    fn settled(
        &self,
        stage: &mut Stage,
        release: &str,
    ) -> miette::Result<BTreeMap<String, String>> {
        let begun = Instant::now();
        let ids: Vec<String> = (1..=self.args.devices)
            .map(|n| format!("gateway-{n}"))
            .collect();
        self.wait(
            stage,
            "the devices to settle",
            Duration::from_secs(60),
            |_| {
                let mut runs = BTreeMap::new();
                for id in &ids {
                    runs.insert(id.clone(), self.agent_runs(id)?);
                }
                let settled = runs.values().all(|runs| runs == release);
                Ok((settled || begun.elapsed() > Duration::from_secs(20)).then_some(runs))
            },
        )
    }

    /// The release a device's agent keeps running; empty while it is not up.
    fn agent_runs(&self, id: &str) -> miette::Result<String> {
        let output = std::process::Command::new(std::env::current_exe().into_diagnostic()?)
            .args(["agent", "status", "--json", "--state"])
            .arg(self.dir.join("devices").join(id))
            .output()
            .into_diagnostic()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let up = status["app"]["pid"].is_number();
        let release = status["release"].as_str().filter(|_| up);
        Ok(release.unwrap_or_default().to_owned())
    }

    fn wait<T>(
        &self,
        stage: &mut Stage,
        what: &str,
        limit: Duration,
        ready: impl Fn(&HubClient) -> miette::Result<Option<T>>,
    ) -> miette::Result<T> {
        let begun = Instant::now();
        let progress = self.inner.progress();
        progress.step(format!("   waiting for {what}"));
        loop {
            self.check_stop()?;
            for process in &mut stage.processes {
                process.check()?;
            }
            if let Some(value) = ready(&stage.hub)? {
                return Ok(value);
            }
            if begun.elapsed() > limit {
                let words: Vec<_> = stage.processes.iter().map(Process::last_words).collect();
                return Err(miette!(
                    "waited {} for {what}; the processes' last words:\n{}",
                    duration(limit),
                    words.join("\n--\n")
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn stay(&self, stage: &mut Stage) -> miette::Result<()> {
        self.context
            .note(format!("\ndashboard   {}", stage.hub.url()));
        self.context.note(format!("token       {}", stage.token));
        self.context.note("ctrl-C ends the demo");
        while !self.stop.load(Ordering::Relaxed) {
            for process in &mut stage.processes {
                process.check()?;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.context.note("ending the devices and the hub");
        Ok(())
    }

    fn check_stop(&self) -> miette::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            Err(miette!("interrupted"))
        } else {
            Ok(())
        }
    }
}

fn expect(detail: &RolloutDetail, wanted: RolloutState) -> miette::Result<()> {
    let rollout = &detail.rollout;
    if rollout.state == wanted {
        return Ok(());
    }
    let said: Vec<String> = detail
        .devices
        .iter()
        .map(|device| {
            let message = device.message.as_deref().unwrap_or("");
            format!("{}: {} {message}", device.device, device.status.as_str())
        })
        .collect();
    Err(miette!(
        "the rollout of {} is {} and should be {}: {}\n{}",
        rollout.release,
        rollout.state.as_str(),
        wanted.as_str(),
        rollout.reason.as_deref().unwrap_or("no reason given"),
        said.join("\n")
    ))
}

fn traffic(hub: &HubClient) -> miette::Result<BTreeMap<String, TrafficSums>> {
    let report: TrafficReport = hub.get("traffic")?;
    Ok(report
        .devices
        .iter()
        .map(|device| (device.device.to_string(), device.total()))
        .collect())
}
