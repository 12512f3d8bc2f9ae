//! A started MicroPython: files laid out for it, its words as they come, its end.

mod find;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use pytheas_board::mpy::Arch;
use pytheas_project::{Connectivity, Environment};
use pytheas_release::RelPath;

use super::{
    closure,
    error::OnError,
    line::{self, Running},
    place::Place,
};
use crate::{
    error::io_error,
    scratch::{self, Kind},
};

const WASM: &str = include_str!("wasm.mjs");
/// The emulated board's flash; the image is its first ROMFS partition.
const FLASH_BYTES: u64 = 16 << 20;
const ROM_BYTES: u64 = 4 << 20;
/// How long a machine may take to start: others may load this one.
const START: Duration = Duration::from_secs(60);
const RAW_REPL: &[u8] = b"raw REPL; CTRL-B to exit\r\n>";

/// What is started, again and again if need be.
#[derive(Debug)]
pub(super) struct Machine {
    place: Place,
    environment: Environment,
    connectivity: Connectivity,
    dir: PathBuf,
    files: BTreeMap<RelPath, Vec<u8>>,
    /// Empty for a board on a line.
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// What comes from a machine.
pub(super) enum Said {
    Bytes(Vec<u8>),
    /// It ended, this way.
    Ended(String),
    /// Nothing in time.
    Silent,
}

/// A running one; it ends with this value.
pub(super) struct Vm {
    running: Kept,
    bytes: Receiver<Vec<u8>>,
    /// What came already.
    ready: Vec<u8>,
}

enum Kept {
    Process(Child),
    /// A process whose streams are a board's line.
    Emulator(Child, Option<ChildStdin>),
    Line {
        _until_dropped: Running,
    },
}

impl Machine {
    /// Lays `files` out below the new folder `dir`.
    pub(super) fn prepare(
        place: &Place,
        environment: &Environment,
        connectivity: Connectivity,
        files: &BTreeMap<RelPath, Vec<u8>>,
        dir: &Path,
    ) -> Result<Self, OnError> {
        let mut machine = Self {
            place: place.clone(),
            environment: environment.clone(),
            connectivity,
            dir: dir.to_owned(),
            files: files.clone(),
            program: PathBuf::new(),
            arguments: Vec::new(),
        };
        match place {
            Place::Unix(program) => {
                machine.program = find::unix(place, program.as_deref(), environment)?;
                machine.lay_out()?;
            }
            Place::Wasm => {
                let module = find::wasm(place, environment)?;
                machine.program = find::program("node", place, environment)?;
                let driver = dir.join("wasm.mjs");
                put(&driver, WASM.as_bytes())?;
                let words: [OsString; 3] = [driver.into(), module.into(), dir.join("tree").into()];
                machine.arguments.extend(words);
                machine.lay_out()?;
            }
            Place::Qemu => {
                let firmware = find::firmware(place, environment)?;
                machine.program = find::program("qemu-system-arm", place, environment)?;
                machine.emulate(firmware)?;
            }
            Place::Line(_) => {}
            Place::CPython => {
                return Err(OnError::Missing {
                    what: "a MicroPython".to_owned(),
                    place: place.to_string(),
                    help: "name `unix`, `wasm`, `qemu` or a board's port",
                });
            }
        }
        Ok(machine)
    }

    /// Where its files are for its own eyes.
    pub(super) fn root(&self) -> &'static str {
        match self.place {
            // So that names of files have a folder to be taken off, as on a board.
            Place::Unix(_) | Place::CPython => ".",
            Place::Wasm => "/app",
            Place::Qemu => "/rom",
            Place::Line(_) => line::ROOT,
        }
    }

    fn lay_out(&self) -> Result<(), OnError> {
        let tree = self.dir.join("tree");
        std::fs::create_dir_all(&tree).map_err(io_error("make", &tree))?;
        for (path, bytes) in &self.files {
            put(&path.under(&tree), bytes)?;
        }
        Ok(())
    }

    fn emulate(&mut self, firmware: PathBuf) -> Result<(), OnError> {
        let arch = Some(Arch::Armv7m);
        let files = closure::compiled(&self.files, arch, &self.environment, self.connectivity)?;
        let image =
            pytheas_board::romfs::plain(&files).map_err(|source| OnError::Image { source })?;
        if image.len() as u64 > ROM_BYTES {
            let why = "the emulated board's partition has 4 MiB";
            let source = pytheas_board::romfs::RomfsError::TooLarge { why };
            return Err(OnError::Image { source });
        }
        let flash = self.dir.join("flash.img");
        put(&flash, &image)?;
        std::fs::OpenOptions::new()
            .write(true)
            .open(&flash)
            .and_then(|file| file.set_len(FLASH_BYTES))
            .map_err(io_error("write", &flash))?;
        let flash = flash.to_string_lossy().replace(',', ",,");
        let object =
            format!("memory-backend-file,id=flash,size={FLASH_BYTES},share=on,mem-path={flash}");
        let words = [
            "-machine",
            "mps2-an385,memory-backend=flash",
            "-object",
            &object,
            "-display",
            "none",
            "-monitor",
            "none",
            "-semihosting",
            "-chardev",
            "stdio,id=line,signal=off",
            "-serial",
            "chardev:line",
            "-kernel",
        ];
        self.arguments.extend(words.map(OsString::from));
        self.arguments.push(firmware.into());
        Ok(())
    }

    /// The program that runs `code`, where that is a process of this machine.
    pub(super) fn command(&self, code: &str) -> Result<Command, OnError> {
        let file = self.dir.join("run.py");
        put(&file, code.as_bytes())?;
        let mut command = self.environment.command(&self.program);
        command
            .args(&self.arguments)
            .arg(&file)
            .current_dir(self.dir.join("tree"))
            // The package `pytheas` keeps its state there.
            .env("PYTHEAS_ROOT", self.dir.join("state"));
        Ok(command)
    }

    /// Starts it with `code`, which finds the files by [`Machine::root`].
    pub(super) fn start(&self, code: &str) -> Result<Vm, OnError> {
        let failed = |source| OnError::Start {
            program: self.program.clone(),
            source,
        };
        match &self.place {
            Place::Line(text) => {
                let (running, bytes) = Running::start(
                    text,
                    &self.files,
                    code,
                    &self.environment,
                    self.connectivity,
                )?;
                Ok(Vm {
                    running: Kept::Line {
                        _until_dropped: running,
                    },
                    bytes,
                    ready: Vec::new(),
                })
            }
            Place::Qemu => {
                let mut command = self.environment.command(&self.program);
                command.args(&self.arguments).stdin(Stdio::piped());
                let (mut child, bytes) = spawn(command).map_err(failed)?;
                let stdin = child.stdin.take();
                let mut vm = Vm {
                    running: Kept::Emulator(child, stdin),
                    bytes,
                    ready: Vec::new(),
                };
                vm.enter(code).map_err(|said| OnError::Silent {
                    place: self.place.to_string(),
                    said,
                })?;
                Ok(vm)
            }
            Place::Unix(_) | Place::Wasm | Place::CPython => {
                let mut command = self.command(code)?;
                command.stdin(Stdio::null());
                let (child, bytes) = spawn(command).map_err(failed)?;
                Ok(Vm {
                    running: Kept::Process(child),
                    bytes,
                    ready: Vec::new(),
                })
            }
        }
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), OnError> {
    Ok(scratch::write(path, bytes, Kind::Data).map_err(io_error("write", path))?)
}

/// Starts it; both of its streams come through the receiver, which ends with it.
fn spawn(mut command: Command) -> io::Result<(Child, Receiver<Vec<u8>>)> {
    let (mut reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // Our own ends of the pipe would keep it open.
    drop(command);
    let (sender, bytes) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(size @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..size].to_vec()).is_err() {
                return;
            }
        }
    });
    Ok((child, bytes))
}

impl Vm {
    /// Brings an emulated board into its raw REPL and hands it the code.
    fn enter(&mut self, code: &str) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            self.send(b"\r\x03\x03\r\x01")?;
            if self.find(RAW_REPL, Duration::from_millis(500)) {
                break;
            }
            if Instant::now() > end {
                return Err(self.quoted());
            }
        }
        self.send(code.as_bytes())?;
        self.send(b"\x04")?;
        if self.find(b"OK", START) {
            return Ok(());
        }
        Err(self.quoted())
    }

    fn quoted(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.ready))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Kept::Emulator(_, Some(stdin)) = &mut self.running else {
            return Err("it takes no input".to_owned());
        };
        let sent = stdin.write_all(bytes).and_then(|()| stdin.flush());
        sent.map_err(|_| self.quoted())
    }

    /// Waits for `mark`; what comes after it is kept.
    fn find(&mut self, mark: &[u8], patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let found = self.ready.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                self.ready.drain(..at + mark.len());
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(more) => self.ready.extend(more),
                Err(_) => return false,
            }
        }
    }

    /// What it says next, within `patience`.
    pub(super) fn next(&mut self, patience: Duration) -> Said {
        if !self.ready.is_empty() {
            return Said::Bytes(std::mem::take(&mut self.ready));
        }
        match self.bytes.recv_timeout(patience) {
            Ok(bytes) => Said::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => Said::Silent,
            Err(RecvTimeoutError::Disconnected) => Said::Ended(match &mut self.running {
                Kept::Process(child) | Kept::Emulator(child, _) => match child.wait() {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                },
                Kept::Line { .. } => "back at its prompt".to_owned(),
            }),
        }
    }

    /// Whether it says more within `patience`; [`Vm::next`] gives that.
    pub(super) fn more(&mut self, patience: Duration) -> bool {
        if self.ready.is_empty()
            && let Ok(bytes) = self.bytes.recv_timeout(patience)
        {
            self.ready.extend(bytes);
        }
        !self.ready.is_empty()
    }

    /// Whether a byte `0x04` and a prompt end a program's words here.
    pub(super) fn is_line(&self) -> bool {
        matches!(self.running, Kept::Emulator(..))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Kept::Process(child) | Kept::Emulator(child, _) = &mut self.running {
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }
}
