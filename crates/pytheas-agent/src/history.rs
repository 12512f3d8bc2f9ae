//! What happened to this device's releases: `history.json`, the newest [`MAX_ENTRIES`] events.
//!
//! An entry is written before the state that ends its update: a power cut between the two leaves
//! an entry that the next start would write again, and does not. A history that cannot be written
//! (full disk) or read holds no update up.
//!
//! Agents of all versions write this one file, and older ones come back. So it stays format 1: what is
//! new becomes a new word or a new field, and an agent keeps entries as they are, those that it does
//! not know as well, and shows of them what it can.

use std::{fmt, io, path::Path};

use jiff::Timestamp;
use pytheas_release::{ReleaseRef, TreeId};
use pytheas_update::{ActionId, Machine, Outcome as Told, State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::paths::{self, StateDir};

/// Entries kept; the oldest goes first.
pub const MAX_ENTRIES: usize = 200;

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The release runs and is committed.
    Committed,
    /// It was switched to, failed, and the one before runs again.
    RolledBack,
    /// It was refused, or did not get as far as running.
    Failed,
    /// The hub (or a newer deployment) wanted it given up.
    Cancelled,
    /// Damage was found on the disk and repaired.
    Repaired,
    /// Damage was found on the disk and could not be repaired.
    Damaged,
    /// An app was taken off the device.
    Removed,
    /// The word of another version of the agent.
    #[serde(untagged)]
    Other(String),
}

impl Outcome {
    /// The word it is stored and shown by.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Repaired => "repaired",
            Self::Damaged => "damaged",
            Self::Removed => "removed",
            Self::Other(word) => word,
        }
    }
}

/// Who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The hub, by an action.
    Hub,
    /// Somebody at the device.
    Operator,
    /// The agent itself.
    Agent,
    /// The word of another version of the agent.
    #[serde(untagged)]
    Other(String),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, milliseconds since 1970 by the device's clock.
    pub at_ms: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub by: By,
    /// The hub's action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionId>,
    /// The release that ran before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ReleaseRef>,
    /// The release it was about, once it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<ReleaseRef>,
    /// The tree of that release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeId>,
    /// The TUF target that was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why, for people; first line first.
    pub reason: String,
}

/// The longest word of another version that is shown.
const MAX_WORD: usize = 32;

impl Entry {
    /// What is known of a stored entry: of one that another version of the agent has written, all
    /// that can be understood.
    fn read(stored: &Value) -> Self {
        fn field<T: DeserializeOwned>(stored: &Value, name: &str) -> Option<T> {
            serde_json::from_value(stored.get(name)?.clone()).ok()
        }
        let word = |name| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let word = stored.get(name).and_then(Value::as_str).unwrap_or_default();
            let is_word = (1..=MAX_WORD).contains(&word.len()) && word.chars().all(plain);
            let word = if is_word { word } else { "unknown" };
            Value::String(word.to_owned())
        };
        let unknown = || "unknown".to_owned();
        Self {
            at_ms: field(stored, "at_ms").unwrap_or_default(),
            outcome: serde_json::from_value(word("outcome"))
                .unwrap_or_else(|_| Outcome::Other(unknown())),
            by: serde_json::from_value(word("by")).unwrap_or_else(|_| By::Other(unknown())),
            action: field(stored, "action"),
            from: field(stored, "from"),
            to: field(stored, "to"),
            tree: field(stored, "tree"),
            target: field(stored, "target"),
            reason: field(stored, "reason").unwrap_or_default(),
        }
    }

    /// Whether `other` tells the same: all but the time.
    fn is(&self, other: &Self) -> bool {
        let timeless = |entry: &Self| Self {
            at_ms: 0,
            ..entry.clone()
        };
        timeless(self) == timeless(other)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = Timestamp::from_millisecond(self.at_ms)
            .map_or_else(|_| "?".to_owned(), |at| at.strftime("%F %T").to_string());
        write!(f, "{when}  {:<11}", self.outcome.as_str())?;
        match (&self.to, &self.target) {
            (Some(to), _) => write!(f, "  {to}")?,
            (None, Some(target)) if !target.is_empty() => write!(f, "  {target}")?,
            _ => {}
        }
        let from = self.from.as_ref();
        match from.filter(|from| Some(*from) != self.to.as_ref()) {
            Some(gone) if self.outcome == Outcome::Removed => write!(f, "  {gone}")?,
            Some(from) => write!(f, " (from {from})")?,
            None => {}
        }
        match (&self.action, &self.by) {
            (Some(action), _) => write!(f, ", action {action}")?,
            (None, By::Operator) => write!(f, ", by an operator")?,
            (None, By::Other(who)) => write!(f, ", by: {who}")?,
            (None, By::Hub | By::Agent) => {}
        }
        for line in self.reason.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// The content of `history.json` (format 1), oldest first; entries as they were written.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    entries: Vec<Value>,
}

fn stored(dir: &StateDir) -> io::Result<Vec<Value>> {
    match paths::read(&dir.history()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(bytes) => {
            let stored: Stored = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
            if stored.format != 1 {
                let text = format!("format {}; this agent reads format 1", stored.format);
                return Err(io::Error::other(text));
            }
            Ok(stored.entries)
        }
    }
}

/// The history of the device in `dir`, oldest first; empty when there is none yet.
///
/// # Errors
/// When the file is there and cannot be read or understood.
pub(crate) fn load(dir: &StateDir) -> io::Result<Vec<Entry>> {
    Ok(stored(dir)?.iter().map(Entry::read).collect())
}

/// Adds an entry, unless the newest one tells the same already.
///
/// A file that does not parse is set aside as `history.json.damaged`.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn add(dir: &StateDir, entry: Entry) -> io::Result<()> {
    let path = dir.history();
    let mut entries = stored(dir).or_else(|error| {
        tracing::warn!("a new history is begun: `{}`: {error}", path.display());
        set_aside(&path).map(|()| Vec::new())
    })?;
    if entries
        .last()
        .is_some_and(|last| Entry::read(last).is(&entry))
    {
        return Ok(());
    }
    entries.push(serde_json::to_value(&entry).map_err(io::Error::from)?);
    let surplus = entries.len().saturating_sub(MAX_ENTRIES);
    entries.drain(..surplus);
    let stored = Stored { format: 1, entries };
    let mut bytes = serde_json::to_vec(&stored).map_err(io::Error::from)?;
    bytes.push(b'\n');
    pytheas_durable::replace(&path, &bytes)
}

fn set_aside(path: &Path) -> io::Result<()> {
    paths::set_aside(path, &path.with_extension("json.damaged"))
}

/// That `release` was taken off the device, with its data or without.
pub(crate) fn removed(release: ReleaseRef, with_data: bool, now: Timestamp) -> Entry {
    let reason = match with_data {
        true => "its data, too",
        false => "its data stays",
    };
    Entry {
        at_ms: now.as_millisecond(),
        outcome: Outcome::Removed,
        by: By::Operator,
        action: None,
        from: Some(release),
        to: None,
        tree: None,
        target: None,
        reason: reason.into(),
    }
}

/// The update that ends when a machine steps from `before` to `after`, if one does.
pub(crate) fn ended(before: &Machine, after: &Machine, now: Timestamp) -> Option<Entry> {
    let (was, is) = (before.state(), after.state());
    let action = was.action().cloned();
    let goes_on = match is {
        State::Idle => false,
        State::Committed { .. } => matches!(was, State::Committed { .. }),
        _ => is.action() == was.action(),
    };
    if goes_on || matches!(was, State::Idle | State::Committed { .. }) {
        return None;
    }
    let told = after
        .outbox()
        .iter()
        .find(|report| Some(&report.action) == action.as_ref() && !before.outbox().contains(report))
        .map(|report| &report.outcome);
    let refused = after
        .refused()
        .last()
        .filter(|last| before.refused().last() != Some(last))
        .map(|refusal| refusal.because.message().to_owned());
    let runs_already = matches!(was, State::Checking { .. }) && told.is_none() && refused.is_none();
    if runs_already && action.is_none() {
        return None; // somebody applied it again: nothing but its damage, if any, is news
    }
    let (outcome, reason) = match (is, was, told) {
        (State::Committed { .. }, ..) => (Outcome::Committed, String::new()),
        (_, State::RollingBack { because, .. }, _) => {
            (Outcome::RolledBack, because.message().to_owned())
        }
        (_, _, Some(Told::Succeeded { message })) => (Outcome::Committed, message.clone()),
        (_, _, Some(Told::Cancelled)) => (Outcome::Cancelled, "the hub wanted it given up".into()),
        (_, _, Some(Told::Failed { because })) if refused.is_none() => {
            (Outcome::Cancelled, because.message().to_owned())
        }
        _ => (Outcome::Failed, refused.unwrap_or_default()),
    };
    let job = was.job();
    let target = match was {
        State::Checking { offer, .. } => Some(offer.target.clone()),
        _ => job.and_then(|job| job.target.clone()),
    };
    // `checked` ends at once when the release is the one that runs.
    let to = match job {
        Some(job) => Some(&job.to),
        None if outcome == Outcome::Committed => after.current(),
        None => None,
    };
    Some(Entry {
        at_ms: now.as_millisecond(),
        outcome,
        by: if action.is_some() {
            By::Hub
        } else {
            By::Operator
        },
        action,
        // Until the release is known, what the device ran.
        from: match job {
            Some(job) => job.from.as_ref(),
            None => before.current(),
        }
        .map(|from| from.release.clone()),
        to: to.map(|to| to.release.clone()),
        tree: to.map(|to| to.tree),
        target,
        reason,
    })
}

/// Whether `action` with this `target` was done here already, and an operator has gone back from
/// it since: the same action must not undo what somebody at the device wanted.
pub(crate) fn gone_back_from(entries: &[Entry], action: &ActionId, target: &str) -> bool {
    let done = entries.iter().rposition(|entry| {
        entry.outcome == Outcome::Committed
            && entry.action.as_ref() == Some(action)
            && entry.target.as_deref() == Some(target)
    });
    let Some(done) = done else { return false };
    entries[done + 1..]
        .iter()
        .find(|entry| entry.outcome == Outcome::Committed)
        .is_some_and(|next| {
            // A way back has no target, and undoes what was committed last; the entry names only
            // one of its components, which need not be the first one of the action.
            next.by == By::Operator && (next.target.is_none() || next.from == entries[done].to)
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pytheas_release::Sha256;
    use pytheas_update::{Event, Failure, Found, Installed, Offer, Reason};

    use super::*;

    fn installed(version: &str) -> Installed {
        Installed {
            tree: TreeId(Sha256::of(version.as_bytes())),
            release: ReleaseRef {
                name: "app".parse().unwrap(),
                version: version.parse().unwrap(),
            },
        }
    }

    /// Steps through `events`, remembering what a history would hold.
    fn lived(machine: &mut Machine, events: Vec<Event>) -> Vec<String> {
        let mut told = Vec::new();
        for event in events {
            let next = machine.clone().step(event);
            told.extend(ended(machine, &next, Timestamp::UNIX_EPOCH).map(|e| e.to_string()));
            *machine = next;
        }
        told
    }

    fn wanted(action: &str, target: &str) -> Event {
        Event::Wanted {
            action: Some(action.parse().unwrap()),
            offer: Offer::one(target),
        }
    }

    fn up_to_probation(action: &str, version: &str) -> Vec<Event> {
        let to = installed(version);
        let tree = to.tree;
        vec![
            wanted(action, version),
            Event::Checked {
                offer: Offer::one(version),
                found: vec![Found {
                    target: version.into(),
                    to,
                }],
            },
            Event::Fetched { to: tree },
            Event::Staged { to: tree },
            Event::Verified {
                to: tree,
                migrates: false,
            },
            Event::Switched { to: tree },
        ]
    }

    #[test]
    fn every_end_of_an_update_is_told_once() {
        let mut machine = Machine::default();
        let mut events = up_to_probation("1", "1.0");
        let tree = installed("1.0").tree;
        events.push(Event::Healthy { to: tree });
        events.push(Event::Tidied { current: tree });
        events.extend(up_to_probation("2", "1.1"));
        let because = Failure::new(Reason::NotReady, "too slow\nhelp: look");
        events.push(Event::NotReady {
            to: installed("1.1").tree,
            because,
        });
        events.push(Event::RolledBack {
            from: installed("1.1").tree,
        });
        events.push(wanted("3", "x"));
        events.push(Event::CancelWanted {
            action: "3".parse().unwrap(),
        });
        events.push(wanted("4", "y"));
        events.push(wanted("5", "z"));
        events.push(Event::CheckFailed {
            offer: Offer::one("z"),
            because: Failure::new(Reason::Untrusted, "not signed"),
        });
        events.push(wanted("6", "same"));
        events.push(Event::Checked {
            offer: Offer::one("same"),
            found: vec![Found {
                target: "same".into(),
                to: installed("1.0"),
            }],
        });
        insta::assert_snapshot!(lived(&mut machine, events).join("\n"), @"
        1970-01-01 00:00:00  committed    app@1.0, action 1
        1970-01-01 00:00:00  rolled-back  app@1.1 (from app@1.0), action 2
            too slow
            help: look
        1970-01-01 00:00:00  cancelled    x (from app@1.0), action 3
            the hub wanted it given up
        1970-01-01 00:00:00  cancelled    y (from app@1.0), action 4
            another deployment took its place
        1970-01-01 00:00:00  failed       z (from app@1.0), action 5
            not signed
        1970-01-01 00:00:00  committed    app@1.0, action 6
            `app@1.0` is running already
        ");
    }

    #[test]
    fn the_history_is_bounded_and_told_twice_is_told_once() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(tmp.path());
        let entry = |n: usize| Entry {
            at_ms: n as i64,
            outcome: Outcome::Failed,
            by: By::Hub,
            action: Some(n.to_string().parse().unwrap()),
            from: None,
            to: None,
            tree: None,
            target: None,
            reason: "why".into(),
        };
        for n in 0..MAX_ENTRIES + 5 {
            add(&dir, entry(n)).unwrap();
        }
        let again = Entry {
            at_ms: 7,
            ..entry(MAX_ENTRIES + 4)
        };
        add(&dir, again).unwrap();
        let entries = load(&dir).unwrap();
        assert_eq!((entries.len(), entries[0].at_ms), (MAX_ENTRIES, 5));

        pytheas_durable::replace(&dir.history(), b"{torn").unwrap();
        assert!(load(&dir).is_err());
        add(&dir, entry(1)).unwrap();
        assert_eq!(load(&dir).unwrap().len(), 1);
        assert!(dir.history().with_extension("json.damaged").exists());
    }

    #[test]
    fn an_action_an_operator_went_back_from_is_known() {
        let entry = |action: Option<&str>, from: &str, to: &str| Entry {
            at_ms: 0,
            outcome: Outcome::Committed,
            by: if action.is_some() {
                By::Hub
            } else {
                By::Operator
            },
            action: action.map(|action| action.parse().unwrap()),
            from: Some(installed(from).release),
            to: Some(installed(to).release),
            tree: None,
            target: action.map(|_| to.to_owned()),
            reason: String::new(),
        };
        let action = |text: &str| text.parse::<ActionId>().unwrap();
        let mut entries = vec![entry(Some("7"), "1.0", "1.1")];
        assert!(!gone_back_from(&entries, &action("7"), "1.1"));
        entries.push(entry(None, "1.1", "1.0"));
        assert!(gone_back_from(&entries, &action("7"), "1.1"));
        assert!(!gone_back_from(&entries, &action("8"), "1.1"));
        assert!(
            !gone_back_from(&entries, &action("7"), "1.2"),
            "a hub that counts anew"
        );
        // An action that brought a new component and another release of one there was: the way
        // back is that one's.
        let mut back = entry(None, "9.9", "9.8");
        entries = vec![entry(Some("7"), "1.0", "1.1"), back.clone()];
        assert!(gone_back_from(&entries, &action("7"), "1.1"));
        back.target = Some("9.8".into());
        entries = vec![entry(Some("7"), "1.0", "1.1"), back];
        assert!(!gone_back_from(&entries, &action("7"), "1.1"), "applied");
    }

    #[test]
    fn what_another_version_has_written_is_shown_and_kept_as_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(tmp.path());
        let future = r#"{"format": 1, "entries": [
            {"at_ms": 1, "outcome": "teleported", "by": "oracle", "to": "app@2.0.0", "reason": "why",
             "fuel": {"litres": 7}},
            {"at_ms": 2, "outcome": {"kind": "x"}, "by": 3, "to": ["app@2.0.0"]},
            {"at_ms": 3, "outcome": "repaired", "by": "agent", "reason": "one file", "files": 1},
            "\u001b[31m"]}"#;
        pytheas_durable::replace(&dir.history(), future.as_bytes()).unwrap();
        let shown = || {
            let entries = load(&dir).unwrap().into_iter();
            entries
                .map(|e| e.to_string())
                .collect::<Vec<_>>()
                .join("\n")
        };
        insta::assert_snapshot!(shown(), @"
        1970-01-01 00:00:00  teleported   app@2.0.0, by: oracle
            why
        1970-01-01 00:00:00  unknown    , by: unknown
        1970-01-01 00:00:00  repaired   
            one file
        1970-01-01 00:00:00  unknown    , by: unknown
        ");
        let gone = removed("app@1.0.0".parse().unwrap(), false, Timestamp::UNIX_EPOCH);
        add(&dir, gone.clone()).unwrap();
        add(&dir, gone).unwrap();
        let before: Value = serde_json::from_str(future).unwrap();
        let after: Value = serde_json::from_slice(&fs::read(dir.history()).unwrap()).unwrap();
        let kept = after["entries"].as_array().unwrap();
        assert_eq!(kept[..4], before["entries"].as_array().unwrap()[..]);
        assert_eq!((kept.len(), &kept[4]["outcome"]), (5, &"removed".into()));
    }
}
