//! Tokens that `pytheas login` stored: `$XDG_CONFIG_HOME/pytheas/credentials.json`, mode 0600.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use thiserror::Error;
use url::Url;

/// Stored tokens that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub(crate) enum CredentialsError {
    /// The file system says no.
    #[error("cannot use the stored tokens in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::credentials::io),
        help("is the file yours, and is there room? `--token` or PYTHEAS_TOKEN need no file")
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not what `pytheas login` wrote.
    #[error("the stored tokens in `{}` are damaged", path.display())]
    #[diagnostic(
        code(pytheas::credentials::damaged),
        help("remove the file and `pytheas login` again; `--token` or PYTHEAS_TOKEN need no file")
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The folder of this user's configuration: `$XDG_CONFIG_HOME/pytheas`, else `~/.config/pytheas`.
pub(crate) fn config_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("pytheas")
}

fn file() -> PathBuf {
    config_dir().join("credentials.json")
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, CredentialsError> {
    let path = path.to_owned();
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| CredentialsError::Damaged { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(CredentialsError::Io { path, source }),
    }
}

/// The stored token for a hub.
///
/// # Errors
/// [`CredentialsError`].
pub(crate) fn token_for(hub: &Url) -> Result<Option<String>, CredentialsError> {
    Ok(read(&file())?.remove(hub.as_str()))
}

/// Stores a token for a hub; `None` forgets it. Returns the file.
///
/// # Errors
/// [`CredentialsError`]; a damaged file is left alone.
pub(crate) fn store(hub: &Url, token: Option<&str>) -> Result<PathBuf, CredentialsError> {
    let path = file();
    let mut all = read(&path)?;
    match token {
        Some(token) => all.insert(hub.to_string(), token.to_owned()),
        None => all.remove(hub.as_str()),
    };
    let written = serde_json::to_vec_pretty(&all)
        .map_err(io::Error::from)
        .and_then(|bytes| {
            pytheas_durable::create_dir_all(&config_dir())?;
            pytheas_durable::replace_private(&path, &bytes)
        });
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(CredentialsError::Io { path, source }),
    }
}
