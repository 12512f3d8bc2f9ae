//! Boards to test against: the emulated Cortex-M3 board, and programs behind a pseudo-terminal.

#![expect(dead_code, reason = "each test file uses its part")]

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pytheas_board::link::{Address, Board, repl::Options};

/// The folder of the rig, if the file `part` is in it.
pub fn part(part: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/micropython");
    let root = std::env::var_os("PYTHEAS_MICROPYTHON").map_or(default, PathBuf::from);
    let path = root.join(part);
    if path.exists() {
        return Some(path);
    }
    testkit::skip(&format!("`{}` is not there", path.display()));
    None
}

/// The emulated board.
pub struct Rigboard {
    pub folder: tempfile::TempDir,
    child: Option<Child>,
    pub pty: PathBuf,
    /// Keeps the pseudo-terminal connected: QEMU looks only once a second whether somebody came.
    held: Option<File>,
}

impl Rigboard {
    /// A board with blank flash; none when the rig or QEMU is not here.
    pub fn start() -> Option<Self> {
        let firmware = part("qemu/firmware.elf")?;
        let mut board = Self {
            folder: tempfile::tempdir().unwrap(),
            child: None,
            pty: PathBuf::new(),
            held: None,
        };
        File::create(board.flash()).unwrap().set_len(16 << 20).unwrap();
        board.power_on(&firmware).then_some(board)
    }

    fn flash(&self) -> PathBuf {
        self.folder.path().join("flash")
    }

    fn power_on(&mut self, firmware: &Path) -> bool {
        let memory = format!(
            "memory-backend-file,id=flash,size=16M,share=on,mem-path={}",
            self.flash().display()
        );
        let child = Command::new("qemu-system-arm")
            .args(["-machine", "mps2-an385,memory-backend=flash", "-object", &memory])
            .args(["-nographic", "-monitor", "null", "-semihosting", "-serial", "pty"])
            .arg("-kernel")
            .arg(firmware)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            testkit::skip("`qemu-system-arm` is not here");
            return false;
        };
        self.pty = pty_of(&mut child);
        self.child = Some(child);
        self.held = OpenOptions::new().read(true).write(true).open(&self.pty).ok();
        true
    }

    /// Cuts the power.
    pub fn cut(&mut self) {
        self.held = None;
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Cuts the power, if it is on, and switches it on.
    pub fn power_cycle(&mut self) {
        self.cut();
        assert!(self.power_on(&part("qemu/firmware.elf").unwrap()));
    }

    pub fn address(&self) -> Address {
        self.pty.to_str().unwrap().parse().unwrap()
    }

    pub fn open(&self) -> Board {
        Board::open(&self.address(), patient()).unwrap()
    }
}

impl Drop for Rigboard {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Other processes load the machine.
pub fn patient() -> Options {
    Options {
        patience: Duration::from_secs(30),
        ..Options::default()
    }
}

/// The pseudo-terminal that a program names in its first lines.
fn pty_of(child: &mut Child) -> PathBuf {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next().expect("it names a pseudo-terminal").unwrap();
        if let Some(at) = line.find("/dev/pts/") {
            let name = line[at..].split_whitespace().next().unwrap();
            return name.into();
        }
    }
}
