//! `/api/v1/enrolment-keys`: secrets that accept devices without a person.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;
