//! `[tool.pytheas]`: what a project may say about how it is built, watched and configured.
//!
//! ```toml
//! [tool.pytheas]
//! app = "greenhouse"                  # default: project.name
//! entry = "greenhouse.main:run"       # default: project.scripts' only entry
//! python = "3.11"
//! extras = ["mqtt"]                   # optional dependencies that belong to the app
//! groups = []                         # dependency groups that belong to the app
//! include = ["data/*.csv"]            # files that would otherwise be left out
//! exclude = ["notebooks"]
//! scripts = ["alembic"]               # programs of dependencies to take along
//! python-mirror = "https://mirror.example/python"
//!
//! [tool.pytheas.target.gateway]
//! form = "bundle"
//! platform = "linux-aarch64"
//!
//! [tool.pytheas.config]
//! interval = { type = "duration", default = "30s", env = "GREENHOUSE_INTERVAL", help = "…" }
//!
//! [tool.pytheas.build]
//! network = ["native-thing"]          # packages whose build may use it; true: the project's own
//!
//! [tool.pytheas.test]
//! groups = ["test"]                   # dependency groups (and `extras`) that the tests need
//! command = "pytest -q tests/unit"    # how they are run
//!
//! [tool.pytheas.requires]             # and `conflicts`: where the release may run
//! agent = ">=0.2"
//! model = ["Raspberry Pi 4*"]
//! broker = ">=2,<3"                   # another app of the device
//!
//! [tool.pytheas.hooks]                # run by the device's agent around an update
//! after-update = { command = "greenhouse.data:migrate", timeout = "2m" }
//!
//! [tool.pytheas.health]
//! ready = "notify"                    # or "http://127.0.0.1:8080/healthz", or "stay-up"
//! deadline = "60s"
//! stay-up = "10s"
//! ```

use std::collections::BTreeMap;

use pytheas_release::{
    ConfigOption, Health, Name, Platform, Ready, compat::Rules, parse_duration_ms,
};
use serde::Deserialize;

use crate::{entry::Entry, python::PythonRequest};

mod micropython;
mod tables;
mod update;

pub use micropython::{Also, MicroPythonSpec};
pub use tables::{
    AuditSpec, BuildNetwork, BuildSpec, ByteCode, CompileSpec, CompileWith, Day, IgnoreSpec,
    LicenceSpec, NumbaSpec, SlimRule, TestSpec, VersionFrom, VersionSpec,
};
pub use update::{ConflictsSpec, HookCommand, HookSpec, HooksSpec, RequiresSpec};

/// The table `[tool.pytheas]`; absent parts have their defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Name of the app.
    pub app: Option<Name>,
    /// What starts it.
    pub entry: Option<Entry>,
    /// The Python it runs on.
    pub python: Option<PythonRequest>,
    /// Optional dependencies (extras) that belong to the app.
    pub extras: Vec<String>,
    /// Dependency groups that belong to the app.
    pub groups: Vec<String>,
    /// Patterns of files to take along that would be left out.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Where python-build-standalone archives are fetched from: an address or a folder.
    pub python_mirror: Option<String>,
    /// What can be built, by name.
    pub target: BTreeMap<String, Target>,
    /// What operators may set, by name.
    pub config: BTreeMap<String, ConfigSpec>,
    /// How a started release proves that it works.
    pub health: HealthSpec,
    /// Which licences may be shipped.
    pub licences: LicenceSpec,
    /// What `pytheas audit` asks, and what it passes over.
    pub audit: AuditSpec,
    /// Where the version comes from, when `project.version` does not say.
    pub version: Option<VersionSpec>,
    /// Which modules of the app become compiled ones.
    pub compile: Option<CompileSpec>,
    /// What numba compiles when a bundle is built.
    pub numba: NumbaSpec,
    /// What code that runs to build packages may do.
    pub build: BuildSpec,
    /// Programs (console scripts) of dependencies that belong to the app.
    pub scripts: Vec<String>,
    /// What the import graph cannot see.
    pub rule: Vec<SlimRule>,
    /// How the project's tests are run.
    pub test: TestSpec,
    /// Packages for boards.
    pub micropython: MicroPythonSpec,
    /// What a device must have for the release.
    pub requires: RequiresSpec,
    /// What it must not have.
    pub conflicts: ConflictsSpec,
    /// Older releases may take its place, and it the place of newer ones, without being asked to.
    pub allow_downgrade: bool,
    /// What devices run around an update.
    pub hooks: HooksSpec,
}

/// One table `[tool.pytheas.target.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Target {
    /// The form, e.g. `bundle`; the builder knows which there are.
    pub form: Option<String>,
    /// What it is built for; the host's when absent.
    pub platform: Option<Platform>,
    /// Another entry than the project's.
    pub entry: Option<Entry>,
    /// Another Python than the project's.
    pub python: Option<PythonRequest>,
    /// Only what the import graph reaches.
    pub slim: bool,
    /// Modules or packages that `slim` keeps though nothing is seen to import them.
    pub keep: Vec<String>,
    /// What a bundle holds of its modules.
    pub bytecode: ByteCode,
    /// The greatest size, e.g. `40 MB`.
    pub budget: Option<String>,
    /// The greatest sizes of packages, by name; `app` and `python` have theirs too.
    pub budgets: BTreeMap<String, String>,
    /// The board of a `micropython` target.
    pub board: Option<String>,
    /// mpy-cross's `-O` of a `micropython` target: 1 and 2 leave out `assert`, 3 line numbers, too.
    pub optimize: u8,
    /// The most RAM that importing a board's app may keep, e.g. `12 kB`; measured on an emulated board.
    pub ram_budget: Option<String>,
    /// The most instructions that importing it may take, e.g. `3 M`; measured there, too.
    pub import_budget: Option<String>,
    /// The oldest MicroPython it runs on: `1.25`.
    pub micropython: Option<String>,
    /// The exact firmware it belongs to, as boards' own settings name it.
    pub firmware: Option<String>,
    /// Models of boards it is for, as their own settings name them; any when empty.
    pub models: Vec<String>,
    /// What a board's release has beside the image.
    pub also: Vec<Also>,
}

/// One option of `[tool.pytheas.config]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConfigSpec {
    /// What values it takes.
    #[serde(rename = "type", default)]
    pub kind: ConfigKind,
    /// Its value when nobody sets it: a string, number or boolean.
    pub default: Option<toml::Value>,
    /// The environment variable that hands it to the app; `APP_OPTION` when absent.
    pub env: Option<String>,
    /// One line for the operator.
    #[serde(default)]
    pub help: String,
}

/// The type of a configuration option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigKind {
    /// Any text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// A time span, e.g. `30s`.
    Duration,
    /// An address.
    Url,
    /// A text that is never shown.
    Secret,
}

impl ConfigKind {
    /// The name used in `pyproject.toml` and in the build record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Url => "url",
            Self::Secret => "secret",
        }
    }
}

impl ConfigSpec {
    /// What is wrong with the default or the variable's name.
    pub(crate) fn check(&self) -> Result<(), String> {
        use toml::Value;
        let name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if let Some(env) = self.env.as_deref()
            && (env.is_empty()
                || env.starts_with(|c: char| c.is_ascii_digit())
                || !env.chars().all(name_char))
        {
            return Err(format!("`{env}` is no name of an environment variable"));
        }
        let fits = match (self.kind, &self.default) {
            (_, None) | (ConfigKind::String, Some(Value::String(_))) => true,
            (ConfigKind::Secret, Some(_)) => return Err("a secret has no default".to_owned()),
            (ConfigKind::Integer, Some(Value::Integer(_))) => true,
            (ConfigKind::Float, Some(Value::Integer(_) | Value::Float(_))) => true,
            (ConfigKind::Boolean, Some(Value::Boolean(_))) => true,
            (ConfigKind::Duration, Some(Value::String(text))) => parse_duration_ms(text).is_some(),
            (ConfigKind::Url, Some(Value::String(text))) => url::Url::parse(text).is_ok(),
            _ => false,
        };
        let default = self
            .default
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        if fits {
            Ok(())
        } else {
            Err(format!("`{default}` is no {}", self.kind.as_str()))
        }
    }
}

/// The table `[tool.pytheas.health]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HealthSpec {
    /// What proves readiness.
    pub ready: Option<ReadySpec>,
    /// How long it may take.
    pub deadline: Option<Millis>,
    /// How long a `stay-up` app has to run.
    pub stay_up: Option<Millis>,
}

/// A time span written as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Millis(pub u64);

impl TryFrom<String> for Millis {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration_ms(&text)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no time span; write e.g. `500ms`, `30s`, `5m`"))
    }
}

/// `notify`, `stay-up` or an `http://` address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ReadySpec(pub Ready);

impl TryFrom<String> for ReadySpec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "notify" => Ok(Self(Ready::Notify)),
            "stay-up" => Ok(Self(Ready::StayUp)),
            _ if text.starts_with("http://") && url::Url::parse(&text).is_ok() => {
                Ok(Self(Ready::Http { url: text }))
            }
            _ => Err(format!(
                "`{text}` is no health rule; known are `notify`, `stay-up` and an `http://` address"
            )),
        }
    }
}

impl Settings {
    /// The health rule, with the defaults for what is not said.
    pub fn health(&self) -> Health {
        let default = Health::default();
        Health {
            ready: self
                .health
                .ready
                .clone()
                .map_or(default.ready, |ready| ready.0),
            deadline_ms: self
                .health
                .deadline
                .map_or(default.deadline_ms, |time| time.0),
            stay_up_ms: self
                .health
                .stay_up
                .map_or(default.stay_up_ms, |time| time.0),
        }
    }

    /// Where a release may run.
    pub fn rules(&self) -> Rules {
        Rules {
            requires: self.requires.0.clone(),
            conflicts: self.conflicts.0.clone(),
            allow_downgrade: self.allow_downgrade,
        }
    }

    /// The configuration schema as the build record holds it.
    pub fn config(&self, app: &Name) -> BTreeMap<String, ConfigOption> {
        let shout = |text: &str| {
            text.to_uppercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        };
        self.config
            .iter()
            .map(|(name, spec)| {
                let default = spec.default.as_ref().map(|value| match value {
                    toml::Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                let option = ConfigOption {
                    kind: spec.kind.as_str().to_owned(),
                    default,
                    env: spec
                        .env
                        .clone()
                        .unwrap_or_else(|| format!("{}_{}", shout(app.as_str()), shout(name))),
                    help: spec.help.clone(),
                };
                (name.clone(), option)
            })
            .collect()
    }
}
