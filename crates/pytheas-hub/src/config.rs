//! What a hub is started with.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use pytheas_repo::on_demand::Keep;
use url::Url;

use crate::{Clock, TlsFiles};

/// What a hub is started with; everything has a default but the data directory.
#[derive(Debug, Clone)]
pub struct Config {
    /// Database, artifacts, and the repository unless it lies elsewhere. Made when missing.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With these files the hub speaks TLS, and nothing else.
    pub tls: Option<TlsFiles>,
    /// The repository: a folder or an `object_store` URL (`s3://…`); `<data_dir>/repo` when absent.
    pub repo: Option<String>,
    /// The trusted root metadata; the repository's own first root when absent.
    pub root: Option<PathBuf>,
    /// Folder with the online keys (`snapshot.pem`, `timestamp.pem`); with them the hub signs
    /// fresh timestamps before the old ones expire.
    pub online_keys: Option<PathBuf>,
    /// How the hub is reached from outside, when a proxy hides it; links are made from it.
    pub external_url: Option<Url>,
    /// How often devices are told to poll: 1 s to 23:59:59.
    pub poll_interval: Duration,
    /// Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether a trusted proxy's `X-Controller-Id` names the device whose certificate it has
    /// verified: such a device needs no token and is accepted at once.
    pub client_certificates: bool,
    /// One secret that may act as any device (DDI `GatewayToken`); off when absent.
    pub gateway_token: Option<String>,
    /// Longest uploaded file, in bytes.
    pub upload_limit_bytes: u64,
    /// Which deltas that the hub makes for devices are kept; none are made when absent.
    pub made_deltas: Option<Keep>,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Config {
    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8470)),
            tls: None,
            repo: None,
            root: None,
            online_keys: None,
            external_url: None,
            poll_interval: Duration::from_secs(300),
            trusted_proxies: Vec::new(),
            client_certificates: false,
            gateway_token: None,
            upload_limit_bytes: 1 << 30,
            made_deltas: Some(Keep::default()),
            clock: Clock::System,
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data_dir.join("hub.db")
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.data_dir.join("artifacts")
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.data_dir.join("incoming")
    }

    /// How long after its last word a device still counts as online: three poll intervals, and at
    /// least 15 s, so that a fast interval does not make it flicker.
    pub(crate) fn online_ms(&self) -> i64 {
        i64::try_from(self.poll_interval.as_millis() * 3)
            .unwrap_or(i64::MAX)
            .max(15_000)
    }

    pub(crate) fn repo_folder(&self) -> Option<PathBuf> {
        match &self.repo {
            None => Some(self.data_dir.join("repo")),
            Some(text) if !text.contains("://") => Some(Path::new(text).to_owned()),
            Some(text) => Url::parse(text).ok().and_then(|url| {
                (url.scheme() == "file")
                    .then(|| url.to_file_path().ok())
                    .flatten()
            }),
        }
    }
}
