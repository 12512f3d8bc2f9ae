//! What every route and job shares.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use object_store::ObjectStore;

use crate::{
    Config,
    bus::Bus,
    delta_orders::DeltaOrders,
    engine::Engine,
    limits::Limit,
    presence::Presence,
    releases::Releases,
    secret::{self, Hash},
    store::Store,
    traffic::Traffic,
};

/// The state of the running hub.
pub(crate) type App = Arc<Shared>;

/// See [`App`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Option<Hash>,
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<dyn ObjectStore>,
    pub(crate) releases: Releases,
    pub(crate) bus: Arc<Bus>,
    pub(crate) engine: Engine,
    pub(crate) presence: Presence,
    pub(crate) traffic: Traffic,
    /// New devices and wrong claims or keys.
    pub(crate) enrolments: Limit,
    /// Wrong tokens at the login page.
    pub(crate) logins: Limit,
    /// Wrong gateway tokens.
    pub(crate) gateways: Limit,
    /// One writer of repository metadata at a time.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    /// Deltas that devices have asked for.
    pub(crate) delta_orders: DeltaOrders,
    /// Set when the hub stops, so that endless answers end.
    pub(crate) stopping: tokio::sync::watch::Receiver<bool>,
}

impl Shared {
    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.config.clock.now_ms()
    }

    /// The configured gateway token's hash.
    pub(crate) fn gateway_hash(config: &Config) -> Option<Hash> {
        config
            .gateway_token
            .as_deref()
            .filter(|token| !token.is_empty())
            .map(secret::hash)
    }

    /// Whether this peer's forwarding headers are believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.config.trusted_proxies.contains(&peer.to_canonical())
    }
}

/// Waits until the hub stops.
pub(crate) async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    let _gone_is_stopped = stopping.wait_for(|stopping| *stopping).await;
}
