//! `/api/v1/artifacts`: files for devices that run no Pytheas releases.

pub(crate) mod list;
pub(crate) mod upload;
