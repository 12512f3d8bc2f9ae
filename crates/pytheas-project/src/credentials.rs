//! Who we are to a package index, by the ecosystem's conventions: the address's own user and
//! password; else those of an index on the same server, from uv's and pip's variables, the project's
//! manifest or its requirements, with `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`; else `netrc`; else the command `keyring`,
//! where `UV_KEYRING_PROVIDER` or `PIP_KEYRING_PROVIDER` is `subprocess`.

use std::{collections::BTreeMap, path::Path, process::Stdio, sync::Mutex};

use serde::Deserialize;
use url::Url;

use crate::{
    environment::Environment,
    project::{Project, RequirementSource},
    requirements,
    source::expanded,
};

/// Variables with one or more index addresses.
const INDEXES: &[&str] = &[
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
];

/// User and password, encoded as an address needs them.
type Pair = (String, String);

/// Credentials of this machine's user.
#[derive(Default)]
pub struct IndexCredentials {
    indexes: Vec<Url>,
    netrc: String,
    keyring: Option<Environment>,
    asked: Mutex<BTreeMap<String, Option<String>>>,
}

impl std::fmt::Debug for IndexCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexCredentials").finish_non_exhaustive()
    }
}

/// The part of `pyproject.toml` that names indexes.
#[derive(Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    tool: Tool,
}

#[derive(Default, Deserialize)]
struct Tool {
    #[serde(default)]
    uv: ToolUv,
}

#[derive(Default, Deserialize)]
struct ToolUv {
    #[serde(default)]
    index: Vec<NamedIndex>,
}

#[derive(Deserialize)]
struct NamedIndex {
    name: Option<String>,
    url: String,
}

/// Indexes that a project's requirements name, with their names and the credentials in their
/// addresses.
#[derive(Clone, Default)]
pub struct ProjectIndexes(Vec<(Option<String>, String)>);

impl std::fmt::Debug for ProjectIndexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectIndexes").finish_non_exhaustive()
    }
}

impl ProjectIndexes {
    /// Those of `project`: `--index-url` and `--extra-index-url` of requirements files, the sources
    /// of a Pipfile and of Poetry. `${VARIABLES}` in them are expanded.
    pub(crate) fn of(project: &Project, environment: &Environment) -> Self {
        let named = project.found.indexes.iter();
        let mut found: Vec<_> = named
            .map(|index| (Some(index.name.clone()), index.url.clone()))
            .collect();
        let options = project.found.pip_options.iter();
        let mut plain: Vec<String> = options
            .filter_map(|option| requirements::index_address(option))
            .collect();
        if project.source == RequirementSource::RequirementsTxt {
            // What cannot be read is told when it is locked.
            let read = requirements::read(&project.dir.join(&project.input));
            plain.extend(read.unwrap_or_default().indexes);
        }
        let variable = |name: &str| environment.get(name).map(str::to_owned);
        found.extend(
            plain
                .iter()
                .map(|address| (None, expanded(address, &variable))),
        );
        Self(found)
    }
}

impl IndexCredentials {
    /// Those for a project in `dir`, whose `[[tool.uv.index]]` give names to indexes.
    pub fn of(environment: &Environment, dir: &Path) -> Self {
        Self::with(environment, dir, &ProjectIndexes::default())
    }

    /// As [`IndexCredentials::of`], with what the project's requirements say of indexes.
    pub fn with(environment: &Environment, dir: &Path, indexes: &ProjectIndexes) -> Self {
        let from_variables = INDEXES
            .iter()
            .filter_map(|name| environment.get(name))
            .flat_map(str::split_whitespace)
            .map(|value| match value.split_once('=') {
                Some((label, rest)) if !label.contains("://") => {
                    (Some(label.to_owned()), rest.to_owned())
                }
                _ => (None, value.to_owned()),
            });
        let manifest: Manifest = std::fs::read_to_string(dir.join("pyproject.toml"))
            .ok()
            .and_then(|text| toml::from_str(&text).ok())
            .unwrap_or_default();
        let from_project = manifest
            .tool
            .uv
            .index
            .into_iter()
            .map(|index| (index.name, index.url));
        let indexes = from_variables
            .chain(from_project)
            .chain(indexes.0.iter().cloned())
            .filter_map(|(name, url)| {
                let mut url: Url = url.parse().ok()?;
                if let Some(name) = name {
                    add_from_variables(&mut url, &name, environment);
                }
                (!url.username().is_empty() || url.password().is_some()).then_some(url)
            })
            .collect();
        let uses_keyring = ["UV_KEYRING_PROVIDER", "PIP_KEYRING_PROVIDER"]
            .iter()
            .any(|name| environment.get(name) == Some("subprocess"));
        Self {
            indexes,
            netrc: netrc(environment).map_or_else(String::new, |(_, text)| text),
            keyring: uses_keyring.then(|| environment.clone()),
            asked: Mutex::default(),
        }
    }

    /// `url` with credentials, where there are some for its server.
    pub fn add_to(&self, mut url: Url) -> Url {
        if url.password().is_some() {
            return url;
        }
        let same = |other: &&Url| {
            other.scheme() == url.scheme()
                && other.host_str() == url.host_str()
                && other.port_or_known_default() == url.port_or_known_default()
                && (url.username().is_empty() || url.username() == other.username())
        };
        let mut matching = self.indexes.iter().filter(same);
        // The one whose address the file's begins with, before another of the same server.
        let index = matching
            .clone()
            .find(|index| url.path().starts_with(index.path()))
            .or_else(|| matching.next());
        let pair: Option<Pair> = match index {
            Some(index) => match index.password() {
                Some(password) => Some((index.username().to_owned(), password.to_owned())),
                None => Some((
                    index.username().to_owned(),
                    self.of_netrc(index)
                        .or_else(|| self.ask_keyring(index, index.username()))
                        .unwrap_or_default(),
                )),
            },
            None if !url.username().is_empty() => self
                .ask_keyring(&url, url.username())
                .map(|password| (url.username().to_owned(), password)),
            None => url.host_str().and_then(|host| login(&self.netrc, host)),
        };
        if let Some((user, password)) = pair {
            // Both fail only for addresses without a host.
            let _ = url.set_username(&user);
            let _ = url.set_password(Some(&password));
        }
        url
    }

    /// The password that netrc has for the address's user.
    fn of_netrc(&self, url: &Url) -> Option<String> {
        let (user, password) = login(&self.netrc, url.host_str()?)?;
        (user == url.username()).then_some(password)
    }

    /// What `keyring get SERVICE USER` says for the address, else for its host, as uv asks.
    fn ask_keyring(&self, url: &Url, user: &str) -> Option<String> {
        let environment = self.keyring.as_ref()?;
        let mut address = url.clone();
        let _ = address.set_username("");
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        let key = format!("{user} {address}");
        let mut asked = self
            .asked
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(answer) = asked.get(&key) {
            return answer.clone();
        }
        let program = environment
            .search_path()
            .into_iter()
            .map(|dir| dir.join("keyring"))
            .find(|path| path.is_file());
        let answer = program.and_then(|program| {
            [address.as_str(), &host].into_iter().find_map(|service| {
                let output = environment
                    .command(&program)
                    .args(["get", service, user])
                    .stdin(Stdio::null())
                    .output()
                    .ok()?;
                let text = String::from_utf8(output.stdout).ok()?;
                let text = text.trim_end_matches(['\r', '\n']);
                (output.status.success() && !text.is_empty()).then(|| text.to_owned())
            })
        });
        asked.insert(key, answer.clone());
        answer
    }
}

/// `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`, the name in capitals with `_` for all
/// that is no letter or digit.
fn add_from_variables(url: &mut Url, name: &str, environment: &Environment) {
    let shout = name
        .to_uppercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let variable = |what: &str| environment.get(&format!("UV_INDEX_{shout}_{what}"));
    let (user, password) = (variable("USERNAME"), variable("PASSWORD"));
    if let Some(user) = user {
        let _ = url.set_username(user);
    }
    if let Some(password) = password {
        let _ = url.set_password(Some(password));
    }
}

/// The path and text of the user's netrc file: `NETRC`, else `~/.netrc`.
pub fn netrc(environment: &Environment) -> Option<(std::path::PathBuf, String)> {
    let file = environment
        .path("NETRC")
        .or_else(|| environment.home().map(|home| home.join(".netrc")))?;
    let text = std::fs::read_to_string(&file).ok()?;
    Some((file, text))
}

/// User and password of `host` in a netrc file (netrc(5)); those of `default` when it is not named.
pub fn login(netrc: &str, host: &str) -> Option<(String, String)> {
    let mut words = netrc
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    let mut found: [Option<(String, String)>; 2] = [None, None];
    let mut current = None;
    while let Some(word) = words.next() {
        match word {
            "machine" => {
                // The first entry of a host counts.
                let is_host = words.next() == Some(host) && found[0].is_none();
                current = is_host.then_some(0);
            }
            "default" => current = Some(1),
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default().to_owned();
                if let Some(place) = current {
                    let entry = found[place].get_or_insert_default();
                    match word {
                        "login" => entry.0 = value,
                        "password" => entry.1 = value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let [own, default] = found;
    own.or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requirements_say_of_indexes_counts_for_their_servers() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            pytheas_durable::replace(&dir.path().join(name), text.as_bytes()).unwrap();
        };
        write(
            "requirements.txt",
            "-r more.txt\n--index-url https://me:${WORD}@one.example/simple\nidna\n",
        );
        write(
            "more.txt",
            "--extra-index-url=https://you@two.example/simple\n",
        );
        write("netrc", "machine two.example login you password other");
        let environment = Environment::default()
            .with("WORD", "secret")
            .with("NETRC", dir.path().join("netrc"));
        let project = Project::load(dir.path()).unwrap();
        let indexes = ProjectIndexes::of(&project, &environment);
        assert!(!format!("{indexes:?}").contains("secret"));
        let credentials = IndexCredentials::with(&environment, dir.path(), &indexes);
        for (address, expected) in [
            (
                "https://one.example/files/a.whl",
                "https://me:secret@one.example/files/a.whl",
            ),
            (
                "https://two.example/a.whl",
                "https://you:other@two.example/a.whl",
            ),
            ("https://three.example/a.whl", "https://three.example/a.whl"),
            ("http://one.example/a.whl", "http://one.example/a.whl"),
        ] {
            assert_eq!(
                credentials.add_to(address.parse().unwrap()).as_str(),
                expected
            );
        }
    }

    #[test]
    fn a_server_gets_its_own_credentials_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("netrc");
        let text = "# mine\nmachine a.example login me password p@ss\nmachine b.example\n  login you\n  password secret\n";
        pytheas_durable::replace(&file, text.as_bytes()).unwrap();
        let pyproject =
            "[[tool.uv.index]]\nname = \"of-project\"\nurl = \"https://e.example/simple\"\n";
        pytheas_durable::replace(&dir.path().join("pyproject.toml"), pyproject.as_bytes()).unwrap();
        let environment = Environment::default()
            .with("NETRC", &file)
            .with(
                "UV_INDEX",
                "mine=https://token:x%2Fy@c.example/simple other=https://d.example/ named.one=https://f.example/simple",
            )
            .with("UV_INDEX_OF_PROJECT_USERNAME", "u")
            .with("UV_INDEX_OF_PROJECT_PASSWORD", "p/w")
            .with("UV_INDEX_NAMED_ONE_USERNAME", "n");
        let credentials = IndexCredentials::of(&environment, dir.path());
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
            ("https://e.example/f", "https://u:p%2Fw@e.example/f"),
            ("https://f.example/f", "https://n@f.example/f"),
        ] {
            assert_eq!(credentials.add_to(url.parse().unwrap()).as_str(), expected);
        }
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn the_keyring_is_asked_once_for_the_user_of_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("keyring");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {}/calls\n[ \"$2\" = k.example:8443 ] && echo from-keyring\n",
            dir.path().display()
        );
        pytheas_durable::replace(&program, script.as_bytes()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let environment = Environment::default()
            .with("PATH", dir.path())
            .with("UV_DEFAULT_INDEX", "https://me@k.example:8443/simple/");
        let url: Url = "https://k.example:8443/f.whl".parse().unwrap();
        let without = IndexCredentials::of(&environment, dir.path());
        assert_eq!(
            without.add_to(url.clone()).as_str(),
            "https://me@k.example:8443/f.whl"
        );
        let environment = environment.with("UV_KEYRING_PROVIDER", "subprocess");
        let with = IndexCredentials::of(&environment, dir.path());
        for _ in 0..2 {
            assert_eq!(
                with.add_to(url.clone()).as_str(),
                "https://me:from-keyring@k.example:8443/f.whl"
            );
        }
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(
            calls,
            "get https://k.example:8443/simple/ me\nget k.example:8443 me\n"
        );
    }

    #[test]
    fn the_netrc_entry_of_the_host_comes_before_the_default() {
        let text = "default login any password x\nmachine z login me password y\nmachine z login other password w\n";
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login(text, "z"), pair("me", "y"));
        assert_eq!(login(text, "q"), pair("any", "x"));
        assert_eq!(login("machine a login b", "q"), None);
    }
}
