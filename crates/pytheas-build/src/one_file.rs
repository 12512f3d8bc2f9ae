//! A bundle as one program: a launcher in front of the compressed tree, which it unpacks once and
//! starts. The file's format and where it is unpacked: `launcher/src/one_file.rs`.
//!
//! Contents are ordered by kind of file, so that what is alike shares a frame, byte code behind its
//! source, whose texts it repeats. They are packed frame by frame on every core; frames do not
//! depend on each other, so the result does not depend on the number of cores. What changes with
//! the app lies in frames of its own, and packed frames are kept in the cache: the next build of the
//! app packs little.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use miette::Diagnostic;
use pytheas_release::{BuildRecord, Entry, Platform, RelPath, Sha256, Tree, TreeId};

/// What a frame unpacks to: enough for matches to be found, little enough for a small device.
const FRAME_BYTES: usize = 16 << 20;
const LEVEL: i32 = 19;
const TRAILER_BYTES: usize = 256;
const MAGIC: &[u8] = b"pytheas-one-file";
const ENTRY_MAX: usize = 127;

/// A finished file.
#[derive(Debug, Clone)]
pub struct OneFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// The size of the files in it.
    pub unpacked_bytes: u64,
    /// The tree in it.
    pub tree_id: TreeId,
}

/// A bundle that cannot be made one file.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OneFileError {
    /// Not a bundle.
    #[error("form `{form}` cannot be made one file")]
    #[diagnostic(
        code(pytheas::one_file::form),
        help("only a `bundle` holds all that it needs; leave out `--one-file`")
    )]
    Form {
        /// The form.
        form: String,
    },
    /// No launcher for the CPU.
    #[error("there is no one-file launcher for `{platform}`")]
    #[diagnostic(
        code(pytheas::one_file::platform),
        help("leave out `--one-file`; the folder can be packed with `tar`")
    )]
    Platform {
        /// The platform.
        platform: Platform,
    },
    /// The result would lie on a folder.
    #[error("`{}` is a folder", path.display())]
    #[diagnostic(
        code(pytheas::one_file::folder),
        help("give the path of a file with `-o`")
    )]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// The name of what is started is too long.
    #[error("`{entry}` is too long a name for a one-file bundle")]
    #[diagnostic(
        code(pytheas::one_file::entry),
        help("give the app a shorter name with `--name`")
    )]
    Entry {
        /// What is started.
        entry: RelPath,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::one_file::io),
        help("check permissions and free space; what was there before is untouched")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OneFileError + use<> {
    let path = path.to_owned();
    move |source| OneFileError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// Packs the bundle `tree`, which lies in `dir`, into the program `to`.
///
/// # Errors
/// See [`OneFileError`]; what was at `to` before is then untouched.
pub fn one_file(
    dir: &Path,
    tree: &Tree,
    record: &BuildRecord,
    to: &Path,
) -> Result<OneFile, OneFileError> {
    one_file_cached(dir, tree, record, to, None)
}

/// As [`one_file`]; the packed interpreter and packages are kept below `cache`, the cache folder,
/// and taken from there when they are the same again.
///
/// # Errors
/// As [`one_file`].
pub fn one_file_cached(
    dir: &Path,
    tree: &Tree,
    record: &BuildRecord,
    to: &Path,
    cache: Option<&Path>,
) -> Result<OneFile, OneFileError> {
    let cache = cache.map(|cache| cache.join("frames"));
    if record.form != "bundle" {
        return Err(OneFileError::Form {
            form: record.form.clone(),
        });
    }
    if to.is_dir() {
        return Err(OneFileError::Folder {
            path: to.to_owned(),
        });
    }
    if record.entry.as_str().len() > ENTRY_MAX {
        return Err(OneFileError::Entry {
            entry: record.entry.clone(),
        });
    }
    let launcher = launcher(&record.platform).ok_or_else(|| OneFileError::Platform {
        platform: record.platform.clone(),
    })?;
    let (index, files) = index(tree);
    let mut frames = vec![pack(&index).map_err(io_error("pack", dir))?];
    frames.extend(pack_contents(dir, &files, cache.as_deref())?);
    let trailer = trailer(
        launcher.len(),
        tree.size_bytes(),
        frames.len(),
        &tree.id(),
        record.entry.as_str(),
    );
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        pytheas_durable::create_dir_all(parent).map_err(io_error("make", parent))?;
    }
    pytheas_durable::replace_with(to, 0o755, |file| {
        file.write_all(&launcher)?;
        for frame in &frames {
            file.write_all(frame)?;
        }
        file.write_all(&trailer)
    })
    .map_err(io_error("write", to))?;
    let frames_bytes: usize = frames.iter().map(Vec::len).sum();
    Ok(OneFile {
        path: to.to_owned(),
        size_bytes: (launcher.len() + frames_bytes + trailer.len()) as u64,
        unpacked_bytes: tree.size_bytes(),
        tree_id: tree.id(),
    })
}

/// The launcher for the platform's CPU; it needs no C library, so glibc or musl is the same.
fn launcher(platform: &Platform) -> Option<Vec<u8>> {
    let hex = match platform.arch() {
        "x86_64" => include_str!("../../../launcher/machine/one-file-x86_64.hex"),
        "aarch64" => include_str!("../../../launcher/machine/one-file-aarch64.hex"),
        "armv7" => include_str!("../../../launcher/machine/one-file-armv7.hex"),
        "riscv64" => include_str!("../../../launcher/machine/one-file-riscv64.hex"),
        _ => return None,
    };
    let digits: Vec<u8> = hex.lines().skip(1).flat_map(str::bytes).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    let byte = |pair: &[u8]| digit(pair[0]) << 4 | digit(pair[1]);
    Some(digits.chunks_exact(2).map(byte).collect())
}

/// The index, and the files in its order.
fn index(tree: &Tree) -> (Vec<u8>, Vec<(RelPath, u64)>) {
    let mut folders = BTreeSet::new();
    let mut files = BTreeMap::new();
    let mut index = Vec::new();
    let mut links = Vec::new();
    for (path, entry) in tree.iter() {
        let text = path.as_str();
        folders.extend(text.match_indices('/').map(|(end, _)| &text[..end]));
        match entry {
            Entry::Directory => {
                folders.insert(text);
            }
            Entry::Symlink { target } => links.push((text, target)),
            Entry::File {
                size_bytes,
                executable,
                ..
            } => {
                files.insert(place(text), (path, text, *size_bytes, *executable));
            }
        }
    }
    let mut add = |kind: u8, size: u64, parts: &[&str]| {
        index.push(kind);
        index.extend(size.to_le_bytes());
        for part in parts {
            index.extend(part.as_bytes());
            index.push(0);
        }
    };
    for folder in folders {
        add(b'd', 0, &[folder]);
    }
    for (path, target) in links {
        add(b'l', 0, &[path, target]);
    }
    let mut order = Vec::new();
    for (path, text, size, executable) in files.into_values() {
        add(if executable { b'x' } else { b'f' }, size, &[text]);
        order.push((path.clone(), size));
    }
    (index, order)
}

/// Whether a file changes with the app. The interpreter and the packages do not.
fn is_of_app(path: &str) -> bool {
    !path.starts_with("python/") || path.ends_with("/_pytheas.index")
}

/// Where a file stands in the order: part, kind, name, and byte code behind its source.
fn place(path: &str) -> (bool, &str, String, bool) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let part = is_of_app(path);
    if kind != "pyc" {
        return (part, kind, path.to_owned(), false);
    }
    let folder = folder.strip_suffix("__pycache__").unwrap_or(folder);
    let stem = stem.split('.').next().unwrap_or(stem);
    (part, "py", format!("{folder}{stem}.py"), true)
}

/// One frame with its two lengths before it.
fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(vec![0; 8], LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.write_all(bytes)?;
    let mut frame = encoder.finish()?;
    let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let (packed, unpacked) = (length(frame.len() - 8)?, length(bytes.len())?);
    frame[..4].copy_from_slice(&packed.to_le_bytes());
    frame[4..8].copy_from_slice(&unpacked.to_le_bytes());
    Ok(frame)
}

/// A part of a file that lies in a frame.
struct Part<'a> {
    path: &'a RelPath,
    offset: u64,
    len: usize,
}

/// The contents of `files`, joined and cut into frames.
fn pack_contents(
    dir: &Path,
    files: &[(RelPath, u64)],
    cache: Option<&Path>,
) -> Result<Vec<Vec<u8>>, OneFileError> {
    let mut plan: Vec<Vec<Part<'_>>> = Vec::new();
    let mut room = 0;
    let mut was_of_app = false;
    for (path, size) in files {
        let mut offset = 0;
        if is_of_app(path.as_str()) != was_of_app {
            was_of_app = !was_of_app;
            room = 0;
        }
        while offset < *size {
            if room == 0 {
                plan.push(Vec::new());
                room = FRAME_BYTES;
            }
            let len = usize::try_from(size - offset).map_or(room, |left| left.min(room));
            if let Some(frame) = plan.last_mut() {
                frame.push(Part { path, offset, len });
            }
            offset += len as u64;
            room -= len;
        }
    }
    let results = Mutex::new(vec![Vec::new(); plan.len()]);
    let failure = Mutex::new(None);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(parts) = plan.get(number) else {
                break;
            };
            match pack_parts(dir, parts, cache) {
                Ok(frame) => lock(&results)[number] = frame,
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                    next.store(plan.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(plan.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(results.into_inner().unwrap_or_else(|e| e.into_inner())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn pack_parts(
    dir: &Path,
    parts: &[Part<'_>],
    cache: Option<&Path>,
) -> Result<Vec<u8>, OneFileError> {
    use std::os::unix::fs::FileExt;
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len).sum());
    for part in parts {
        let path = part.path.under(dir);
        let failed = io_error("read", &path);
        let file = std::fs::File::open(&path).map_err(&failed)?;
        let start = bytes.len();
        bytes.resize(start + part.len, 0);
        file.read_exact_at(&mut bytes[start..], part.offset)
            .map_err(&failed)?;
    }
    let is_of_app = parts.iter().any(|part| is_of_app(part.path.as_str()));
    match cache.filter(|_| !is_of_app) {
        Some(cache) => pack_once(&bytes, cache),
        None => pack(&bytes),
    }
    .map_err(io_error("pack", dir))
}

/// As [`pack`], but a frame that was packed before is taken from `cache`, if it still unpacks to
/// `bytes`. A cache that cannot be written or is damaged costs time only.
fn pack_once(bytes: &[u8], cache: &Path) -> io::Result<Vec<u8>> {
    let version = zstd::zstd_safe::version_number();
    let file = cache.join(format!("{}-{version}-{LEVEL}", Sha256::of(bytes)));
    if let Ok(frame) = std::fs::read(&file)
        && frame.len() > 8
        && zstd::bulk::decompress(&frame[8..], bytes.len()).is_ok_and(|found| found == bytes)
        && frame[..4] == u32::try_from(frame.len() - 8).unwrap_or(0).to_le_bytes()
        && frame[4..8] == u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes()
    {
        return Ok(frame);
    }
    let frame = pack(bytes)?;
    let kept = pytheas_durable::create_dir_all(cache)
        .and_then(|()| pytheas_durable::replace(&file, &frame));
    if let Err(error) = kept {
        tracing::debug!(path = %file.display(), %error, "the packed frame is not kept");
    }
    Ok(frame)
}

/// Whether the file `path` is one that [`one_file`] has made.
pub(crate) fn is_made_here(path: &Path) -> bool {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let is_large = std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > TRAILER_BYTES as u64);
    if !is_large {
        return false;
    }
    let mut begin = [0; MAGIC.len()];
    std::fs::File::open(path).is_ok_and(|mut file| {
        file.seek(SeekFrom::End(-(TRAILER_BYTES as i64))).is_ok()
            && file.read_exact(&mut begin).is_ok()
            && begin == MAGIC
    })
}

/// The last 256 bytes.
fn trailer(frames_at: usize, size_bytes: u64, frames: usize, id: &TreeId, entry: &str) -> Vec<u8> {
    let mut trailer = MAGIC.to_vec();
    for number in [1, frames_at as u64, size_bytes, frames as u64] {
        trailer.extend(number.to_le_bytes());
    }
    trailer.extend(id.to_string().as_bytes());
    trailer.extend(entry.as_bytes());
    trailer.resize(TRAILER_BYTES - 8, 0);
    let sum = decoder::xxh64(&trailer);
    trailer.extend(sum.to_le_bytes());
    trailer
}

/// The launcher's own decoder: for its checksum, and to be tested here.
#[expect(unreachable_pub, reason = "the launcher is a crate of its own")]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "decoding is the launcher's part")
)]
#[path = "../../../launcher/src/zstd.rs"]
mod decoder;

#[cfg(test)]
mod tests;
