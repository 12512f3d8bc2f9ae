//! An update on the boards of this device: their other slots filled, each tried, taken back or kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pytheas_api::ddi::{Execution, Feedback, Finished};
use pytheas_board::link::Stop;
use pytheas_release::Name;
use pytheas_update::{Event, Failure, Installed, Job, Reason, State};
use tracing::warn;

use super::{
    super::{Device, MAX_PROGRESS},
    BoardEvent,
};
use crate::{
    boards::{self, Image, fetched},
    clock,
    failure::Trouble,
    settings::BoardSettings,
};

/// How long the apps of an update that is rolled back wait for a board that is away.
const ROLLBACK_WAIT: Duration = Duration::from_secs(60);

impl Device {
    /// Fills the other slot of each board that `job` is about; a failure ends the update.
    ///
    /// # Errors
    /// What is waited for.
    pub(in crate::device) fn fill_boards(&mut self, job: &Job) -> Result<Option<Failure>, String> {
        if self.boards.work.is_some() {
            self.boards.stop(); // it only looked
        }
        let stop = Stop(Arc::clone(&self.waker.stop));
        for part in job.each() {
            let name = &part.to.release.name;
            let places = self.places(name);
            if places.is_empty() {
                continue;
            }
            let image = match fetched::read(&self.dir_of(name), part.to.tree) {
                Ok(image) => image,
                Err(failure) => return Ok(Some(failure)),
            };
            for at in places {
                let owes = self
                    .boards
                    .known
                    .get(&at.name)
                    .and_then(|known| known.on_trial);
                let owes = owes.filter(|owes| *owes != image.sha256());
                // It must run before the slot is filled that it is to be taken back from.
                let free = owes.map_or(Ok(()), |owes| {
                    boards::take_back(&at, owes, &stop).map(|_| ())
                });
                match free.and_then(|()| boards::fill(&at, &image, &stop)) {
                    Ok(seen) => self.saw(&at.name, &seen),
                    Err(Trouble::Failed(failure)) => {
                        self.boards.waits_since = None;
                        return Ok(Some(failure));
                    }
                    Err(Trouble::Later(why)) => {
                        self.missed(&at.name, &why);
                        if self.boards.waits_since.is_none() {
                            self.waits_for_board(job, &why);
                        }
                        let since = *self.boards.waits_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < at.wait {
                            return Err(why);
                        }
                        self.boards.waits_since = None;
                        return Ok(Some(Failure::new(Reason::Device, why)));
                    }
                }
            }
        }
        self.boards.waits_since = None;
        Ok(None)
    }

    /// Tells the hub.
    fn waits_for_board(&mut self, job: &Job, why: &str) {
        let Some(action) = job.action.clone() else {
            return;
        };
        let mut feedback = Feedback::new(Execution::Scheduled, Finished::None).detail(why);
        feedback.timestamp = Some(clock::now().as_millisecond());
        self.progress.push_back((action, feedback));
        while self.progress.len() > MAX_PROGRESS {
            self.progress.pop_front();
        }
    }

    /// Begins the trial of a release on its boards, unless it is under way.
    pub(in crate::device) fn try_on_boards(&mut self, installed: &Installed) {
        if self.boards.work.is_some() {
            return;
        }
        let (name, tree) = (&installed.release.name, installed.tree);
        let places = self.places(name);
        let to = match self.machine.state() {
            State::Probation { job, .. } => job.to.tree,
            _ => return,
        };
        let image = match fetched::read(&self.dir_of(name), tree) {
            Ok(image) => image,
            Err(because) => return self.happen(Event::NotReady { to, because }),
        };
        if places.is_empty() {
            let message = format!("no board of this device runs `{name}` any more");
            let because = Failure::new(Reason::Incompatible, message);
            return self.happen(Event::NotReady { to, because });
        }
        for at in &places {
            if let Some(known) = self.boards.known.get_mut(&at.name) {
                known.on_trial = Some(image.sha256());
            }
        }
        if let Err(error) = self.save_boards() {
            let because = Failure::new(Reason::Device, error);
            return self.happen(Event::NotReady { to, because });
        }
        self.at_boards(move |work, stop, tell| {
            let outcome = try_each(&places, &image, stop, tell);
            tell(BoardEvent::Tried {
                work,
                tree,
                outcome,
            });
        });
    }

    /// Takes back what was begun on the boards of `job`.
    ///
    /// # Errors
    /// A board is away; it is tried again for a while.
    pub(in crate::device) fn take_back_boards(&mut self, job: &Job) -> Result<(), String> {
        self.boards.stop();
        let stop = Stop(Arc::clone(&self.waker.stop));
        for part in job.each().rev() {
            for at in self.places(&part.to.release.name).into_iter().rev() {
                let Some(image) = self
                    .boards
                    .known
                    .get(&at.name)
                    .and_then(|known| known.on_trial)
                else {
                    continue;
                };
                match boards::take_back(&at, image, &stop) {
                    Ok(seen) => {
                        self.saw(&at.name, &seen);
                        // A first release has nothing before it; it stays, given up or not.
                        self.is_settled(&at.name);
                    }
                    Err(Trouble::Failed(failure)) => {
                        self.missed(&at.name, failure.message());
                        self.is_settled(&at.name);
                    }
                    Err(Trouble::Later(why)) => {
                        self.missed(&at.name, &why);
                        let since = *self.boards.waits_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < at.wait.min(ROLLBACK_WAIT) {
                            return Err(why);
                        }
                        warn!("board `{}` is taken back when it answers again", at.name);
                    }
                }
            }
        }
        self.boards.waits_since = None;
        self.boards.look_at = Instant::now();
        Ok(())
    }

    fn is_settled(&mut self, board: &Name) {
        if let Some(known) = self.boards.known.get_mut(board)
            && known.on_trial.take().is_some()
        {
            self.keep_boards();
        }
    }

    /// The update is committed: what is on its boards stays, and images of others go.
    pub(in crate::device) fn boards_committed(&mut self, job: &Job) {
        let names: Vec<Name> = job.names().cloned().collect();
        for name in names {
            for at in self.places(&name) {
                self.is_settled(&at.name);
            }
        }
    }
}

fn try_each(
    places: &[BoardSettings],
    image: &Image,
    stop: &Stop,
    tell: &dyn Fn(BoardEvent),
) -> Result<(), Failure> {
    for at in places {
        boards::prove(at, image, stop, &mut |seen| {
            tell(BoardEvent::Seen(at.name.clone(), Box::new(seen.clone())));
        })?;
    }
    Ok(())
}
