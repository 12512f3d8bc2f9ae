//! The hub as this device talks to it: hawkBit's DDI v1 and our enrolment.
//!
//! Of the addresses a server sends only the action's number (and the query) is used; requests go
//! to the hub this device was enrolled at, whatever name the server believes it has.

use pytheas_api::{
    DEFAULT_TENANT, EnrolmentAnswer, EnrolmentRequest,
    ddi::{
        self, CancelAction, ConfigData, ConfirmationBase, ConfirmationFeedback, DeploymentBase,
        Execution, Feedback, Finished, Link, PollRoot,
    },
};
use pytheas_update::{ActionId, Outcome, Report};
use ureq::http::Method;

use crate::{
    http::{Http, HttpError},
    identity::Identity,
};

/// A hub that has accepted this device.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    http: Http,
    root: String,
    authorization: String,
}

/// An offer as it stands in a poll's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The action.
    pub action: ActionId,
    /// What follows the number in the address: `?c=…`.
    query: String,
}

impl Hub {
    /// The hub of an accepted device; nothing for one that waits to be accepted.
    pub(crate) fn of(identity: &Identity, http: &Http) -> Option<Self> {
        let token = identity.token.as_ref()?;
        let tenant = identity.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
        Some(Self {
            http: http.clone(),
            root: ddi::root_path(tenant, &identity.device_id),
            authorization: ddi::target_token(token),
        })
    }

    /// What is there to do?
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn poll(&self) -> Result<PollRoot, HttpError> {
        self.http.get(&self.root, Some(&self.authorization))
    }

    /// What an offer consists of.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn deployment(&self, offer: &Offer) -> Result<DeploymentBase, HttpError> {
        let path = format!(
            "{}/deploymentBase/{}{}",
            self.root, offer.action, offer.query
        );
        self.http.get(&path, Some(&self.authorization))
    }

    /// What somebody at this device is to confirm.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn confirmation(&self, offer: &Offer) -> Result<ConfirmationBase, HttpError> {
        let path = format!(
            "{}/confirmationBase/{}{}",
            self.root, offer.action, offer.query
        );
        self.http.get(&path, Some(&self.authorization))
    }

    /// Tells what somebody at this device has answered.
    ///
    /// # Errors
    /// [`HttpError`]; see [`is_settled`].
    pub(crate) fn confirm(
        &self,
        action: &ActionId,
        said: &ConfirmationFeedback,
    ) -> Result<(), HttpError> {
        let path = format!("{}/confirmationBase/{action}/feedback", self.root);
        self.http
            .tell(Method::POST, &path, &self.authorization, said)
    }

    /// Which action is to be given up.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn cancellation(&self, offer: &Offer) -> Result<CancelAction, HttpError> {
        let path = format!("{}/cancelAction/{}", self.root, offer.action);
        self.http.get(&path, Some(&self.authorization))
    }

    /// Tells how far an action is.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn progress(&self, action: &ActionId, feedback: &Feedback) -> Result<(), HttpError> {
        let path = format!("{}/deploymentBase/{action}/feedback", self.root);
        self.http
            .tell(Method::POST, &path, &self.authorization, feedback)
    }

    /// Tells how an action ended.
    ///
    /// # Errors
    /// [`HttpError`]; see [`is_settled`] for the ones that end the matter.
    pub(crate) fn report(&self, report: &Report) -> Result<(), HttpError> {
        let kind = match report.outcome {
            Outcome::Succeeded { .. } | Outcome::Failed { .. } => "deploymentBase",
            Outcome::Cancelled | Outcome::CancelRejected => "cancelAction",
        };
        let path = format!("{}/{kind}/{}/feedback", self.root, report.action);
        self.http.tell(
            Method::POST,
            &path,
            &self.authorization,
            &feedback(&report.outcome),
        )
    }

    /// Tells what this device is.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) fn attributes(&self, data: &ConfigData) -> Result<(), HttpError> {
        let path = format!("{}/configData", self.root);
        self.http
            .tell(Method::PUT, &path, &self.authorization, data)
    }
}

/// Asks the hub at `http` to accept a device.
///
/// # Errors
/// [`HttpError`]; status 409 when the id is another device's.
pub(crate) fn ask_to_be_accepted(
    http: &Http,
    request: &EnrolmentRequest,
) -> Result<EnrolmentAnswer, HttpError> {
    http.exchange("/api/v1/enrolment", request)
}

/// The offer a link stands for: the last part of its path is the action's number.
pub(crate) fn offer(link: &Link) -> Option<Offer> {
    let (path, query) = match link.href.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (link.href.as_str(), String::new()),
    };
    let action = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()?
        .parse()
        .ok()?;
    let plain = query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') && query.len() < 200;
    plain.then_some(Offer { action, query })
}

/// Whether a failed report needs no further try: the hub no longer knows the action, has closed it
/// already, or will never take this report.
pub(crate) fn is_settled(error: &HttpError) -> bool {
    match error {
        HttpError::Status { status, .. } => {
            (400..500).contains(status) && !matches!(status, 408 | 425)
        }
        _ => false,
    }
}

fn feedback(outcome: &Outcome) -> Feedback {
    match outcome {
        Outcome::Succeeded { message } => {
            Feedback::new(Execution::Closed, Finished::Success).detail(message.as_str())
        }
        Outcome::Failed { because } => Feedback::new(Execution::Closed, Finished::Failure)
            .details(because.message().lines())
            .details(because.log().iter().map(String::as_str)),
        Outcome::Cancelled => {
            Feedback::new(Execution::Closed, Finished::Success).detail("the update was given up")
        }
        Outcome::CancelRejected => Feedback::new(Execution::Rejected, Finished::None)
            .detail("too late: the release was switched already"),
    }
}

#[cfg(test)]
mod tests {
    use pytheas_update::{Failure, Reason};

    use super::*;

    #[test]
    fn an_offer_is_the_last_part_of_the_link() {
        let of = |href: &str| offer(&Link::to(href)).map(|o| (o.action.to_string(), o.query));
        let base = "http://other:1/default/controller/v1/dev1";
        assert_eq!(
            of(&format!("{base}/deploymentBase/7?c=-1187")),
            Some(("7".into(), "?c=-1187".into()))
        );
        assert_eq!(
            of(&format!("{base}/cancelAction/8")),
            Some(("8".into(), String::new()))
        );
        for wrong in ["", "http://h/x/..", "http://h/a b", "http://h/7?c=\r\nX: y"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_failure_is_told_with_its_first_line_first_and_the_apps_last_lines() {
        let because = Failure::new(Reason::Died, "`a@2` ended: exit status 1\nhelp: look")
            .with_log(vec!["Traceback".into(), "KeyError".into()]);
        let feedback = feedback(&Outcome::Failed { because });
        insta::assert_snapshot!(serde_json::to_string(&feedback).unwrap(), @r#"{"status":{"execution":"closed","details":["`a@2` ended: exit status 1","help: look","Traceback","KeyError"],"result":{"finished":"failure"}}}"#);
    }

    proptest::proptest! {
        #[test]
        fn no_link_leads_outside_the_devices_own_address(href in ".{0,80}") {
            if let Some(offer) = offer(&Link::to(href)) {
                let path = format!("{}{}", offer.action, offer.query);
                proptest::prop_assert!(!path.contains(['/', ' ', '\r', '\n', '#']) || offer.query.contains('/'));
                proptest::prop_assert!(path.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
