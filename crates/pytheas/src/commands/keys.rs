//! `pytheas keys`: the keys that sign a repository.

mod init;
mod show;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use pytheas_repo::keys::KeysInfo;
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Verbs on keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    Init(init::InitArgs),
    Show(show::ShowArgs),
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
    }
}

/// What is known of a folder of keys.
#[derive(Serialize)]
pub(crate) struct Keys {
    dir: PathBuf,
    root: PathBuf,
    root_sha256: String,
    root_version: u64,
    root_expires: String,
    roles: Vec<Role>,
}

#[derive(Serialize)]
struct Role {
    role: String,
    key_ids: Vec<String>,
    threshold: u64,
    file: Option<PathBuf>,
    encrypted: bool,
}

impl Keys {
    pub(crate) fn of(info: &KeysInfo) -> Self {
        Self {
            dir: info.dir.clone(),
            root: info.dir.join("root.json"),
            root_sha256: info.root_sha256.to_string(),
            root_version: info.root_version,
            root_expires: info.expires.to_string(),
            roles: info
                .roles
                .iter()
                .map(|role| Role {
                    role: role.role.clone(),
                    key_ids: role.key_ids.clone(),
                    threshold: role.threshold,
                    file: role.file.clone(),
                    encrypted: role.encrypted,
                })
                .collect(),
        }
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
        out.fact("expires", &self.root_expires)?;
        let name = |path: &Path| {
            path.strip_prefix(&self.dir)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        let rows: Vec<_> = self
            .roles
            .iter()
            .map(|role| {
                let ids: Vec<_> = role
                    .key_ids
                    .iter()
                    .map(|id| id.chars().take(12).collect::<String>())
                    .collect();
                [
                    role.role.clone(),
                    ids.join(" "),
                    role.threshold.to_string(),
                    role.file.as_deref().map_or("not here".into(), name),
                    if role.encrypted { "passphrase" } else { "" }.to_owned(),
                ]
            })
            .collect();
        out.line("")?;
        out.table(["ROLE", "KEY", "THRESHOLD", "FILE", "PROTECTED BY"], &rows)
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
