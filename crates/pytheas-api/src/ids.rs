//! The name of a device: what stands in its address and in every log line.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A device's identifier (DDI: `controllerId`): 1 to 256 letters, digits and `-_.:@+~=`, beginning
/// with a letter or digit. All of them stand in an URL's path as they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// A text that is no device identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a device id: 1 to 256 letters, digits and `-_.:@+~=`, beginning with a letter or digit"
)]
pub struct DeviceIdError(String);

impl DeviceId {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@+~=".contains(&b);
        if first && text.len() <= 256 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DeviceIdError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;

    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_stand_in_a_path_unescaped() {
        for right in ["dev1", "AA:BB:CC:00:11:22", "a", "x@y", &"a".repeat(256)] {
            assert!(right.parse::<DeviceId>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ä",
            "-a",
            "a%20",
            "<b>",
            &"a".repeat(257),
        ] {
            assert!(wrong.parse::<DeviceId>().is_err(), "{wrong}");
        }
    }
}
