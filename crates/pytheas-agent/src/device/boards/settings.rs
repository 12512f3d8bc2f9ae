//! The hub's settings for the boards of this device: which each is to have, and what came of it.

use pytheas_release::Name;
use tracing::{info, warn};

use super::{super::Device, Given};
use crate::{boards::configured::Wanted, settings::BoardSettings};

impl Device {
    /// The hub's settings for a board, once the apps of this device are known to work with them.
    pub(super) fn wanted(&self, at: &BoardSettings) -> Option<Wanted> {
        let proved = self.app_config.proved()?;
        Some(Wanted::new(proved, &at.name))
    }

    /// What needs no visit: a board has what a new revision says as well, or takes none so long.
    pub(super) fn note_settings(&mut self) {
        for at in self.settings.agent.boards.clone() {
            let Some(wanted) = self.wanted(&at) else {
                return;
            };
            let given = self.boards.known.get(&at.name);
            let given = given.and_then(|known| known.config.as_ref());
            match (given, wanted.misfit()) {
                (Some(given), _) if given.sha256 == wanted.sha256 => {
                    if given.tag != wanted.tag {
                        let because = given.because.clone();
                        self.gave(&at.name, &wanted, because);
                    }
                }
                (_, Some(misfit)) => self.gave(&at.name, &wanted, Some(misfit)),
                (_, None) => {}
            }
        }
    }

    /// A board was given settings.
    pub(super) fn gave(&mut self, name: &Name, wanted: &Wanted, because: Option<String>) {
        let Some(known) = self.boards.known.get_mut(name) else {
            return;
        };
        let tag = wanted.tag.clone();
        let has = match &because {
            None => Some(tag.clone()),
            Some(_) => known.config.take().and_then(|given| given.has),
        };
        match &because {
            None => info!("board `{name}` has the settings `{tag}`"),
            Some(why) => warn!("board `{name}` does not take the settings `{tag}`: {why}"),
        }
        let sha256 = wanted.sha256;
        known.config = Some(Given {
            tag,
            sha256,
            because,
            has,
        });
        self.keep_boards();
    }
}
