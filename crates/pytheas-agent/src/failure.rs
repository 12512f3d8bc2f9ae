//! From the errors below to what the update machine and the hub are told: try later, or failed.

use std::{fmt::Write as _, io, path::Path};

use miette::Diagnostic;
use pytheas_repo::{
    client::{ContentError, MetadataError},
    fetch::DownloadError,
};
use pytheas_update::{Failure, Reason};

use crate::{http::chain, slots::SlotError};

/// Why a step did not come to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The network or the hub is away; the same step is tried again.
    Later(String),
    /// Trying again is no use.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The failure that an error of this kind is: the error, what is behind it, what to do.
pub(crate) fn failed(reason: Reason, error: &impl Diagnostic) -> Failure {
    let mut text = chain(error);
    if let Some(help) = error.help() {
        let _never_fails = write!(text, "\nhelp: {help}");
    }
    Failure::new(reason, text)
}

/// What an error while refreshing metadata means.
pub(crate) fn metadata_trouble(error: MetadataError) -> Trouble {
    match &error {
        MetadataError::Download(download) if is_network(download) => Trouble::Later(chain(&error)),
        MetadataError::Download(DownloadError::Write { source, .. })
        | MetadataError::Write { source, .. }
        | MetadataError::Read { source, .. } => failed(device_reason(source), &error).into(),
        _ => failed(Reason::Untrusted, &error).into(),
    }
}

/// What an error while fetching content means.
pub(crate) fn content_trouble(error: ContentError) -> Trouble {
    let reason = match &error {
        ContentError::Download(download) if is_network(download) => {
            return Trouble::Later(chain(&error));
        }
        ContentError::Delegated { source, .. } => match &**source {
            MetadataError::Write { source, .. } => device_reason(source),
            _ => Reason::Untrusted,
        },
        ContentError::Download(DownloadError::Write { source, .. })
        | ContentError::Sink { source, .. } => device_reason(source),
        ContentError::WrongPlatform { .. } => Reason::Incompatible,
        ContentError::Download(_)
        | ContentError::NoTarget { .. }
        | ContentError::BlobMismatch { .. }
        | ContentError::ObjectMismatch { .. } => Reason::Untrusted,
        _ => Reason::Content,
    };
    failed(reason, &error).into()
}

fn is_network(error: &DownloadError) -> bool {
    matches!(
        error,
        DownloadError::Transport { .. } | DownloadError::Broken { .. }
    )
}

fn device_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoSpace,
        _ => Reason::Device,
    }
}

/// A file operation that failed.
pub(crate) fn device_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} `{}`: {error}", path.display());
    Failure::new(device_reason(error), message)
}

/// A slot that could not be made.
pub(crate) fn slot_failure(error: &SlotError) -> Failure {
    failed(error.io().map_or(Reason::Device, device_reason), error)
}
