//! What the device tells the hub about itself.

use std::collections::BTreeMap;

use pytheas_api::ddi::{
    ATTRIBUTE_AGENT, ATTRIBUTE_COMPONENT, ATTRIBUTE_MODEL, ATTRIBUTE_PLATFORM, ATTRIBUTE_RELEASE,
    ATTRIBUTE_TREE, ConfigData, MergeMode,
};
use pytheas_release::Platform;
use pytheas_update::Machine;

use crate::history::Entry;

/// Longest value a hub takes (hawkBit).
const MAX_VALUE_CHARS: usize = 128;

/// The host's name, kernel and machine.
pub fn of_host() -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| {
        value
            .to_string_lossy()
            .chars()
            .take(MAX_VALUE_CHARS)
            .collect()
    };
    BTreeMap::from([
        ("hostname".to_owned(), text(uname.nodename())),
        ("os.kernel".to_owned(), text(uname.release())),
        ("os.machine".to_owned(), text(uname.machine())),
    ])
}

/// The newest entry of the device's history: what an operator or the agent itself changed, which no
/// action tells.
const ATTRIBUTE_LAST_CHANGE: &str = "pytheas.last-change";
/// Damage on the disk that could not be repaired; absent when there is none.
const ATTRIBUTE_DAMAGE: &str = "pytheas.damage";
/// Why the settings file is unusable, so that older settings are in force; absent when it is not.
const ATTRIBUTE_SETTINGS: &str = "pytheas.settings-error";

pub(crate) fn cut(text: &str) -> String {
    text.chars().take(MAX_VALUE_CHARS).collect()
}

/// Everything, as it is now.
pub fn now(
    platform: &Platform,
    model: Option<&str>,
    machine: &Machine,
    last_change: Option<&Entry>,
    damage: Option<&str>,
    settings_error: Option<&str>,
) -> ConfigData {
    let mut data = of_host();
    data.insert(
        ATTRIBUTE_AGENT.to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    data.insert(ATTRIBUTE_PLATFORM.to_owned(), platform.to_string());
    if let Some(model) = model {
        data.insert(ATTRIBUTE_MODEL.to_owned(), model.to_owned());
    }
    for (name, component) in machine.components() {
        let key = format!("{ATTRIBUTE_COMPONENT}{name}");
        let release = component.current.release.to_string();
        data.insert(cut(&key), cut(&release));
    }
    if let Some(running) = machine.current() {
        data.insert(ATTRIBUTE_RELEASE.to_owned(), running.release.to_string());
        data.insert(ATTRIBUTE_TREE.to_owned(), running.tree.to_string());
    }
    let mut tell = |name: &str, text: String| {
        let value = text.lines().next().unwrap_or_default();
        let value = value.chars().take(MAX_VALUE_CHARS).collect();
        data.insert(name.to_owned(), value);
    };
    if let Some(entry) = last_change {
        tell(ATTRIBUTE_LAST_CHANGE, entry.to_string());
    }
    if let Some(damage) = damage {
        tell(ATTRIBUTE_DAMAGE, damage.to_owned());
    }
    if let Some(error) = settings_error {
        tell(ATTRIBUTE_SETTINGS, error.to_owned());
    }
    ConfigData {
        mode: Some(MergeMode::Replace),
        data,
    }
}
