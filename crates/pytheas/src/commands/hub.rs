//! `pytheas hub`: the server for devices and people.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use miette::{Context as _, IntoDiagnostic};
use pytheas_hub::{Config, Hub, TlsFiles};
use pytheas_repo::on_demand::Keep;
use serde::Serialize;
use url::Url;

use crate::{
    commands::keys::default_dir,
    context::Context,
    output::{Paint, Show},
};

/// Run the hub: devices poll it, people and the dashboard ask it
///
/// Keeps its database, artifacts and the repository below `--data`. Prints the
/// first admin token once, when it first starts. Ends on ctrl-C or SIGTERM,
/// finishing what is under way.
#[derive(Debug, clap::Args)]
pub(crate) struct HubRunArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        env = "PYTHEAS_LISTEN",
        default_value = "127.0.0.1:8470",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// Speak TLS with this certificate and, behind it, its issuers (PEM); read again when it changes
    #[arg(
        long,
        env = "PYTHEAS_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM, no passphrase)
    #[arg(
        long,
        env = "PYTHEAS_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Devices may show certificates of these authorities (PEM): the common name is the device's
    /// id, it needs no token and is accepted at once
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Folder of the database and files [default: ~/.local/share/pytheas/hub]
    #[arg(long, env = "PYTHEAS_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The repository to serve, a folder or an object store's URL [default: DATA/repo]
    #[arg(long, env = "PYTHEAS_REPO", value_name = "DIR|URL")]
    repo: Option<String>,
    /// The trusted root metadata [default: ~/.config/pytheas/keys/root.json, where it exists]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Folder of the keys the hub renews signatures with [default: ~/.config/pytheas/keys/online, where it exists]
    #[arg(long, value_name = "DIR")]
    online_keys: Option<PathBuf>,
    /// How the hub is reached from outside, when a proxy stands before it
    #[arg(long, value_name = "URL")]
    external_url: Option<Url>,
    /// How often devices poll
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    poll_interval: Duration,
    /// Proxies whose forwarding headers are believed
    #[arg(long, value_delimiter = ',', value_name = "IP,…")]
    trusted_proxies: Vec<std::net::IpAddr>,
    /// Believe a trusted proxy whose certificate a device has shown (`X-Controller-Id`): it needs
    /// no token and is accepted at once
    #[arg(long, requires = "trusted_proxies")]
    client_certificates: bool,
    /// One secret that may act as any device (hawkBit's gateway token) [default: none]
    #[arg(
        long,
        env = "PYTHEAS_GATEWAY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    gateway_token: Option<String>,
    /// Room for deltas that devices ask for and that `publish` has not made; 0 makes none
    #[arg(long, default_value = "2 GB", value_parser = size, value_name = "SIZE")]
    delta_room: u64,
    /// Remove such a delta when no device has asked for it for so long
    #[arg(long, default_value = "30d", value_parser = age, value_name = "DURATION")]
    delta_unused: Duration,
    /// Write address and first token into this file once it listens (JSON, mode 0600)
    #[arg(long, value_name = "FILE")]
    started_file: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    pytheas_release::parse_duration_ms(text)
        .filter(|ms| (1000..86_400_000).contains(ms))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration from `1s` to `23h`"))
}

fn age(text: &str) -> Result<Duration, String> {
    pytheas_release::parse_duration_ms(text)
        .filter(|ms| *ms >= 1000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration such as `12h`, `30d`"))
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.trim() {
        "" | "B" => Some(1),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size such as `500 MB`, `2 GiB`"))
}

#[derive(Serialize)]
struct Started {
    address: String,
    token: Option<String>,
    data: PathBuf,
}

impl Show for Started {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("dashboard", &self.address)?;
        out.fact("data", self.data.display())?;
        if let Some(token) = &self.token {
            out.fact("admin token", token)?;
            out.line("The token is shown this once; `pytheas login` stores it.")?;
        }
        Ok(())
    }
}

/// Runs until it is told to end.
pub(crate) fn run(args: &HubRunArgs, context: &Context) -> miette::Result<()> {
    let data = args.data.clone().unwrap_or_else(data_dir);
    let keys = default_dir();
    let existing = |path: PathBuf| path.exists().then_some(path);
    let config = Config {
        listen: args.listen,
        tls: args
            .tls_cert
            .clone()
            .zip(args.tls_key.clone())
            .map(|(cert, key)| TlsFiles {
                cert,
                key,
                client_ca: args.tls_client_ca.clone(),
            }),
        repo: args.repo.clone(),
        root: args
            .root
            .clone()
            .or_else(|| existing(keys.join("root.json"))),
        online_keys: args
            .online_keys
            .clone()
            .or_else(|| existing(keys.join("online"))),
        external_url: args.external_url.clone(),
        poll_interval: args.poll_interval,
        trusted_proxies: args.trusted_proxies.clone(),
        client_certificates: args.client_certificates,
        gateway_token: args.gateway_token.clone(),
        made_deltas: (args.delta_room > 0).then(|| Keep {
            size_bytes: args.delta_room,
            unused: args.delta_unused.try_into().unwrap_or(SignedDuration::MAX),
        }),
        ..Config::new(&data)
    };
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start the hub's runtime")?;
    allow_many_files();
    runtime.block_on(async {
        let hub = Hub::start(config).await?;
        let started = Started {
            address: hub.url(),
            token: hub.first_token().map(str::to_owned),
            data,
        };
        if let Some(path) = &args.started_file {
            tell(path, &started)?;
        }
        context.show(&started)?;
        told_to_end(hub.reloader()).await.into_diagnostic()?;
        context.note("ending; requests under way are finished");
        hub.shutdown().await;
        Ok(())
    })
}

/// Takes as many open files as the system lets us: each device's connection is one, and the usual
/// limit of 1024 would also starve the database.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn tell(path: &Path, started: &Started) -> miette::Result<()> {
    let bytes = serde_json::to_vec(started).into_diagnostic()?;
    pytheas_durable::replace_private(path, &bytes)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", path.display()))
}

fn data_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("pytheas/hub")
}

/// Waits for ctrl-C or SIGTERM; SIGHUP only has the certificate read again, where there is one.
async fn told_to_end(reload: Option<impl Fn() + Send + 'static>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    if let Some(reload) = reload {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reload();
            }
        });
    }
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
