//! Reads `agent.toml`: every key checked, every mistake with its line and column.

use std::{fmt::Display, path::Path, str::FromStr, time::Duration};

use jiff::tz::{Offset, TimeZone};
use pytheas_release::parse_duration_ms;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

mod boards;

use super::{
    AgentSettings, ApplyConfig, ClientKey, Schedule, SettingsError, Window, parse_proxy,
    proxy_choice,
};

/// Every setting there is.
const KEYS: &[&str] = &[
    "time-zone",
    "poll.interval",
    "poll.jitter",
    "peers.share",
    "peers.listen",
    "peers.limit",
    "peers.list",
    "peers.discover",
    "download.limit",
    "download.windows",
    "install.windows",
    "install.consent",
    "config.apply",
    "proxy.url",
    "proxy.no-proxy",
    "tls.ca",
    "tls.pins",
    "tls.certificate",
    "tls.key",
    "tls.key-command",
    "timeouts.connect",
    "timeouts.answer",
    "timeouts.silence",
    "board",
];

type Value<'a> = Spanned<DeValue<'a>>;

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

/// What becomes of a setting that is not understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NotUnderstood {
    /// It is an error.
    Refused,
    /// It is left out; one that says when to install, or in which time zone, makes updates wait for
    /// consent.
    LeftOut,
}

pub(super) fn parse(
    path: &Path,
    text: &str,
    mode: NotUnderstood,
) -> Result<AgentSettings, SettingsError> {
    let file = File { path, text };
    let root = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
        place: file.place(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut found = Vec::new();
    for (key, value) in root.get_ref() {
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(table) if is_table(name) => {
                for (key, value) in table {
                    found.push((format!("{name}.{}", key.get_ref()), key.span(), value));
                }
            }
            _ => found.push((name.to_owned(), key.span(), value)),
        }
    }
    let mut settings = AgentSettings::default();
    let mut zone = TimeZone::UTC;
    let (mut download, mut install) = (Vec::new(), Vec::new());
    let (mut proxy, mut no_proxy, mut key_command) = (None, None, None);
    let mut when_is_unknown = false;
    for (key, span, value) in found {
        let one = |what| Wanted {
            file: &file,
            key: &key,
            value,
            what,
        };
        let read = (|| {
            let network = &mut settings.network;
            match key.as_str() {
                "time-zone" => zone = one("a name or an offset").read(parse_zone)?,
                "poll.interval" => {
                    settings.poll_interval = Some(one(DURATION).read(parse_duration)?)
                }
                "poll.jitter" => settings.jitter_percent = one("`\"10%\"`").read(parse_percent)?,
                "download.limit" => network.limit = Some(one("`\"200 kB/s\"`").read(from_str)?),
                "download.windows" => download = one(WINDOWS).list(from_str::<Window>)?,
                "install.windows" => install = one(WINDOWS).list(from_str::<Window>)?,
                "install.consent" => settings.install.consent = one(YES_OR_NO).boolean()?,
                "config.apply" => {
                    settings.config = one("`\"restart\"` or `\"reload\"`").read(parse_apply)?;
                }
                "proxy.url" => proxy = Some(one("an address").read(parse_proxy)?),
                "proxy.no-proxy" => {
                    no_proxy = Some(one("a list of hosts").list(|text| Ok(text.to_owned()))?);
                }
                "tls.ca" => network.tls.ca = Some(one("a file").path()?),
                "tls.pins" => {
                    network.tls.pins = one("a list of 64 hex digits each").list(from_str)?
                }
                "tls.certificate" => network.tls.certificate = Some(one("a file").path()?),
                "tls.key" => {
                    let key: ClientKey = one("a file or `\"pkcs11:…\"`").read(from_str)?;
                    network.tls.key = Some(key.below(file.folder()));
                }
                "tls.key-command" => {
                    key_command = Some(one("a command").read(|text| match text.trim() {
                        "" => Err("an empty command".into()),
                        _ => Ok(text.to_owned()),
                    })?);
                }
                "peers.share" => settings.peers.share = one(YES_OR_NO).boolean()?,
                "peers.listen" => {
                    settings.peers.listen = one("`\"0.0.0.0:8479\"`").read(listen)?;
                }
                "peers.limit" => settings.peers.limit = Some(one("`\"2 MB/s\"`").read(from_str)?),
                "peers.list" => {
                    settings.peers.list = one("a list of addresses").list(parse_peer)?
                }
                "peers.discover" => settings.peers.discover = one(YES_OR_NO).boolean()?,
                "timeouts.connect" => network.connect = one(DURATION).read(parse_duration)?,
                "timeouts.answer" => network.answer = one(DURATION).read(parse_duration)?,
                "timeouts.silence" => network.silence = one(DURATION).read(parse_duration)?,
                "board" => settings.boards = boards::parse(&file, value)?,
                _ => {
                    return Err(SettingsError::UnknownKey {
                        place: file.place(span.start),
                        help: meant(&key),
                        key: key.clone(),
                    });
                }
            }
            Ok(())
        })();
        match read {
            Err(error) if mode == NotUnderstood::Refused => return Err(error),
            Err(_) => when_is_unknown |= key.starts_with("install") || key == "time-zone",
            Ok(()) => {}
        }
    }
    settings.install.consent |= when_is_unknown;
    match (proxy, no_proxy) {
        (Some(url), no_proxy) => {
            settings.network.proxy = proxy_choice(&url, no_proxy.unwrap_or_default());
        }
        (None, Some(_)) if mode == NotUnderstood::LeftOut => {}
        (None, Some(_)) => {
            return Err(SettingsError::Value {
                place: file.path.display().to_string(),
                key: "proxy.no-proxy".into(),
                problem: "without `proxy.url` the environment's `NO_PROXY` counts".into(),
            });
        }
        (None, None) => {}
    }
    if let Some(command) = key_command {
        let other = settings
            .network
            .tls
            .key
            .replace(ClientKey::Command(command));
        if other.is_some() && mode == NotUnderstood::Refused {
            return Err(SettingsError::Value {
                place: file.path.display().to_string(),
                key: "tls.key-command".into(),
                problem: "there is a `tls.key`, too: which of them?".into(),
            });
        }
    }
    settings.download.windows = Schedule::new(download, zone.clone());
    settings.install.windows = Schedule::new(install, zone);
    Ok(settings)
}

const DURATION: &str = "a time as `\"30s\"`, `\"5m\"`, `\"1h\"`";
const YES_OR_NO: &str = "`true` or `false`";
const WINDOWS: &str = "a list as `[\"mon-fri 01:00-05:00\"]`";

fn is_table(name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.split_once('.').is_some_and(|(table, _)| table == name))
}

/// What somebody who wrote `key` may have meant.
fn meant(key: &str) -> String {
    if is_table(key) {
        return format!("`{key}` is a table: write `[{key}]` on a line, and its settings below");
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let nearest = KEYS
        .iter()
        .map(|known| {
            let whole = strsim::jaro_winkler(key, known);
            // The right name in the wrong table.
            (
                whole.max(strsim::jaro_winkler(&last(key), &last(known))),
                known,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness > 0.8 => format!("did you mean `{known}`?"),
        _ => format!("there are: {}", KEYS.join(", ")),
    }
}

impl File<'_> {
    /// What paths in it are relative to.
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.path.display())
    }
}

/// One value, with all that an error says about it.
struct Wanted<'a> {
    file: &'a File<'a>,
    key: &'a str,
    value: &'a Value<'a>,
    what: &'a str,
}

impl Wanted<'_> {
    fn wrong(&self, value: &Value<'_>, problem: String) -> SettingsError {
        SettingsError::Value {
            place: self.file.place(value.span().start),
            key: self.key.to_owned(),
            problem,
        }
    }

    fn other_kind(&self, value: &Value<'_>) -> SettingsError {
        self.wrong(value, format!("{} is wanted", self.what))
    }

    fn text<T>(
        &self,
        value: &Value<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        match value.get_ref() {
            DeValue::String(text) => parse(text).map_err(|problem| self.wrong(value, problem)),
            _ => Err(self.other_kind(value)),
        }
    }

    fn read<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, SettingsError> {
        self.text(self.value, parse)
    }

    fn list<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, SettingsError> {
        match self.value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| self.text(item, &parse)).collect(),
            _ => Err(self.other_kind(self.value)),
        }
    }

    fn boolean(&self) -> Result<bool, SettingsError> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.other_kind(self.value)),
        }
    }

    fn number(&self) -> Result<u32, SettingsError> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => {
                let text = number.as_str().replace('_', "");
                let number = text.parse().ok().filter(|number| *number > 0);
                number.ok_or_else(|| self.other_kind(self.value))
            }
            _ => Err(self.other_kind(self.value)),
        }
    }

    fn path(&self) -> Result<std::path::PathBuf, SettingsError> {
        let folder = self.file.folder();
        self.read(|text| match text {
            "" => Err("an empty path".into()),
            text => {
                let path = folder.join(text);
                Ok(std::path::absolute(&path).unwrap_or(path))
            }
        })
    }
}

fn from_str<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn listen(text: &str) -> Result<std::net::SocketAddr, String> {
    let wrong = |_| format!("`{text}` is no address; write `0.0.0.0:8479`");
    text.parse().map_err(wrong)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_duration_ms(text) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(format!(
            "`{text}` is no time; write `500ms`, `30s`, `5m`, `1h`"
        )),
    }
}

fn parse_peer(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'));
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '?' | '#');
    match host {
        Some(host) if !host.is_empty() && host.chars().all(plain) => Ok(format!("http://{host}")),
        _ => Err(format!("`{text}` is no peer; write `http://HOST:PORT`")),
    }
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').map(str::trim).unwrap_or_default();
    match number.parse::<u8>() {
        Ok(percent) if percent <= 100 && !number.starts_with('+') => Ok(percent),
        _ => Err(format!("`{text}` is no share; write `10%`, at most `100%`")),
    }
}

fn parse_apply(text: &str) -> Result<ApplyConfig, String> {
    match text {
        "restart" => Ok(ApplyConfig::Restart),
        "reload" => Ok(ApplyConfig::Reload),
        _ => Err(format!("`{text}` is neither `restart` nor `reload`")),
    }
}

fn parse_zone(text: &str) -> Result<TimeZone, String> {
    if matches!(text, "UTC" | "Z") {
        return Ok(TimeZone::UTC);
    }
    let signed = text
        .strip_prefix('+')
        .map(|rest| (1, rest))
        .or_else(|| text.strip_prefix('-').map(|rest| (-1, rest)));
    if let Some((sign, rest)) = signed {
        let parts = rest.split_once(':').and_then(|(hours, minutes)| {
            let two = |text: &str| {
                let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                plain.then(|| text.parse::<i32>().ok()).flatten()
            };
            Some((two(hours)?, two(minutes)?))
        });
        return match parts {
            Some((hours, minutes)) if hours <= 14 && minutes < 60 => {
                Offset::from_seconds(sign * (hours * 3600 + minutes * 60))
                    .map(TimeZone::fixed)
                    .map_err(|error| error.to_string())
            }
            _ => Err(format!("`{text}` is no offset; write `+02:00`")),
        };
    }
    TimeZone::get(text).map_err(|_| {
        format!("this device knows no time zone `{text}`; install `tzdata`, or write an offset as `+02:00`")
    })
}
