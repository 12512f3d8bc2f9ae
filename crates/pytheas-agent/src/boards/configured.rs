//! The hub's settings for a board on a port of this device: those of the device, over them what
//! `boards.NAME` says of this one.
//!
//! ```text
//! the device has        {"interval": 30, "boards": {"node-left": {"interval": 5}}}
//! the board gets        {"settings": {"interval": 5}}      in /pytheas/settings, as from the hub itself
//! ```
//! The file is the same bytes for the same settings, whatever their revision: a board is visited
//! only when it has others.

use pytheas_api::{BOARD_SETTINGS_MAX, Settings, merge_patch};
use pytheas_board::{
    deploy::DeployError,
    link::{Board, Facts, LinkError, files},
};
use pytheas_release::{Name, Sha256};
use serde_json::{Value, json};

use crate::app_config::Revision;

/// Where a board keeps them.
const PATH: &str = "/pytheas/settings";
/// The member that holds what is for single boards.
const BOARDS: &str = "boards";

/// What is to be in a board's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// As the hub knows them.
    pub(crate) tag: String,
    pub(crate) sha256: Sha256,
    bytes: Vec<u8>,
}

impl Wanted {
    /// `revision` for `board`.
    pub(crate) fn new(revision: &Revision, board: &Name) -> Self {
        let settings = of_board(&revision.settings, board);
        let bytes = json!({ "settings": settings }).to_string().into_bytes();
        Self {
            tag: revision.tag.clone(),
            sha256: Sha256::of(&bytes),
            bytes,
        }
    }

    /// Why no board takes them.
    pub(crate) fn misfit(&self) -> Option<String> {
        let length = self.bytes.len();
        (length > BOARD_SETTINGS_MAX)
            .then(|| format!("they have {length} bytes; a board takes {BOARD_SETTINGS_MAX}"))
    }
}

fn of_board(settings: &Settings, board: &Name) -> Settings {
    let mut own = settings.clone();
    if let Some(Value::Object(boards)) = settings.get(BOARDS) {
        own.remove(BOARDS);
        if let Some(Value::Object(patch)) = boards.get(board.as_str()) {
            merge_patch(&mut own, patch);
        }
    }
    own
}

/// Puts them on the board, which uses them from its next start; why it does not take them.
///
/// # Errors
/// The board no longer answers.
pub(super) fn put(
    board: &mut Board,
    facts: &Facts,
    wanted: &Wanted,
) -> Result<Option<String>, DeployError> {
    match files::write(board, facts, PATH, &wanted.bytes, &mut |_| {}) {
        Ok(()) => Ok(None),
        Err(error @ LinkError::Raised { .. }) => {
            let said = error.last_line().unwrap_or("it did not say why");
            Ok(Some(crate::http::one_line(said)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn gets(settings: Value, expected: Value) {
        let Value::Object(settings) = settings else {
            panic!("an object is wanted");
        };
        let own = of_board(&settings, &"left".parse().unwrap());
        assert_eq!(Value::Object(own), expected);
    }

    #[test]
    fn a_board_gets_the_devices_settings_and_over_them_its_own() {
        gets(json!({"n": 1}), json!({"n": 1}));
        gets(
            json!({"n": 1, "m": {"a": 1}, "boards": {"left": {"n": 2, "m": {"b": 2}}, "right": {"n": 3}}}),
            json!({"n": 2, "m": {"a": 1, "b": 2}}),
        );
        gets(
            json!({"n": 1, "boards": {"right": {"n": 3}}}),
            json!({"n": 1}),
        );
        gets(json!({"n": 1, "boards": {"left": 7}}), json!({"n": 1}));
        // An app's own of that name.
        gets(json!({"boards": ["left"]}), json!({"boards": ["left"]}));
    }

    #[test]
    fn the_same_settings_are_the_same_file_in_every_revision() {
        let revision = |tag: &str, text: &str| Revision {
            tag: tag.to_owned(),
            settings: json!({ "text": text }).as_object().unwrap().clone(),
        };
        let name: Name = "left".parse().unwrap();
        let wanted = |tag, text| Wanted::new(&revision(tag, text), &name);
        assert_eq!(wanted("1-a", "x").sha256, wanted("2-b", "x").sha256);
        assert_ne!(wanted("1-a", "x").sha256, wanted("1-a", "y").sha256);
        assert_eq!(wanted("1-a", "x").misfit(), None);
        let long = wanted("1-a", &"x".repeat(BOARD_SETTINGS_MAX));
        assert!(long.misfit().is_some_and(|why| why.contains("bytes")));
    }
}
