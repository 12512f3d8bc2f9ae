//! What a device's settings are: layers merged, marked by a tag, compared with what it says.
//! Pure; where they are kept is `store::fleet_config`.

use pytheas_api::{ConfigLayer, ConfigState, DeviceConfig, Settings, ddi::NO_REVISION};
use serde_json::Value;

use crate::secret;

/// Longest layer, in bytes of JSON.
pub(crate) const LAYER_MAX: usize = 64 << 10;

/// Longest settings that are sent to a board, in bytes of JSON: it reads an answer of 16 KiB.
const BOARD_MAX: usize = 12_000;

/// Merges `patch` into `into`: members are replaced, objects merged, `null` removes (RFC 7396).
pub(crate) fn merge(into: &mut Settings, patch: &Settings) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                into.remove(key);
            }
            Value::Object(patch) => {
                let entry = into.entry(key.clone()).or_insert(Value::Null);
                if !entry.is_object() {
                    *entry = Value::Object(Settings::new());
                }
                if let Value::Object(into) = entry {
                    merge(into, patch);
                }
            }
            other => {
                into.insert(key.clone(), other.clone());
            }
        }
    }
}

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
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(target: Value, patch: Value, expected: Value) {
        let (Value::Object(mut into), Value::Object(patch)) = (target, patch) else {
            panic!("objects are wanted");
        };
        merge(&mut into, &patch);
        assert_eq!(Value::Object(into), expected);
    }

    /// The examples of RFC 7396, appendix A, whose both sides are objects.
    #[test]
    fn layers_merge_as_rfc_7396_says() {
        check(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}));
        check(json!({"a":"b"}), json!({"a":null}), json!({}));
        check(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]}));
        check(
            json!({"a":{"b":"c"}}),
            json!({"a":{"b":"d","c":null}}),
            json!({"a":{"b":"d"}}),
        );
        check(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}));
        check(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}));
        check(
            json!({}),
            json!({"a":{"bb":{"ccc":null}}}),
            json!({"a":{"bb":{}}}),
        );
        check(json!({"a":1}), json!({"a":{"b":2}}), json!({"a":{"b":2}}));
    }

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
