//! Tokens that `pytheas login` stored: `$XDG_CONFIG_HOME/pytheas/credentials.json`, mode 0600.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use url::Url;

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

fn read(path: &Path) -> BTreeMap<String, String> {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// The stored token for a hub.
pub(crate) fn token_for(hub: &Url) -> Option<String> {
    read(&file()).remove(hub.as_str())
}

/// Stores a token for a hub; `None` forgets it. Returns the file.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn store(hub: &Url, token: Option<&str>) -> io::Result<PathBuf> {
    let path = file();
    let mut all = read(&path);
    match token {
        Some(token) => all.insert(hub.to_string(), token.to_owned()),
        None => all.remove(hub.as_str()),
    };
    pytheas_durable::create_dir_all(&config_dir())?;
    pytheas_durable::replace_private(&path, &serde_json::to_vec_pretty(&all)?)?;
    Ok(path)
}
