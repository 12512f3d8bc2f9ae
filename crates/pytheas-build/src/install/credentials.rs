//! Who we are to a package index, by the ecosystem's conventions: the address's own user, else the
//! user in an index address of uv's and pip's variables for the same server, else `netrc`.

use pytheas_project::Environment;
use url::Url;

/// Variables with one or more index addresses.
const INDEXES: &[&str] = &[
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
];

/// Credentials of this machine's user.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    indexes: Vec<Url>,
    netrc: String,
}

impl Credentials {
    pub(super) fn of(environment: &Environment) -> Self {
        let indexes = INDEXES
            .iter()
            .filter_map(|name| environment.get(name))
            .flat_map(str::split_whitespace)
            .map(|value| match value.split_once('=') {
                Some((label, rest)) if !label.contains("://") => rest,
                _ => value,
            })
            .filter_map(|value| value.parse::<Url>().ok())
            .filter(|url| !url.username().is_empty() || url.password().is_some())
            .collect();
        let file = environment
            .path("NETRC")
            .or_else(|| environment.home().map(|home| home.join(".netrc")));
        let netrc = file
            .and_then(|file| std::fs::read_to_string(file).ok())
            .unwrap_or_default();
        Self { indexes, netrc }
    }

    /// `url` with credentials, where there are some for its server.
    pub(super) fn add_to(&self, mut url: Url) -> Url {
        if !url.username().is_empty() || url.password().is_some() {
            return url;
        }
        let same = |other: &&Url| {
            other.scheme() == url.scheme()
                && other.host_str() == url.host_str()
                && other.port_or_known_default() == url.port_or_known_default()
        };
        let (user, password) = if let Some(index) = self.indexes.iter().find(same) {
            // Both are encoded as an address needs them.
            (
                index.username().to_owned(),
                index.password().unwrap_or_default().to_owned(),
            )
        } else if let Some(found) = url.host_str().and_then(|host| login(&self.netrc, host)) {
            found
        } else {
            return url;
        };
        // Both fail only for addresses without a host.
        let _ = url.set_username(&user);
        let _ = url.set_password(Some(&password));
        url
    }
}

/// User and password of `host` in a netrc file; those of `default` when it is not named. The names
/// of macros are passed over with their lines.
fn login(netrc: &str, host: &str) -> Option<(String, String)> {
    let mut default = None;
    let mut entry: Option<(bool, String, String)> = None;
    let mut finish = |entry: Option<(bool, String, String)>| match entry {
        Some((true, user, password)) => Some((user, password)),
        Some((false, user, password)) => {
            default = Some((user, password));
            None
        }
        None => None,
    };
    let mut words = netrc
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    let mut skipped = false;
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if let Some(found) = finish(entry.take()) {
                    return Some(found);
                }
                let is_host = word == "machine" && words.next() == Some(host);
                skipped = word == "machine" && !is_host;
                if !skipped {
                    entry = Some((is_host, String::new(), String::new()));
                }
            }
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default().to_owned();
                if let Some((_, user, password)) = entry.as_mut().filter(|_| !skipped) {
                    match word {
                        "login" => *user = value,
                        "password" => *password = value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    finish(entry).or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_its_own_credentials_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("netrc");
        let text = "# mine\nmachine a.example login me password p@ss\nmachine b.example\n  login you\n  password secret\n";
        pytheas_durable::replace(&file, text.as_bytes()).unwrap();
        let environment = Environment::default().with("NETRC", &file).with(
            "UV_INDEX",
            "mine=https://token:x%2Fy@c.example/simple other=https://d.example/",
        );
        let credentials = Credentials::of(&environment);
        for (url, expected) in [
            (
                "https://a.example/f.whl",
                "https://me:p%40ss@a.example/f.whl",
            ),
            ("https://b.example/f", "https://you:secret@b.example/f"),
            ("https://c.example/f", "https://token:x%2Fy@c.example/f"),
            ("http://c.example/f", "http://c.example/f"),
            ("https://c.example:444/f", "https://c.example:444/f"),
            ("https://own:pw@a.example/f", "https://own:pw@a.example/f"),
            ("https://d.example/f", "https://d.example/f"),
        ] {
            assert_eq!(credentials.add_to(url.parse().unwrap()).as_str(), expected);
        }
        assert_eq!(
            login("default login anyone password x", "z"),
            Some(("anyone".into(), "x".into()))
        );
    }
}
