//! What importing an app costs, measured on a real MicroPython: an emulated Cortex-M3 board under
//! QEMU, whose clock counts instructions, and the port for this machine.
//!
//! `PYTHEAS_MICROPYTHON` names a folder with `qemu/firmware.elf` and `unix/micropython`; the latter is
//! looked for on `PATH`, too. The board mounts the image as its ROMFS partition, so nothing of it is
//! copied to RAM, as on a real one.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use pytheas_project::Environment;
use serde::Serialize;

use super::error::{MicroPythonError, io_error};
use crate::scratch;

/// The emulated board's flash; ROMFS partition 0 is at its start.
const FLASH_BYTES: u64 = 16 << 20;
const ROM_BYTES: u64 = 4 << 20;
/// With `-icount shift=3` an instruction takes 8 ns of the board's clock.
const INSTRUCTIONS_PER_US: u64 = 125;
/// Other work may load this machine.
const PATIENCE: Duration = Duration::from_secs(120);
const MARK: &str = "pytheas-cost";
const MODULE: &str = "pytheas-module";
const BANNER: &[u8] = b"raw REPL; CTRL-B to exit\r\n>";

/// What importing the app's entry costs on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// `qemu` (32 bits, as most boards) or `unix` (this machine's word size).
    pub on: &'static str,
    /// Heap that stays taken, in bytes.
    pub ram_bytes: u64,
    /// Heap that is left, in bytes.
    pub free_bytes: u64,
    /// Instructions, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// What each module adds, in the order in which they are imported.
    pub modules: Vec<ModuleCost>,
}

/// What importing one module adds, what it imports not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleCost {
    /// Its name.
    pub module: String,
    /// Heap that stays taken, in bytes.
    pub ram_bytes: u64,
    /// Instructions, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
}

/// A machine on which it could not be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotMeasured {
    /// `qemu` or `unix`.
    pub on: &'static str,
    /// Why not.
    pub why: String,
}

/// Imports `modules` of the image, in this order, on the machines there are.
///
/// # Errors
/// When files for them cannot be written.
pub(super) fn measure(
    image: &[u8],
    modules: &[String],
    environment: &Environment,
) -> Result<(Vec<Cost>, Vec<NotMeasured>), MicroPythonError> {
    let dir = tempfile::tempdir().map_err(io_error("write in", &std::env::temp_dir()))?;
    let mut costs = Vec::new();
    let mut not = Vec::new();
    let results = [
        ("qemu", on_board(image, modules, environment, dir.path())?),
        ("unix", on_unix(image, modules, environment, dir.path())?),
    ];
    for (on, result) in results {
        match result.and_then(|said| parse(on, &said)) {
            Ok(cost) => costs.push(cost),
            Err(why) => not.push(NotMeasured { on, why }),
        }
    }
    Ok((costs, not))
}

type Said = Result<String, String>;

fn script(before: &str, modules: &[String]) -> String {
    let names = serde_json::json!(modules).to_string();
    format!(
        "import sys, gc, time\n{before}_names = {names}\n\
         def _cost():\n\
         \x20 gc.collect()\n\
         \x20 first = gc.mem_alloc()\n\
         \x20 whole = 0\n\
         \x20 for name in _names:\n\
         \x20   gc.collect()\n\
         \x20   ram = gc.mem_alloc()\n\
         \x20   us = time.ticks_us()\n\
         \x20   __import__(name)\n\
         \x20   us = time.ticks_diff(time.ticks_us(), us)\n\
         \x20   whole += us\n\
         \x20   gc.collect()\n\
         \x20   print('\\n{MODULE}', gc.mem_alloc() - ram, us, name)\n\
         \x20 gc.collect()\n\
         \x20 print('{MARK}', gc.mem_alloc() - first, gc.mem_free(), whole)\n\
         _cost()\n"
    )
}

fn parse(on: &'static str, said: &str) -> Result<Cost, String> {
    let line = said.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let Some(line) = line else {
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        return Err(format!(
            "importing it there failed: {}",
            last.unwrap_or("it said nothing").trim()
        ));
    };
    let whole = |word: &str| Some(u64::try_from(word.parse::<i64>().ok()?).unwrap_or(0));
    let counted = |us: u64| (on == "qemu").then(|| us * INSTRUCTIONS_PER_US);
    let numbers: Vec<u64> = line.split_whitespace().filter_map(whole).collect();
    let [ram_bytes, free_bytes, us] = numbers[..] else {
        return Err(format!("it said `{line}`"));
    };
    let modules = said.lines().filter_map(|line| {
        let mut words = line.strip_prefix(MODULE)?.split_whitespace();
        Some(ModuleCost {
            ram_bytes: whole(words.next()?)?,
            instructions: counted(whole(words.next()?)?),
            module: words.next()?.to_owned(),
        })
    });
    Ok(Cost {
        on,
        ram_bytes,
        free_bytes,
        instructions: counted(us),
        modules: modules.collect(),
    })
}

fn in_folder(path: &str, environment: &Environment) -> Option<PathBuf> {
    let folder = std::path::absolute(environment.path("PYTHEAS_MICROPYTHON")?).ok()?;
    Some(folder.join(path)).filter(|path| path.is_file())
}

fn on_path(name: &str, environment: &Environment) -> Option<PathBuf> {
    let mut dirs = environment.search_path().into_iter();
    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), MicroPythonError> {
    scratch::write(path, bytes, scratch::Kind::Data).map_err(io_error("write", path))
}

fn on_unix(
    image: &[u8],
    modules: &[String],
    environment: &Environment,
    dir: &Path,
) -> Result<Said, MicroPythonError> {
    let found = in_folder("unix/micropython", environment);
    let Some(program) = found.or_else(|| on_path("micropython", environment)) else {
        return Ok(Err(
            "no `micropython` is on `PATH` or in `PYTHEAS_MICROPYTHON`".to_owned(),
        ));
    };
    let before = "import vfs\nvfs.mount(vfs.VfsRom(open('app.romfs', 'rb').read()), '/app')\nsys.path.insert(0, '/app')\n";
    put(&dir.join("app.romfs"), image)?;
    put(&dir.join("cost.py"), script(before, modules).as_bytes())?;
    let mut command = environment.command(&program);
    command.arg("cost.py").current_dir(dir);
    let mut machine = match Machine::start(command) {
        Ok(machine) => machine,
        Err(error) => return Ok(Err(format!("`{}`: {error}", program.display()))),
    };
    let end = Instant::now() + PATIENCE;
    while machine.more(end) {}
    Ok(Ok(machine.text()))
}

fn on_board(
    image: &[u8],
    modules: &[String],
    environment: &Environment,
    dir: &Path,
) -> Result<Said, MicroPythonError> {
    let Some(firmware) = in_folder("qemu/firmware.elf", environment) else {
        return Ok(Err(
            "no `qemu/firmware.elf` is in `PYTHEAS_MICROPYTHON`".to_owned()
        ));
    };
    let Some(qemu) = on_path("qemu-system-arm", environment) else {
        return Ok(Err("`qemu-system-arm` is not installed".to_owned()));
    };
    if image.len() as u64 > ROM_BYTES {
        return Ok(Err("the emulated board's partition has 4 MiB".to_owned()));
    }
    let flash = dir.join("flash.img");
    put(&flash, image)?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&flash)
        .and_then(|file| file.set_len(FLASH_BYTES))
        .map_err(io_error("write", &flash))?;
    let mut command = environment.command(&qemu);
    command
        .args(["-machine", "mps2-an385,memory-backend=flash", "-object"])
        .arg(format!(
            "memory-backend-file,id=flash,size={FLASH_BYTES},share=on,mem-path={}",
            flash.to_string_lossy().replace(',', ",,")
        ))
        .args(["-display", "none", "-monitor", "none", "-semihosting"])
        .args(["-icount", "shift=3"])
        .args(["-chardev", "stdio,id=line,signal=off", "-serial"])
        .args(["chardev:line", "-kernel"])
        .arg(&firmware)
        .stdin(Stdio::piped());
    let mut machine = match Machine::start(command) {
        Ok(machine) => machine,
        Err(error) => return Ok(Err(format!("`{}`: {error}", qemu.display()))),
    };
    let code = script("sys.path.insert(0, '/rom')\n", modules);
    Ok(machine.enter(&code))
}

/// A started MicroPython; it ends with this value.
struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
    bytes: Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Machine {
    fn start(mut command: Command) -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        // Our own ends of the pipe would keep it open.
        drop(command);
        let (sender, bytes) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 14];
            while let Ok(size @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            bytes,
            said: Vec::new(),
        })
    }

    /// Takes what it says next; whether it said something before `end`.
    fn more(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        match self.bytes.recv_timeout(left) {
            Ok(more) => {
                self.said.extend(more);
                true
            }
            Err(_) => false,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(stdin) = &mut self.stdin else {
            return false;
        };
        stdin.write_all(bytes).and_then(|()| stdin.flush()).is_ok()
    }

    /// Waits for `mark`; what comes up to it is dropped.
    fn until(&mut self, mark: &[u8], end: Instant) -> bool {
        loop {
            let found = self.said.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                self.said.drain(..at + mark.len());
                return true;
            }
            if !self.more(end) {
                return false;
            }
        }
    }

    /// Runs `code` in the raw REPL: what it printed, and its traceback.
    fn enter(&mut self, code: &str) -> Said {
        let end = Instant::now() + PATIENCE;
        // A board that is just starting takes Ctrl-C for a letter.
        loop {
            if !self.send(b"\r\x03\x03\r\x01") || Instant::now() > end {
                return Err(format!(
                    "the emulator has no raw REPL: {}",
                    self.text().trim()
                ));
            }
            if self.until(BANNER, Instant::now() + Duration::from_millis(500)) {
                break;
            }
        }
        let is_sent = self.send(code.as_bytes()) && self.send(b"\x04");
        if !is_sent || !self.until(b"OK", end) {
            return Err("the emulator took no code".to_owned());
        }
        // Output and traceback, each with its end.
        while self.said.iter().filter(|byte| **byte == 4).count() < 2 {
            if !self.more(end) {
                return Err("importing it does not end".to_owned());
            }
        }
        self.said.retain(|byte| *byte != 4);
        let text = self.text();
        Ok(text.trim_end_matches('>').to_owned())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).replace('\r', "")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A budget of instructions: `5 M`, `800 k`, `120000`.
pub(super) fn instructions(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_is_read() {
        let said = "noise\n\npytheas-module 8000 100 a.b\n\npytheas-module -16 1 c\npytheas-cost 8448 120000 20000\n";
        let cost = parse("qemu", said).unwrap();
        assert_eq!(cost.modules[0].module, "a.b");
        assert_eq!(cost.modules[0].instructions, Some(12_500));
        assert_eq!(cost.modules[1].ram_bytes, 0);
        assert_eq!((cost.ram_bytes, cost.instructions), (8448, Some(2_500_000)));
        let cost = parse("unix", "pytheas-cost 15424 1 320").unwrap();
        assert_eq!(cost.instructions, None);
        assert_eq!(
            parse(
                "unix",
                "Traceback\nImportError: no module named 'network'\n"
            )
            .unwrap_err(),
            "importing it there failed: ImportError: no module named 'network'"
        );
        assert!(parse("unix", "").is_err());
        assert!(parse("unix", "pytheas-cost 1").is_err());
    }

    #[test]
    fn instructions_have_units() {
        assert_eq!(instructions("2.5 M"), Some(2_500_000));
        assert_eq!(instructions("800k"), Some(800_000));
        assert_eq!(instructions("12"), Some(12));
        for wrong in ["", "M", "1 MB", "1..2", "-1"] {
            assert_eq!(instructions(wrong), None, "{wrong}");
        }
    }
}
