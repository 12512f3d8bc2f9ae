//! What devices run, asked of the hub before a publish: it makes deltas from that. No answer is no
//! reason not to publish.

use pytheas_api::InUseView;
use pytheas_release::{BuildRecord, ReleaseRef};
use pytheas_repo::publish::InUse;
use serde::Serialize;

use crate::hub_client::{HubArgs, HubClient, HubError, encoded};

/// What the hub says, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    hub: String,
    /// The most used first.
    releases: Vec<Used>,
    /// Why it did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Used {
    #[serde(skip)]
    reference: ReleaseRef,
    release: String,
    devices: u64,
}

/// Asks what devices of this platform run of this app.
pub(super) fn ask(hub: &HubArgs, record: &BuildRecord) -> Answer {
    let (releases, error) = match asked(hub, record) {
        Ok(releases) => (releases, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Answer {
        hub: hub.hub.to_string(),
        releases,
        error,
    }
}

fn asked(hub: &HubArgs, record: &BuildRecord) -> Result<Vec<Used>, HubError> {
    let name = encoded(record.name.as_str());
    let platform = encoded(record.platform.as_str());
    let path = format!("releases/in-use?name={name}&platform={platform}");
    let views: Vec<InUseView> = HubClient::new(hub)?.in_passing().get(&path)?;
    // A device says what it likes; what is no release counts for nothing.
    let used = views.into_iter().filter_map(|view| {
        let reference: ReleaseRef = view.release.parse().ok()?;
        (reference.name == record.name).then_some(Used {
            reference,
            release: view.release,
            devices: view.devices,
        })
    });
    Ok(used.collect())
}

impl Answer {
    /// The versions, for [`pytheas_repo::publish::Options::in_use`].
    pub(super) fn versions(&self) -> Vec<InUse> {
        let used = self.releases.iter();
        used.map(|one| InUse {
            version: one.reference.version.clone(),
            devices: one.devices,
        })
        .collect()
    }

    /// What is to be said of it, where it is of no use.
    pub(super) fn note(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!(
            "not known what devices run, so deltas are made from the newest releases: {error}"
        ))
    }
}
