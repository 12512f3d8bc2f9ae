//! What `status` shows: identity, release, update, app, the last poll and the last error.
//!
//! The agent leaves what only it knows in `status.json` (format 1); the rest is read from the
//! files that hold it, so `status` also answers when no agent runs.

use std::{collections::BTreeMap, fmt, fs, os::unix::fs::MetadataExt as _, path::Path};

use jiff::Timestamp;
use pytheas_release::{ReleaseRef, TreeId};
use pytheas_update::{Machine, StoredStateError};
use serde::{Deserialize, Serialize};

use crate::{
    app_config::{AppConfig, ConfigStatus},
    confirm::Confirming,
    error::AgentError,
    identity::{Identity, IdentityError},
    paths::StateDir,
    slots,
    supervisor::AppStatus,
};

/// What only the running agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    format: u32,
    /// Who this device is, for those who may not read its identity.
    #[serde(default)]
    pub device_id: Option<String>,
    /// Its hub.
    #[serde(default)]
    pub hub: Option<String>,
    /// Whether the hub has accepted it.
    #[serde(default)]
    pub accepted: bool,
    /// Damage on the disk that could not be repaired yet.
    #[serde(default)]
    pub damage: Option<String>,
    /// Why the settings file is unusable, so that what was in force before still is.
    #[serde(default)]
    pub settings: Option<String>,
    /// When the hub last answered a poll, milliseconds since 1970.
    #[serde(default)]
    pub last_poll_ms: Option<i64>,
    /// When the hub is asked next.
    #[serde(default)]
    pub next_poll_ms: Option<i64>,
    /// What went wrong last.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(default)]
    pub last_error_ms: Option<i64>,
    /// The app that was installed first.
    #[serde(default)]
    pub app: AppStatus,
    /// What the update waits for.
    #[serde(default)]
    pub held: Option<String>,
    /// What the hub wants to be confirmed.
    #[serde(default)]
    pub confirm: Option<Confirming>,
    /// The others, by name.
    #[serde(default)]
    pub apps: BTreeMap<String, AppStatus>,
    /// When this was written.
    #[serde(default)]
    pub written_ms: i64,
    /// What was written last, without what time alone changes.
    #[serde(skip)]
    shown: Option<Box<Live>>,
}

impl Live {
    /// Leaves it for `status`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a status that a power cut loses is written again; syncing it would wear the flash"
    )]
    pub(crate) fn save(&mut self, path: &Path, now: Timestamp) {
        self.format = 1;
        let mut shown = Self {
            shown: None,
            written_ms: 0,
            ..self.clone()
        };
        for app in std::iter::once(&mut shown.app).chain(shown.apps.values_mut()) {
            app.uptime_s = app.uptime_s.map(|_| 0);
        }
        if self.shown.as_deref() == Some(&shown) {
            return;
        }
        self.written_ms = now.as_millisecond();
        let Ok(bytes) = serde_json::to_vec_pretty(self) else {
            return;
        };
        let temp = path.with_extension("json.new");
        let replaced = fs::write(&temp, &bytes).and_then(|()| fs::rename(&temp, path));
        let written = replaced.or_else(|_| {
            // A full disk: the old one's place is enough for the new one.
            let _there_or_not = fs::remove_file(&temp);
            fs::write(path, &bytes)
        });
        if written.is_ok() {
            self.shown = Some(Box::new(shown));
        }
    }

    pub(crate) fn load(path: &Path) -> Self {
        let bytes = crate::paths::read(path).unwrap_or_default();
        serde_json::from_slice(&bytes)
            .ok()
            .filter(|live: &Self| live.format == 1)
            .unwrap_or_default()
    }
}

/// Everything `status` shows; its JSON form is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The device, once it has an identity.
    pub device_id: Option<String>,
    /// Its hub.
    pub hub: Option<String>,
    /// Whether the hub has accepted it.
    pub accepted: bool,
    /// The process of the agent, when one runs.
    pub agent_pid: Option<u32>,
    /// The committed release.
    pub release: Option<ReleaseRef>,
    /// Its tree.
    pub tree: Option<TreeId>,
    /// The release one can go back to.
    pub previous: Option<ReleaseRef>,
    /// The update machine's state: `idle`, `fetching`, …; `unknown` with a `state_error`
    pub state: String,
    /// Why the state is not known: `state.json` is damaged, gone, or a newer agent's. Then nothing is
    /// said of releases and updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_error: Option<String>,
    /// Why it is not known who this device is: `identity.json` and its copy are damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_error: Option<String>,
    /// The release an update leads to.
    pub updating_to: Option<ReleaseRef>,
    /// The hub's action.
    pub action: Option<String>,
    /// What the update waits for: a window, consent, the end of a hold.
    #[serde(default)]
    pub held: Option<String>,
    /// What the hub wants to be confirmed at the device before it is fetched.
    #[serde(default)]
    pub confirm: Option<Confirming>,
    /// Closing reports the hub has not acknowledged.
    pub reports_waiting: usize,
    /// When the hub last answered a poll, milliseconds since 1970.
    pub last_poll_ms: Option<i64>,
    /// When the hub is asked next.
    pub next_poll_ms: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ms: Option<i64>,
    /// Damage on the disk that was found and could not be repaired yet.
    pub damage: Option<String>,
    /// Why the settings file is unusable: what was in force before it changed still is.
    #[serde(default)]
    pub settings_error: Option<String>,
    /// The hub's settings for the apps, once it has sent some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// The app; as it was when the agent last wrote about it.
    pub app: AppStatus,
    /// The device's further apps, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentStatus>,
}

/// What `status` shows of a further app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// The committed release.
    pub release: ReleaseRef,
    /// Its tree.
    pub tree: TreeId,
    /// The release one can go back to.
    pub previous: Option<ReleaseRef>,
    /// The app.
    pub app: AppStatus,
}

impl Status {
    /// The status of the device in `dir`, and what keeps a part of it from being known.
    ///
    /// # Errors
    /// [`AgentError`] when a file that is there cannot be read by this user.
    pub fn read(dir: &StateDir) -> Result<(Self, Option<AgentError>), AgentError> {
        let mut identity_error = None;
        let identity = match Identity::load(&dir.identity()) {
            Err(IdentityError::Missing { .. }) => None,
            Err(error @ (IdentityError::Damaged { .. } | IdentityError::Parse { .. })) => {
                identity_error = Some(error);
                None
            }
            // It holds the device's token and is its owner's alone; the agent has said the rest.
            Err(IdentityError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                None
            }
            other => Some(other?),
        };
        let (machine, state_error) = match load_machine(dir) {
            Err(error @ AgentError::State { .. }) => (Machine::default(), Some(error)),
            other => (other?.unwrap_or_default(), None),
        };
        let live = Live::load(&dir.status());
        let unreadable = identity.is_none() && dir.identity().exists();
        let agent_pid = running_agent(dir);
        let mut app = if agent_pid.is_some() {
            live.app
        } else {
            AppStatus::default()
        };
        let mut apps = match agent_pid {
            Some(_) => live.apps,
            None => BTreeMap::new(),
        };
        for app in std::iter::once(&mut app).chain(apps.values_mut()) {
            if let Some(uptime) = &mut app.uptime_s {
                let since = crate::clock::now().as_millisecond() - live.written_ms;
                *uptime += u64::try_from(since / 1000).unwrap_or(0);
            }
        }
        let components = machine
            .components()
            .iter()
            .map(|(name, component)| ComponentStatus {
                release: component.current.release.clone(),
                tree: component.current.tree,
                previous: component
                    .previous
                    .as_ref()
                    .map(|previous| previous.release.clone()),
                app: apps.remove(name.as_str()).unwrap_or_default(),
            })
            .collect();
        let status = Self {
            accepted: match &identity {
                Some(identity) => identity.token.is_some(),
                None => unreadable && live.accepted,
            },
            device_id: match &identity {
                Some(identity) => Some(identity.device_id.to_string()),
                None => live.device_id.filter(|_| unreadable),
            },
            hub: match identity {
                Some(identity) => Some(identity.hub),
                None => live.hub.filter(|_| unreadable),
            },
            damage: live.damage,
            settings_error: live.settings.filter(|_| agent_pid.is_some()),
            agent_pid,
            release: machine.current().map(|current| current.release.clone()),
            tree: machine.current().map(|current| current.tree),
            previous: machine.previous().map(|previous| previous.release.clone()),
            state: match &state_error {
                Some(_) => "unknown".to_owned(),
                None => machine.state().name().to_owned(),
            },
            state_error: state_error.as_ref().map(|error| crate::http::chain(error)),
            identity_error: identity_error
                .as_ref()
                .map(|error| crate::http::chain(error)),
            updating_to: machine.state().job().map(|job| job.to.release.clone()),
            action: machine.state().action().map(ToString::to_string),
            held: live.held.filter(|_| agent_pid.is_some()),
            confirm: live.confirm,
            reports_waiting: machine.outbox().len(),
            last_poll_ms: live.last_poll_ms,
            next_poll_ms: live.next_poll_ms.filter(|_| agent_pid.is_some()),
            last_error: live.last_error,
            last_error_ms: live.last_error_ms,
            config: AppConfig::look(dir),
            app,
            components,
        };
        Ok((status, state_error.or(identity_error.map(AgentError::from))))
    }
}

/// The machine in `state.json`; none on a fresh device.
///
/// # Errors
/// [`AgentError::State`] when it does not parse, or is gone.
pub(crate) fn load_machine(dir: &StateDir) -> Result<Option<Machine>, AgentError> {
    let path = dir.state();
    match crate::paths::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match slots::is_fresh(dir) {
            true => Ok(None),
            false => Err(AgentError::State {
                path,
                source: StoredStateError::Gone,
            }),
        },
        Err(error) if is_damage(&error) => Err(AgentError::State {
            path,
            source: StoredStateError::Unreadable(error),
        }),
        Err(error) => Err(AgentError::io("read", &path)(error)),
        Ok(bytes) => Machine::parse(&bytes)
            .map(Some)
            .map_err(|source| AgentError::State { path, source }),
    }
}

/// Whether a file cannot be read because of what became of it, and not of who reads it.
fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        || matches!(error.kind(), Kind::FileTooLarge | Kind::IsADirectory)
}

/// The process that holds the agent's lock, from `/proc/locks` (proc(5)): looking must not take
/// the lock, or an agent that starts now would find it taken.
pub(crate) fn running_agent(dir: &StateDir) -> Option<u32> {
    let metadata = fs::metadata(dir.lock()).ok()?;
    let (major, minor) = (
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev()),
    );
    let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    // Some file systems (btrfs, overlay) show another device there than stat(2) does; then the
    // number that the holder wrote into the file has to be the same.
    let inode = format!(":{}", metadata.ino());
    let noted: Option<u32> = fs::read_to_string(dir.lock())
        .ok()
        .and_then(|text| text.trim().parse().ok());
    holder(
        &fs::read_to_string("/proc/locks").ok()?,
        &file,
        &inode,
        noted,
    )
}

/// The process that holds a lock on `file`, in the text of `/proc/locks`; with the number it has
/// `noted`, the `inode` is enough.
fn holder(locks: &str, file: &str, inode: &str, noted: Option<u32>) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line
            .split_whitespace()
            .filter(|field| *field != "->")
            .skip(1);
        let kind = fields.next()?;
        let pid = fields.nth(2)?.parse().ok()?;
        let held = fields.next()?;
        let ours = held == file || noted == Some(pid) && held.ends_with(&inode);
        (kind == "FLOCK" && ours).then_some(pid)
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = |ms: Option<i64>| {
            ms.and_then(|ms| Timestamp::from_millisecond(ms).ok())
                .map_or_else(
                    || "never".to_owned(),
                    |time| time.strftime("%F %T UTC").to_string(),
                )
        };
        let release = |release: &Option<ReleaseRef>| {
            release
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string)
        };
        match (&self.device_id, &self.hub) {
            (Some(id), Some(hub)) => {
                let accepted = if self.accepted {
                    ""
                } else {
                    " (waits to be accepted)"
                };
                if hub.is_empty() {
                    writeln!(f, "device     {id}")?;
                    writeln!(f, "hub        none: updated from files")?;
                } else {
                    writeln!(f, "device     {id}{accepted}")?;
                    writeln!(f, "hub        {hub}")?;
                }
            }
            _ if self.identity_error.is_some() => writeln!(f, "device     unknown")?,
            _ => writeln!(f, "device     not enrolled")?,
        }
        if let Some(error) = &self.identity_error {
            writeln!(f, "           {error}")?;
        }
        match self.agent_pid {
            Some(pid) => writeln!(f, "agent      process {pid}")?,
            None => writeln!(f, "agent      not running")?,
        }
        match &self.state_error {
            Some(error) => write!(f, "release    unknown: {error}")?,
            None => write!(f, "release    {}", release(&self.release))?,
        }
        match self.tree {
            Some(tree) => writeln!(f, " (tree {})", tree.short())?,
            None => writeln!(f)?,
        }
        if self.state_error.is_none() {
            writeln!(f, "previous   {}", release(&self.previous))?;
        }
        if let Some(damage) = &self.damage {
            writeln!(f, "damage     {damage}")?;
        }
        if let Some(error) = &self.settings_error {
            writeln!(f, "settings   NOT IN FORCE: {error}")?;
            writeln!(
                f,
                "           those before it are; the file is read when the agent starts"
            )?;
        }
        if let Some(config) = &self.config {
            write!(f, "config     {}", config.applied)?;
            if let Some(trying) = &config.trying {
                write!(f, ", trying {trying}")?;
            }
            writeln!(f)?;
            if let Some(refused) = &config.refused {
                let why = config.because.first().map_or("", String::as_str);
                writeln!(f, "           {refused} was given up: {why}")?;
            }
        }
        write!(f, "update     {}", self.state)?;
        if let Some(to) = &self.updating_to {
            write!(f, " to {to}")?;
        }
        if let Some(action) = &self.action {
            write!(f, " (action {action})")?;
        }
        writeln!(f)?;
        if let Some(held) = &self.held {
            writeln!(f, "waits      {held}")?;
        }
        if let Some(confirm) = &self.confirm {
            let Confirming { action, release } = confirm;
            writeln!(
                f,
                "confirm    `{release}` (action {action}): `pytheas-agent approve` or `deny`"
            )?;
        }
        match (self.app.pid, self.app.uptime_s) {
            (Some(pid), Some(uptime)) => {
                write!(
                    f,
                    "app        process {pid}, up {uptime} s, {} restarts",
                    self.app.restarts
                )?;
                writeln!(f, "{}", if self.app.ready { "" } else { ", not ready" })?;
            }
            _ => writeln!(f, "app        not running")?,
        }
        if let Some(says) = &self.app.says {
            writeln!(f, "app says   {says}")?;
        }
        for guard in &self.app.guards {
            let held = if guard.in_force { "" } else { "not in force: " };
            writeln!(f, "guard      {}: {held}{}", guard.name, guard.detail)?;
        }
        for component in &self.components {
            write!(
                f,
                "also       {} (tree {}), ",
                component.release,
                component.tree.short()
            )?;
            match (component.app.pid, component.app.uptime_s) {
                (Some(pid), Some(uptime)) => {
                    let restarts = component.app.restarts;
                    write!(f, "process {pid}, up {uptime} s, {restarts} restarts")?;
                    writeln!(
                        f,
                        "{}",
                        if component.app.ready {
                            ""
                        } else {
                            ", not ready"
                        }
                    )?;
                }
                _ => writeln!(f, "not running")?,
            }
        }
        writeln!(f, "last poll  {}", when(self.last_poll_ms))?;
        if self.reports_waiting > 0 {
            writeln!(f, "reports    {} wait for the hub", self.reports_waiting)?;
        }
        if let Some(error) = &self.last_error {
            writeln!(
                f,
                "last error {} ({})",
                error.replace('\n', "\n           "),
                when(self.last_error_ms)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_found_also_where_its_device_has_another_number() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:42 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 812 00:1a:42 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 813 00:1a:42 0 EOF\n";
        let at = |file: &str, noted| holder(locks, file, ":42", noted);
        assert_eq!(at("00:1a:42", None), Some(812));
        assert_eq!(at("00:2f:42", Some(812)), Some(812), "btrfs");
        assert_eq!(at("00:2f:42", Some(7)), None, "no agent's lock");
        assert_eq!(at("00:2f:42", None), None);
        assert_eq!(holder(locks, "00:2f:2", ":2", Some(812)), None);
    }
}
