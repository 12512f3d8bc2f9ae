//! Devices on the same network share what they have, so that it crosses the line to the hub once.
//!
//! A device that shares answers for the trees that are installed on it, and for the contents of
//! their files, by their SHA-256 and by nothing else: there is no list, and nothing is taken in.
//! ```text
//! GET /pytheas/v1/<64 hex digits>     200 and the bytes, or 404
//! ```
//! A device that updates asks those that have the whole new tree for what it lacks, before it asks
//! the hub. What was signed says which hashes those are, and nothing counts before its hash is right;
//! a peer that lies, drips or falls silent is left alone for the rest of the update, and the hub gives
//! what is still missing. Peers come from a list, and, with `discover`, from a question to everybody
//! on the network ([`find`]).

mod ask;
mod find;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};

pub(crate) use ask::Peers;
pub(crate) use serve::share;

use crate::settings::Rate;

/// The port on which devices share, over TCP and UDP; no one else is known to use it.
pub(crate) const PORT: u16 = 8479;
/// What comes before the hash in an address.
const PREFIX: &str = "/pytheas/v1/";

/// What `[peers]` in `agent.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// Whether this device gives others what it has.
    pub share: bool,
    /// Where it does.
    pub listen: SocketAddr,
    /// How much it gives in a second.
    pub limit: Option<Rate>,
    /// Whom it asks: `http://192.168.1.7:8479`.
    pub list: Vec<String>,
    /// Whether it asks the network who there is, and answers when others ask.
    pub discover: bool,
}

impl Default for PeerSettings {
    /// Nothing is shared, and nobody asked.
    fn default() -> Self {
        Self {
            share: false,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            limit: None,
            list: Vec::new(),
            discover: false,
        }
    }
}
