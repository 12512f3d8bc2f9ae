//! `/api/v1/config`: settings of the apps on devices.

pub(crate) mod change;
pub(crate) mod history;
pub(crate) mod rollback;
pub(crate) mod show;
