//! `agent.toml`: how this device may use its network, and when it may change.
//!
//! The file lies in the state directory, or where `--config` says. Every key has a default; a key
//! that is not known is refused, for a misspelt window would be no window. Flags and environment
//! variables ([`NetworkArgs`]) come before the file.
//!
//! ```toml
//! time-zone = "Europe/Berlin"      # of the windows: a name, or an offset as "+02:00"; else UTC
//!
//! [poll]
//! interval = "5m"                  # else what the hub says
//! jitter = "10%"                   # how far polls are spread around it
//!
//! [download]
//! limit = "200 kB/s"
//! windows = ["mon-fri 01:00-05:00", "sat,sun 00:00-24:00"]
//!
//! [install]
//! windows = ["daily 02:00-04:00"]
//! consent = true                   # each update waits for `pytheas-agent release`
//!
//! [config]
//! apply = "reload"                 # settings from the hub by SIGHUP, instead of a restart
//!
//! [proxy]
//! url = "http://user:password@proxy.example:3128"      # or "none"
//! no-proxy = ["localhost", "*.lan"]
//!
//! [tls]
//! ca = "hub-ca.pem"                # only these authorities; paths are relative to this file
//! pins = ["<SHA-256 of the hub's public key, 64 hex digits>"]
//! certificate = "device.pem"       # shown to a hub that asks for one
//! key = "device-key.pem"           # or "pkcs11:token=…;object=…?pin-source=file:…"
//! key-command = "…"                # instead: a program that signs with it
//!
//! [peers]                          # devices on the same network
//! share = true                     # give them what is installed here; off
//! listen = "0.0.0.0:8479"
//! limit = "2 MB/s"                 # of what is given
//! list = ["http://192.168.1.7:8479"]   # whom to ask before the hub
//! discover = true                  # ask the network who there is; off
//!
//! [timeouts]
//! connect = "10s"
//! answer = "30s"                   # until an answer begins
//! silence = "30s"                  # between two pieces of a download
//!
//! [[board]]                        # one for each board on this device's ports
//! name = "node-left"
//! port = "/dev/serial/by-id/usb-…" # or "tcp://host:port", "rfc2217://host:port"
//! app = "sensor-node"              # releases of this name go to the board
//! baud = 115200
//! wait = "10m"                     # for a board that does not answer, until the update fails
//! telemetry = "6h"                 # else only at updates: each time its app starts anew
//! ```

mod client_key;
mod file;
mod last_good;
mod rate;
mod window;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use miette::Diagnostic;
use pytheas_board::link::Address;
use pytheas_release::{Name, Sha256};

pub use self::{
    client_key::{ClientKey, TokenKey},
    rate::Rate,
    window::{Schedule, Window},
};
use crate::{paths::StateDir, peers::PeerSettings};

/// What `agent.toml`, the environment and the flags say.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// Poll this often, whatever the hub says.
    pub poll_interval: Option<Duration>,
    /// How far polls are spread around the interval, in hundredths of it.
    pub jitter_percent: u8,
    /// When and how fast releases are downloaded.
    pub download: Download,
    /// When releases are switched to.
    pub install: Install,
    /// Connections.
    pub network: Network,
    /// Devices on the same network.
    pub peers: PeerSettings,
    /// How apps come to the hub's settings.
    pub config: ApplyConfig,
    /// The boards on this device's ports, in the order in which they are updated.
    pub boards: Vec<BoardSettings>,
}

/// How apps come to settings that the hub has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApplyConfig {
    /// They are started anew.
    #[default]
    Restart,
    /// They get SIGHUP, and read the file again that `PYTHEAS_CONFIG` names.
    Reload,
}

/// A MicroPython board on one of this device's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardSettings {
    /// What it is called.
    pub name: Name,
    /// Where it is.
    pub port: Address,
    /// The app that it runs.
    pub app: Name,
    /// Rate of the line.
    pub baud: u32,
    /// How long an update waits for it before it fails.
    pub wait: Duration,
    /// How often it is asked how it is, which starts its app anew each time.
    pub telemetry: Option<Duration>,
}

impl Default for AgentSettings {
    /// As the hub says, spread by a tenth; no limit, no window, no consent.
    fn default() -> Self {
        Self {
            poll_interval: None,
            jitter_percent: 10,
            download: Download::default(),
            install: Install::default(),
            network: Network::default(),
            peers: PeerSettings::default(),
            config: ApplyConfig::default(),
            boards: Vec::new(),
        }
    }
}

/// When releases are downloaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Download {
    /// Only then.
    pub windows: Schedule,
}

/// When releases are switched to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Install {
    /// Only then.
    pub windows: Schedule,
    /// Whether somebody has to agree to each update.
    pub consent: bool,
}

/// How the hub is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// How much may be downloaded in a second.
    pub limit: Option<Rate>,
    /// Over which proxy.
    pub proxy: ProxyChoice,
    /// Whom TLS trusts, and as whom the device shows itself.
    pub tls: Tls,
    /// Longest time to make a connection.
    pub connect: Duration,
    /// Longest time until an answer begins.
    pub answer: Duration,
    /// Longest silence within a download.
    pub silence: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            limit: None,
            proxy: ProxyChoice::default(),
            tls: Tls::default(),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            // A download may take hours on a thin line; only silence is a failure.
            silence: Duration::from_secs(30),
        }
    }
}

/// Over which proxy the hub is reached.
#[derive(Clone, Default, PartialEq)]
pub enum ProxyChoice {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say; none for a hub on this machine.
    #[default]
    Environment,
    /// None, whatever the environment says.
    None,
    /// This one, with CONNECT.
    Url {
        /// `http://` or `https://`, perhaps with a name and password.
        url: String,
        /// Hosts that are reached directly.
        no_proxy: Vec<String>,
    },
}

/// Without the password: it ends up in logs.
impl fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::None => f.write_str("None"),
            Self::Url { url, .. } => write!(f, "Url({})", without_password(url)),
        }
    }
}

/// The proxy's address as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    // A password may hold an `@`; the host begins after the last one.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => format!("{scheme}://{rest}"),
    }
}

/// Whom TLS trusts, and as whom the device shows itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// File with the only authorities to trust, instead of the web's.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the public keys (`SubjectPublicKeyInfo`) the hub may have; any when empty.
    pub pins: Vec<Sha256>,
    /// File with the device's certificate and those above it.
    pub certificate: Option<PathBuf>,
    /// Its private key; in the certificate's file when absent.
    pub key: Option<ClientKey>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings `{}`", path.display())]
    #[diagnostic(help("does it belong to the user that runs the agent?"))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{place}: {message}")]
    #[diagnostic(help("the file is TOML: `key = \"value\"` lines below `[table]` lines"))]
    Syntax {
        /// `FILE:LINE:COLUMN`.
        place: String,
        /// What the parser says.
        message: String,
    },
    /// A key that is not known.
    #[error("{place}: there is no setting `{key}`")]
    #[diagnostic(help("{help}"))]
    UnknownKey {
        /// `FILE:LINE:COLUMN`.
        place: String,
        /// The key with its table.
        key: String,
        /// What may have been meant.
        help: String,
    },
    /// A value that does not fit.
    #[error("{place}: `{key}`: {problem}")]
    #[diagnostic(help("docs/guides/updates-network.md has an example of each setting"))]
    Value {
        /// `FILE:LINE:COLUMN`, or where else it came from.
        place: String,
        /// The key with its table.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// Flags about the network; each also as an environment variable.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkArgs {
    /// Settings file [default: agent.toml in the state directory, when it is there]
    #[arg(long, value_name = "FILE", env = "PYTHEAS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Download no more than this, e.g. `200 kB/s`
    #[arg(long, value_name = "RATE", env = "PYTHEAS_DOWNLOAD_LIMIT")]
    pub limit: Option<Rate>,
    /// Reach the hub over this proxy, e.g. `http://proxy.example:3128`; `none` for no proxy
    #[arg(
        long,
        value_name = "URL",
        env = "PYTHEAS_PROXY",
        hide_env_values = true,
        value_parser = parse_proxy
    )]
    pub proxy: Option<String>,
    /// SHA-256 of a public key the hub may have; may be given more than once
    #[arg(
        long = "pin",
        value_name = "HEX",
        env = "PYTHEAS_HUB_PINS",
        value_delimiter = ','
    )]
    pub pins: Vec<Sha256>,
    /// PEM file with this device's own certificate, for a hub that asks for one
    #[arg(long, value_name = "FILE", env = "PYTHEAS_CLIENT_CERTIFICATE")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key, or `pkcs11:…` (RFC 7512) [default: the certificate's file]
    #[arg(long, value_name = "KEY", env = "PYTHEAS_CLIENT_KEY")]
    pub client_key: Option<ClientKey>,
}

impl AgentSettings {
    /// What flags, environment and file say together, for the device in `dir`.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn resolve(dir: &StateDir, args: &NetworkArgs) -> Result<Self, SettingsError> {
        let (settings, _) = Self::read(&Self::path(dir, args), args)?;
        Ok(settings.overridden(args))
    }

    fn path(dir: &StateDir, args: &NetworkArgs) -> PathBuf {
        args.config.clone().unwrap_or_else(|| dir.settings())
    }

    /// What the file says, and its text; without a file what is usual.
    fn read(path: &Path, args: &NetworkArgs) -> Result<(Self, Option<String>), SettingsError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok((Self::parse(path, &text)?, Some(text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && args.config.is_none() => {
                Ok((Self::default(), None))
            }
            Err(source) => {
                let path = path.to_owned();
                Err(SettingsError::Read { path, source })
            }
        }
    }

    /// What flags and environment say comes before the file.
    fn overridden(self, args: &NetworkArgs) -> Self {
        let mut settings = self;
        let network = &mut settings.network;
        network.limit = args.limit.or(network.limit);
        if let Some(url) = &args.proxy {
            let no_proxy = match std::mem::take(&mut network.proxy) {
                ProxyChoice::Url { no_proxy, .. } => no_proxy,
                _ => Vec::new(),
            };
            network.proxy = proxy_choice(url, no_proxy);
        }
        if !args.pins.is_empty() {
            network.tls.pins.clone_from(&args.pins);
        }
        if args.client_certificate.is_some() {
            network.tls.certificate.clone_from(&args.client_certificate);
            network.tls.key.clone_from(&args.client_key);
        } else if args.client_key.is_some() {
            network.tls.key.clone_from(&args.client_key);
        }
        settings
    }

    /// What the file `path` with this text says.
    ///
    /// # Errors
    /// [`SettingsError`], naming line and column.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        file::parse(path, text, file::NotUnderstood::Refused)
    }

    /// What can be understood of it: another version of the agent may know more settings.
    fn parse_known(path: &Path, text: &str) -> Self {
        file::parse(path, text, file::NotUnderstood::LeftOut).unwrap_or_default()
    }
}

fn proxy_choice(url: &str, no_proxy: Vec<String>) -> ProxyChoice {
    match url {
        "none" => ProxyChoice::None,
        url => ProxyChoice::Url {
            url: url.to_owned(),
            no_proxy,
        },
    }
}

/// An address a proxy can have, or `none`.
fn parse_proxy(text: &str) -> Result<String, String> {
    let known = text == "none"
        || ((text.starts_with("http://") || text.starts_with("https://"))
            && ureq::Proxy::new(text).is_ok());
    match known {
        true => Ok(text.to_owned()),
        // Without the text: there may be a password in it.
        false => Err("an address that begins with `http://` or `https://` is wanted, or `none`; `@`, `:` and `/` in a password are written `%40`, `%3A`, `%2F`".into()),
    }
}

#[cfg(test)]
mod tests;
