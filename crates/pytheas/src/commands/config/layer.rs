//! Whose settings a verb is about.

use pytheas_api::{ConfigLayer, DeviceId, Group};

/// Which layer; all devices' when neither is given.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LayerArgs {
    /// The settings of the devices of this group [default: those of all devices]
    #[arg(long, value_name = "NAME", conflicts_with = "device")]
    pub(super) group: Option<Group>,
    /// The settings of this device
    #[arg(long, value_name = "ID")]
    pub(super) device: Option<DeviceId>,
}

impl LayerArgs {
    /// The layer, when one was named.
    pub(super) fn named(&self) -> Option<ConfigLayer> {
        match (&self.group, &self.device) {
            (Some(group), _) => Some(ConfigLayer::Group(group.clone())),
            (None, Some(device)) => Some(ConfigLayer::Device(device.clone())),
            (None, None) => None,
        }
    }

    /// The layer that a change goes into.
    pub(super) fn layer(&self) -> ConfigLayer {
        self.named().unwrap_or(ConfigLayer::All)
    }
}
