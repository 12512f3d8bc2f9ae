//! The agent's TUF client behind the command line of the official client conformance suite
//! (`theupdateframework/tuf-conformance`, CLIENT-CLI.md), so that the suite can be run on it:
//!
//! ```text
//! tuf-conformance-client --metadata-dir DIR init ROOT_JSON
//! tuf-conformance-client --metadata-dir DIR --metadata-url URL refresh
//! tuf-conformance-client --metadata-dir DIR --metadata-url URL --target-name PATH
//!     --target-base-url URL --target-dir DIR download
//! ```
//! Exit code 0, or 1 with the error on stderr. All decisions are those of [`pytheas_repo::client`],
//! the code that the agent runs; here are only the two base URLs and the folder for targets.

use std::{
    error::Error,
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use pytheas_release::Sha256;
use pytheas_repo::{
    client::{self, Client, Limits},
    fetch::{Body, Fetch, Request, TransportError},
    steady::Steady,
};

/// Longest target, in bytes: the suite's are small, and this client keeps them in memory.
const TARGET_MAX: u64 = 256 << 20;
/// A server that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent's TUF client, as the client conformance suite calls it
#[derive(Debug, Parser)]
struct Cli {
    /// Where trusted metadata is kept, under unversioned names
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Base URL of the repository's metadata
    #[arg(long)]
    metadata_url: Option<String>,
    /// Target to download; may be repeated
    #[arg(long)]
    target_name: Vec<String>,
    /// Base URL of the repository's targets
    #[arg(long)]
    target_base_url: Option<String>,
    /// Where downloaded targets are kept
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Trust this root metadata
    Init {
        /// The file
        root: PathBuf,
    },
    /// Bring the trusted metadata up to date
    Refresh,
    /// Refresh, then download the targets named by `--target-name`
    Download,
}

/// Anything that goes wrong.
type Failure = Box<dyn Error>;

#[expect(clippy::print_stderr, reason = "a command says why it failed")]
fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _nobody_reads = usage.print();
            return ExitCode::from(u8::from(usage.use_stderr()));
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                let _never_fails = write!(text, ": {cause}");
                next = cause.source();
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    if let Verb::Init { root } = &cli.verb {
        return Ok(client::init_at(
            &cli.metadata_dir,
            &std::fs::read(root)?,
            None,
        )?);
    }
    let mut http = TwoBases::new(
        cli.metadata_url
            .as_deref()
            .ok_or("`--metadata-url` is needed")?,
        cli.target_base_url.as_deref(),
    );
    let limits = Limits {
        target: TARGET_MAX,
        ..Limits::default()
    };
    // Nothing is downloaded through the folder for blobs here: a blob is no target.
    let no_blobs = cli.metadata_dir.join("blobs");
    let mut client = Client::open_at(&cli.metadata_dir, &no_blobs, &mut http, limits)?;
    client.refresh(jiff::Timestamp::now())?;
    if let Verb::Download = cli.verb {
        let dir = cli
            .target_dir
            .as_deref()
            .ok_or("`--target-dir` is needed")?;
        if cli.target_name.is_empty() {
            return Err("`--target-name` is needed".into());
        }
        for name in &cli.target_name {
            download(&mut client, name, dir)?;
        }
    }
    Ok(())
}

/// Makes `dir` hold the target `name`; one that is there already is not fetched again.
fn download(client: &mut Client<'_>, name: &str, dir: &Path) -> Result<(), Failure> {
    let path = dir.join(file_name(name));
    if let Ok(content) = std::fs::read(&path)
        && client.is_target(name, &content)?
    {
        return Ok(());
    }
    let content = client.target(name)?;
    pytheas_durable::create_dir_all(dir)?;
    pytheas_durable::replace(&path, &content)?;
    Ok(())
}

/// One file name for each target name, whatever is in it.
fn file_name(name: &str) -> String {
    let whole: String = name.bytes().map(in_name).collect();
    if whole.len() <= 200 {
        whole
    } else {
        Sha256::of(name.as_bytes()).to_string()
    }
}

/// A repository whose metadata and targets lie below two URLs.
struct TwoBases {
    agent: ureq::Agent,
    metadata: String,
    targets: Option<String>,
}

impl TwoBases {
    fn new(metadata: &str, targets: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("pytheas-agent/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        Self {
            agent: config.into(),
            metadata: base(metadata),
            targets: targets.map(base),
        }
    }

    fn url(&self, path: &str) -> Result<String, TransportError> {
        if let Some(file) = path.strip_prefix("metadata/") {
            return Ok(format!("{}/{file}", self.metadata)); // encoded already
        }
        let name = path
            .strip_prefix("targets/")
            .ok_or("neither metadata nor a target")?;
        let base = self
            .targets
            .as_ref()
            .ok_or("`--target-base-url` is needed")?;
        let parts: Vec<String> = name
            .split('/')
            .map(|part| part.bytes().map(in_url).collect())
            .collect();
        Ok(format!("{base}/{}", parts.join("/")))
    }
}

/// A byte of a target's name as it stands in our file's name: no separator, no hidden file.
fn in_name(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// A byte of a path's segment as it stands in a URL (RFC 3986 §3.3).
fn in_url(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

impl Fetch for TwoBases {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        let url = self.url(request.path)?;
        let answer = self.agent.get(&url).call()?;
        match answer.status().as_u16() {
            200 => {}
            // Some stores answer 403 for a file that is not there.
            403 | 404 | 410 => return Ok(None),
            status => return Err(format!("`{url}` answers with status {status}").into()),
        }
        let reader = answer.into_body().into_reader();
        let reader = Box::new(Steady::new(
            reader.take(request.max_bytes.saturating_add(1)),
        ));
        Ok(Some(Body { start: 0, reader }))
    }
}
