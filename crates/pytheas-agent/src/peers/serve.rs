//! Gives others what is installed here.
//!
//! Few at a time, each with little time to ask; each content is hashed before the first byte of it
//! goes out, so that rot on this disk is nobody else's trouble.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pytheas_durable::trees;
use pytheas_release::{Entry, RelPath, Sha256, Tree, TreeId};
use tracing::{debug, info, warn};

use super::{PREFIX, PeerSettings, find};
use crate::{http::Limiter, paths::StateDir};

/// Others that are served at once.
const AT_ONCE: usize = 4;
/// How long they may take to ask, and to take a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const HEAD_MAX: u64 = 4 << 10;
/// Requests on one connection.
const REQUESTS_MAX: usize = 100_000;
/// How long it is remembered where contents lie: an update asks for many, then nobody for weeks.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Where the contents of one tree lie.
struct Found {
    slot: PathBuf,
    files: HashMap<Sha256, RelPath>,
}

struct Shared {
    dir: StateDir,
    limiter: Option<Limiter>,
    busy: AtomicUsize,
    /// What was looked up last, and when.
    known: Mutex<Option<(Instant, Vec<Found>)>>,
}

/// Shares what is installed in `dir` from now on.
///
/// # Errors
/// The address cannot be used.
pub(crate) fn share(dir: &StateDir, settings: &PeerSettings) -> io::Result<()> {
    let listener = TcpListener::bind(settings.listen)?;
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared {
        dir: dir.clone(),
        limiter: settings.limit.map(Limiter::new),
        busy: AtomicUsize::new(0),
        known: Mutex::default(),
    });
    if settings.discover {
        let for_finders = Arc::clone(&shared);
        let is_here = move |tree| for_finders.trees().iter().any(|(_, id)| *id == tree);
        if let Err(error) = find::answer(address.port(), is_here) {
            warn!(
                "peers cannot find this device: {error}; those with it in their `peers.list` can"
            );
        }
    }
    info!("what is installed here is shared with the network on {address}");
    thread("share", move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let shared = Arc::clone(&shared);
            if shared.busy.fetch_add(1, Ordering::AcqRel) >= AT_ONCE {
                shared.busy.fetch_sub(1, Ordering::AcqRel);
                let _gone = (&stream).write_all(
                    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
                continue;
            }
            let one = Arc::clone(&shared);
            let begun = thread("share-one", move || {
                let shared = one;
                if let Err(error) = shared.serve(&stream) {
                    debug!("a peer went away: {error}");
                }
                shared
                    .known()
                    .take_if(|(since, _)| since.elapsed() > REMEMBERED);
                shared.busy.fetch_sub(1, Ordering::AcqRel);
            });
            if let Err(error) = begun {
                shared.busy.fetch_sub(1, Ordering::AcqRel);
                warn!("cannot serve a peer: {error}");
            }
        }
    })
}

pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.stack_size(256 << 10).spawn(work).map(drop)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(1 << 10, stream);
        for _ in 0..REQUESTS_MAX {
            let mut head = (&mut reader).take(HEAD_MAX);
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut rest = String::new();
            while head.read_line(&mut rest)? > 2 {
                rest.clear();
            }
            let mut words = line.split_ascii_whitespace();
            let hash = match (words.next(), words.next()) {
                (Some("GET"), Some(path)) => path.strip_prefix(PREFIX),
                _ => None,
            };
            let Some(hash) = hash.and_then(|hash| hash.parse::<Sha256>().ok()) else {
                return answer(stream, "400 Bad Request\r\nConnection: close", 0);
            };
            match self.open(hash) {
                Some((mut file, len)) => {
                    answer(
                        stream,
                        "200 OK\r\nContent-Type: application/octet-stream",
                        len,
                    )?;
                    self.send(&mut file, len, stream)?;
                }
                None => answer(stream, "404 Not Found", 0)?,
            }
        }
        Ok(())
    }

    fn send(&self, file: &mut File, len: u64, mut stream: &TcpStream) -> io::Result<()> {
        let piece = self.limiter.as_ref().map_or(32 << 10, Limiter::piece);
        let mut buffer = vec![0; piece.min(32 << 10)];
        let mut left = len;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = file.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(limiter) = &self.limiter {
                std::thread::sleep(limiter.spend(read, Instant::now()));
            }
            stream.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Vec<Found>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trees that are installed: those in slots, which were verified before they came there.
    fn trees(&self) -> Vec<(StateDir, TreeId)> {
        let components = self.dir.components();
        let dirs = components.iter().map(|name| self.dir.component(name));
        let mut trees = Vec::new();
        for dir in std::iter::once(self.dir.clone()).chain(dirs) {
            let Ok(entries) = fs::read_dir(dir.slots()) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| name.strip_suffix(".tree"));
                if let Some(id) = id.and_then(|id| id.parse().ok())
                    && dir.slot(id).is_dir()
                {
                    trees.push((dir.clone(), id));
                }
            }
        }
        trees
    }

    /// The content with this hash, at its beginning, and its length; read through once before.
    fn open(&self, hash: Sha256) -> Option<(File, u64)> {
        self.place(hash).into_iter().find_map(|path| {
            let (size, found) = trees::hash_file(&path).ok()?;
            let file = File::open(&path).ok().filter(|_| found == hash)?;
            Some((file, size))
        })
    }

    /// Where it may lie.
    fn place(&self, hash: Sha256) -> Vec<PathBuf> {
        let mut known = self.known();
        let is_fresh = |(since, _): &(Instant, Vec<Found>)| since.elapsed() <= REMEMBERED;
        if !known.as_ref().is_some_and(is_fresh) {
            *known = Some((Instant::now(), self.look()));
        }
        let trees = self.trees();
        let documents = trees.iter().filter(|(_, id)| id.0 == hash);
        let mut places: Vec<PathBuf> = documents.map(|(dir, id)| dir.slot_document(*id)).collect();
        if let Some((_, found)) = &*known {
            let files = found.iter().filter_map(|tree| {
                let path = tree.files.get(&hash)?;
                Some(path.under(&tree.slot))
            });
            places.extend(files);
        }
        places
    }

    fn look(&self) -> Vec<Found> {
        let read = |(dir, id): (StateDir, TreeId)| {
            let tree = Tree::parse(&fs::read(dir.slot_document(id)).ok()?).ok()?;
            let files = tree.iter().filter_map(|(path, entry)| match entry {
                Entry::File { sha256, .. } => Some((*sha256, path.clone())),
                _ => None,
            });
            Some(Found {
                slot: dir.slot(id),
                files: files.collect(),
            })
        };
        self.trees().into_iter().filter_map(read).collect()
    }
}

fn answer(mut stream: &TcpStream, status: &str, len: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes())
}
