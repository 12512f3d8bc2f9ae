//! The demo's last chapters, when a MicroPython is at hand: sensor-node on a board (MicroPython's Unix
//! port in a folder that is its file system), installed, updated and taken back over the air.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use include_dir::{Dir, include_dir};
use miette::{Context as _, IntoDiagnostic, miette};
use pytheas_api::{DeviceDetail, DeviceRequest, DeviceToken, RolloutState};
use pytheas_build::{BuildRequest, micropython::build_board};
use pytheas_project::{Environment, Project};
use pytheas_repo::keys::boards;

use super::{Stage, Story, expect};
use crate::{
    commands::{build, demo::versions},
    output::{bytes, duration},
};

static APP: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../examples/sensor-node");
static LIBRARY: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../micropython/pytheas");

pub(super) const BOARD: &str = "node-1";
/// Where the app begins; 1.2.0 ends there.
const START: &str = "    settings = Settings(pytheas.settings)\n";
const BROKEN: &str = "    raise RuntimeError(\"the new sensor does not answer\")\n";

/// What the board starts. It ends with the demo (`prctl(PR_SET_PDEATHSIG, SIGTERM)`).
const MAIN: &str = "import ffi\nffi.open(None).func(\"i\", \"prctl\", \"iL\")(1, 15)\n\
    import pytheas\npytheas.boot()\n";

impl Story<'_> {
    /// The board's chapters, and the release it ends in; none without a MicroPython. The board runs
    /// on as long as what is returned.
    pub(super) fn board(&mut self, stage: &mut Stage) -> miette::Result<Option<(Board, String)>> {
        let Some(program) = at_hand(&Environment::current()) else {
            self.say("no MicroPython at hand (on `PATH`, or `unix/micropython` in the folder `PYTHEAS_MICROPYTHON`): no microcontroller in this demo");
            return Ok(None);
        };
        self.chapter(
            "a microcontroller: build sensor-node 1.0.0, set the board up, install over the air",
        )?;
        let source = self.dir.join("sensor-node");
        versions::write_all(&APP, &source)?;
        self.build_node(stage, &source, "1.0.0")?;
        let board = Board::set_up(self.dir, stage, program)?;
        let rollout = self.roll_out(stage, "sensor-node@1.0.0", &["100%"])?;
        expect(&rollout, RolloutState::Finished)?;

        self.chapter("update the board to 1.1.0, then the broken 1.2.0: it goes back by itself")?;
        self.build_node(stage, &source, "1.1.0")?;
        let rollout = self.roll_out(stage, "sensor-node@1.1.0", &["100%"])?;
        expect(&rollout, RolloutState::Finished)?;
        let main = source.join("src/sensor_node/main.py");
        let text = std::fs::read_to_string(&main).into_diagnostic()?;
        let text = text.replacen(START, &format!("{BROKEN}{START}"), 1);
        pytheas_durable::replace(&main, text.as_bytes()).into_diagnostic()?;
        self.build_node(stage, &source, "1.2.0")?;
        let rollout = self.roll_out(stage, "sensor-node@1.2.0", &["100%"])?;
        expect(&rollout, RolloutState::Paused)?;
        self.say_why(stage, BOARD)?;
        let begun = Instant::now();
        let release = self.wait(stage, "the board", Duration::from_secs(60), |hub| {
            let detail: DeviceDetail = hub.get(&format!("devices/{BOARD}"))?;
            let runs = detail.attributes.get("pytheas.release").cloned();
            let runs = runs.unwrap_or_default();
            let is_back = runs == "sensor-node@1.1.0";
            Ok((is_back || begun.elapsed() > Duration::from_secs(20)).then_some(runs))
        })?;
        Ok(Some((board, release)))
    }

    fn build_node(&self, stage: &Stage, source: &Path, version: &str) -> miette::Result<()> {
        let begun = Instant::now();
        let file = source.join("pyproject.toml");
        let text = std::fs::read_to_string(&file).into_diagnostic()?;
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("version = ") {
                true => format!("version = \"{version}\""),
                false => line.to_owned(),
            })
            .collect();
        pytheas_durable::replace(&file, (lines.join("\n") + "\n").as_bytes()).into_diagnostic()?;
        let request = BuildRequest {
            target: Some("node".to_owned()),
            out: Some(self.dir.join("dist/node").join(version)),
            ..build::with_tools(Project::load(source)?, &self.args.build)
        };
        let built = build_board(&request, &|_| {})?;
        self.say(format!(
            "built {version}: one image of {} for {}, {}",
            bytes(built.report.image_bytes),
            built.record.platform,
            duration(begun.elapsed())
        ));
        self.publish(stage, &built.dir)
    }
}

/// MicroPython with what the board's package needs here.
fn at_hand(environment: &Environment) -> Option<PathBuf> {
    let folder = environment.path("PYTHEAS_MICROPYTHON");
    let named = folder.map(|folder| folder.join("unix/micropython"));
    let on_path = environment.search_path().into_iter();
    named
        .into_iter()
        .chain(on_path.map(|dir| dir.join("micropython")))
        .filter_map(|program| program.canonicalize().ok())
        .find(|program| {
            Command::new(program)
                .args(["-c", "import asyncio, ffi, vfs; vfs.VfsRom"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
}

/// A board whose resets are ends of a process; it is off when this is dropped.
pub(super) struct Board {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Board {
    fn set_up(demo: &Path, stage: &Stage, program: PathBuf) -> miette::Result<Self> {
        let added: DeviceToken = stage.hub.post(
            "devices",
            &DeviceRequest {
                group: None,
                device_id: BOARD.parse().into_diagnostic()?,
                name: None,
                platform: Some("micropython-x64".to_owned()),
            },
        )?;
        let dir = demo.join("devices").join(BOARD);
        let put = |path: &str, bytes: &[u8]| {
            let path = dir.join(path);
            pytheas_durable::create_dir_all(path.parent().unwrap_or(&dir))
                .and_then(|()| pytheas_durable::replace(&path, bytes))
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot write `{}`", path.display()))
        };
        for file in LIBRARY.files() {
            put(
                &format!("lib/pytheas/{}", file.path().display()),
                file.contents(),
            )?;
        }
        let config = serde_json::json!({
            "hub": stage.hub.url().to_string().trim_end_matches('/'),
            "tenant": added.tenant,
            "id": BOARD,
            "token": added.token,
            "poll": 1,
            "backend": "file",
            "attempts": 2,
            "confirm": 20,
        });
        put("state/config.json", config.to_string().as_bytes())?;
        put("state/keys", &boards::board_keys(&stage.keys)?.concat())?;
        put("main.py", MAIN.as_bytes())?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let Ok(mut child) = start(&program, &dir) else {
                    return;
                };
                while matches!(child.try_wait(), Ok(None)) {
                    if until.load(Ordering::Relaxed) {
                        let _ended_already = child.kill();
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn start(program: &Path, dir: &Path) -> miette::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .into_diagnostic()?;
    Command::new(program)
        .arg("main.py")
        .current_dir(dir)
        .env(
            "MICROPYPATH",
            format!(".frozen:{}", dir.join("lib").display()),
        )
        .env("PYTHEAS_ROOT", dir.join("state"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().into_diagnostic()?)
        .stderr(log)
        .spawn()
        .map_err(|error| miette!("cannot start `{}`: {error}", program.display()))
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
