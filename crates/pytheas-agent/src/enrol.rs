//! How the device comes to know its hub and whom to trust, once.
//!
//! The root of trust first (from a file, or fetched and compared with a hash somebody read out):
//! without it nothing the hub offers can be believed. Then the hub is asked to accept the device;
//! asked again with the same claim it gives a fresh token, so a lost answer does no harm.

use std::{path::PathBuf, time::Duration};

use pytheas_api::{DeviceId, EnrolmentAnswer, EnrolmentRequest};
use pytheas_release::{Platform, Sha256};
use tracing::info;

use crate::{
    attributes,
    error::AgentError,
    http::{CaError, Http, HttpError},
    hub,
    identity::{Identity, IdentityError},
    paths::StateDir,
    settings::Network,
};

/// Longest root metadata fetched, in bytes.
const ROOT_MAX_BYTES: u64 = 512 << 10;
/// Where the first root lies on the hub.
const FIRST_ROOT: &str = "/repo/metadata/1.root.json";
/// Pause between two questions whether the device was accepted.
pub const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// What a device is told when it is enrolled.
#[derive(Debug, Clone, Default)]
pub struct Enrolment {
    /// The hub's address.
    pub hub: String,
    /// File with the first root metadata.
    pub root: Option<PathBuf>,
    /// SHA-256 of the first root metadata, which is then fetched from the hub.
    pub root_sha256: Option<Sha256>,
    /// Key by which the hub accepts the device at once.
    pub key: Option<String>,
    /// Token that a DDI server's operator gave out by hand; nobody is asked to accept then.
    pub token: Option<String>,
    /// Tenant that the token belongs to.
    pub tenant: Option<String>,
    /// The device's id.
    pub id: Option<DeviceId>,
    /// The device's name for people.
    pub name: Option<String>,
    /// File with the authorities to trust for `https`.
    pub ca: Option<PathBuf>,
    /// How the hub is reached.
    pub network: Network,
}

/// Prepares the device: root of trust and identity. Nobody is asked to accept it yet; doing it
/// again changes nothing.
///
/// # Errors
/// [`AgentError::NoRoot`], [`AgentError::OtherHub`], and whatever makes the root unusable.
pub fn prepare(
    dir: &StateDir,
    enrolment: &Enrolment,
    platform: Platform,
) -> Result<Identity, AgentError> {
    pytheas_durable::create_dir_all(dir.root()).map_err(AgentError::io("create", dir.root()))?;
    let mut identity = match known(dir, enrolment)? {
        Some(known) => known,
        None => {
            let ca = enrolment
                .ca
                .as_ref()
                .map(|ca| std::path::absolute(ca).unwrap_or(ca.clone()));
            Identity::new(enrolment.hub.clone(), enrolment.id.clone(), platform, ca)?
        }
    };
    pin_root(dir, enrolment, &identity)?;
    if enrolment.token.is_some() {
        identity.token.clone_from(&enrolment.token);
        identity.tenant.clone_from(&enrolment.tenant);
    }
    identity.save(&dir.identity())?;
    Ok(identity)
}

/// Whether [`prepare`] has done its work: such a device starts without network, without room on
/// its disk, and without the root's file.
///
/// # Errors
/// [`AgentError::OtherHub`], and an identity that cannot be read.
pub fn is_prepared(dir: &StateDir, enrolment: &Enrolment) -> Result<bool, AgentError> {
    // One that was updated from files so far gets its hub only now.
    if Identity::load(&dir.identity()).is_ok_and(|known| known.hub.is_empty()) {
        return Ok(false);
    }
    let same_token = |known: Identity| enrolment.token.is_none() || enrolment.token == known.token;
    Ok(known(dir, enrolment)?.is_some_and(same_token)
        && pytheas_repo::client::is_initialised(dir.root()))
}

/// The identity that the device has at this hub, if it has one.
fn known(dir: &StateDir, enrolment: &Enrolment) -> Result<Option<Identity>, AgentError> {
    let asked = enrolment.hub.trim_end_matches('/');
    match Identity::load(&dir.identity()) {
        Ok(mut known) if known.hub.is_empty() => {
            asked.clone_into(&mut known.hub);
            known.ca = enrolment
                .ca
                .as_ref()
                .map(|ca| std::path::absolute(ca).unwrap_or_else(|_| ca.clone()));
            Ok(Some(known))
        }
        Ok(known) if known.hub != asked => Err(AgentError::OtherHub {
            enrolled: known.hub,
            asked: asked.to_owned(),
            dir: dir.root().to_owned(),
        }),
        Ok(known) => Ok(Some(known)),
        Err(IdentityError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn pin_root(dir: &StateDir, enrolment: &Enrolment, identity: &Identity) -> Result<(), AgentError> {
    let bytes = match (&enrolment.root, &enrolment.root_sha256) {
        (Some(path), _) => std::fs::read(path).map_err(AgentError::io("read", path))?,
        (None, Some(_)) => {
            connect(identity, &enrolment.network)?.bytes(FIRST_ROOT, ROOT_MAX_BYTES)?
        }
        (None, None) if pytheas_repo::client::is_initialised(dir.root()) => return Ok(()),
        (None, None) => return Err(AgentError::NoRoot),
    };
    let told = enrolment.root_sha256.as_ref();
    let done = pytheas_repo::client::init(dir.root(), &bytes, told);
    match &enrolment.root {
        Some(path) => done.map_err(AgentError::root_file(path)),
        None => Ok(done?),
    }
}

/// The connection of this device to its hub. The authorities it was enrolled with count when the
/// settings name none.
///
/// # Errors
/// [`CaError`].
pub fn connect(identity: &Identity, network: &Network) -> Result<Http, CaError> {
    let mut network = network.clone();
    if network.tls.ca.is_none() {
        network.tls.ca.clone_from(&identity.ca);
    }
    Http::new(&identity.hub, &network)
}

/// Asks the hub once to accept the device; keeps the token when it does. Whether it did.
///
/// # Errors
/// [`AgentError::IdTaken`], [`AgentError::Http`].
pub fn ask(
    dir: &StateDir,
    identity: &mut Identity,
    http: &Http,
    key: Option<&str>,
    name: Option<&str>,
) -> Result<bool, AgentError> {
    let request = EnrolmentRequest {
        device_id: identity.device_id.clone(),
        name: name.map(str::to_owned),
        platform: identity.platform.to_string(),
        claim: identity.claim.clone(),
        enrolment_key: key.map(str::to_owned),
        attributes: attributes::of_host(),
    };
    let answer = hub::ask_to_be_accepted(http, &request).map_err(|error| match error {
        HttpError::Status { status: 409, .. } => AgentError::IdTaken {
            id: identity.device_id.to_string(),
        },
        error => error.into(),
    })?;
    match answer {
        EnrolmentAnswer::Pending => Ok(false),
        EnrolmentAnswer::Accepted { token, tenant } => {
            identity.token = Some(token);
            identity.tenant = Some(tenant);
            identity.save(&dir.identity())?;
            info!(device.id = %identity.device_id, "device `{}` was accepted", identity.device_id);
            Ok(true)
        }
    }
}
