//! Settings of the apps on devices: layered, numbered, each change with its author.
//!
//! A device gets `all`, over it its group's layer, over that its own, each merged as RFC 7396 says:
//! ```text
//! all           {"interval": 30, "mqtt": {"host": "a", "port": 1883}}
//! group:north   {"mqtt": {"host": "b"}}
//! device:gw-1   {"interval": 5}
//! gw-1 gets     {"interval": 5, "mqtt": {"host": "b", "port": 1883}}
//! ```
//! Each change of a layer is a revision; revisions count through all layers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// A JSON object.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// Deepest settings: readers of JSON give up at 128 levels, and what carries settings has some, too.
pub const SETTINGS_DEPTH_MAX: usize = 64;

/// Longest settings that a board takes, in bytes of JSON: it reads an answer of 16 KiB.
pub const BOARD_SETTINGS_MAX: usize = 12_000;

/// Whether settings have at most [`SETTINGS_DEPTH_MAX`] levels of objects and arrays.
pub fn within_depth(settings: &Settings) -> bool {
    fn fits(value: &serde_json::Value, left: usize) -> bool {
        match value {
            serde_json::Value::Object(of) => left > 0 && of.values().all(|v| fits(v, left - 1)),
            serde_json::Value::Array(of) => left > 0 && of.iter().all(|v| fits(v, left - 1)),
            _ => true,
        }
    }
    settings.values().all(|v| fits(v, SETTINGS_DEPTH_MAX - 1))
}

/// Merges `patch` into `into`: members are replaced, objects merged, `null` removes (RFC 7396).
pub fn merge_patch(into: &mut Settings, patch: &Settings) {
    for (key, value) in patch {
        match value {
            serde_json::Value::Null => {
                into.remove(key);
            }
            serde_json::Value::Object(patch) => {
                let entry = into.entry(key.clone()).or_insert(serde_json::Value::Null);
                if !entry.is_object() {
                    *entry = serde_json::Value::Object(Settings::new());
                }
                if let serde_json::Value::Object(into) = entry {
                    merge_patch(into, patch);
                }
            }
            other => {
                into.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The name of a group of devices: 1 to 64 letters, digits and `-_.`, beginning with a letter or
/// digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group(String);

/// A text that is no group's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a group: 1 to 64 letters, digits and `-_.`, beginning with a letter or digit"
)]
pub struct GroupError(String);

impl Group {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if first && text.len() <= 64 && bytes.all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(GroupError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Group {
    type Error = GroupError;

    fn try_from(text: String) -> Result<Self, GroupError> {
        text.parse()
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose settings: `all`, `group:north`, `device:gw-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ConfigLayer {
    /// Every device's.
    All,
    /// Those of the devices of a group.
    Group(Group),
    /// One device's.
    Device(DeviceId),
}

/// A text that names no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no settings: `all`, `group:NAME` or `device:ID` is wanted")]
pub struct ConfigLayerError(String);

impl FromStr for ConfigLayer {
    type Err = ConfigLayerError;

    fn from_str(text: &str) -> Result<Self, ConfigLayerError> {
        let wrong = || ConfigLayerError(text.chars().take(80).collect());
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("group", name)) => name.parse().map(Self::Group).map_err(|_| wrong()),
            Some(("device", id)) => id.parse().map(Self::Device).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for ConfigLayer {
    type Error = ConfigLayerError;

    fn try_from(text: String) -> Result<Self, ConfigLayerError> {
        text.parse()
    }
}

impl From<ConfigLayer> for String {
    fn from(layer: ConfigLayer) -> Self {
        layer.to_string()
    }
}

impl fmt::Display for ConfigLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Device(id) => write!(f, "device:{id}"),
        }
    }
}

/// `GET /api/v1/config`: every layer that holds something, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigView {
    /// The newest revision of any layer; 0 when there never was one.
    pub revision: i64,
    /// `all`, `group:NAME`, `device:ID`; empty ones are left out.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Object>))]
    pub layers: BTreeMap<ConfigLayer, Settings>,
}

/// `PATCH /api/v1/config` merges into the layers (RFC 7396: `null` removes), `PUT` replaces them;
/// all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// By layer; others stay as they are.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Object>))]
    pub layers: BTreeMap<ConfigLayer, Settings>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// `POST /api/v1/config/rollback`: a layer as it stood at a revision, as a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigRollback {
    /// The revision.
    pub revision: i64,
    /// The layer; the one that revision changed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub layer: Option<ConfigLayer>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One change of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigRevision {
    /// Its number.
    pub revision: i64,
    /// What it changed.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub layer: ConfigLayer,
    /// Who.
    pub author: String,
    /// When.
    pub at_ms: i64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The layer from then on.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub settings: Settings,
}

/// What became of a device's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ConfigState {
    /// It never told that it can take settings.
    Unsupported,
    /// It runs with them.
    Applied,
    /// It has not said that it runs with them yet.
    Pending,
    /// It went back to those before.
    Refused,
    /// They are too long for a board and are not sent.
    TooLong,
}

impl ConfigState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::TooLong => "too-long",
        }
    }
}

/// `GET /api/v1/devices/{id}/config`: what a device is to run with, and what it says it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceConfig {
    /// Its layers merged.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub settings: Settings,
    /// The newest revision of its layers; 0 when there never was one.
    pub revision: i64,
    /// What the device tells once it has applied them: the revision and a part of their hash.
    pub tag: String,
    /// The layers they come from, lowest first; empty ones are left out.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub layers: Vec<ConfigLayer>,
    /// Whether it runs with them.
    pub state: ConfigState,
    /// What it says it runs with, as `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// Why it does not, first line first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The boards on its ports, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub boards: BTreeMap<String, BoardConfig>,
}

/// What a device says of the settings of a board on one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BoardConfig {
    /// What the board has, as the tag of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// Why it has not what it should: the revision, and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// `PUT /api/v1/devices/{id}/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceGroup {
    /// Its group from now on; none when `null`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub group: Option<Group>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: serde_json::Value, patch: serde_json::Value, expected: serde_json::Value) {
        let (serde_json::Value::Object(mut into), serde_json::Value::Object(patch)) =
            (target, patch)
        else {
            panic!("objects are wanted");
        };
        merge_patch(&mut into, &patch);
        assert_eq!(serde_json::Value::Object(into), expected);
    }

    /// The examples of RFC 7396, appendix A, whose both sides are objects.
    #[test]
    fn layers_merge_as_rfc_7396_says() {
        check(
            serde_json::json!({"a":"b"}),
            serde_json::json!({"a":"c"}),
            serde_json::json!({"a":"c"}),
        );
        check(
            serde_json::json!({"a":"b"}),
            serde_json::json!({"b":"c"}),
            serde_json::json!({"a":"b","b":"c"}),
        );
        check(
            serde_json::json!({"a":"b"}),
            serde_json::json!({"a":null}),
            serde_json::json!({}),
        );
        check(
            serde_json::json!({"a":["b"]}),
            serde_json::json!({"a":"c"}),
            serde_json::json!({"a":"c"}),
        );
        check(
            serde_json::json!({"a":"c"}),
            serde_json::json!({"a":["b"]}),
            serde_json::json!({"a":["b"]}),
        );
        check(
            serde_json::json!({"a":{"b":"c"}}),
            serde_json::json!({"a":{"b":"d","c":null}}),
            serde_json::json!({"a":{"b":"d"}}),
        );
        check(
            serde_json::json!({"a":[{"b":"c"}]}),
            serde_json::json!({"a":[1]}),
            serde_json::json!({"a":[1]}),
        );
        check(
            serde_json::json!({"e":null}),
            serde_json::json!({"a":1}),
            serde_json::json!({"e":null,"a":1}),
        );
        check(
            serde_json::json!({}),
            serde_json::json!({"a":{"bb":{"ccc":null}}}),
            serde_json::json!({"a":{"bb":{}}}),
        );
        check(
            serde_json::json!({"a":1}),
            serde_json::json!({"a":{"b":2}}),
            serde_json::json!({"a":{"b":2}}),
        );
    }

    #[test]
    fn layers_are_named_by_one_word_each_and_nothing_else_is_one() {
        for right in ["all", "group:north", "device:AA:BB:CC", "device:a=b@c"] {
            assert_eq!(right.parse::<ConfigLayer>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            "All",
            "all:",
            "group:",
            "group:a b",
            "group:-a",
            "device:/",
            "tag:x",
        ] {
            assert!(wrong.parse::<ConfigLayer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_have_a_depth() {
        let nested = |levels: usize| {
            let text = format!("{}{}", "{\"a\":".repeat(levels), "[]");
            let text = format!("{text}{}", "}".repeat(levels));
            serde_json::from_str::<Settings>(&text).unwrap()
        };
        assert!(within_depth(&Settings::new()));
        assert!(within_depth(&nested(SETTINGS_DEPTH_MAX - 1)));
        assert!(!within_depth(&nested(SETTINGS_DEPTH_MAX)));
    }

    #[test]
    fn a_change_stands_in_json_by_the_names_of_its_layers() {
        let text = r#"{"layers":{"all":{"a":1},"group:north":{"b":null}},"note":"why"}"#;
        let change: ConfigChange = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
        let wrong = serde_json::from_str::<ConfigChange>(r#"{"layers":{"al":{}}}"#).unwrap_err();
        assert!(
            wrong.to_string().contains("`al` names no settings"),
            "{wrong}"
        );
    }
}
