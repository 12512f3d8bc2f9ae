//! Gets contents from peers, as far as they have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    time::{Duration, Instant},
};

use pytheas_release::{Hasher, Sha256, Tree, TreeId, delta::ObjectSink};
use tracing::{info, warn};

use super::{PREFIX, PeerSettings, find};
use crate::{
    http::{CaError, Http, HttpError},
    settings::{Network, ProxyChoice},
};

/// What a peer on the same network takes at most until it answers, and falls silent.
const PATIENCE: Duration = Duration::from_secs(3);
/// It reads a content through before it answers, from a disk that gives so much in a second at least.
const SLOWEST_DISK: u64 = 8 << 20;
/// How much must come within [`WINDOW`]; who is slower than this is no help.
const SLOWEST_BYTES: u64 = 64 << 10;
const WINDOW: Duration = Duration::from_secs(5);
/// All peers together, for one tree: what is still missing then comes from the hub.
const ALL_IN_ALL: Duration = Duration::from_secs(20 * 60);
/// Longest tree document, some 100,000 files: it is held in memory before anything is known of it.
const TREE_MAX: u64 = 16 << 20;

/// The peers of this device.
pub(crate) struct Peers {
    list: Vec<String>,
    discover: bool,
    goes_on: Box<dyn Fn() -> bool>,
    /// Connections to those that were asked.
    known: BTreeMap<String, Http>,
    /// Those that were of no use in this update: by address.
    dropped: BTreeSet<String>,
}

/// Why a peer is asked no more.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("lies: what it gives as {wanted} is another content")]
    Lies { wanted: Sha256 },
    #[error("is too slow")]
    Slow,
    #[error("broke off")]
    Broken(#[source] io::Error),
    #[error("does not answer as it should")]
    Http(#[from] HttpError),
    #[error("cannot be asked")]
    Setup(#[from] CaError),
    /// Not the peer's fault: nothing more is asked of anybody.
    #[error("this device stops, or cannot store what comes")]
    Ours,
}

impl Peers {
    /// Those that `settings` name; they are asked as long as the download `goes_on`.
    pub(crate) fn new(settings: &PeerSettings, goes_on: impl Fn() -> bool + 'static) -> Self {
        Self {
            list: settings.list.clone(),
            discover: settings.discover,
            goes_on: Box::new(goes_on),
            known: BTreeMap::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// Nobody.
    pub(crate) fn none() -> Self {
        Self::new(&PeerSettings::default(), || false)
    }

    /// The document of tree `id`, from who has it, and who that is.
    pub(crate) fn tree(&mut self, id: TreeId) -> Option<(Tree, Vec<String>)> {
        if self.list.is_empty() && !self.discover {
            return None;
        }
        let mut asked = self.list.clone();
        if self.discover {
            match find::who_has(id) {
                Ok(found) => asked.extend(found),
                Err(error) => warn!("cannot ask the network for peers: {error}"),
            }
        }
        let mut tree = None;
        let mut have = Vec::new();
        let deadline = Instant::now() + ALL_IN_ALL;
        for peer in asked {
            if have.contains(&peer) || self.dropped.contains(&peer) {
                continue;
            }
            let mut bytes = Vec::new();
            let mut keep = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            match self.get(&peer, id.0, TREE_MAX, deadline, &mut keep) {
                Ok(true) => {
                    tree = tree.or_else(|| Tree::parse(&bytes).ok());
                    have.push(peer);
                }
                Ok(false) => {}
                Err(why) => self.drop(&peer, &why),
            }
        }
        Some((tree?, have))
    }

    /// Gets what they can of `missing` from the peers `have`, who have the whole tree.
    pub(crate) fn objects(
        &mut self,
        have: &[String],
        missing: &BTreeMap<Sha256, u64>,
        sink: &mut dyn ObjectSink,
    ) {
        let begun = Instant::now();
        let deadline = begun + ALL_IN_ALL;
        let (mut objects, mut bytes) = (0_usize, 0);
        for (object, size) in missing {
            for peer in have {
                if self.dropped.contains(peer) {
                    continue;
                }
                if sink.begin(*object, *size).is_err() {
                    return;
                }
                let mut put = |piece: &[u8]| sink.write(piece);
                match self.get(peer, *object, *size, deadline, &mut put) {
                    Ok(true) if sink.finish().is_ok() => {
                        (objects, bytes) = (objects + 1, bytes + size);
                        break;
                    }
                    Ok(false) => {}
                    Ok(true) | Err(Useless::Ours) => return,
                    Err(why) => self.drop(peer, &why),
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if objects > 0 {
            info!(
                objects,
                size_bytes = bytes,
                "{objects} of {} contents came from peers",
                missing.len()
            );
        }
    }

    fn http(&mut self, peer: &str) -> Result<Http, Useless> {
        if let Some(http) = self.known.get(peer) {
            return Ok(http.clone());
        }
        let network = Network {
            proxy: ProxyChoice::None,
            connect: PATIENCE,
            answer: PATIENCE,
            silence: PATIENCE,
            ..Network::default()
        };
        let http = Http::new(peer, &network)?;
        self.known.insert(peer.to_owned(), http.clone());
        Ok(http)
    }

    fn drop(&mut self, peer: &str, why: &Useless) {
        warn!(
            peer,
            "the peer `{peer}` {}; it is asked no more in this update",
            crate::http::chain(why)
        );
        self.dropped.insert(peer.to_owned());
    }

    /// The content with this hash, told to `put` as it comes; whether the peer has it. What came is
    /// not to be used unless the answer is yes.
    fn get(
        &mut self,
        peer: &str,
        wanted: Sha256,
        max_bytes: u64,
        deadline: Instant,
        put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, Useless> {
        let path = format!("{PREFIX}{wanted}");
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = PATIENCE + Duration::from_secs(max_bytes / SLOWEST_DISK);
        let http = self.http(peer)?;
        let Some(mut reader) = http.peer_content(&path, patience.min(left))? else {
            return Ok(false);
        };
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let (mut window, mut in_window, mut total) = (Instant::now(), 0, 0);
        loop {
            let read = reader.read(&mut buffer).map_err(Useless::Broken)?;
            if read == 0 {
                break;
            }
            total += read as u64;
            if total > max_bytes {
                return Err(Useless::Lies { wanted });
            }
            in_window += read as u64;
            if window.elapsed() >= WINDOW {
                if in_window < SLOWEST_BYTES {
                    return Err(Useless::Slow);
                }
                (window, in_window) = (Instant::now(), 0);
            }
            if Instant::now() >= deadline || !(self.goes_on)() {
                return Err(Useless::Ours);
            }
            let piece = &buffer[..read];
            hasher.update(piece);
            put(piece).map_err(|_| Useless::Ours)?;
        }
        match hasher.finish() == wanted {
            true => Ok(true),
            false => Err(Useless::Lies { wanted }),
        }
    }
}
