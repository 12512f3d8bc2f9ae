//! A hub over TLS with releases for boards, and a board: MicroPython's Unix port in a folder that is
//! its file system, started again whenever it ends, as a reset does.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use pytheas_release::{
    RelPath, Sha256,
    board::{BoardRules, Body, ImageManifest},
};
use serde_json::{Value, json};
use testkit::board::Rig;

use crate::common::{Hub, json as read, ok, wait_for};

/// What MicroPython's own platform is called here.
pub(crate) const PLATFORM: &str = "micropython-any";

/// How often boards ask.
const POLL: [&str; 2] = ["--poll-interval", "1s"];

/// A hub that speaks TLS, and the programs for boards.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) hub: Hub,
    pub(crate) micropython: PathBuf,
    pub(crate) ca: Option<PathBuf>,
}

impl World {
    /// With the hub over TLS; none, visibly skipped, where a program is missing.
    pub(crate) fn over_tls() -> Option<Self> {
        let micropython = Rig::find()?.unix_tls()?;
        let dir = tempfile::tempdir().unwrap();
        let openssl = |args: &str| {
            let mut command = Command::new("openssl");
            command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"]);
            command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
            let output = command
                .args(args.split(' '))
                .current_dir(dir.path())
                .output();
            output.is_ok_and(|output| output.status.success())
        };
        if !openssl("-subj /CN=authority -keyout ca.key -out ca.crt") {
            testkit::skip("no OpenSSL 3");
            return None;
        }
        let issued = "-subj /CN=hub -keyout hub.key -out hub.crt -CA ca.crt -CAkey ca.key \
                      -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        assert!(openssl(issued));
        let mut der = Command::new("openssl");
        der.args(["x509", "-in", "ca.crt", "-outform", "DER", "-out", "ca.der"]);
        ok(der.current_dir(dir.path()));
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let tls = [
            "--tls-cert",
            &path("hub.crt"),
            "--tls-key",
            &path("hub.key"),
        ];
        let more = [&tls[..], &POLL].concat();
        let hub = Hub::start_with(dir.path(), &more, Some(dir.path().join("ca.crt")));
        assert!(hub.url.starts_with("https://"), "{}", hub.url);
        Some(Self {
            hub,
            micropython,
            ca: Some(dir.path().join("ca.der")),
            dir,
        })
    }

    /// With the hub in the clear: the line can change what it carries.
    pub(crate) fn in_the_clear() -> Option<Self> {
        let micropython = Rig::find()?.unix_tls()?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self {
            hub: Hub::start_with(dir.path(), &POLL, None),
            micropython,
            ca: None,
            dir,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let (_, address) = self.hub.url.split_once("://").unwrap();
        address.parse().unwrap()
    }

    /// A built tree of `node@VERSION` with this module as its app, and a file of noise to make the
    /// download longer.
    pub(crate) fn tree(&self, version: &str, platform: &str, app: &str) -> PathBuf {
        let dir = self.dir.path().join(format!("tree-{version}-{platform}"));
        fs::create_dir_all(&dir).unwrap();
        let mut manifest = ImageManifest {
            format: 1,
            name: "node".parse().unwrap(),
            version: version.parse().unwrap(),
            counter: 0,
            platform: platform.parse().unwrap(),
            entry: "node:run".into(),
            mpy: None,
            front: 0,
            body: Body {
                sha256: Sha256::of(b""),
                size: 0,
            },
            requires: BoardRules::default(),
            allow_downgrade: false,
            keys: Vec::new(),
            config: BTreeMap::new(),
        };
        let mut noise = Vec::new();
        for n in 0..1900_u32 {
            noise.extend(Sha256::of(format!("{version} {n}").as_bytes()).as_bytes());
        }
        let files: BTreeMap<RelPath, Vec<u8>> = BTreeMap::from([
            ("node.py".parse().unwrap(), app.as_bytes().to_vec()),
            ("noise.bin".parse().unwrap(), noise),
        ]);
        let image = pytheas_board::romfs::image(&mut manifest, &files).unwrap();
        fs::write(dir.join("app.romfs"), image).unwrap();
        let record = json!({
            "format": 1, "name": "node", "version": version, "form": "micropython",
            "platform": platform, "entry": "app.romfs",
        });
        fs::write(dir.join("pytheas.json"), record.to_string()).unwrap();
        let lines = json!({"format": 1, "sources": {"/app/node.py": "src/node.py"}});
        fs::write(dir.join("lines.json"), lines.to_string()).unwrap();
        dir
    }

    /// The project `node` with this module, built by `pytheas build`, without lines in its code.
    pub(crate) fn build(&self, version: &str, app: &str, mpy_cross: &Path) -> PathBuf {
        let project = self.dir.path().join("project");
        fs::create_dir_all(project.join("src/node")).unwrap();
        let settings = format!(
            "[project]\nname = 'node'\nversion = '{version}'\n[tool.pytheas.target.node]\n\
             form = 'micropython'\nentry = 'node:run'\noptimize = 3\n"
        );
        fs::write(project.join("pyproject.toml"), settings).unwrap();
        fs::write(project.join("src/node/__init__.py"), app).unwrap();
        let out = self.dir.path().join(format!("built-{version}"));
        let mut build = self.hub.pytheas(&["build", "--target", "node", "-o"]);
        build.arg(&out).current_dir(&project);
        ok(build.env("PYTHEAS_MPY_CROSS", mpy_cross));
        out
    }

    /// Builds and publishes; what `pytheas publish` says.
    pub(crate) fn publish(&self, version: &str, app: &str) -> Value {
        self.hub.publish(&self.tree(version, PLATFORM, app))
    }

    /// The signed image of a published release.
    pub(crate) fn image(&self, published: &Value) -> Vec<u8> {
        let hash = published["board"]["sha256"].as_str().unwrap();
        fs::read(self.hub.repo.join(format!("blobs/{}/{hash}", &hash[..2]))).unwrap()
    }

    /// A hub that is not ours any more: it offers whatever file it likes.
    pub(crate) fn offer(&self, version: &str, bytes: &[u8], board: &Board) -> Value {
        let file = self.dir.path().join(format!("node-{version}.romfs"));
        fs::write(&file, bytes).unwrap();
        let mut upload = self.hub.pytheas(&["artifact", "upload"]);
        upload.arg(&file).args(["--name", "node"]);
        ok(upload.args(["--version", version, "--part", "bApp"]));
        let artifact = format!("node@{version}");
        self.hub
            .roll_out(&["--artifact", &artifact, "--device", &board.id])
    }

    pub(crate) fn roll_out(&self, version: &str, board: &Board) -> Value {
        let release = format!("node@{version}");
        self.hub.roll_out(&[&release, "--device", &board.id])
    }

    /// What the hub shows of a device.
    pub(crate) fn show(&self, board: &Board) -> Value {
        read(&mut self.hub.pytheas(&["device", "show", &board.id]))
    }

    /// All that the device said on its newest action, and where that stands.
    pub(crate) fn told(&self, board: &Board) -> (String, String) {
        let shown = self.show(board);
        let action = &shown["history"][0];
        let lines = action["messages"].as_array().into_iter().flatten();
        let lines = lines.flat_map(|one| one["details"].as_array().into_iter().flatten());
        let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
        (
            action["status"].as_str().unwrap().to_owned(),
            lines.join("\n"),
        )
    }

    /// The update fails, the hub shows this reason, and the board runs `version` again.
    #[track_caller]
    pub(crate) fn refused(&self, board: &Board, rollout: &Value, because: &[&str], version: &str) {
        assert_eq!(
            rollout["rollout"]["state"],
            "paused",
            "{rollout}\n{}",
            board.log()
        );
        let (status, told) = self.told(board);
        assert_eq!(status, "failed", "{told}");
        for because in because {
            assert!(told.contains(because), "`{because}` not in:\n{told}");
        }
        board.runs(version);
    }
}

/// See the module.
pub(crate) struct Board {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    micropython: PathBuf,
    now: Arc<Mutex<Option<Child>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Board {
    /// A board that was set up for this hub (at `address`), and has no release yet.
    pub(crate) fn set_up(world: &World, id: &str, address: SocketAddr) -> Self {
        let dir = world.dir.path().join(id);
        let (own, lib) = (dir.join("state"), dir.join("lib/pytheas"));
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../micropython/pytheas");
        for file in fs::read_dir(source).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|end| end == "py") {
                fs::copy(&file, lib.join(file.file_name().unwrap())).unwrap();
            }
        }
        let mut keys = world.hub.pytheas(&["keys", "export", "--board"]);
        keys.arg("--keys").arg(&world.hub.keys);
        ok(keys.arg("-o").arg(own.join("keys")));
        let add = ["device", "add", id, "--platform", "micropython-x64"];
        let added = read(&mut world.hub.pytheas(&add));
        let scheme = if world.ca.is_some() { "https" } else { "http" };
        let mut config = json!({
            "hub": format!("{scheme}://{address}"), "tenant": added["tenant"], "id": id,
            "token": added["token"], "poll": 1, "backend": "file", "attempts": 2, "confirm": 6,
        });
        if let Some(ca) = &world.ca {
            config["ca"] = json!(ca);
        }
        fs::write(own.join("config.json"), config.to_string()).unwrap();
        fs::write(dir.join("main.py"), "import pytheas\npytheas.boot()\n").unwrap();
        Self {
            id: id.to_owned(),
            dir,
            micropython: world.micropython.clone(),
            now: Arc::default(),
            stop: Arc::default(),
            thread: None,
        }
    }

    /// Switches it on.
    pub(crate) fn on(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        let (stop, now) = (self.stop.clone(), self.now.clone());
        let (dir, micropython) = (self.dir.clone(), self.micropython.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let log = fs::File::options()
                    .create(true)
                    .append(true)
                    .open(dir.join("log"))
                    .unwrap();
                let child = Command::new(&micropython)
                    .arg("main.py")
                    .current_dir(&dir)
                    .env(
                        "MICROPYPATH",
                        format!(".frozen:{}", dir.join("lib").display()),
                    )
                    .env("PYTHEAS_ROOT", dir.join("state"))
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().unwrap())
                    .stderr(log)
                    .spawn()
                    .unwrap();
                *now.lock().unwrap() = Some(child);
                loop {
                    std::thread::sleep(Duration::from_millis(20));
                    let mut child = now.lock().unwrap();
                    if child
                        .as_mut()
                        .is_none_or(|child| child.try_wait().unwrap().is_some())
                    {
                        break;
                    }
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        }));
    }

    /// Cuts its power; it starts again.
    pub(crate) fn cut(&self) {
        if let Some(child) = self.now.lock().unwrap().as_mut() {
            let _may_be_gone = child.kill();
        }
    }

    /// Switches it off.
    pub(crate) fn off(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            self.cut();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.thread = None;
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the app says from now on that this version runs.
    #[track_caller]
    pub(crate) fn runs(&self, version: &str) {
        let from = self.log().len();
        let what = format!("`{version}` to run; so far:\n{}", self.log());
        wait_for(&what, Duration::from_secs(60), || {
            let log = self.log();
            let last = log
                .get(from..)?
                .lines()
                .rev()
                .find(|l| l.starts_with("node "))?;
            (last == format!("node {version} ticks")).then_some(())
        });
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.off();
    }
}
