//! Is what is offered genuine, and is it for this device?
//!
//! Everything that can be said without any content is said here: signatures, the form, the
//! platform, what the releases require of the device and of each other, the room. An offer of
//! several releases is one plan: it is carried out whole or refused whole.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pytheas_release::{
    Name, Platform, Release,
    compat::{self, Component, Downgrades, Facts, Problem},
};
use pytheas_repo::{client::Client, fetch::Fetch};
use pytheas_update::{AGENT, Failure, Found, Installed, Machine, Offer, Reason};

use crate::{
    boards::fetched,
    content,
    failure::{Trouble, content_trouble, metadata_trouble},
    paths::StateDir,
    slots,
};

/// Forms this agent can run.
const FORMS: &[&str] = &["bundle"];
/// The form of releases for boards.
const BOARD_FORM: &str = "micropython";

/// What releases are judged by.
pub(crate) struct Judge<'a> {
    /// The device's directory.
    pub(crate) dir: &'a StateDir,
    /// What the device is.
    pub(crate) facts: Facts,
    /// What it has.
    pub(crate) machine: &'a Machine,
    /// The apps that run on its boards, with those boards' platform if it is known.
    pub(crate) boards: &'a BTreeMap<Name, Option<Platform>>,
    /// Whether older releases are welcome.
    pub(crate) downgrades: Downgrades,
}

impl Judge<'_> {
    /// The releases of `offer` in the order in which they are to be switched to, after every check
    /// that needs none of their content; their documents are kept for the steps that follow.
    ///
    /// # Errors
    /// [`Trouble::Later`] when the network is away; [`Trouble::Failed`] when the offer is refused.
    pub(crate) fn check(
        &self,
        offer: &Offer,
        transport: &mut dyn Fetch,
        now: Timestamp,
    ) -> Result<Vec<Found>, Trouble> {
        let mut client = Client::open(self.dir.device(), transport).map_err(metadata_trouble)?;
        client.refresh(now).map_err(metadata_trouble)?;
        let mut releases = Vec::new();
        for target in offer.targets() {
            let platform = self.platform_of(target)?;
            let release = client
                .fetch_release(target, &platform)
                .map_err(content_trouble)?;
            fits(&release)?;
            releases.push((target, release));
        }
        let order = self.solve(&releases)?;
        let mut coming = order.iter().map(|at| &releases[*at].1.name);
        let first = match self.machine.first_name() {
            Some(first) => Some(first.clone()),
            None => coming.find(|name| name.as_str() != AGENT).cloned(),
        };
        let mut found = Vec::with_capacity(order.len());
        let mut fresh_bytes = 0;
        for (target, release) in order.into_iter().map(|at| &releases[at]) {
            let current = self.machine.installed_as(&release.name);
            if current.is_none_or(|current| current.tree != release.tree.id) {
                let dir = match Some(&release.name) == first.as_ref() {
                    true => self.dir.clone(),
                    false => self.dir.component(&release.name),
                };
                // Without a running release every byte is new; else the exact sum is known once
                // the tree is.
                if current.is_none() {
                    fresh_bytes += release.tree.size_bytes;
                    let title = release.reference().to_string();
                    content::require_space(self.dir, &title, fresh_bytes)?;
                }
                content::keep_release(&dir, release)?;
            }
            found.push(Found {
                target: (*target).to_owned(),
                to: Installed {
                    tree: release.tree.id,
                    release: release.reference(),
                },
            });
        }
        Ok(found)
    }

    /// The platform that the release `target` is to be for: the device's own, or that of boards of
    /// its which run this app.
    fn platform_of(&self, target: &str) -> Result<Platform, Failure> {
        let mut segments = target.split('/');
        let app = segments.next().unwrap_or_default();
        let named: Option<Platform> = segments.nth(1).and_then(|platform| platform.parse().ok());
        let of_boards = self.boards.iter().find(|(name, _)| name.as_str() == app);
        let (Some(named), Some((_, known))) = (named, of_boards) else {
            return Ok(self.facts.platform.clone());
        };
        let runs = match known {
            Some(known) => known.runs().any(|runs| runs == named),
            // Each board says for itself whether it fits.
            None => named.is_board(),
        };
        if runs {
            return Ok(named);
        }
        let here = known.as_ref().map_or("another", Platform::as_str);
        let message = format!(
            "`{target}` is for {named}; the boards of this device that run `{app}` are {here}\n\
             help: build it for them, or take the boards out of `agent.toml`"
        );
        Err(Failure::new(Reason::Incompatible, message))
    }

    /// The order of the plan.
    fn solve(&self, releases: &[(&str, Release)]) -> Result<Vec<usize>, Failure> {
        let coming: Vec<Component> = releases
            .iter()
            .map(|(_, release)| Component {
                release: release.reference(),
                rules: release.rules(),
            })
            .collect();
        let installed: Vec<Component> = self
            .machine
            .installed()
            .map(|installed| self.component(installed))
            .collect();
        compat::solve(&self.facts, &installed, &coming, self.downgrades)
            .map_err(|problems| refused(&problems))
    }

    /// What an installed release says is in its slot. One that cannot be read (bit rot) must not
    /// keep its own repair away.
    fn component(&self, installed: &Installed) -> Component {
        let first = self.machine.first_name() == Some(&installed.release.name);
        let dir = match first {
            true => self.dir.clone(),
            false => self.dir.component(&installed.release.name),
        };
        let rules = slots::record(&dir, installed.tree)
            .map(|record| record.update.rules)
            .inspect_err(|error| tracing::warn!("{error}"))
            .unwrap_or_default();
        Component {
            release: installed.release.clone(),
            rules,
        }
    }
}

/// Whether this agent can run `release` at all.
fn fits(release: &Release) -> Result<(), Failure> {
    if release.platform.is_board() && release.form == BOARD_FORM {
        return match release.board {
            Some(_) => Ok(()),
            None => Err(fetched::without_image(&release.reference().to_string())),
        };
    }
    if FORMS.contains(&release.form.as_str()) {
        return Ok(());
    }
    let message = format!(
        "`{}` has the form `{}`; this agent runs {}",
        release.reference(),
        release.form,
        FORMS.join(", ")
    );
    Err(Failure::new(Reason::Incompatible, message))
}

/// All that is in the way, each once, with what can be done about it.
fn refused(problems: &[Problem]) -> Failure {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("{problem}\nhelp: {}\n", problem.help()));
    }
    Failure::new(Reason::Incompatible, text.trim_end())
}
