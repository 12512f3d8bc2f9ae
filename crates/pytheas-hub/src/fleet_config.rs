//! What a device's settings are: layers merged, marked by a tag, compared with what it says.
//! Pure; where they are kept is `store::fleet_config`.

use std::collections::BTreeMap;

use pytheas_api::{
    BOARD_SETTINGS_MAX as BOARD_MAX, BoardConfig, ConfigLayer, ConfigState, DeviceConfig, Settings,
    ddi::NO_REVISION,
};
use serde_json::Value;

use crate::secret;

/// Longest layer, in bytes of JSON.
pub(crate) const LAYER_MAX: usize = 64 << 10;

/// A device's settings, and what it says of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OfDevice {
    /// Its layers merged.
    pub(crate) settings: Settings,
    /// The newest revision of its layers.
    pub(crate) revision: i64,
    /// The layers that hold something, lowest first.
    pub(crate) layers: Vec<ConfigLayer>,
    /// What it says it has applied: a tag.
    pub(crate) applied: Option<String>,
    /// What it says it does not apply: a tag, a blank, and why.
    pub(crate) refused: Option<String>,
    /// What its app wrote last.
    pub(crate) log: Vec<String>,
    /// Whether it is a board, which takes short answers only.
    pub(crate) is_board: bool,
    /// What it says of the boards on its ports, by their names.
    pub(crate) boards: BTreeMap<String, BoardConfig>,
}

impl OfDevice {
    /// What the device tells once it runs with these settings.
    pub(crate) fn tag(&self) -> String {
        if self.revision == 0 {
            return NO_REVISION.to_owned();
        }
        let digest = secret::hash(&self.json());
        format!("{}-{}", self.revision, hex::encode(&digest[..4]))
    }

    fn json(&self) -> String {
        Value::Object(self.settings.clone()).to_string()
    }

    fn refusal(&self) -> Option<&str> {
        let (tag, why) = self.refused.as_deref()?.split_once(' ')?;
        (tag == self.tag()).then_some(why)
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> ConfigState {
        match &self.applied {
            None => ConfigState::Unsupported,
            Some(applied) if *applied == self.tag() => ConfigState::Applied,
            Some(_) if self.refusal().is_some() => ConfigState::Refused,
            Some(_) if self.is_board && self.json().len() > BOARD_MAX => ConfigState::TooLong,
            Some(_) => ConfigState::Pending,
        }
    }

    /// Whether the device is to be sent them.
    pub(crate) fn is_wanted(&self) -> bool {
        self.state() == ConfigState::Pending
    }

    /// As people see it.
    pub(crate) fn view(self) -> DeviceConfig {
        let state = self.state();
        let mut because = Vec::new();
        if let Some(why) = self.refusal() {
            because.push(why.to_owned());
            because.extend(self.log.iter().cloned());
        } else if state == ConfigState::TooLong {
            let length = self.json().len();
            because.push(format!(
                "they have {length} bytes; a board takes {BOARD_MAX}"
            ));
        }
        DeviceConfig {
            tag: self.tag(),
            state,
            because,
            settings: self.settings,
            revision: self.revision,
            layers: self.layers,
            applied: self.applied,
            boards: self.boards,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_sent_until_the_device_has_said_what_became_of_them() {
        let settings = json!({"interval": 5}).as_object().unwrap().clone();
        let mut device = OfDevice {
            settings,
            revision: 7,
            ..OfDevice::default()
        };
        assert_eq!(device.state(), ConfigState::Unsupported);
        device.applied = Some(NO_REVISION.into());
        assert!(device.is_wanted());
        insta::assert_snapshot!(device.tag(), @"7-fe28647c");
        device.refused = Some("6-00000000 another time".into());
        assert!(device.is_wanted());
        device.refused = Some(format!("{} it ended: exit status 3", device.tag()));
        assert_eq!(device.state(), ConfigState::Refused);
        assert_eq!(device.clone().view().because, ["it ended: exit status 3"]);
        device.applied = Some(device.tag());
        assert_eq!(device.state(), ConfigState::Applied);
    }

    #[test]
    fn a_board_is_spared_what_it_cannot_read() {
        let text = "x".repeat(BOARD_MAX);
        let mut device = OfDevice {
            settings: json!({"text": text}).as_object().unwrap().clone(),
            revision: 1,
            applied: Some(NO_REVISION.into()),
            ..OfDevice::default()
        };
        assert!(device.is_wanted());
        device.is_board = true;
        assert_eq!(device.state(), ConfigState::TooLong);
    }
}
