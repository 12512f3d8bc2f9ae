//! Byte code for every module, written at build time by the bundle's own interpreter.
//!
//! Deterministic: unchecked hash-based pycs hold no time (PEP 552), names are relative to the
//! bundle, and each file is compiled from a fixed hash seed. The files are dealt to one process
//! per CPU by their size; the result does not depend on which process compiles a file, so byte code
//! that an earlier build made of the same sources is taken from the cache (`bytecode/kept.rs`), and
//! that of packages is made before the bundle is there (`ahead.rs`).

use std::{
    cmp::Reverse,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    sync::Mutex,
};

use pytheas_project::Environment;
use walkdir::WalkDir;

use crate::{
    error::{BuildError, io_error},
    scratch::{self, Kind},
};

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

/// Compiles `files`, all below `root`; the byte code comes to lie beside them.
fn run(
    python: &Runner,
    environment: &Environment,
    root: &Path,
    files: &[PathBuf],
) -> Result<Vec<NotCompiled>, BuildError> {
    let named: Vec<(PathBuf, String)> = files
        .iter()
        .map(|file| (file.clone(), name_of(root, file)))
        .collect();
    let failed = Mutex::new(Vec::new());
    let done = |index: usize, suffix: &str, code: Code<'_>| {
        let (path, name) = &named[index];
        match code {
            Ok(code) => scratch::write(&target(path, suffix), code, Kind::Data)?,
            Err(reason) => {
                let mut failed = failed.lock().unwrap_or_else(|poison| poison.into_inner());
                failed.push(NotCompiled {
                    path: name.clone(),
                    reason: reason.to_owned(),
                });
            }
        }
        Ok(())
    };
    each(python, environment, &named, &done)
        .map_err(io_error("compile the Python files in", root))?;
    let mut failed = failed
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    failed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(failed)
}

/// The name of `file` in tracebacks.
fn name_of(root: &Path, file: &Path) -> String {
    let name = file.strip_prefix(root).unwrap_or(file);
    name.display().to_string()
}

/// Where the byte code of `source` lies.
fn target(source: &Path, suffix: &str) -> PathBuf {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    source
        .with_file_name("__pycache__")
        .join(format!("{stem}{suffix}"))
}

/// Byte code, or why there is none.
type Code<'a> = Result<&'a [u8], &'a str>;

/// Told of each file by its index, in no order and from several threads: how the names of byte code
/// end, and its byte code.
type Done<'a> = dyn Fn(usize, &str, Code<'_>) -> io::Result<()> + Sync + 'a;

/// Compiles `files`, given by path and name in tracebacks.
pub(crate) fn each(
    python: &Runner,
    environment: &Environment,
    files: &[(PathBuf, String)],
    done: &Done<'_>,
) -> io::Result<()> {
    let processes = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 8)
        // Starting one takes as long as compiling some files.
        .min(1 + files.len() / 16);
    let mut children = Vec::new();
    for indices in dealt(files, processes) {
        let mut input = String::new();
        for index in &indices {
            let (path, name) = &files[*index];
            input.push_str(&format!("{}\0{name}\0", path.display()));
        }
        let (child, stdout) = spawn(python, environment)?;
        children.push((child, stdout, input, indices));
    }
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (mut child, stdout, input, indices) in children {
            let stdin = child.stdin.take();
            let feeder = scope.spawn(move || match stdin {
                Some(mut stdin) => stdin.write_all(input.as_bytes()),
                None => Err(io::Error::other("no standard input")),
            });
            let reader = scope.spawn(move || read(stdout, &indices, done));
            running.push((child, feeder, reader));
        }
        let ended = |_| Err(io::Error::other("a thread ended"));
        for (child, feeder, reader) in running {
            let output = child.wait_with_output()?;
            let read = reader.join().unwrap_or_else(ended);
            let fed = feeder.join().unwrap_or_else(ended);
            match read {
                // All that the process then says is that nobody reads on.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                _ => {}
            }
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(text));
            }
            read?;
            fed?;
        }
        Ok(())
    })
}

/// The indices of `files` for each process, so that all have about as much to do; none is empty.
fn dealt(files: &[(PathBuf, String)], processes: usize) -> Vec<Vec<usize>> {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let mut sizes: Vec<(u64, usize)> = files
        .iter()
        .enumerate()
        // A large file is mostly data.
        .map(|(index, (path, _))| (size(path).min(200_000) + 500, index))
        .collect();
    sizes.sort_by_key(|(size, index)| (Reverse(*size), *index));
    let mut shares = vec![(0, Vec::new()); processes];
    for (size, index) in sizes {
        if let Some(least) = shares.iter_mut().min_by_key(|(total, _)| *total) {
            least.0 += size;
            least.1.push(index);
        }
    }
    let shares = shares.into_iter().map(|(_, share)| share);
    shares.filter(|share| !share.is_empty()).collect()
}

/// Starts one compiling process.
fn spawn(python: &Runner, environment: &Environment) -> io::Result<(Child, ChildStdout)> {
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
        .spawn()
        .map_err(|error| {
            let program = python.program.display();
            io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
        })?;
    let stdout = child.stdout.take();
    let stdout = stdout.ok_or_else(|| io::Error::other("no standard output"))?;
    Ok((child, stdout))
}

/// Reads what `bytecode.py` says of the files at `indices`.
fn read(stdout: ChildStdout, indices: &[usize], done: &Done<'_>) -> io::Result<()> {
    let mut stdout = BufReader::with_capacity(1 << 16, stdout);
    let tag = counted(&mut stdout)?;
    let suffix = format!(".{}.pyc", String::from_utf8_lossy(&tag));
    for index in indices {
        let mut kind = [0];
        stdout.read_exact(&mut kind)?;
        let bytes = counted(&mut stdout)?;
        if kind == [1] {
            done(*index, &suffix, Ok(&bytes))?;
        } else {
            done(*index, &suffix, Err(&String::from_utf8_lossy(&bytes)))?;
        }
    }
    Ok(())
}

fn counted(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u64::from(u32::from_le_bytes(len));
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
