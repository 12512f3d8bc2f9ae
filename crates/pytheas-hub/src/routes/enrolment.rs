//! `/api/v1/enrolment`.

pub(crate) mod request;
