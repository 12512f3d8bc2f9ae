//! Updates from a file: what an operator ordered with `apply`, and the file as a source of content.
//!
//! ```text
//! offline.json  {"format": 1, "id": "<hex>", "file": "/media/usb/x.pytheas",
//!                "target": "app/1.1.0/linux-x86_64/release.json",
//!                "outcome": {"outcome": "failed", "reason": "untrusted", "message": "…"}}
//! ```
//! The order is on disk before the update begins, so an agent that starts anew goes on with it; an
//! update without an action of the hub that has a target is always one of these. Only the target's
//! *name* is taken from the file's table of contents; everything else comes by TUF, by the same
//! client with the same trusted state as online.

use std::path::PathBuf;

use pytheas_repo::{
    fetch::{Body, Fetch, FolderFetch, Request, TransportError},
    offline::OfflineFile,
};
use pytheas_update::{Failure, Machine, Offer, Reason, State};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Trouble,
    http::{RepositoryFetch, chain},
    paths::StateDir,
};

/// What every agent reads.
const FORMAT: u32 = 1;
/// With several releases, of which an agent that does not know that would take one.
const FORMAT_TOGETHER: u32 = 2;

/// What was ordered: the content of `offline.json` (format 1, or 2 with several targets).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    format: u32,
    /// Tells one order from the next.
    pub(crate) id: String,
    /// The offline file, or a repository's folder.
    pub(crate) file: PathBuf,
    /// The TUF target.
    pub(crate) target: String,
    /// Those that are to run together with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<String>,
    /// Nobody stands beside the device: it waits for the install window, consent and the end of a
    /// hold, as an update of the hub's does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unattended: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The release runs.
    Committed,
    /// It does not; what ran before still does.
    Failed {
        /// The kind of failure, as the machine has it.
        reason: Reason,
        /// What happened.
        message: String,
    },
}

impl Order {
    pub(crate) fn new(id: String, file: PathBuf, offer: Offer) -> Self {
        Self {
            format: match offer.also.is_empty() {
                true => FORMAT,
                false => FORMAT_TOGETHER,
            },
            id,
            file,
            target: offer.target,
            also: offer.also,
            unattended: false,
            outcome: None,
        }
    }

    /// The order that lies in `dir`; one that a power cut tore counts as none.
    pub(crate) fn load(dir: &StateDir) -> Option<Self> {
        let bytes = crate::paths::read(&dir.root().join("offline.json")).ok()?;
        let order: Self = serde_json::from_slice(&bytes).ok()?;
        (FORMAT..=FORMAT_TOGETHER)
            .contains(&order.format)
            .then_some(order)
    }

    /// What the device is to run.
    pub(crate) fn offer(&self) -> Offer {
        Offer {
            also: self.also.clone(),
            ..Offer::one(&self.target)
        }
    }

    pub(crate) fn save(&self, dir: &StateDir) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        pytheas_durable::replace(&dir.root().join("offline.json"), &bytes)
    }

    /// How it ended, once `machine` is idle again. That the release runs says nothing when another
    /// tree of the same version was refused: what counts is the step `before` was left by.
    pub(crate) fn outcome_in(
        &self,
        before: Option<&Machine>,
        machine: &Machine,
    ) -> Option<Outcome> {
        if !matches!(machine.state(), State::Idle) {
            return None;
        }
        let failed = before.is_some_and(|before| before.refused() != machine.refused());
        let offer = self.offer();
        let runs = offer.targets().all(|target| {
            let release = target.rsplitn(3, '/').nth(2).unwrap_or_default();
            machine.installed().any(|installed| {
                let reference = &installed.release;
                format!("{}/{}", reference.name, reference.version) == release
            })
        });
        if runs && !failed {
            return Some(Outcome::Committed);
        }
        let because = machine
            .refused()
            .last()
            .filter(|last| last.action.is_none());
        Some(match because {
            Some(refusal) => Outcome::Failed {
                reason: refusal.because.reason().clone(),
                message: refusal.because.message().to_owned(),
            },
            None => Outcome::Failed {
                reason: Reason::Device,
                message: "the update was given up".into(),
            },
        })
    }
}

/// Whether `machine` works on an order.
pub(crate) fn is_under_way(machine: &Machine) -> bool {
    match machine.state() {
        State::Checking { action, .. } => action.is_none(),
        state => state
            .job()
            .is_some_and(|job| job.action.is_none() && job.target.is_some()),
    }
}

/// Where an update's content comes from.
pub(crate) enum Source {
    /// The hub.
    Hub(RepositoryFetch),
    /// A file.
    File(OfflineFile),
    /// A repository's folder, as a tag of a followed repository holds it.
    Folder(FolderFetch),
    /// Nowhere, and why.
    Nowhere(String),
}

impl Fetch for Source {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        match self {
            Self::Hub(hub) => hub.fetch(request),
            Self::File(file) => file.fetch(request),
            Self::Folder(folder) => folder.fetch(request),
            Self::Nowhere(why) => Err(std::io::Error::other(why.clone()).into()),
        }
    }
}

impl Source {
    /// The file of `order`.
    ///
    /// # Errors
    /// A [`Failure`] that says what is wrong with it.
    pub(crate) fn of(order: Option<&Order>) -> Result<Self, Failure> {
        let Some(order) = order else {
            let message = "it is no longer known which file this update came from\n\
                           help: run `pytheas-agent apply FILE` again";
            return Err(Failure::new(Reason::Device, message));
        };
        if order.file.is_dir() {
            return Ok(Self::Folder(FolderFetch(order.file.clone())));
        }
        OfflineFile::open(&order.file)
            .map(Self::File)
            .map_err(|error| {
                use miette::Diagnostic as _;
                let help = error.help().map(|help| format!("\nhelp: {help}"));
                let text = chain(&error) + &help.unwrap_or_default();
                Failure::new(Reason::Content, text)
            })
    }

    /// Where a device in `dir` that asks no hub finds what it has lost: the file it was updated
    /// from last.
    pub(crate) fn without_hub(dir: &StateDir) -> Self {
        Self::of(Order::load(dir).as_ref()).unwrap_or_else(|failure| {
            let why = failure.message().lines().next().unwrap_or_default();
            Self::Nowhere(format!(
                "there is no hub to ask and no file ({why}); plug the stick in and run \
                 `pytheas-agent apply FILE` again"
            ))
        })
    }

    pub(crate) fn is_file(&self) -> bool {
        !matches!(self, Self::Hub(_))
    }
}

/// What trouble with a file means: nobody brings the network back, so it is not tried again.
pub(crate) fn settled(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Later(why) => {
            let message = format!(
                "{why}\nhelp: was the stick pulled out, or does it fail? plug it in again and run \
                 `pytheas-agent apply FILE` again"
            );
            Failure::new(Reason::Content, message).into()
        }
        failed @ Trouble::Failed(_) => failed,
    }
}
