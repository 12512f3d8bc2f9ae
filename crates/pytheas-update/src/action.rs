//! `ActionId`: the hub's number for one deployment on one device, as it stands in addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The hub's identifier of an action: decimal digits from DDI servers, kept as they came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActionId(String);

/// A text that cannot be an action's id because it would not be safe in an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an action id: letters, digits, `-` and `_` are wanted, at most 64")]
pub struct ParseActionIdError(String);

impl ActionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ActionId {
    type Err = ParseActionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseActionIdError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ActionId {
    type Error = ParseActionIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ActionId> for String {
    fn from(id: ActionId) -> Self {
        id.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_ids_are_safe_in_an_address() {
        assert_eq!("7".parse::<ActionId>().unwrap().as_str(), "7");
        for wrong in ["", "../7", "7/8", "7?c=1", " 7", &"7".repeat(65)] {
            assert!(wrong.parse::<ActionId>().is_err(), "{wrong}");
        }
    }
}
