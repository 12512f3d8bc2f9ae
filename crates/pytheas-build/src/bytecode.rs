//! Byte code for every module, written at build time by the bundle's own interpreter.
//!
//! Deterministic: unchecked hash-based pycs hold no time (PEP 552), names are relative to the
//! bundle, and each file is compiled from a fixed hash seed. The files are dealt to one process
//! per CPU by their order; the result does not depend on which process compiles a file, so byte code
//! that an earlier build made of the same sources is taken from the cache (`bytecode/kept.rs`).

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use pytheas_project::Environment;
use walkdir::WalkDir;

use crate::error::{BuildError, io_error};

pub(crate) mod choice;
pub(crate) mod kept;

const SCRIPT: &str = include_str!("bytecode.py");

/// How a Python is started on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runner {
    /// The program.
    pub(crate) program: PathBuf,
    /// What comes before Python's own arguments: for an emulator and a loader.
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

impl From<PathBuf> for Runner {
    fn from(program: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
        }
    }
}

/// A file that does not compile, which is no error: packages hold sources for other Pythons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotCompiled {
    /// Its path relative to the bundle.
    pub(crate) path: String,
    /// Why.
    pub(crate) reason: String,
}

/// Compiles the Python files under `dirs`, all below `root`, with `python`; the byte code names
/// them by their path relative to `root`.
pub(crate) fn compile(
    python: &Runner,
    environment: &Environment,
    root: &Path,
    dirs: &[PathBuf],
) -> Result<Vec<NotCompiled>, BuildError> {
    run(python, environment, root, &sources(dirs)?)
}

/// The Python files under `dirs`, in order.
fn sources(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, BuildError> {
    let mut files = Vec::new();
    for dir in dirs.iter().filter(|dir| dir.is_dir()) {
        for entry in WalkDir::new(dir).sort_by_file_name() {
            let entry = entry.map_err(|error| io_error("read", dir)(error.into()))?;
            if entry.file_type().is_file()
                && entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "py")
            {
                files.push(entry.into_path());
            }
        }
    }
    Ok(files)
}

/// Compiles `files`, all below `root`.
fn run(
    python: &Runner,
    environment: &Environment,
    root: &Path,
    files: &[PathBuf],
) -> Result<Vec<NotCompiled>, BuildError> {
    let shards = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 8);
    let start = io_error("start", &python.program);
    let mut children = Vec::new();
    for shard in 0..shards {
        let mut input = String::new();
        for file in files.iter().skip(shard).step_by(shards) {
            let name = file.strip_prefix(root).unwrap_or(file);
            input.push_str(&format!("{}\0{}\0", file.display(), name.display()));
        }
        if !input.is_empty() {
            children.push(spawn(python, environment, input).map_err(&start)?);
        }
    }
    let mut failed = Vec::new();
    for (child, feeder) in children {
        let output = child.wait_with_output().map_err(&start)?;
        let fed = feeder
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the feeding thread ended")));
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let kind = if text.contains("No space left") {
                io::ErrorKind::StorageFull
            } else {
                io::ErrorKind::Other
            };
            return Err(io_error("compile the Python files in", root)(
                io::Error::new(kind, text),
            ));
        }
        fed.map_err(&start)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (path, reason) = line.split_once('\t').unwrap_or((line, ""));
            failed.push(NotCompiled {
                path: path.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }
    failed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(failed)
}

type Feeder = std::thread::JoinHandle<io::Result<()>>;

/// Starts one compiling process and a thread that feeds it.
fn spawn(python: &Runner, environment: &Environment, input: String) -> io::Result<(Child, Feeder)> {
    let mut child = environment
        .python(&python.program)
        .args(&python.arguments)
        // Not `-I`: it would ignore the hash seed, which decides the order of constant sets.
        .args(["-s", "-S", "-B", "-X", "utf8", "-c", SCRIPT])
        .env("PYTHONHASHSEED", "0")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("no standard input"))?;
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    Ok((child, feeder))
}
