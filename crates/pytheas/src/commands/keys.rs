//! `pytheas keys`: the keys that sign a repository, and the roles they have.

mod change;
mod delegate;
mod export;
mod init;
mod new;
mod publish;
mod show;
mod sign;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr};
use pytheas_repo::{
    keys::{KeyInfo, KeysInfo, proposal::Missing},
    publish::RoleState,
    store::Store,
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Verbs on keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    Init(init::InitArgs),
    Show(show::ShowArgs),
    New(new::NewArgs),
    Export(export::ExportArgs),
    Add(change::AddArgs),
    #[command(visible_alias = "remove")]
    Revoke(change::RevokeArgs),
    Threshold(change::ThresholdArgs),
    Rotate(change::RotateArgs),
    Renew(change::RenewArgs),
    Sign(sign::SignArgs),
    Publish(publish::PublishArgs),
    Delegate(delegate::DelegateArgs),
}

/// Where keys lie.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeysArgs {
    /// Folder of the keys [default: ~/.config/pytheas/keys]
    #[arg(long, env = "PYTHEAS_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
}

impl KeysArgs {
    /// The folder that is meant.
    pub(crate) fn dir(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(default_dir)
    }
}

/// Where keys lie when nothing else is said.
pub(crate) fn default_dir() -> PathBuf {
    crate::credentials::config_dir().join("keys")
}

/// Runs the verb.
pub(crate) fn run(command: &KeysCommand, context: &Context) -> miette::Result<()> {
    match command {
        KeysCommand::Init(args) => init::run(args, context),
        KeysCommand::Show(args) => show::run(args, context),
        KeysCommand::New(args) => new::run(args, context),
        KeysCommand::Export(args) => export::run(args, context),
        KeysCommand::Add(args) => change::add(args, context),
        KeysCommand::Revoke(args) => change::revoke(args, context),
        KeysCommand::Threshold(args) => change::threshold(args, context),
        KeysCommand::Rotate(args) => change::rotate(args, context),
        KeysCommand::Renew(args) => change::renew(args, context),
        KeysCommand::Sign(args) => sign::run(args, context),
        KeysCommand::Publish(args) => publish::run(args, context),
        KeysCommand::Delegate(args) => delegate::run(args, context),
    }
}

/// The repository that keys are put to work in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RepoArgs {
    /// The repository: a folder, an object store's URL, or a hub's `/repo`
    #[arg(long, env = "PYTHEAS_REPO", value_name = "DIR|URL")]
    repo: String,
    #[command(flatten)]
    access: AccessArgs,
}

/// How a repository is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AccessArgs {
    /// Token for a hub's `/repo` [default: what `pytheas login` stored]
    #[arg(
        long,
        env = "PYTHEAS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// Trust this certificate authority (PEM) of a hub besides the well-known ones
    #[arg(long, env = "PYTHEAS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl RepoArgs {
    fn open(&self) -> miette::Result<Store> {
        self.access.open(&self.repo)
    }
}

impl AccessArgs {
    /// The token that was given.
    pub(crate) fn token(&self) -> Option<&String> {
        self.token.as_ref()
    }

    /// The same access to a hub's REST API.
    pub(crate) fn hub(&self, hub: url::Url) -> crate::hub_client::HubArgs {
        crate::hub_client::HubArgs {
            hub,
            token: self.token.clone(),
            ca: self.ca.clone(),
        }
    }

    /// The store `repo`.
    pub(crate) fn open(&self, repo: &str) -> miette::Result<Store> {
        let token = match &self.token {
            Some(token) => Some(token.clone()),
            None => super::publish::stored_token(repo)?,
        };
        let ca = self.ca.as_deref().map(|path| {
            std::fs::read(path)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot read the certificates in `{}`", path.display()))
        });
        let ca = ca.transpose()?;
        Ok(Store::open_trusting(repo, token.as_deref(), ca.as_deref())?)
    }
}

/// Runs what talks to a repository.
fn block_on<T>(future: impl Future<Output = T>) -> miette::Result<T> {
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start the runtime")?;
    Ok(runtime.block_on(future))
}

/// Asks for the passphrase of the key in `path`.
pub(crate) fn ask(path: &Path) -> Option<Zeroizing<String>> {
    passphrase(&format!("passphrase of {}", path.display()))
        .ok()
        .map(Zeroizing::new)
}

/// A new passphrase, asked for twice where somebody types it.
fn new_passphrase(prompt: &str) -> miette::Result<Zeroizing<String>> {
    let first = Zeroizing::new(passphrase(prompt).into_diagnostic()?);
    if std::env::var_os("PYTHEAS_KEY_PASSPHRASE").is_none()
        && Zeroizing::new(passphrase("the same again").into_diagnostic()?) != first
    {
        return Err(miette::miette!(
            help = "nothing was made; try again",
            "the passphrases differ"
        ));
    }
    Ok(first)
}

/// What is known of a folder of keys.
#[derive(Serialize)]
pub(crate) struct Keys {
    dir: PathBuf,
    root: PathBuf,
    root_sha256: String,
    root_version: u64,
    root_expires: String,
    root_days_left: i64,
    roles: Vec<Role>,
    unused: Vec<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed_root_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<Vec<State>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    teams: Option<Vec<Team>>,
}

#[derive(Serialize)]
struct Role {
    role: String,
    threshold: u64,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    id: String,
    scheme: &'static str,
    file: Option<PathBuf>,
    encrypted: bool,
    command: bool,
}

/// A role of the repository.
#[derive(Serialize)]
struct State {
    role: String,
    version: u64,
    expires: String,
    days_left: i64,
}

/// A team of the repository.
#[derive(Serialize)]
struct Team {
    team: String,
    paths: Vec<String>,
    threshold: u64,
    keys: Vec<String>,
}

impl Key {
    fn of(info: &KeyInfo) -> Self {
        Self {
            id: info.id.clone(),
            scheme: info.scheme,
            file: info.file.clone(),
            encrypted: info.encrypted,
            command: info.command,
        }
    }

    fn row(&self, role: &str, threshold: String, dir: &Path) -> [String; 6] {
        let file = self.file.as_deref().map(|path| {
            let name = path.strip_prefix(dir).unwrap_or(path);
            name.display().to_string()
        });
        let protection = match (self.encrypted, self.command) {
            (true, _) => "passphrase",
            (_, true) => "its command",
            _ => "",
        };
        [
            role.to_owned(),
            self.id.chars().take(12).collect(),
            threshold,
            self.scheme.to_owned(),
            file.unwrap_or("not here".into()),
            protection.to_owned(),
        ]
    }
}

impl Keys {
    pub(crate) fn of(info: &KeysInfo) -> Self {
        Self {
            dir: info.dir.clone(),
            root: info.dir.join("root.json"),
            root_sha256: info.root_sha256.to_string(),
            root_version: info.root_version,
            root_expires: info.expires.to_string(),
            root_days_left: info.days_left,
            roles: info
                .roles
                .iter()
                .map(|role| Role {
                    role: role.role.clone(),
                    threshold: role.threshold,
                    keys: role.keys.iter().map(Key::of).collect(),
                })
                .collect(),
            unused: info.unused.iter().map(Key::of).collect(),
            proposed_root_version: info.proposed,
            repository: None,
            teams: None,
        }
    }

    /// With what the repository says of itself.
    fn with(mut self, roles: Vec<RoleState>, teams: Vec<pytheas_repo::delegations::Team>) -> Self {
        let roles = roles.into_iter().map(|role| State {
            role: role.role,
            version: role.version,
            expires: role.expires.to_string(),
            days_left: role.days_left,
        });
        let teams = teams.into_iter().map(|team| Team {
            team: team.name,
            paths: team.paths,
            threshold: team.threshold,
            keys: team.keys,
        });
        self.repository = Some(roles.collect());
        self.teams = Some(teams.collect());
        self
    }
}

/// `in 12 days`, or that it is over.
fn left(days: i64) -> String {
    match days {
        ..0 => "EXPIRED".to_owned(),
        0 => "today".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    }
}

impl Show for Keys {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("keys", self.dir.display())?;
        out.fact(
            "root",
            format!("{} (version {})", self.root.display(), self.root_version),
        )?;
        out.fact("root sha256", &self.root_sha256)?;
        let left = left(self.root_days_left);
        out.fact("expires", format!("{} ({left})", self.root_expires))?;
        if let Some(version) = self.proposed_root_version {
            let file = self.dir.join("proposal.json");
            let file = file.display();
            out.fact(
                "proposed",
                format!("root version {version} waits for signatures: {file}"),
            )?;
        }
        let mut rows = Vec::new();
        for role in &self.roles {
            let needed = format!("{} of {}", role.threshold, role.keys.len());
            for key in &role.keys {
                rows.push(key.row(&role.role, needed.clone(), &self.dir));
            }
        }
        for key in &self.unused {
            rows.push(key.row("(none)", String::new(), &self.dir));
        }
        out.line("")?;
        out.table(
            ["ROLE", "KEY", "THRESHOLD", "SCHEME", "FILE", "PROTECTED BY"],
            &rows,
        )?;
        if let Some(states) = &self.repository {
            let rows: Vec<_> = states
                .iter()
                .map(|state| {
                    [
                        state.role.clone(),
                        state.version.to_string(),
                        state.expires.clone(),
                        self::left(state.days_left),
                    ]
                })
                .collect();
            out.line("")?;
            out.table(["IN THE REPOSITORY", "VERSION", "EXPIRES", ""], &rows)?;
        }
        if let Some(teams) = self.teams.as_deref().filter(|teams| !teams.is_empty()) {
            let rows: Vec<_> = teams
                .iter()
                .map(|team| {
                    let keys: Vec<_> = team.keys.iter().map(|id| &id[..id.len().min(12)]).collect();
                    [
                        team.team.clone(),
                        team.paths.join(" "),
                        format!("{} of {}", team.threshold, team.keys.len()),
                        keys.join(" "),
                    ]
                })
                .collect();
            out.line("")?;
            out.table(["TEAM", "MAY SIGN", "THRESHOLD", "KEYS"], &rows)?;
        }
        Ok(())
    }
}

/// Signatures that are missing.
#[derive(Serialize)]
struct Lacking {
    role: String,
    have: u64,
    needed: u64,
    keys: Vec<String>,
}

impl Lacking {
    fn of(missing: &[Missing]) -> Vec<Self> {
        let one = |missing: &Missing| Self {
            role: missing.role.clone(),
            have: missing.have,
            needed: missing.needed,
            keys: missing.keys.clone(),
        };
        missing.iter().map(one).collect()
    }

    fn text(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(|id| &id[..id.len().min(12)]).collect();
        format!(
            "{} of {} signatures for {}; keys that may still sign: {}",
            self.have,
            self.needed,
            self.role,
            keys.join(", ")
        )
    }
}

/// Asks for the passphrase of a key: PYTHEAS_KEY_PASSPHRASE, else the terminal.
///
/// # Errors
/// A message when there is no terminal to ask on.
pub(crate) fn passphrase(prompt: &str) -> io::Result<String> {
    if let Ok(passphrase) = std::env::var("PYTHEAS_KEY_PASSPHRASE") {
        return Ok(passphrase);
    }
    hidden(prompt)
}

/// Reads a line from the terminal without showing it.
fn hidden(prompt: &str) -> io::Result<String> {
    use std::io::{BufRead, BufReader, Write};

    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let mut terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| {
            io::Error::other("there is no terminal to ask on; set PYTHEAS_KEY_PASSPHRASE")
        })?;
    let shown = tcgetattr(&terminal)?;
    let mut silent = shown.clone();
    silent.local_modes &= !LocalModes::ECHO;
    write!(terminal, "{prompt}: ")?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &shown)?;
    writeln!(terminal)?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
