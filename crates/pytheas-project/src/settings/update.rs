//! The tables of `[tool.pytheas]` about updates: `requires`, `conflicts` and `hooks`.

use std::collections::BTreeMap;

use pytheas_release::{HOOK_TIMEOUT_MS, compat::Rules};
use serde::Deserialize;

use super::Millis;
use crate::entry::Entry;

/// The table `[tool.pytheas.requires]`, checked; lists of models and platforms are joined by ` | `.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, OneOrMany>")]
pub struct RequiresSpec(pub BTreeMap<String, String>);

/// The table `[tool.pytheas.conflicts]`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct ConflictsSpec(pub BTreeMap<String, String>);

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<BTreeMap<String, OneOrMany>> for RequiresSpec {
    type Error = String;

    fn try_from(table: BTreeMap<String, OneOrMany>) -> Result<Self, String> {
        let mut requires = BTreeMap::new();
        for (key, value) in table {
            let value = match value {
                OneOrMany::One(text) => text,
                OneOrMany::Many(names) if matches!(key.as_str(), "model" | "platform") => {
                    names.join(" | ")
                }
                OneOrMany::Many(ranges) => ranges.join(","),
            };
            if key.contains(':') {
                return Err(format!("`{key}` in `requires`: that is no name of an app"));
            }
            requires.insert(key, value);
        }
        let rules = Rules {
            requires,
            ..Rules::default()
        };
        match rules.problem() {
            Some(problem) => Err(problem),
            None => Ok(Self(rules.requires)),
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for ConflictsSpec {
    type Error = String;

    fn try_from(conflicts: BTreeMap<String, String>) -> Result<Self, String> {
        let rules = Rules {
            conflicts,
            ..Rules::default()
        };
        match rules.problem() {
            Some(problem) => Err(problem),
            None => Ok(Self(rules.conflicts)),
        }
    }
}

/// The table `[tool.pytheas.hooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HooksSpec {
    /// Of the new release, while the old one runs; when it fails nothing is changed.
    pub before_update: Option<HookSpec>,
    /// Of the new release, with the app stopped: migrates the data.
    pub after_update: Option<HookSpec>,
    /// Of the release that is gone back to.
    pub after_rollback: Option<HookSpec>,
    /// Whether the data folder is set aside before an update to this release; when absent, if
    /// there is an `after-update` hook.
    pub snapshot: Option<bool>,
}

impl HooksSpec {
    /// Name and hook of those there are, in the order in which they are run.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &HookSpec)> {
        [
            ("before-update", &self.before_update),
            ("after-update", &self.after_update),
            ("after-rollback", &self.after_rollback),
        ]
        .into_iter()
        .filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
    }
}

/// One hook: a command, or a command with a time-out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "HookText")]
pub struct HookSpec {
    /// What is run.
    pub command: HookCommand,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`\"module:function\"`, a list such as `[\"bin/alembic\", \"upgrade\"]`, or `{ command = …, timeout = \"2m\" }`"
)]
enum HookText {
    Command(HookCommand),
    Table(HookTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HookTable {
    command: HookCommand,
    timeout: Option<Millis>,
}

impl From<HookText> for HookSpec {
    fn from(text: HookText) -> Self {
        let (command, timeout) = match text {
            HookText::Command(command) => (command, None),
            HookText::Table(table) => (table.command, table.timeout),
        };
        Self {
            command,
            timeout_ms: timeout.map_or(HOOK_TIMEOUT_MS, |timeout| timeout.0),
        }
    }
}

/// What a hook runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CommandText")]
pub enum HookCommand {
    /// `module:function` of the app.
    Entry(Entry),
    /// A program and its arguments.
    Program(Vec<String>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`\"module:function\"` or a list such as `[\"bin/alembic\", \"upgrade\"]`"
)]
enum CommandText {
    Entry(String),
    Program(Vec<String>),
}

impl TryFrom<CommandText> for HookCommand {
    type Error = String;

    fn try_from(text: CommandText) -> Result<Self, String> {
        match text {
            CommandText::Program(words) if words.first().is_some_and(|word| !word.is_empty()) => {
                Ok(Self::Program(words))
            }
            CommandText::Program(_) => Err("a hook's command has at least a program".to_owned()),
            CommandText::Entry(text) => match text.parse() {
                Ok(entry @ Entry::Callable { .. }) => Ok(Self::Entry(entry)),
                _ => Err(format!(
                    "`{text}` is no `module:function`; write a command as a list: `[\"bin/alembic\", \"upgrade\"]`"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    fn parsed(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn rules_are_read_and_judged() {
        let settings = parsed(
            "allow-downgrade = true\n[requires]\nagent = '>=0.1'\nmodel = ['gw-1', 'Raspberry Pi 4*']\nbroker = '>=2,<3'\n[conflicts]\nlegacy = '*'\n",
        )
        .unwrap();
        let rules = settings.rules();
        assert!(rules.allow_downgrade);
        assert_eq!(rules.requires["model"], "gw-1 | Raspberry Pi 4*");
        assert_eq!(rules.requires["broker"], ">=2,<3");
        assert_eq!(rules.conflicts["legacy"], "*");
        insta::assert_snapshot!(parsed("[requires]\nbroker = '2'").unwrap_err(), @"`broker` in `requires`: `2` is no range of versions: write e.g. `>=1.2`, `>=2,<3`, `==1.4.*`, `~=2.1` or `*`");
        insta::assert_snapshot!(parsed("[conflicts]\nmodel = 'x'").unwrap_err(), @"`model` in `conflicts`: only components can be in conflict");
        insta::assert_snapshot!(parsed("[requires]\n'feature:x' = '1'").unwrap_err(), @"`feature:x` in `requires`: that is no name of an app");
    }

    #[test]
    fn hooks_are_functions_or_commands() {
        let hooks = parsed(
            "[hooks]\nbefore-update = 'app.hooks:check'\nafter-update = { command = ['bin/alembic', 'upgrade', 'head'], timeout = '2m' }\n",
        )
        .unwrap()
        .hooks;
        let found: Vec<_> = hooks
            .iter()
            .map(|(name, hook)| (name, hook.timeout_ms))
            .collect();
        assert_eq!(
            found,
            [("before-update", 300_000), ("after-update", 120_000)]
        );
        for wrong in [
            "after-update = 'alembic upgrade'",
            "after-update = []",
            "after-install = 'a:b'",
            "after-update = { timeout = '2m' }",
        ] {
            assert!(parsed(&format!("[hooks]\n{wrong}")).is_err(), "{wrong}");
        }
    }
}
