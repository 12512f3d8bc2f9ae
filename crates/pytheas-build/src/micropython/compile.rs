//! Compiling modules with mpy-cross: several at once, and each only when it changed.
//!
//! The cache is keyed by what decides the result: source, name, options and mpy-cross's version. Its
//! files begin with the SHA-256 of the rest, so a torn or damaged one is compiled again.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use pytheas_board::mpy::{Arch, BoardMpy, Header};
use pytheas_project::Environment;
use pytheas_release::{RelPath, Sha256};

use super::{
    error::{MicroPythonError, io_error},
    mpy_cross::MpyCross,
};
use crate::scratch;

/// How modules are compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// What native and viper functions are compiled for; without, such functions are refused.
    pub arch: Option<Arch>,
    /// mpy-cross's `-O`: 1 and 2 leave out `assert`, 3 leaves out line numbers, too.
    pub optimize: u8,
}

/// A module's source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in tracebacks: the path on the board, `microdot/microdot.py`.
    pub name: String,
    /// The text.
    pub bytes: Vec<u8>,
}

/// What mpy-cross says of a module that its heap, 1 to 2 MiB, has no room for.
const TOO_LARGE: &str = "MemoryError";
/// Then it gets this one; the result is the same.
const LARGE_HEAP: [&str; 2] = ["-X", "heapsize=512M"];

/// Compiles; usable from many threads.
#[derive(Debug, Clone)]
pub struct Compiler {
    mpy_cross: MpyCross,
    environment: Environment,
    cache: PathBuf,
}

impl Compiler {
    /// One with the cache of `environment`.
    pub fn new(mpy_cross: MpyCross, environment: &Environment) -> Self {
        Self {
            mpy_cross,
            environment: environment.clone(),
            cache: environment.cache_dir().join("micropython/mpy"),
        }
    }

    /// The compiler's program.
    pub fn mpy_cross(&self) -> &MpyCross {
        &self.mpy_cross
    }

    /// The `.mpy` file of each source, in the same order.
    ///
    /// # Errors
    /// The first that does not compile.
    pub fn compile(
        &self,
        sources: &[Source],
        options: CompileOptions,
    ) -> Result<Vec<Vec<u8>>, MicroPythonError> {
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(sources.len());
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(source) = sources.get(at) else {
                    return done;
                };
                done.push((at, self.one(source, options)));
            }
        };
        let mut done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }

    fn one(&self, source: &Source, options: CompileOptions) -> Result<Vec<u8>, MicroPythonError> {
        let mut arguments = vec![format!("-O{}", options.optimize)];
        if let Some(arch) = options.arch {
            arguments.push(format!("-march={}", arch.name()));
        }
        arguments.extend(["-s".to_owned(), source.name.clone()]);
        let key = [
            "pytheas-mpy-1",
            &self.mpy_cross.version,
            &arguments.join("\0"),
            "",
        ]
        .join("\0");
        let key = Sha256::of(&[key.as_bytes(), &source.bytes].concat()).to_string();
        let cached = self.cache.join(&key[..2]).join(&key[2..]);
        if let Ok(bytes) = fs::read(&cached)
            && let Some((hash, mpy)) = bytes.split_at_checked(32)
            && Sha256::of(mpy).as_bytes() == hash
        {
            return Ok(mpy.to_vec());
        }
        let mut mpy = self.run(source, &arguments);
        if matches!(&mpy, Err(MicroPythonError::Compile { message, .. }) if message.starts_with(TOO_LARGE))
        {
            arguments.extend(LARGE_HEAP.map(str::to_owned));
            mpy = self.run(source, &arguments);
        }
        let mpy = mpy?;
        let entry = [&Sha256::of(&mpy).as_bytes()[..], &mpy].concat();
        // A cache that cannot be written costs time only.
        if let Err(error) = scratch::write(&cached, &entry, scratch::Kind::Data) {
            tracing::debug!(%error, path = %cached.display(), "cannot cache a compiled module");
        }
        Ok(mpy)
    }

    fn run(&self, source: &Source, arguments: &[String]) -> Result<Vec<u8>, MicroPythonError> {
        let program = &self.mpy_cross.program;
        let wrong = |why: String| MicroPythonError::Compiler {
            program: program.clone(),
            why,
        };
        let mut child = self
            .environment
            .command(program)
            .args(arguments)
            .args(["-o", "-", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| wrong(error.to_string()))?;
        // It reads all of its input before it writes.
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(&source.bytes);
        }
        let output = child
            .wait_with_output()
            .map_err(|error| wrong(error.to_string()))?;
        if output.status.success() && Header::parse(&output.stdout).is_ok() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        Err(explain(source, &text))
    }
}

/// What mpy-cross says of a module that does not compile.
fn explain(source: &Source, text: &str) -> MicroPythonError {
    let name = &source.name;
    let message = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("mpy-cross failed without a word")
        .trim();
    let line = text
        .lines()
        .filter_map(|line| line.split_once("\", line "))
        .filter_map(|(_, rest)| rest.split(',').next()?.trim().parse::<u32>().ok())
        .next_back();
    let help = if message.contains("invalid arch") {
        "it has native or viper code: name the board (`board = \"…\"`) or its architecture (`platform = \"micropython-<arch>\"`) in the target"
    } else if message.starts_with(TOO_LARGE) {
        "the module is too large to be compiled: split it, or put its tables into a file of data"
    } else if source.bytes.starts_with(b"\xef\xbb\xbf") {
        "the file begins with a byte-order mark, which MicroPython does not take: save it as UTF-8 without one"
    } else if source.bytes.contains(&0) || std::str::from_utf8(&source.bytes).is_err() {
        "the file is no UTF-8 text: save it as such"
    } else {
        "MicroPython knows most of Python 3.4 and parts of later versions; `match`, positional-only parameters and some others are not among them"
    };
    MicroPythonError::Compile {
        file: match line {
            Some(line) => format!("{name}:{line}"),
            None => name.clone(),
        },
        message: message.to_owned(),
        help,
    }
}

/// Sub-version of native code that MicroPython 1.23 and later take.
const SUB_VERSION: u8 = 3;
/// Files that MicroPython starts from source only.
const STARTED: [&str; 2] = ["boot.py", "main.py"];

/// What a board gets for the folder `dir`: each module compiled, everything else as it is. Files
/// that MicroPython runs by name (`boot.py`, `main.py` at the top) stay source; folders and files
/// that begin with a dot, and `__pycache__`, are left out.
///
/// # Errors
/// When a file cannot be read or does not compile, or two become the same.
pub fn compile_tree(
    dir: &Path,
    compiler: &Compiler,
    options: CompileOptions,
) -> Result<BTreeMap<RelPath, Vec<u8>>, MicroPythonError> {
    let mut files = BTreeMap::new();
    let mut modules: Vec<(RelPath, Source)> = Vec::new();
    let is_taken = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "__pycache__")
    };
    for entry in walkdir::WalkDir::new(dir)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_taken)
    {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(dir).to_owned();
            io_error("read", &path)(error.into())
        })?;
        if !entry.file_type().is_file() {
            continue;
        }
        let inside = entry.path().strip_prefix(dir).unwrap_or(entry.path());
        let path = board_path(&inside.to_string_lossy())?;
        let bytes = fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
        match path.as_str().strip_suffix(".py") {
            Some(stem) if !STARTED.contains(&path.as_str()) => {
                let compiled = board_path(&format!("{stem}.mpy"))?;
                let name = path.as_str().to_owned();
                modules.push((compiled, Source { name, bytes }));
            }
            _ => {
                if is_mpy(&path) {
                    check_fit(&path, &bytes, options.arch, compiler.mpy_cross.mpy)?;
                }
                files.insert(path, bytes);
            }
        }
    }
    let (paths, sources): (Vec<RelPath>, Vec<Source>) = modules.into_iter().unzip();
    for (path, mpy) in paths.into_iter().zip(compiler.compile(&sources, options)?) {
        if files.insert(path.clone(), mpy).is_some() {
            // MicroPython prefers the source, too.
            tracing::debug!(%path, "a module is there as source and compiled; the source was taken");
        }
    }
    Ok(files)
}

/// Checks a module that came compiled: a board of `arch` with version `mpy` takes it. Gives the
/// architecture of its native code.
pub(super) fn check_fit(
    path: &RelPath,
    bytes: &[u8],
    arch: Option<Arch>,
    mpy: u8,
) -> Result<Option<Arch>, MicroPythonError> {
    let file = path.to_string();
    let header = match Header::parse(bytes) {
        Ok(header) => header,
        Err(source) => return Err(MicroPythonError::NoModule { file, source }),
    };
    let board = BoardMpy {
        version: mpy,
        sub_version: SUB_VERSION,
        arch,
        arch_flags: 0,
    };
    match board.accepts(&header) {
        Ok(()) => Ok(header.arch),
        Err(source) => Err(MicroPythonError::Incompatible { file, source }),
    }
}

pub(super) fn is_mpy(path: &RelPath) -> bool {
    path.as_str().ends_with(".mpy")
}

/// A path on a board.
pub(super) fn board_path(text: &str) -> Result<RelPath, MicroPythonError> {
    Ok(pytheas_board::romfs::path(text.as_bytes())?)
}
