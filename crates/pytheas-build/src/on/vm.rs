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

use pytheas_project::Environment;
use pytheas_release::RelPath;

use super::{error::OnError, place::Place};
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
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Environment,
    /// Where its files are for its own eyes.
    pub(super) root: &'static str,
    dir: PathBuf,
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
    child: Child,
    /// Held open: its end would end the machine.
    _stdin: Option<ChildStdin>,
    bytes: Receiver<Vec<u8>>,
    /// On a line a program's end is a byte, not the end of the stream.
    is_line: bool,
    /// What came already.
    ready: Vec<u8>,
}

impl Machine {
    /// Lays `files` out below the new folder `dir`.
    pub(super) fn prepare(
        place: &Place,
        environment: &Environment,
        files: &BTreeMap<RelPath, Vec<u8>>,
        dir: &Path,
    ) -> Result<Self, OnError> {
        let tree = dir.join("tree");
        let put = |path: &Path, bytes: &[u8]| {
            scratch::write(path, bytes, Kind::Data).map_err(io_error("write", path))
        };
        std::fs::create_dir_all(&tree).map_err(io_error("make", &tree))?;
        let mut arguments: Vec<OsString> = Vec::new();
        let root;
        let program = match place {
            Place::Unix(program) => {
                root = "";
                find::unix(place, program.as_deref(), environment)?
            }
            Place::Wasm => {
                let module = find::wasm(place, environment)?;
                let driver = dir.join("wasm.mjs");
                put(&driver, WASM.as_bytes())?;
                arguments.extend([driver.into(), module.into(), tree.clone().into()]);
                root = "/app";
                find::program("node", place, environment)?
            }
            Place::Qemu => {
                let firmware = find::firmware(place, environment)?;
                let image = pytheas_board::romfs::plain(files)
                    .map_err(|source| OnError::Image { source })?;
                if image.len() as u64 > ROM_BYTES {
                    let source = pytheas_board::romfs::RomfsError::TooLarge {
                        why: "the emulated board's partition has 4 MiB",
                    };
                    return Err(OnError::Image { source });
                }
                let flash = dir.join("flash.img");
                put(&flash, &image)?;
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(&flash)
                    .and_then(|file| file.set_len(FLASH_BYTES))
                    .map_err(io_error("write", &flash))?;
                let mut object = OsString::from(format!(
                    "memory-backend-file,id=flash,size={FLASH_BYTES},share=on,mem-path="
                ));
                object.push(flash.to_string_lossy().replace(',', ",,"));
                let words = ["-machine", "mps2-an385,memory-backend=flash", "-object"];
                arguments.extend(words.map(OsString::from));
                arguments.push(object);
                let words = ["-display", "none", "-monitor", "none", "-semihosting"];
                arguments.extend(words.map(OsString::from));
                let words = ["-chardev", "stdio,id=line,signal=off", "-serial"];
                arguments.extend(words.map(OsString::from));
                arguments.extend(["chardev:line", "-kernel"].map(OsString::from));
                arguments.push(firmware.into());
                root = "/rom";
                find::program("qemu-system-arm", place, environment)?
            }
            Place::CPython | Place::Line(_) => {
                return Err(OnError::Missing {
                    what: "a MicroPython".to_owned(),
                    place: place.to_string(),
                    help: "name `unix`, `wasm` or `qemu`",
                });
            }
        };
        if *place != Place::Qemu {
            for (path, bytes) in files {
                put(&path.under(&tree), bytes)?;
            }
        }
        Ok(Self {
            place: place.clone(),
            program,
            arguments,
            environment: environment.clone(),
            root,
            dir: dir.to_owned(),
        })
    }

    /// The program that runs `code`, where that is a process of this machine.
    pub(super) fn command(&self, code: &str) -> Result<Command, OnError> {
        let file = self.dir.join("run.py");
        scratch::write(&file, code.as_bytes(), Kind::Data).map_err(io_error("write", &file))?;
        let mut command = self.environment.command(&self.program);
        command
            .args(&self.arguments)
            .arg(&file)
            .current_dir(self.dir.join("tree"));
        Ok(command)
    }

    /// Starts it with `code`. What runs last is `code`, with the tree first on the path.
    pub(super) fn start(&self, code: &str) -> Result<Vm, OnError> {
        let mut command = if self.place == Place::Qemu {
            let mut command = self.environment.command(&self.program);
            command.args(&self.arguments);
            command
        } else {
            self.command(code)?
        };
        let mut vm = Vm::spawn(&mut command, self.place == Place::Qemu).map_err(|source| {
            OnError::Start {
                program: self.program.clone(),
                source,
            }
        })?;
        if self.place == Place::Qemu {
            vm.enter(code).map_err(|said| OnError::Silent {
                place: self.place.to_string(),
                said,
            })?;
        }
        Ok(vm)
    }
}

impl Vm {
    fn spawn(command: &mut Command, is_line: bool) -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        let stdin = if is_line {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .stdin(stdin)
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn()?;
        // The pipe ends with the child only if nobody else can write into it.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, bytes) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(size @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            _stdin: child.stdin.take(),
            child,
            bytes,
            is_line,
            ready: Vec::new(),
        })
    }

    /// Brings a board into its raw REPL and hands it the code.
    fn enter(&mut self, code: &str) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            self.send(b"\r\x03\x03\r\x01")?;
            if self.find(RAW_REPL, Duration::from_millis(500)) {
                break;
            }
            if Instant::now() > end {
                return Err(format!("{:?}", String::from_utf8_lossy(&self.ready)));
            }
        }
        self.send(code.as_bytes())?;
        self.send(b"\x04")?;
        if self.find(b"OK", START) {
            return Ok(());
        }
        Err(format!("{:?}", String::from_utf8_lossy(&self.ready)))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(stdin) = &mut self._stdin else {
            return Err("it takes no input".to_owned());
        };
        stdin
            .write_all(bytes)
            .and_then(|()| stdin.flush())
            .map_err(|_| format!("{:?}", String::from_utf8_lossy(&self.ready)))
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
            Err(RecvTimeoutError::Disconnected) => Said::Ended(match self.child.wait() {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            }),
        }
    }

    /// Whether a byte `0x04` ends a program's words here.
    pub(super) fn is_line(&self) -> bool {
        self.is_line
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}
