//! Gives others what is installed here.
//!
//! Few at a time, and no one of them holds all places: a request has to come, and an answer to be
//! taken, in little time. Each content is hashed before the first byte of it goes out, so that rot on
//! this disk is nobody else's trouble.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _, Write},
    net::{IpAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pytheas_release::{Entry, Hasher, RelPath, Sha256, Tree, TreeId};
use tracing::{debug, info, warn};

use super::{PREFIX, PeerSettings, find};
use crate::{http::Limiter, paths::StateDir};

/// Others that are served at once.
const AT_ONCE: usize = 4;
/// So many of them from one address: one place is always somebody else's.
const OF_ONE: usize = 3;
/// How long they may take to ask, from the first moment to the last byte, and beyond what an answer
/// takes at [`SLOWEST_RATE`].
const PATIENCE: Duration = Duration::from_secs(10);
/// Who takes fewer bytes in a second is let go.
const SLOWEST_RATE: u64 = 8 << 10;
/// Longest head of a request, in bytes.
const HEAD_MAX: u64 = 4 << 10;
/// After so long somebody else may have the place, as soon as an answer is whole.
const LONGEST: Duration = Duration::from_secs(20 * 60);
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
    /// Whom it serves just now.
    busy: Mutex<Vec<IpAddr>>,
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
        busy: Mutex::default(),
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
            let Some(place) = Place::take(&shared, &stream) else {
                let _gone = (&stream).write_all(
                    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
                continue;
            };
            let begun = thread("share-one", move || {
                if let Err(error) = place.shared.serve(&stream) {
                    debug!("a peer went away: {error}");
                }
                place
                    .shared
                    .known()
                    .take_if(|(since, _)| since.elapsed() > REMEMBERED);
            });
            if let Err(error) = begun {
                warn!("cannot serve a peer: {error}");
            }
        }
    })
}

pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.stack_size(256 << 10).spawn(work).map(drop)
}

/// One of those that are served; its end gives the place back.
struct Place {
    shared: Arc<Shared>,
    whose: IpAddr,
}

impl Place {
    /// One for the other end of `stream`, if one is free.
    fn take(shared: &Arc<Shared>, stream: &TcpStream) -> Option<Self> {
        let whose = stream.peer_addr().ok()?.ip();
        let mut busy = shared.busy();
        let same = busy.iter().filter(|other| **other == whose).count();
        if busy.len() >= AT_ONCE || same >= OF_ONE {
            return None;
        }
        busy.push(whose);
        Some(Self {
            shared: Arc::clone(shared),
            whose,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = self.shared.busy();
        if let Some(at) = busy.iter().position(|other| *other == self.whose) {
            busy.swap_remove(at);
        }
    }
}

/// The other end, until a moment: however little comes or goes at a time, it ends then.
struct Until<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Until<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(Some(left)),
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Shared {
    fn busy(&self) -> std::sync::MutexGuard<'_, Vec<IpAddr>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let begun = Instant::now();
        let until = |patience| Until {
            stream,
            end: Instant::now() + patience,
        };
        let mut reader = BufReader::with_capacity(1 << 10, until(PATIENCE));
        loop {
            reader.get_mut().end = Instant::now() + PATIENCE;
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
                return answer(&mut until(PATIENCE), "400 Bad Request", 0, true);
            };
            let found = self.open(hash);
            let mut to = until(PATIENCE);
            let last = begun.elapsed() >= LONGEST;
            match found {
                Some((mut file, len)) => {
                    answer(&mut to, "200 OK", len, last)?;
                    self.send(&mut file, len, &mut to)?;
                }
                None => answer(&mut to, "404 Not Found", 0, last)?,
            }
            if last {
                return Ok(());
            }
        }
    }

    fn send(&self, file: &mut File, len: u64, to: &mut Until<'_>) -> io::Result<()> {
        let piece = self.limiter.as_ref().map_or(32 << 10, Limiter::piece);
        let mut buffer = vec![0; piece.min(32 << 10)];
        to.end += Duration::from_secs(len / SLOWEST_RATE);
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
                let pause = limiter.spend(read, Instant::now());
                std::thread::sleep(pause);
                to.end += pause; // not the other end's
            }
            to.write_all(&buffer[..read])?;
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
        let places = self.place(hash);
        places.into_iter().find_map(|path| whole(&path, hash).ok())
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

/// The file at `path` when it holds this content, at its beginning, and its length. What was read is
/// what is given: nothing else that may come to lie there meanwhile.
fn whole(path: &Path, hash: Sha256) -> io::Result<(File, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let len = io::copy(&mut file, &mut Hashing(&mut hasher))?;
    if hasher.finish() != hash {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.rewind()?;
    Ok((file, len))
}

struct Hashing<'a>(&'a mut Hasher);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer(to: &mut Until<'_>, status: &str, len: u64, last: bool) -> io::Result<()> {
    let close = if last { "Connection: close\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{close}\r\n");
    to.write_all(head.as_bytes())
}

#[cfg(test)]
mod tests;
