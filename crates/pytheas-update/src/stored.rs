//! `state.json`: the machine as it lies on disk.
//!
//! ```json
//! {"check": "6b86b273ff34fce1",
//!  "format": 1,
//!  "current": {"tree": "9f…", "release": "greenhouse@1.0.0"}, "previous": null,
//!  "update": {"state": "fetching", "job": {"action": "7", "target": "greenhouse/1.1.0/linux-x86_64/release.json",
//!             "from": {…}, "to": {…}, "attempt": 0}},
//!  "outbox": [{"action": "6", "outcome": "succeeded", "message": "…"}], "refused": []}
//! ```
//! `check` is that of [`checked`]: a bit that decays on the disk would else be believed, and lead to
//! a tree that does not exist.
//!
//! An agent may be followed by an older one, which has to read what it left:
//! - New fields have defaults and may be lost; a new word for a [`Reason`](crate::Reason) is kept.
//! - What an older agent must not take up (a new state, a new kind of outcome, a field that may not be
//!   lost) is written under a higher format, and only while it is needed: at rest the lowest that holds it all.
//! - A higher format, and a file that is whole and still says what is not known here, is
//!   [newer](StoredStateError::is_newer): never "damaged", and left alone for the agent that wrote it.

use serde::{Deserialize, Serialize};

use crate::{Machine, State, checked};

/// What every agent reads.
const FORMAT: u32 = 1;
/// With several components, several releases in one update, or data set aside: an agent that knows
/// none of that must not take the state up.
const FORMAT_TOGETHER: u32 = 2;

/// A `state.json` that cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StoredStateError {
    /// Not JSON of the expected shape.
    #[error("the stored update state does not parse")]
    #[diagnostic(
        code(pytheas::update::state_parse),
        help(
            "start the agent: it sets the file aside and rebuilds the state from the running release"
        )
    )]
    Parse(#[source] serde_json::Error),
    /// Something in it is not as it was written.
    #[error("the stored update state is damaged: its check does not match")]
    #[diagnostic(
        code(pytheas::update::state_damaged),
        help(
            "start the agent: it sets the file aside and rebuilds the state from the running release"
        )
    )]
    Damaged,
    /// There is none although a release is installed.
    #[error("the stored update state is gone, and a release is installed")]
    #[diagnostic(
        code(pytheas::update::state_gone),
        help("start the agent: it rebuilds the state from the running release")
    )]
    Gone,
    /// The disk does not give it, or something else lies there.
    #[error("the stored update state cannot be read")]
    #[diagnostic(
        code(pytheas::update::state_unreadable),
        help(
            "start the agent: it sets the file aside and rebuilds the state from the running release"
        )
    )]
    Unreadable(#[source] std::io::Error),
    /// As it was written, and still nothing that this agent knows.
    #[error("the stored update state was written by another version of the agent")]
    #[diagnostic(
        code(pytheas::update::state_unknown),
        help("run the newer agent again, or install the one that wrote this state")
    )]
    Unknown(#[source] serde_json::Error),
    /// Written by a newer agent.
    #[error(
        "the stored update state has format {0}; this agent reads formats {FORMAT} and {FORMAT_TOGETHER}"
    )]
    #[diagnostic(
        code(pytheas::update::state_format),
        help("run the newer agent again, or install the one that wrote this state")
    )]
    Format(u32),
}

impl StoredStateError {
    /// Whether nothing is wrong with the state but that a newer agent has written it.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Format(_))
    }

    /// Whether it is lost: the agent sets it aside and begins a new one from what runs.
    pub fn is_damage(&self) -> bool {
        !self.is_newer()
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    machine: &'a Machine,
}

#[derive(Deserialize)]
struct Envelope {
    format: u32,
}

impl Machine {
    fn format(&self) -> u32 {
        let beyond = match self.state() {
            State::Checking { offer, .. } => !offer.also.is_empty() || offer.downgrade,
            state => state
                .job()
                .is_some_and(|job| job.migrates || !job.also.is_empty()),
        };
        match beyond || !self.components.is_empty() || !self.together.is_empty() {
            true => FORMAT_TOGETHER,
            false => FORMAT,
        }
    }

    /// The machine as it is stored: pretty JSON with a check and a final newline.
    pub fn encode(&self) -> Vec<u8> {
        let written = Written {
            format: self.format(),
            machine: self,
        };
        checked::seal(serde_json::to_vec_pretty(&written).expect("all keys are strings"))
    }

    /// The machine in `bytes`.
    ///
    /// # Errors
    /// [`StoredStateError`] when it does not parse or has another format; never a fresh machine.
    pub fn parse(bytes: &[u8]) -> Result<Self, StoredStateError> {
        // Before the format is asked for: that, too, may have decayed.
        if checked::is_damaged(bytes) {
            return Err(StoredStateError::Damaged);
        }
        let wrong = |error| match checked::is_whole(bytes) {
            true => StoredStateError::Unknown(error),
            false => StoredStateError::Parse(error),
        };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(wrong)?;
        if !(FORMAT..=FORMAT_TOGETHER).contains(&envelope.format) {
            return Err(StoredStateError::Format(envelope.format));
        }
        serde_json::from_slice(bytes).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_fixed() {
        let offer = crate::Offer::one("greenhouse/1.1.0/linux-x86_64/release.json");
        let machine = Machine::default().step(crate::Event::Wanted {
            action: Some("7".parse().unwrap()),
            offer,
        });
        insta::assert_snapshot!(String::from_utf8(machine.encode()).unwrap(), @r#"
        {
          "check": "9084f6e128aec4d9",
          "format": 1,
          "current": null,
          "previous": null,
          "update": {
            "state": "checking",
            "action": "7",
            "target": "greenhouse/1.1.0/linux-x86_64/release.json"
          },
          "outbox": [],
          "refused": []
        }
        "#);
        assert_eq!(Machine::parse(&machine.encode()).unwrap(), machine);
    }

    #[test]
    fn no_bit_may_change() {
        let offer = crate::Offer::one("greenhouse/1.1.0/linux-x86_64/release.json");
        let machine = Machine::default().step(crate::Event::Wanted {
            action: Some("7".parse().unwrap()),
            offer,
        });
        let bytes = machine.encode();
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            match Machine::parse(&bytes) {
                // In the name of the check: then there is none, and all else is right.
                Ok(found) => assert_eq!(found, machine, "bit {at}"),
                Err(error) => assert!(!matches!(error, StoredStateError::Format(_)), "bit {at}"),
            }
        }
    }

    #[test]
    fn what_does_not_parse_is_an_error_and_never_a_fresh_machine() {
        for (text, expected) in [
            ("", "does not parse"),
            ("{}", "does not parse"),
            ("{\"format\": 1}", "does not parse"),
            (
                "{\"format\": 3}",
                "has format 3; this agent reads formats 1 and 2",
            ),
            (
                r#"{"format":1,"current":null,"previous":null,"update":{"state":"flying"}}"#,
                "does not parse",
            ),
        ] {
            let error = Machine::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// As a newer agent would have written it.
    fn sealed(text: &str) -> Vec<u8> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        checked::seal(serde_json::to_vec_pretty(&value).unwrap())
    }

    #[test]
    fn what_a_newer_agent_has_written_is_never_taken_for_damage() {
        let is_newer = |text: &str| Machine::parse(&sealed(text)).unwrap_err().is_newer();
        let with = |update: &str, outbox: &str| {
            format!(
                r#"{{"format": 1, "current": null, "previous": null, "update": {update}, "outbox": {outbox}}}"#
            )
        };
        assert!(is_newer(&with(r#"{"state": "flying"}"#, "[]")));
        assert!(is_newer(&with(
            r#"{"state": "idle"}"#,
            r#"[{"action": "7", "outcome": "postponed"}]"#
        )));
        assert!(is_newer(r#"{"format": 3}"#));
        assert!(is_newer(r#"{"shape": "another"}"#));
        let unsealed = Machine::parse(with(r#"{"state": "flying"}"#, "[]").as_bytes());
        assert!(!unsealed.unwrap_err().is_newer());
    }

    #[test]
    fn a_reason_of_another_version_is_kept_and_a_further_field_is_no_obstacle() {
        let text = r#"{"format": 1, "current": null, "previous": null, "weather": "fine",
            "update": {"state": "idle", "since": 7},
            "outbox": [{"action": "7", "outcome": "failed",
                        "because": {"reason": "too-hot", "message": "70 °C", "sensor": 3}}],
            "refused": [{"action": "7", "because": {"reason": "too-hot", "message": "70 °C"}}]}"#;
        let machine = Machine::parse(&sealed(text)).unwrap();
        let refusal = &machine.refused()[0];
        assert_eq!(
            *refusal.because.reason(),
            crate::Reason::Other("too-hot".into())
        );
        let again = String::from_utf8(machine.encode()).unwrap();
        assert_eq!(again.matches("\"too-hot\"").count(), 2, "{again}");
        assert_eq!(Machine::parse(again.as_bytes()).unwrap(), machine);
    }

    /// What agents of this format have left on devices since its first day: every later one reads it.
    #[test]
    fn what_the_first_agents_wrote_is_read() {
        for (state, text) in [
            ("probation", include_str!("../tests/stored/probation.json")),
            ("idle", include_str!("../tests/stored/together.json")),
        ] {
            let machine = Machine::parse(text.as_bytes()).unwrap();
            assert_eq!(machine.state().name(), state);
            assert_eq!(
                String::from_utf8(machine.encode()).unwrap(),
                text,
                "{state}"
            );
        }
    }
}
