//! The settings that the hub sends for this device's apps: those in force, those on trial, those
//! that were given up. Kept in `config/`; `device/config.rs` tries them.
//!
//! ```text
//! config/state        SHA-256 of the second line, then {"format": 1, "current": …, "trial": …}
//! config/config.json  the settings in force, for the app; written from `state`
//! ```
//! `state` is replaced before `config.json`, which is written again from it at every start: a power
//! cut leaves the settings before, or the new ones with their trial still to pass.

mod options;

use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use pytheas_api::{
    Settings,
    ddi::{ATTRIBUTE_CONFIG, ATTRIBUTE_CONFIG_LOG, ATTRIBUTE_CONFIG_REFUSED, NO_REVISION},
};
use pytheas_durable::faults;
use pytheas_release::{Sha256, TreeId};
use pytheas_update::{Failure, PROBATION_STARTS};
use serde::{Deserialize, Serialize};
use tracing::warn;

pub(crate) use self::options::{misfit, variable};
use crate::{
    attributes::cut,
    paths::{self, StateDir},
};

/// Lines told of what an app wrote before its settings were given up.
const LOG_LINES: usize = 8;

/// Settings with the word by which the hub knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revision {
    /// As the hub sent it.
    pub(crate) tag: String,
    /// All of them.
    pub(crate) settings: Settings,
}

impl Default for Revision {
    fn default() -> Self {
        Self {
            tag: NO_REVISION.to_owned(),
            settings: Settings::new(),
        }
    }
}

impl Revision {
    /// Whether the hub has ever set anything.
    pub(crate) fn is_any(&self) -> bool {
        self.tag != NO_REVISION
    }
}

/// Settings that have to prove that the apps work with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    next: Revision,
    /// Starts left after the one under way.
    tries_left: u8,
}

/// Settings that were given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    tag: String,
    /// Why, the short line first.
    because: Vec<String>,
    /// What ran then: other releases may take them.
    trees: Vec<TreeId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    format: u32,
    current: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct AppConfig {
    dir: PathBuf,
    stored: Stored,
}

/// What `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The revision that the apps run with.
    pub applied: String,
    /// The one they are tried with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trying: Option<String>,
    /// The one that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

/// A `state` that cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is damaged")]
    Damaged,
    #[error("it does not parse")]
    Parse(#[source] serde_json::Error),
    #[error("it has format {0}, which this agent does not know")]
    Format(u32),
}

fn parse(bytes: &[u8]) -> Result<Stored, Unusable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unusable::Damaged)?;
    let (sum, json) = text.split_once('\n').ok_or(Unusable::Damaged)?;
    if Sha256::of(json.as_bytes()).to_string() != sum {
        return Err(Unusable::Damaged);
    }
    let stored: Stored = serde_json::from_str(json).map_err(Unusable::Parse)?;
    match stored.format {
        1 => Ok(stored),
        other => Err(Unusable::Format(other)),
    }
}

impl AppConfig {
    /// What is kept in the state directory. What cannot be used is set aside: the settings that
    /// the app's file holds stay in force until the hub sends them again.
    pub(crate) fn load(dir: &StateDir) -> Self {
        let mut config = Self {
            dir: dir.config(),
            stored: Stored {
                format: 1,
                ..Stored::default()
            },
        };
        let path = config.dir.join("state");
        match paths::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(stored) => config.stored = stored,
                Err(error) => {
                    let why = crate::http::chain(&error);
                    warn!(
                        "`{}` is set aside ({why}); the hub sends the settings again",
                        path.display()
                    );
                    let _stays_where_it_is =
                        paths::set_aside(&path, &config.dir.join("state.damaged"));
                    let bytes = paths::read(&dir.config_file()).unwrap_or_default();
                    if let Ok(settings) = serde_json::from_slice(&bytes) {
                        let tag = "unknown".to_owned();
                        config.stored.current = Revision { tag, settings };
                    }
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!("cannot read `{}`: {error}", path.display()),
        }
        config
    }

    /// What `status` shows of the device in `dir`; nothing is changed, and who may not read it sees
    /// nothing.
    pub(crate) fn look(dir: &StateDir) -> Option<ConfigStatus> {
        let bytes = paths::read(&dir.config().join("state")).ok()?;
        let stored = parse(&bytes).ok()?;
        let config = Self {
            dir: dir.config(),
            stored,
        };
        config.status()
    }

    /// What the apps run with, or are tried with.
    pub(crate) fn in_force(&self) -> &Revision {
        let trial = self.stored.trial.as_ref();
        trial.map_or(&self.stored.current, |trial| &trial.next)
    }

    /// What the apps are known to work with, once the hub has set anything.
    pub(crate) fn proved(&self) -> Option<&Revision> {
        Some(&self.stored.current).filter(|revision| revision.is_any())
    }

    /// Starts left of the trial, if there is one.
    pub(crate) fn tries_left(&self) -> Option<u8> {
        self.stored.trial.as_ref().map(|trial| trial.tries_left)
    }

    /// Whether these settings need no trial: they are in force, on trial, or were given up by what
    /// runs now.
    pub(crate) fn knows(&self, tag: &str, trees: &[TreeId]) -> bool {
        let refused = self.stored.refused.as_ref();
        self.in_force().tag == tag || refused.is_some_and(|r| r.tag == tag && r.trees == trees)
    }

    /// Lets what was given up be tried again once something else runs; whether that is news.
    pub(crate) fn reconsider(&mut self, trees: &[TreeId]) -> bool {
        let stale = |refused: &Refused| refused.trees != trees;
        if !self.stored.refused.as_ref().is_some_and(stale) {
            return false;
        }
        let next = Stored {
            refused: None,
            ..self.stored.clone()
        };
        self.save(next).is_ok()
    }

    /// Puts `next` in force, for good or (with a trial) until it is judged.
    ///
    /// # Errors
    /// When it cannot be written; what was in force still is.
    pub(crate) fn put(&mut self, next: Revision, trial: bool) -> io::Result<()> {
        let before = self.stored.clone();
        let mut stored = before.clone();
        stored.refused = None;
        stored.trial = None;
        if trial {
            stored.trial = Some(Trial {
                next,
                tries_left: PROBATION_STARTS - 1,
            });
        } else {
            stored.current = next;
        }
        self.save(stored).inspect_err(|_| {
            // Noted, perhaps, but not in the app's file: it would be judged with the settings before.
            self.save_as_far_as_it_goes(before);
        })
    }

    /// The trial is passed.
    ///
    /// # Errors
    /// When that cannot be written; the trial goes on.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let mut stored = self.stored.clone();
        if let Some(trial) = stored.trial.take() {
            stored.current = trial.next;
        }
        self.save(stored)
    }

    /// One start less; nothing when none was left.
    pub(crate) fn try_again(&mut self) -> Option<u8> {
        let mut stored = self.stored.clone();
        let trial = stored.trial.as_mut()?;
        trial.tries_left = trial.tries_left.checked_sub(1)?;
        let left = trial.tries_left;
        // A count that is not on the disk would let a device start for ever.
        self.save(stored).ok().map(|()| left)
    }

    /// Ends the trial without a verdict; what was in force before is again.
    pub(crate) fn abandon(&mut self) {
        let next = Stored {
            trial: None,
            ..self.stored.clone()
        };
        self.save_as_far_as_it_goes(next);
    }

    /// Gives the settings `tag` up; those before are in force again, on the disk when that takes
    /// it.
    pub(crate) fn refuse(&mut self, tag: &str, because: &Failure, trees: Vec<TreeId>) {
        let mut lines: Vec<String> = because.message().lines().map(cut).collect();
        let skip = because.log().len().saturating_sub(LOG_LINES);
        lines.extend(because.log().iter().skip(skip).map(|line| cut(line)));
        let next = Stored {
            trial: None,
            refused: Some(Refused {
                tag: tag.to_owned(),
                because: lines,
                trees,
            }),
            ..self.stored.clone()
        };
        self.save_as_far_as_it_goes(next);
    }

    fn save_as_far_as_it_goes(&mut self, next: Stored) {
        if let Err(error) = self.save(next.clone()) {
            warn!("cannot write `{}`: {error}", self.dir.display());
            self.stored = next;
        }
    }

    fn save(&mut self, next: Stored) -> io::Result<()> {
        pytheas_durable::create_dir_all(&self.dir)?;
        let json = serde_json::to_string(&next)?;
        let text = format!("{}\n{json}", Sha256::of(json.as_bytes()));
        pytheas_durable::replace_private(&self.dir.join("state"), text.as_bytes())?;
        self.stored = next;
        faults::point("agent:config:saved");
        self.write_out()
    }

    /// Writes the app's file, if it is not what it should be.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_out(&self) -> io::Result<()> {
        let path = self.dir.join(crate::paths::CONFIG_FILE);
        let mut text = serde_json::to_string_pretty(&self.in_force().settings)?;
        text.push('\n');
        let there = fs::read(&path).ok();
        let is_fresh = there.is_none() && !self.in_force().is_any();
        if is_fresh || there.as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        let owner = fs::metadata(&path).map(|found| found.uid()).ok();
        pytheas_durable::replace_private(&path, text.as_bytes())?;
        // An app under another user, which is told to read it again, not started anew.
        match owner {
            Some(owner) if owner != rustix::process::geteuid().as_raw() => {
                std::os::unix::fs::chown(&path, Some(owner), None)
            }
            _ => Ok(()),
        }
    }

    /// What the hub is told.
    pub(crate) fn attributes(&self) -> Vec<(String, String)> {
        let current = self.stored.current.tag.clone();
        let mut told = vec![(ATTRIBUTE_CONFIG.to_owned(), current)];
        if let Some(refused) = &self.stored.refused {
            let (first, rest) = match refused.because.split_first() {
                Some((first, rest)) => (first.as_str(), rest),
                None => ("", &[][..]),
            };
            let why = cut(&format!("{} {first}", refused.tag));
            told.push((ATTRIBUTE_CONFIG_REFUSED.to_owned(), why));
            let lines = rest.iter().filter(|line| !line.trim().is_empty());
            for (n, line) in lines.take(LOG_LINES).enumerate() {
                told.push((format!("{ATTRIBUTE_CONFIG_LOG}{n}"), line.clone()));
            }
        }
        told
    }

    /// What `status` shows, once there is something.
    pub(crate) fn status(&self) -> Option<ConfigStatus> {
        let Stored {
            current,
            trial,
            refused,
            ..
        } = &self.stored;
        if !current.is_any() && trial.is_none() && refused.is_none() {
            return None;
        }
        Some(ConfigStatus {
            applied: current.tag.clone(),
            trying: trial.as_ref().map(|trial| trial.next.tag.clone()),
            refused: refused.as_ref().map(|refused| refused.tag.clone()),
            because: refused
                .as_ref()
                .map(|refused| refused.because.clone())
                .unwrap_or_default(),
        })
    }
}

/// A tag that may be kept and told: short, printable, one word.
pub(crate) fn is_tag(tag: &str) -> bool {
    (1..=64).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use pytheas_update::Reason;
    use serde_json::{Value, json};

    use super::*;

    fn settings(value: &Value) -> Settings {
        value.as_object().unwrap().clone()
    }

    fn revision(tag: &str, value: &Value) -> Revision {
        Revision {
            tag: tag.into(),
            settings: settings(value),
        }
    }

    fn file(dir: &StateDir) -> Value {
        serde_json::from_slice(&fs::read(dir.config_file()).unwrap()).unwrap()
    }

    #[test]
    fn what_is_on_trial_is_in_force_until_it_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        let mut config = AppConfig::load(&dir);
        assert_eq!(config.attributes(), [("pytheas.config".into(), "0".into())]);
        config
            .put(revision("1-a", &json!({"n": 1})), false)
            .unwrap();
        config.put(revision("2-b", &json!({"n": 2})), true).unwrap();
        assert_eq!(file(&dir), json!({"n": 2}));
        let mut config = AppConfig::load(&dir);
        assert_eq!(
            (config.tries_left(), config.try_again()),
            (Some(2), Some(1))
        );
        let mut config = AppConfig::load(&dir);
        assert_eq!((config.try_again(), config.try_again()), (Some(0), None));
        let because = Failure::new(Reason::Died, "it ended: exit status 3")
            .with_log(vec!["Traceback".into(), "KeyError: 'n'".into()]);
        let trees = vec![TreeId(Sha256::of(b"tree"))];
        config.refuse("2-b", &because, trees.clone());
        assert_eq!(file(&dir), json!({"n": 1}));
        let mut config = AppConfig::load(&dir);
        let told = config.attributes();
        let told: Vec<String> = told.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        pytheas.config = 1-a
        pytheas.config-refused = 2-b it ended: exit status 3
        pytheas.config-log.0 = Traceback
        pytheas.config-log.1 = KeyError: 'n'
        ");
        assert!(config.knows("2-b", &trees) && !config.knows("2-b", &[]));
        assert!(!config.reconsider(&trees));
        assert!(config.reconsider(&[]), "another release may take it");
        assert!(!config.knows("2-b", &trees));
    }

    #[test]
    fn settings_that_the_apps_file_cannot_take_are_not_in_force() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        let mut config = AppConfig::load(&dir);
        let first = revision("1-a", &json!({"n": 1}));
        config.put(first.clone(), false).unwrap();
        // Nothing can take the place of a folder that holds something.
        fs::remove_file(dir.config_file()).unwrap();
        fs::create_dir_all(dir.config_file().join("full")).unwrap();
        let next = revision("2-b", &json!({"n": 2}));
        config.put(next, true).unwrap_err();
        assert_eq!((config.in_force(), config.tries_left()), (&first, None));
        let config = AppConfig::load(&dir);
        assert_eq!((config.in_force(), config.tries_left()), (&first, None));
    }

    #[test]
    fn the_deepest_settings_are_read_back_in_the_middle_of_a_trial() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        let levels = pytheas_api::SETTINGS_DEPTH_MAX;
        let text = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let deepest: Settings = serde_json::from_str(&text).unwrap();
        assert!(pytheas_api::within_depth(&deepest));
        let next = revision("1-a", &Value::Object(deepest));
        AppConfig::load(&dir).put(next.clone(), true).unwrap();
        let config = AppConfig::load(&dir);
        assert_eq!((config.in_force(), config.tries_left()), (&next, Some(2)));
    }

    #[test]
    fn a_rotten_state_is_set_aside_and_what_the_app_has_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        AppConfig::load(&dir)
            .put(revision("1-a", &json!({"n": 1})), false)
            .unwrap();
        let path = dir.config().join("state");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        pytheas_durable::replace(&path, &bytes).unwrap();
        let config = AppConfig::load(&dir);
        assert_eq!(config.in_force().settings, settings(&json!({"n": 1})));
        assert_ne!(config.in_force().tag, "1-a", "the hub sends it again");
        assert!(dir.config().join("state.damaged").exists());
    }
}
