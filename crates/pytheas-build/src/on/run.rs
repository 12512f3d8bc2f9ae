//! The project's app on a machine: its entry, with what that imports.

use std::{path::PathBuf, process::Command, time::Duration};

use pytheas_project::{Connectivity, Entry, Environment, Project};
use tempfile::TempDir;

use super::{
    closure,
    error::OnError,
    place::Place,
    vm::{Machine, Said},
};
use crate::error::io_error;

/// What starts the last line of a board: its exit code follows.
const MARK: u8 = 0x1e;

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
        scratch.path(),
    )?);
    let closure = closure::files(project, &target, &roots, std::slice::from_ref(&module))?;
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
            let file = match machine.root() {
                "" => file,
                root => format!("{root}/{file}"),
            };
            format!(
                "with open({file:?}) as _file:\n        _text = _file.read()\n    exec(_text, {{\"__name__\": \"__main__\", \"__file__\": {file:?}}})"
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
        let mut ended: Option<Vec<u8>> = None;
        loop {
            match vm.next(Duration::from_secs(3600)) {
                Said::Silent => {}
                Said::Ended(_) => return Ok(1),
                Said::Bytes(bytes) => {
                    for byte in bytes {
                        match (&mut ended, byte) {
                            (None, MARK) => ended = Some(Vec::new()),
                            (None, 4) => return Ok(1),
                            (None, byte) => output(&[byte]),
                            (Some(code), b'\n') => {
                                let text = String::from_utf8_lossy(code);
                                // As the operating system would: the low byte.
                                let code = text.trim().parse::<i64>().unwrap_or(1) & 0xff;
                                return Ok(u8::try_from(code).unwrap_or(1));
                            }
                            (Some(code), byte) => code.push(byte),
                        }
                    }
                }
            }
        }
    }

    /// Where its files lie meanwhile.
    pub fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }
}
