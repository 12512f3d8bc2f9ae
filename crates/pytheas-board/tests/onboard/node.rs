//! A device that is MicroPython's Unix port with a folder for its flash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use pytheas_release::Sha256;
use tempfile::TempDir;
use testkit::board::Rig;

use crate::{image::Key, power::compiled};

/// What a start or a script of a node ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The process's exit status; 75 is a reset, 99 a power cut, none a signal.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) text: String,
}

impl Ended {
    pub(crate) fn ran(&self, version: &str) -> bool {
        self.text.contains(&format!("RUN {version}\n"))
    }
}

/// A device.
pub(crate) struct Node {
    program: PathBuf,
    dir: TempDir,
}

/// The package as boards have it, compiled.
static LIBRARY: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let rig = Rig::find().expect("there is one where there is a node");
    let library = dir.path().join("pytheas");
    fs::create_dir(&library).expect("a folder");
    for entry in fs::read_dir(package().join("pytheas")).expect("the package is there") {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|end| end == "py") {
            let code = compiled(&rig, &name).expect("where MicroPython is, mpy-cross is");
            #[expect(clippy::disallowed_methods, reason = "it is a test's flash")]
            fs::write(library.join(format!("{name}.mpy")), code).expect("a file can be written");
        }
    }
    dir
});

/// Where the package's sources are.
pub(crate) fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../micropython")
}

impl Node {
    /// A device that trusts `key`; none where there is no MicroPython.
    pub(crate) fn new(key: &Key) -> Option<Self> {
        let program = Rig::find()?.unix()?;
        let dir = tempfile::tempdir().expect("a folder");
        let node = Self { program, dir };
        node.put("keys", key.public());
        node.put(
            "config.json",
            r#"{"id": "node", "poll": 1, "confirm": 20, "attempts": 2, "model": "rig"}"#,
        );
        Some(node)
    }

    /// A file of the device's flash.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        #[expect(clippy::disallowed_methods, reason = "it is a test's flash")]
        fs::write(self.path(name), bytes).expect("a file can be written");
    }

    /// Another device in the same state.
    pub(crate) fn copy(&self) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(self.dir.path()).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
        }
        Self {
            program: self.program.clone(),
            dir,
        }
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Ended {
        self.run_with("8m", script, arguments)
    }

    fn run_with(&self, heap: &str, script: &str, arguments: &[&str]) -> Ended {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/onboard")
            .join(script);
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(&self.program)
            .args(["-X", &format!("heapsize={heap}")])
            .arg(script)
            .arg(LIBRARY.path())
            .args(arguments)
            .env("PYTHEAS_ROOT", self.dir.path())
            .output()
            .expect("MicroPython starts");
        let text = [stdout, stderr].concat();
        Ended {
            code: status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// Starts the device; it runs until its app ends, resets or is killed.
    pub(crate) fn start(&self) -> Ended {
        self.run("start.py", &["-"])
    }

    /// Starts it until it resets no more.
    pub(crate) fn settle(&self) -> Ended {
        for _ in 0..8 {
            let ended = self.start();
            if ended.code == Some(0) {
                return ended;
            }
        }
        panic!("the device resets for ever");
    }

    /// Writes an image into the other slot; what the device said of it.
    pub(crate) fn update(&self, image: &[u8]) -> String {
        self.update_cut(image, image.len(), "-").text
    }

    /// The same with the first `size` bytes of it, and a fault.
    pub(crate) fn update_cut(&self, image: &[u8], size: usize, fault: &str) -> Ended {
        self.put("incoming", &image[..size]);
        let (total, hash) = (image.len().to_string(), Sha256::of(image).to_string());
        self.run("update.py", &[fault, &total, &hash])
    }

    /// Starts it with a fault.
    pub(crate) fn start_with(&self, fault: &str) -> Ended {
        self.run("start.py", &[fault])
    }

    /// Runs `code` with the package in the current folder, as `/` is a board's.
    pub(crate) fn package_in_its_folder(&self, code: &str) -> Ended {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(&self.program)
            .args(["-c", code])
            .current_dir(LIBRARY.path())
            .env("PYTHEAS_ROOT", self.dir.path())
            .output()
            .expect("MicroPython starts");
        let text = [stdout, stderr].concat();
        Ended {
            code: status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// Starts it with so much memory.
    pub(crate) fn start_in(&self, heap: &str) -> Ended {
        self.run_with(heap, "start.py", &["-"])
    }

    /// What the device knows of itself.
    pub(crate) fn status(&self) -> serde_json::Value {
        let text = self.run("status.py", &["-"]).text;
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }
}
