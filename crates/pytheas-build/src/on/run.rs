//! The project's app on a machine: its entry, with what that imports.

use std::{path::PathBuf, process::Command, time::Duration};

use pytheas_project::{Connectivity, Entry, Environment, Project};
use pytheas_release::RelPath;
use tempfile::TempDir;

use super::{
    closure,
    error::OnError,
    place::Place,
    vm::{Machine, Said},
};
use crate::{LockMode, error::io_error};

/// What starts the last line of a board: its exit code follows.
const MARK: u8 = 0x1e;
/// What a board's line says when our last line did not come: the program is over, here is the prompt.
const PROMPT: &[u8; 2] = b"\x04>";
const PROMPT_IS_LAST: Duration = Duration::from_secs(1);
/// The source of an app that is started by file: modules are compiled for boards.
const SOURCE: &str = "__main__.txt";

/// An app that is ready to run.
#[derive(Debug)]
pub struct Run {
    scratch: TempDir,
    machine: Machine,
    code: String,
    place: Place,
}

/// Lays out what the app needs on `place`, which is a MicroPython.
///
/// # Errors
/// See [`OnError`].
pub fn prepare_run(
    project: &Project,
    target: Option<&str>,
    arguments: &[String],
    place: &Place,
    environment: &Environment,
    connectivity: Connectivity,
    lock: LockMode,
) -> Result<Run, OnError> {
    let target = project.target(target)?;
    let entry = project.entry(target.entry.as_ref())?;
    let mut roots = closure::roots(project, None);
    let module = match &entry {
        Entry::Callable { module, .. } | Entry::Module(module) => module.clone(),
        Entry::Script(path) => {
            let file = path.under(&project.dir);
            if let Some(dir) = file.parent() {
                roots.insert(0, dir.to_owned());
            }
            file.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default()
        }
    };
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    roots.extend(closure::others(
        project,
        environment,
        connectivity,
        lock,
        &target,
        scratch.path(),
    )?);
    let mut closure = closure::files(project, &target, &roots, std::slice::from_ref(&module))?;
    let has = |path: String| {
        closure
            .files
            .keys()
            .any(|file| file.as_str() == path.as_str())
            .then_some(path)
    };
    let path = module.replace('.', "/");
    let file = has(format!("{path}/__main__.py"))
        .filter(|_| matches!(entry, Entry::Module(_)))
        .or_else(|| has(format!("{path}.py")))
        .or_else(|| has(format!("{path}/__init__.py")))
        .ok_or_else(|| OnError::NoModule {
            entry: entry.to_string(),
            dir: project.dir.clone(),
        })?;
    let is_compiled = matches!(place, Place::Qemu | Place::Line(_));
    if is_compiled
        && !matches!(entry, Entry::Callable { .. })
        && let Ok(path) = file.parse::<RelPath>()
        && let Some(source) = closure.files.get(&path).cloned()
        && let Ok(path) = SOURCE.parse()
    {
        closure.files.insert(path, source);
    }
    let machine = Machine::prepare(
        place,
        environment,
        connectivity,
        &closure.files,
        scratch.path(),
    )?;
    let start = match &entry {
        Entry::Callable { module, callable } => {
            format!("import {module} as _module\n    return _module.{callable}()")
        }
        // As `python -m` and `python FILE` do.
        Entry::Module(_) | Entry::Script(_) => {
            let at = |file: &str| match machine.root() {
                "" => file.to_owned(),
                root => format!("{root}/{file}"),
            };
            let source = at(if is_compiled { SOURCE } else { &file });
            let file = at(&file);
            format!(
                "with open({source:?}) as _file:\n        _text = _file.read()\n    exec(_text, {{\"__name__\": \"__main__\", \"__file__\": {file:?}}})"
            )
        }
    };
    let argv: Vec<&str> = std::iter::once(entry_name(&entry))
        .chain(arguments.iter().map(String::as_str))
        .collect();
    let code = CODE
        .replace("@ROOT@", &format!("{:?}", machine.root()))
        .replace(
            "@WAIT@",
            if *place == Place::Wasm {
                "await _result"
            } else {
                "_wait(_result)"
            },
        )
        .replace(
            "@END@",
            match place {
                Place::Unix(_) => "sys.exit(_exit_code)",
                Place::Wasm => "",
                _ => "sys.stdout.write(\"\\x1e%d\\n\" % _exit_code)",
            },
        )
        .replace("@START@", &start)
        .replace("@ARGV@", &serde_json::json!(argv).to_string());
    Ok(Run {
        scratch,
        machine,
        code,
        place: place.clone(),
    })
}

fn entry_name(entry: &Entry) -> &str {
    match entry {
        Entry::Callable { module, .. } | Entry::Module(module) => module,
        Entry::Script(path) => path.as_str(),
    }
}

const CODE: &str = r#"import sys
sys.path[:] = [@ROOT@, ".frozen", "/lib"]
try:
    sys.argv[:] = @ARGV@
except AttributeError:
    pass
def _main():
    @START@
def _wait(result):
    import asyncio
    return asyncio.run(result)
def _code(result):
    if result is None:
        return 0
    if isinstance(result, int):
        return int(result)
    print(result)
    return 1
try:
    _result = _main()
    if hasattr(_result, "send"):
        _result = @WAIT@
    _exit_code = _code(_result)
except SystemExit as _error:
    _exit_code = _code(_error.args[0] if _error.args else None)
except KeyboardInterrupt:
    _exit_code = 130
except BaseException as _error:
    sys.print_exception(_error)
    _exit_code = 1
@END@
"#;

/// What an app says, without the line of its exit code.
struct Output<'a> {
    to: &'a mut dyn FnMut(&[u8]),
    /// What may become that line.
    held: Vec<u8>,
    last: [u8; 2],
}

impl<'a> Output<'a> {
    fn new(to: &'a mut dyn FnMut(&[u8])) -> Self {
        Self {
            to,
            held: Vec::new(),
            last: [0; 2],
        }
    }

    /// Hands on what is the app's; its exit code, when that came.
    fn take(&mut self, bytes: &[u8]) -> Option<u8> {
        let mut own = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.last = [self.last[1], *byte];
            match byte {
                &MARK => {
                    own.append(&mut self.held);
                    self.held.push(MARK);
                }
                b'\n' if self.held.len() > 1 => {
                    let text = String::from_utf8_lossy(&self.held[1..]);
                    if let Ok(code) = text.trim_end().parse::<i64>() {
                        (self.to)(&own);
                        // As the operating system would: the low byte.
                        return Some((code & 0xff) as u8);
                    }
                    own.append(&mut self.held);
                    own.push(b'\n');
                }
                b'-' | b'\r' | b'0'..=b'9' if !self.held.is_empty() => self.held.push(*byte),
                byte => {
                    own.append(&mut self.held);
                    own.push(*byte);
                }
            }
        }
        if !own.is_empty() {
            (self.to)(&own);
        }
        None
    }

    fn is_at_prompt(&self) -> bool {
        self.last == *PROMPT
    }
}

impl Run {
    /// The program to start where the machine is a process of this one; its exit code is the app's.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn command(&self) -> Result<Option<Command>, OnError> {
        match self.place {
            Place::Unix(_) | Place::Wasm => self.machine.command(&self.code).map(Some),
            _ => Ok(None),
        }
    }

    /// Runs it on a board, to its end; what it says goes to `output`. Its exit code.
    ///
    /// # Errors
    /// When the board does not start.
    pub fn on_board(&self, output: &mut dyn FnMut(&[u8])) -> Result<u8, OnError> {
        let mut vm = self.machine.start(&self.code)?;
        let mut output = Output::new(output);
        loop {
            match vm.next(Duration::from_secs(3600)) {
                Said::Silent => {}
                Said::Ended(_) => return Ok(1),
                Said::Bytes(bytes) => {
                    if let Some(code) = output.take(&bytes) {
                        return Ok(code);
                    }
                }
            }
            if vm.is_line() && output.is_at_prompt() && !vm.more(PROMPT_IS_LAST) {
                return Ok(1);
            }
        }
    }

    /// Where its files lie meanwhile.
    pub fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(parts: &[&[u8]], own: &[u8], code: Option<u8>) {
        let mut all = Vec::new();
        let mut push = |bytes: &[u8]| all.extend_from_slice(bytes);
        let mut output = Output::new(&mut push);
        let found = parts.iter().find_map(|part| output.take(part));
        assert_eq!((all.as_slice(), found), (own, code));
    }

    #[test]
    fn only_the_last_line_is_not_the_apps() {
        says(&[b"hello\r\n\x1e3\r\n"], b"hello\r\n", Some(3));
        says(&[b"a\x1e", b"-", b"1\n"], b"a", Some(255));
        says(&[b"\x1eb\n\x1e\n\x1e0\n"], b"\x1eb\n\x1e\n", Some(0));
        says(&[b"\x1e\x1e7\n"], b"\x1e", Some(7));
        says(&[b"\x1e12", b"x"], b"\x1e12x", None);
        says(
            &[b"bytes \x04>\x04 \xff\n"],
            b"bytes \x04>\x04 \xff\n",
            None,
        );
    }
}
